//! Owns one connection: the transport, its HTTP/3 layer, its streams, and the connection's own life: handshake, deadlines,
//! what is known of it.
//!
//! It refuses to know other connections. The halves that move bytes stand beside it: `receive`, `send`, `transmit`;
//! `paths` follows the client to another address, `drain` and `close` lead to the end.

use super::boring_context::{self, TlsContexts};
use super::boring_ffi;
use super::code;
use super::counters::Counters;
use super::drain::Goaway;
use super::flight::Flight;
use super::glitches::{Glitch, Glitches};
use super::keep_alive::KeepAlive;
use super::mtu::BlackHole;
use super::pace::Pacer;
use super::paths::Paths;
use super::payload::{Held, PayloadFactory};
use super::qlog::Qlog;
use super::settings::QuicSettings;
use super::streams::Stream;
use super::transmit::Aside;
use crate::http::PoolShare;
use crate::identity::{Handshake, ShownCertificate};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) type Quic = quiche::Connection<PayloadFactory>;

/// What all connections of an endpoint share.
pub(super) struct Shared {
    pub(super) settings: QuicSettings,
    pub(super) http: quiche::h3::Config,
    pub(super) counters: Counters,
    /// What one connection may hold of the worker's receive pool.
    pub(super) pool: PoolShare,
    /// What new connections are identified by, and requests measured against.
    pub(super) contexts: RefCell<Arc<TlsContexts>>,
}

/// What is known of a connection.
#[derive(Clone, Debug)]
pub struct ConnectionFacts {
    /// The client, on the last path that was validated; address lists and logs use this one only.
    pub client: SocketAddr,
    /// Our address on that path.
    pub local: SocketAddr,
    /// The handshake is done.
    pub established: bool,
    /// What was negotiated; empty before the handshake is done.
    pub alpn: &'static [u8],
    /// The name the client asked for.
    pub server_name: Option<String>,
    /// Smoothed round-trip time of the active path.
    pub rtt: Duration,
    /// From the first packet to the end of the handshake.
    pub handshake: Option<Duration>,
    /// The session was resumed.
    pub resumed: bool,
}

/// Bytes sent for each byte received from an address that has not proved itself (RFC 9000 §8.1).
const AMPLIFICATION_MAX: usize = 3;

/// One connection with a client.
pub struct Connection {
    pub(super) quic: Quic,
    pub(super) http: Option<quiche::h3::Connection>,
    pub(super) shared: Rc<Shared>,
    pub(super) streams: FxHashMap<u64, Stream>,
    pub(super) held: Rc<Held>,
    /// Bytes of `held` that the transport does not have yet.
    pub(super) waiting: usize,

    /// Streams with an event outside the transport's. Each stands here once, so the bound is the number of streams;
    /// likewise for the two lists below.
    pub(super) news: VecDeque<u64>,
    /// Streams with body bytes and credit.
    pub(super) reading: VecDeque<u64>,
    /// Streams with bytes for the transport.
    pub(super) sending: VecDeque<u64>,
    /// Streams that are over for us but maybe not for the transport; the HTTP/3 layer still remembers them.
    pub(super) closing: Vec<u64>,
    /// Length of `closing` at which it is looked through again: doubling makes that constant per request.
    pub(super) sweep_at: usize,
    /// One more than the highest request seen, as a stream number.
    pub(super) next_request: u64,

    /// Whether the transport has lost a packet, as of [`Self::settle`]: asking it walks all its streams.
    pub(super) has_lost: bool,
    /// Packets came since [`Self::settle`].
    pub(super) fresh: bool,
    /// The HTTP/3 layer may have events.
    pub(super) poll: bool,
    /// STOP_SENDING frames the transport had counted when we last looked.
    pub(super) stops_seen: u64,
    pub(super) aside: Option<Box<Aside>>,
    pub(super) flight: Flight,
    pub(super) pacer: Pacer,
    pub(super) glitches: Glitches,
    /// What the client did too often.
    pub(super) flood: Option<Glitch>,
    black_hole: BlackHole,
    pub(super) qlog: Option<Qlog>,
    /// A packet may leave from then on.
    pub(super) release: Option<Instant>,
    /// Bytes that may be sent to a client that has not proved its address: three times what came from it (RFC 9000 §8.1).
    /// `None`: it has. The transport keeps this account too, but quiche 0.30 leaves the padding of its packets out of it.
    pub(super) credit: Option<usize>,
    /// It is closing, and there is no credit to say so: nothing will ever be sent.
    pub(super) mute: bool,
    /// Its place is needed for another one.
    pub(super) displaced: bool,

    pub(super) goaway: Goaway,
    /// Its streams have heard of its end.
    pub(super) aborted: bool,
    pub(super) client: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) paths: Paths,
    pub(super) keep_alive: KeepAlive,
    /// Frames with which the client said that it is blocked.
    pub(super) blocked_seen: u64,
    pub(super) created: Instant,
    handshake: Option<Duration>,
    /// What the handshake ended with.
    tls: Rc<Handshake>,
    /// What the client identified itself with; made when it is asked for.
    shown: Option<Rc<ShownCertificate>>,
}

