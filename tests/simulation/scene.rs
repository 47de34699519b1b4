//! One simulated world: a real worker on a simulated machine, clients, origins, and what is checked of them all.

use crate::client::{Client, Request};
use crate::identity::identity;
use crate::origin::{Door, Log, Reaction, Scripted, Seen};
use spooky::admit::Rates;
use spooky::balance::KeyedHash;
use spooky::config::{self, Generation, RetryMode};
use spooky::h3;
use spooky::telemetry::{AccessSender, BackendName, RouteName, Scope, WorkerCells};
use spooky::worker::forward::Lines;
use spooky::worker::token::Owner;
use spooky::worker::{Command, Report, Setup, Worker};
use spooky_uring::mailbox::{self, Receiver, Sender};
use spooky_uring::simulation::random::lend;
use spooky_uring::simulation::{Link, PeerId, Plan, SimulatedHost};
use spooky_uring::{Io, StreamAddress};
use std::cell::{Cell, Ref, RefCell, RefMut};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the proxy listens.
pub const PROXY: &str = "192.0.2.1:443";

/// Turns without the awaited thing before a run counts as hung: many times what the longest story takes.
const TURNS_MAX: u64 = 3_000_000;

/// A configuration with one upstream of that many backends, and further tables.
pub fn configuration(backends: usize, more: &str) -> String {
    let backends: Vec<String> = (1..=backends)
        .map(|number| format!("{{ id = \"b{number}\", address = \"http://10.0.0.{number}:80\" }}"))
        .collect();
    format!(
        "version = 1\n[listen]\naddress = \"192.0.2.1\"\nport = 443\n[upstream.origin]\nroute = {{ path_prefix = \"/\" }}\n\
         backends = [ {} ]\n{more}",
        backends.join(", ")
    )
}

/// The address of a backend of [`configuration`], from 1.
pub fn backend(number: usize) -> StreamAddress {
    StreamAddress::Tcp(format!("10.0.0.{number}:80").parse().expect("an address"))
}

/// A client in a scene.
#[derive(Clone)]
pub struct ClientHandle {
    client: Rc<RefCell<Client>>,
    pub peer: PeerId,
}

impl ClientHandle {
    pub fn get(&self) -> Ref<'_, Client> {
        self.client.borrow()
    }

    pub fn get_mut(&self) -> RefMut<'_, Client> {
        self.client.borrow_mut()
    }
}

/// Worker, machine and everybody around.
pub struct Scene {
    pub host: SimulatedHost,
    pub worker: Worker<SimulatedHost>,
    pub cells: Arc<WorkerCells>,
    /// Pieces of traces, if the configuration wants some; two at once.
    pub traces: Option<Receiver<h3::QlogPiece>>,
    pub commands: Sender<Command>,
    pub reports: Receiver<Report>,
    clients: Vec<ClientHandle>,
    /// The worker's last turn said that it is done.
    pub done: bool,
}

impl Scene {
    /// A worker with this configuration. Everything that is drawn in it comes from `seed`.
    pub fn new(seed: u64, plan: Plan, text: &str) -> Self {
        Self::with_lines(seed, plan, text, Lines::none())
    }