impl Connection {
    pub(super) fn new(mut quic: Quic, shared: Rc<Shared>, client: SocketAddr, local: SocketAddr, now: Instant) -> Self {
        boring_ffi::shed_handshake_config(quic.as_mut());
        boring_context::offer(quic.as_mut(), &shared.contexts.borrow());
        let flight = Flight::new(shared.settings.flight_bytes);
        let packet = usize::from(shared.settings.max_udp_payload);
        let qlog = shared.settings.qlog.as_ref().and_then(|settings| settings.begin(&mut quic, client, now));
        let pacer = Pacer::new(shared.settings.burst_packets * packet, now);
        Self {
            quic,
            http: None,
            shared,
            streams: FxHashMap::default(),
            held: Rc::default(),
            waiting: 0,
            news: VecDeque::new(),
            reading: VecDeque::new(),
            sending: VecDeque::new(),
            closing: Vec::new(),
            sweep_at: 0,
            next_request: 0,
            has_lost: false,
            fresh: false,
            poll: false,
            stops_seen: 0,
            aside: None,
            flight,
            pacer,
            glitches: Glitches::default(),
            flood: None,
            black_hole: BlackHole::default(),
            qlog,
            release: None,
            credit: Some(0),
            mute: false,
            displaced: false,
            goaway: Goaway::default(),
            aborted: false,
            client,
            local,
            paths: Paths::default(),
            keep_alive: KeepAlive::new(now),
            blocked_seen: 0,
            created: now,
            handshake: None,
            tls: Rc::default(),
            shown: None,
        }
    }

    /// One datagram of this connection.
    pub(super) fn receive(&mut self, packet: &mut [u8], from: SocketAddr, to: SocketAddr, now: Instant) {
        self.tick(now);
        self.keep_alive.hear(now);
        if let Some(credit) = &mut self.credit {
            *credit += AMPLIFICATION_MAX * packet.len();
        }
        // An error closes the connection inside the transport; `close_cause` tells it.
        let _ = self.quic.recv(packet, quiche::RecvInfo { from, to });
        self.fresh = true;
        self.poll = true;
    }

    /// The client has proved its address: by a token, or by a completed handshake.
    pub(super) fn prove_address(&mut self) {
        self.credit = None;
    }

    /// The handshake is done: HTTP/3 starts.
    pub(super) fn establish(&mut self, now: Instant) {
        self.prove_address();
        self.handshake = Some(now.saturating_duration_since(self.created));
        self.tls = Rc::new(boring_context::settle(self.quic.as_mut()));
        if self.tls.resumed {
            self.shared.counters.resumed.add(1);
        }
        let settings = &self.shared.settings;
        let theirs = self.quic.peer_transport_params().map_or(0, |parameters| parameters.max_idle_timeout);
        self.keep_alive.begin(settings.keep_alive, settings.idle_timeout, Duration::from_millis(theirs));
        match quiche::h3::Connection::with_transport(&mut self.quic, &self.shared.http) {
            Ok(http) => self.http = Some(http),
            // The client allows us too few streams or bytes for the control streams.
            Err(_) => self.close(code::CLOSED_CRITICAL_STREAM, b"no room for control streams"),
        }
    }

    /// Once per turn with packets: what their arrival changed.
    pub(super) fn settle(&mut self) {
        if !self.fresh {
            return;
        }
        self.fresh = false;
        self.follow_paths();
        let stats = self.quic.stats();
        self.has_lost = stats.lost > 0;
        self.account(&stats);
        if self.is_closing() {
            self.abort_streams();
            return;
        }
        self.note_stops(stats.stopped_stream_count_remote);
        self.measure_path();
        // Acknowledgements and windows came: what waits may go on, and upstreams may be asked for more.
        self.flush();
        self.sweep();
    }

    fn measure_path(&mut self) {
        if self.streams.is_empty() {
            return;
        }
        if let Some(path) = self.quic.path_stats().find(|path| path.active) {
            self.flight.measure(&path, self.shared.settings.flight_bytes);
            if !self.shared.settings.congestion_control.paces() {
                self.pacer.measure(path.rtt, path.cwnd, path.pmtu);
            }
        }
    }

    /// Lets the HTTP/3 layer forget streams that the transport has forgotten.
    ///
    /// It drops its own record only when it wrote the last frame itself or finds, while writing, that the stream is
    /// gone; ours are written past it, so it is asked to write on streams that are known to be gone.
    pub(super) fn sweep(&mut self) {
        let idle = self.streams.is_empty() && !self.closing.is_empty();
        if self.closing.len() < self.sweep_at && !idle {
            return;
        }
        let (Some(http), quic) = (&mut self.http, &mut self.quic) else {
            return;
        };
        self.closing.retain(|&id| {
            let gone = matches!(quic.stream_capacity(id), Err(quiche::Error::InvalidStreamState(_)));
            if gone {
                let nothing = [quiche::h3::HeaderRef::new(b":status", b"200")];
                let _ = http.send_response(quic, id, &nothing, false);
            }
            !gone
        });
        self.sweep_at = (2 * self.closing.len()).max(16);
        if idle && self.closing.is_empty() {
            self.shrink();
        }
    }