    /// The same with lines to other workers; this one is the first.
    pub fn with_lines(seed: u64, plan: Plan, text: &str, lines: Lines) -> Self {
        lend(Some(seed));
        let mut host = SimulatedHost::new(seed, plan);
        assert!(host.has_interposed_clock(), "quiche would not see virtual time");
        let (mut generation, _) =
            config::from_str("simulation.toml", text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        // Limits are the one worker's, however many CPUs the machine has that runs the test.
        generation.performance.worker_threads = 1;
        let generation = Arc::new(generation);
        let listener = &generation.listeners[0];
        let settings = h3::QuicSettings {
            idle_timeout: listener.quic.idle_timeout,
            keep_alive: listener.quic.keep_alive,
            max_data: listener.quic.max_data,
            max_stream_data: listener.quic.max_stream_data,
            max_streams_bidi: listener.quic.max_streams_bidi,
            retry: match listener.quic.retry {
                RetryMode::Auto => h3::Retry::Auto,
                RetryMode::Always => h3::Retry::Always,
                RetryMode::Never => h3::Retry::Never,
            },
            qlog: generation.observability.qlog.as_ref().map(|wanted| h3::QlogSettings {
                client: wanted.client,
                file_bytes: wanted.max_file_bytes as usize,
                files_left: Arc::new(wanted.max_files.into()),
            }),
            ..h3::QuicSettings::default()
        };
        let traces = settings.qlog.as_ref().map(|_| mailbox::channel(2).expect("a mailbox"));
        let keys = h3::EndpointKeys::derive(b"simulation");
        let tickets = h3::tickets::TicketKeys::derive(b"simulation", || 0);
        let contexts = Arc::new(h3::TlsContexts::single(&identity(), &tickets).expect("contexts"));
        let endpoint = h3::Endpoint::new(&settings, &contexts, &keys, 0, 0).expect("an endpoint");
        let socket = host.add_udp(PROXY.parse().expect("an address"), Owner::Listener(0).token());
        let (commands, inbox) = mailbox::channel(16).expect("a mailbox");
        let (outbox, reports) = mailbox::channel(16).expect("a mailbox");
        host.watch(inbox.doorbell(), Owner::Mailbox.token());
        if let Some(doorbell) = lines.doorbell() {
            host.watch(doorbell, Owner::Forwards.token());
        }
        let cells = Arc::new(WorkerCells::new(Arc::new(scope(&generation))));
        let setup = Setup {
            upstream_tls: vec![None; generation.upstreams.len()],
            rates: Arc::new(Rates::new(&generation.rate_limits, generation.routes.len(), Instant::now())),
            generation,
            listeners: vec![(endpoint, socket)],
            doors: Vec::new(),
            cells: Arc::clone(&cells),
            access: AccessSender::off(),
            qlog: traces.as_ref().map(|(sender, _)| sender.clone()),
            commands: inbox,
            reports: outbox,
            lines,
            hash: KeyedHash::new([7; 16]),
            seed: [7; 16],
        };
        Self {
            worker: Worker::new(host.clone(), setup),
            host,
            cells,
            commands,
            reports,
            traces: traces.map(|(_, receiver)| receiver),
            clients: Vec::new(),
            done: false,
        }
    }

    /// A scene of one client and one backend that answers as `script` says.
    pub fn simple(
        seed: u64,
        plan: Plan,
        link: Link,
        text: &str,
        script: impl Fn(&Seen) -> Reaction + 'static,
    ) -> (Self, ClientHandle, Rc<Log>) {
        let mut scene = Self::new(seed, plan, text);
        let (log, _) = scene.origin(1, script);
        let client = scene.client(link.clone(), link);
        (scene, client, log)
    }

    /// Opens backend `number`.
    pub fn origin(&self, number: usize, script: impl Fn(&Seen) -> Reaction + 'static) -> (Rc<Log>, Rc<Cell<Door>>) {
        let (origin, log, door) = Scripted::new(script);
        self.host.add_origin(backend(number), origin);
        (log, door)
    }

    /// Adds a client with the usual window.
    pub fn client(&mut self, to: Link, from: Link) -> ClientHandle {
        self.client_with_window(1 << 20, to, from)
    }

    /// Adds a client that lets `window` bytes of one response come ahead of its reading.
    pub fn client_with_window(&mut self, window: u64, to: Link, from: Link) -> ClientHandle {
        let local: SocketAddr = ([198, 51, 100, 1], 40_000 + self.clients.len() as u16).into();
        let server = PROXY.parse().expect("an address");
        let client = Rc::new(RefCell::new(Client::new(local, server, window, self.host.now())));
        let peer = self.host.add_peer(Rc::clone(&client), local, to, from);
        let handle = ClientHandle { client, peer };
        self.clients.push(handle.clone());
        handle
    }

    /// The NAT before a client forgets it and gives it another port.
    pub fn rebind(&self, client: &ClientHandle, port: u16) {
        let outside: SocketAddr = ([198, 51, 100, 1], port).into();
        self.host.add_peer_address(client.peer, outside);
        client.get_mut().outside = outside;
        client.get_mut().speak();
        self.host.poke(client.peer);
    }

    /// Adds a request to a client and wakes it.
    pub fn ask(&self, client: &ClientHandle, request: Request) -> usize {
        let number = client.get_mut().ask(request);
        self.host.poke(client.peer);
        number
    }

    /// Body bytes that a client has of one response.
    pub fn clients_received(&self, client: usize, exchange: usize) -> u64 {
        self.clients[client].get().exchanges[exchange].received
    }

    /// One turn.
    pub fn turn(&mut self) {
        assert!(!self.done, "a worker that is done turns no more");
        self.done = !self.worker.turn().expect("a simulated machine never fails");
    }

    /// Turns until `what` has come, within `limit` of virtual time.
    pub fn run_until(&mut self, what: &str, limit: Duration, mut come: impl FnMut(&Self) -> bool) {
        let start = self.host.elapsed();
        let mut turns = 0;
        while !come(self) {
            self.turn();
            turns += 1;
            let took = self.host.elapsed() - start;
            if took > limit || turns > TURNS_MAX || self.host.is_stalled() {
                let why = if self.host.is_stalled() { "nothing will ever happen" } else { "too late" };
                panic!("{what} has not come ({why}) after {took:?}, {turns} turns: {}", self.state());
            }
            if turns % 1000 == 0 {
                self.worker.check_invariants();
            }
        }
    }

    /// Turns for that much virtual time.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.host.elapsed() + time;
        self.host.wake_at(self.host.now() + time);
        let mut turns = 0;
        while self.host.elapsed() < until {
            self.turn();
            turns += 1;
            assert!(turns < TURNS_MAX, "turns without end: {}", self.state());
            if self.host.is_stalled() {
                break;
            }
        }
    }

    /// Turns until every request of every client is over.
    pub fn finish(&mut self, limit: Duration) {
        self.run_until("the end of all requests", limit, |scene| {
            scene.clients.iter().all(|client| client.get().is_done())
        });
    }

    /// What there is, for whoever reads a failure.
    pub fn state(&self) -> String {
        let mut text = format!(
            "at {:?}, {:?}, buffers held {:?}, streams {}",
            self.host.elapsed(),
            self.worker.census(),
            self.host.buffers_held(),
            self.host.streams_open()
        );
        for (client, handle) in self.clients.iter().enumerate() {
            let client_at = handle.get();
            text += &format!("\nclient {client}, closed by the server with {:?}:", client_at.closed_by_server());
            for (number, exchange) in client_at.exchanges.iter().enumerate() {
                text += &format!(
                    "\n  {number}: {} {} {:?} status {:?}, sent {}, received {}",
                    exchange.request.method,
                    exchange.request.path,
                    exchange.outcome,
                    exchange.status,
                    exchange.sent,
                    exchange.received
                );
            }
        }
        text
    }

    /// Ends a scene: requests are over, clients go, pools empty, and nothing of anything may be left.
    pub fn close(&mut self) {
        let second = Duration::from_secs(1);
        self.run_until("quiet", 120 * second, |scene| scene.worker.is_quiet());
        self.worker.check_invariants();
        assert_eq!(self.cells_in_flight(), 0, "gauges of the telemetry");
        for client in &self.clients {
            client.get_mut().close();
            self.host.poke(client.peer);
        }
        // Lost closes end by the idle timeout, connections in pools by theirs.
        self.run_until("the end of all connections", 300 * second, |scene| {
            let census = scene.worker.census();
            census.clients == 0 && census.origins_idle == 0
        });
        let census = self.worker.census();
        assert_eq!(census, spooky::worker::Census { timers: census.timers, ..Default::default() });
        // Timers are lazy: the one of the pools still looks whether anything is old enough.
        self.run_for(31 * second);
        self.worker.check_invariants();
        assert_eq!(self.worker.census().timers, 0, "timers are left");
        assert_eq!(self.host.buffers_held(), [0; 3], "buffers are held: stream receive, UDP receive, UDP send");
        assert_eq!(self.host.streams_open(), 0, "sockets are open");
    }

    /// Exchanges that the counters believe to run.
    fn cells_in_flight(&self) -> u64 {
        self.cells.exchanges_active.get()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        lend(None);
    }
}

fn scope(generation: &Generation) -> Scope {
    Scope {
        generation: generation.number,
        routes: generation
            .ways
            .iter()
            .map(|way| RouteName {
                route: generation.route(way.route).name.clone(),
                upstream: way.upstream.map_or_else(Box::default, |id| generation.upstream(id).name.clone()),
            })
            .collect(),
        backends: generation
            .backends
            .iter()
            .map(|backend| BackendName {
                upstream: generation.upstream(backend.upstream).name.clone(),
                backend: backend.id.clone(),
                address: backend.authority.clone(),
            })
            .collect(),
        upstreams: generation.upstreams.iter().map(|upstream| upstream.name.clone()).collect(),
        rate_limits: generation.rate_limits.iter().map(|limit| limit.name.clone()).collect(),
    }
}