    /// An idle connection keeps no memory of the requests it had.
    fn shrink(&mut self) {
        self.streams = FxHashMap::default();
        self.news = VecDeque::new();
        self.reading = VecDeque::new();
        self.sending = VecDeque::new();
        self.closing = Vec::new();
    }

    /// Forgets a stream that is over.
    pub(super) fn forget_if_over(&mut self, id: u64) {
        if let Some(stream) = self.streams.get(&id)
            && stream.is_over()
        {
            let stream = self.streams.remove(&id);
            debug_assert!(stream.is_none_or(|stream| stream.queued() == 0));
            self.closing.push(id);
        }
    }

    /// When [`Self::handle_deadline`] wants to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let handshake = (self.handshake.is_none() && !self.is_closing())
            .then(|| self.created + self.shared.settings.handshake_timeout);
        let ours = [self.release, handshake, self.goaway.due(), self.keep_alive_due()];
        ours.into_iter().chain([self.quic.timeout_instant()]).flatten().min()
    }

    /// Time has come; [`Self::next_event`] and [`Self::transmit`] follow.
    pub fn handle_deadline(&mut self, now: Instant) {
        if self.quic.timeout_instant().is_some_and(|at| at <= now) {
            self.quic.on_timeout();
            let (acknowledged, payload) = (self.quic.stats().acked_bytes, self.quic.max_send_udp_payload_size());
            if self.black_hole.suspects(acknowledged, payload) {
                self.quic.revalidate_pmtu();
                self.shared.counters.black_holes.add(1);
            }
            self.paths.look_again();
        }
        if self.release.is_some_and(|at| at <= now) {
            self.release = None;
        }
        self.keep_alive(now);
        let late = self.created + self.shared.settings.handshake_timeout <= now;
        if late && self.handshake.is_none() && !self.is_closing() {
            let _ = self.quic.close(false, 0, b"handshake timeout");
        }
        self.fresh = true;
    }

    /// Requests that are open.
    pub fn streams_open(&self) -> usize {
        self.streams.len()
    }

    /// Bytes in pool memory that this connection holds.
    pub fn pooled_bytes(&self) -> usize {
        self.held.pooled()
    }

    /// Bytes queued or not yet acknowledged.
    pub fn held_bytes(&self) -> usize {
        self.held.bytes() + self.streams.values().map(|stream| stream.tail.len()).sum::<usize>()
    }

    /// The client, on the last path that was validated.
    pub fn client(&self) -> SocketAddr {
        self.client
    }

    /// Our own address on that path.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether requests for this host belong on this connection (RFC 9110 §7.4): another handshake for it would have had
    /// the same identity and asked the same of the client.
    pub fn serves(&self, host: &str) -> bool {
        self.tls.serves(self.shared.contexts.borrow().standing(host))
    }

    /// What the TLS handshake ended with; nothing while it runs.
    pub fn handshake(&self) -> &Rc<Handshake> {
        &self.tls
    }

    /// The certificate that the client showed; it was found good.
    pub fn client_certificate(&mut self) -> Option<Rc<ShownCertificate>> {
        if self.shown.is_none()
            && let Some(certificates) = self.quic.peer_cert_chain()
        {
            self.shown = ShownCertificate::new(certificates.into_iter()).map(Rc::new);
        }
        self.shown.clone()
    }

    /// What is known of it.
    pub fn facts(&self) -> ConnectionFacts {
        ConnectionFacts {
            client: self.client,
            local: self.local,
            established: self.handshake.is_some(),
            alpn: if self.quic.application_proto() == super::ALPN { super::ALPN } else { b"" },
            server_name: self.quic.server_name().map(str::to_owned),
            rtt: rtt(&self.quic),
            handshake: self.handshake,
            resumed: self.quic.is_resumed(),
        }
    }

    /// For tests: every relation between the parts that must always hold.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let mut waiting = 0;
        for (id, stream) in &self.streams {
            waiting += stream.sealed();
            let listed = |list: &VecDeque<u64>| list.iter().filter(|&other| other == id).count();
            assert_eq!(listed(&self.news), usize::from(stream.in_news), "news {id}");
            assert_eq!(listed(&self.reading), usize::from(stream.in_reading), "reading {id}");
            assert_eq!(listed(&self.sending), usize::from(stream.in_sending), "sending {id}");
            assert!(!stream.is_over() || stream.in_news, "over but kept {id}");
        }
        assert_eq!(waiting, self.waiting);
        assert!(self.held.bytes() >= self.waiting);
        assert!(self.held.pooled() <= self.held.bytes());
    }
}

pub(super) fn rtt(quic: &Quic) -> Duration {
    quic.path_stats().find(|path| path.active).map_or(Duration::ZERO, |path| path.rtt)
}
