//! Every listening socket of the process, inherited or bound once, in one place, before any thread starts.
//!
//! A public address is a group of UDP sockets, one for each worker (SO_REUSEPORT), whose size and order stay for the
//! life of the process: the position in the group is the number of the worker. The first socket takes the port alone, which
//! proves that nobody else has it, and lets the others in afterwards; or systemd bound it and handed it over, under the
//! listener's name. Then the group is given its steering: the kernel chooses the worker by the connection ID, see
//! [`crate::h3::steering`].

use super::endpoints::Place;
use super::failure::{Exit, Failure, Protocol};
use crate::config::{Generation, Listener as Public};
use crate::h3::cid::CidKeys;
use crate::h3::steering;
use spooky_uring::inherited::{self, Inherited};
use spooky_uring::{Listener, UdpOptions, UdpSocket};
use std::fmt;
use std::net::SocketAddr;

/// Connections the kernel keeps until control accepts them.
const BACKLOG: i32 = 128;

/// What was bound.
#[derive(Debug)]
pub struct Sockets {
    /// For each worker, one socket for each listener.
    pub workers: Vec<Vec<UdpSocket>>,
    /// The metrics and control addresses.
    pub hosts: Vec<(Place, Listener)>,
    /// Where they are.
    pub addresses: Addresses,
}

/// The addresses the process listens on; ports that were 0 are known here.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// Public listeners, in the order of the configuration.
    pub public: Vec<SocketAddr>,
    /// `/metrics`.
    pub metrics: Option<SocketAddr>,
    /// `/health` and `/ready`.
    pub control: Option<SocketAddr>,
}

/// How the datagrams of one public listener find their worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steering {
    /// The kernel goes by the connection ID.
    Kernel,
    /// There is nothing to choose.
    OneWorker,
    /// The kernel goes by the addresses; workers forward what is not theirs. Why it is so.
    Forwarding(String),
}

impl fmt::Display for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => write!(f, "cbpf"),
            Self::OneWorker => write!(f, "none: one worker"),
            Self::Forwarding(why) => write!(f, "none: {why}"),
        }
    }
}

impl Sockets {
    /// Takes over what was inherited and binds the rest of what `generation` names.
    ///
    /// # Errors
    /// The first address that cannot be had, with the fix.
    pub fn bind(generation: &Generation) -> Result<Self, Failure> {
        let inherited = inherited::take().map_err(|error| {
            Failure::new("inherited sockets", error).fix("start it through its systemd units, or without LISTEN_FDS")
        })?;
        let mut given = given(generation, inherited)?;
        let performance = &generation.performance;
        let count = usize::from(performance.worker_threads);
        let mut workers: Vec<Vec<UdpSocket>> = (0..count).map(|_| Vec::new()).collect();
        let mut addresses = Addresses::default();
        for (listener, given) in generation.listeners.iter().zip(&mut given) {
            let options = UdpOptions {
                receive_buffer: performance.udp_receive_buffer_bytes as usize,
                send_buffer: performance.udp_send_buffer_bytes as usize,
                reuse_port: false,
                ..UdpOptions::new(listener.address)
            };
            let group = group(listener, count, std::mem::take(given), options)?;
            if let Some(first) = group.first() {
                addresses.public.push(first.local_address());
                for warning in first.buffers().warnings() {
                    tracing::warn!(listener = %listener.name, "{warning}");
                }
            }
            workers.iter_mut().zip(group).for_each(|(worker, socket)| worker.push(socket));
        }
        let mut hosts = Vec::new();
        let observability = &generation.observability;
        if let Some(address) = observability.control_api {
            let listener = listen(address, "[observability] control_api")?;
            addresses.control = listener.local_address();
            hosts.push((Place::Control, listener));
        }
        if let Some(metrics) = &observability.metrics {
            let listener = listen(metrics.address, "[observability] metrics")?;
            addresses.metrics = listener.local_address();
            hosts.push((Place::Metrics, listener));
        }
        Ok(Self { workers, hosts, addresses })
    }

    /// Gives each group its steering and says which it is; in the order of the listeners. Without it everything works,
    /// slower: that is a warning, not a failure.
    pub fn steer(&self, generation: &Generation, keys: &CidKeys) -> Vec<Steering> {
        let count = self.workers.len();
        let program = steering::program(keys, count as u16);
        let Some((first, true)) = self.workers.first().map(|first| (first, count > 1)) else {
            return generation.listeners.iter().map(|_| Steering::OneWorker).collect();
        };
        let listeners = generation.listeners.iter().zip(first);
        listeners
            .map(|(listener, socket)| {
                let steering = match socket.steer(&program) {
                    Ok(()) => Steering::Kernel,
                    Err(error) => Steering::Forwarding(error.to_string()),
                };
                match &steering {
                    Steering::Forwarding(_) => tracing::warn!(
                        listener = %listener.name,
                        workers = count,
                        steering = %steering,
                        "the kernel goes by addresses alone: datagrams of clients that move are forwarded between workers; \
                         fix: let systemd hand over sockets with ReusePort=yes, or none"
                    ),
                    _ => tracing::info!(listener = %listener.name, workers = count, steering = %steering, "datagrams find their worker"),
                }
                steering
            })
            .collect()
    }
}

/// The inherited sockets of each listener, in the order of both.
fn given(generation: &Generation, inherited: Vec<Inherited>) -> Result<Vec<Vec<Inherited>>, Failure> {
    let mut given: Vec<Vec<Inherited>> = generation.listeners.iter().map(|_| Vec::new()).collect();
    for socket in inherited {
        let Some(at) = generation.listeners.iter().position(|listener| *listener.name == *socket.name) else {
            let names: Vec<&str> = generation.listeners.iter().map(|listener| &*listener.name).collect();
            let cause = format!("no listener has this name; there is: {}", names.join(", "));
            return Err(Failure::new(format!("inherited socket `{}`", socket.name), cause)
                .fix("set FileDescriptorName= in the socket unit to the listener's name")
                .exit(Exit::Configuration));
        };
        given[at].push(socket);
    }
    Ok(given)
}

/// The sockets of one listener, one for each worker: `given` ones first, the rest bound beside them.
fn group(
    listener: &Public,
    count: usize,
    given: Vec<Inherited>,
    mut options: UdpOptions,
) -> Result<Vec<UdpSocket>, Failure> {
    let key = format!("listener `{}`", listener.name);
    let inherited = given.len();
    if inherited > count {
        let cause = format!("{inherited} sockets for {count} workers: nobody would read the others");
        return Err(Failure::new(format!("inherited sockets ({key})"), cause)
            .fix(format!("as many ListenDatagram= lines as worker_threads, or worker_threads = {inherited}"))
            .exit(Exit::Configuration));
    }
    let mut group = Vec::with_capacity(count);
    for socket in given {
        let taken = UdpSocket::from_inherited(socket.descriptor, &options);
        let socket = taken.map_err(|error| Failure::new(format!("inherited socket ({key})"), error))?;
        let (is, wanted) = (socket.local_address(), listener.address);
        if is.ip() != wanted.ip() || is.port() != wanted.port() && wanted.port() != 0 {
            return Err(Failure::new(
                format!("inherited socket ({key})"),
                format!("it is bound to {is}, not to {wanted}"),
            )
            .fix("the same address in ListenDatagram= and in the configuration")
            .exit(Exit::Configuration));
        }
        group.push(socket);
    }
    let bind = |options: &UdpOptions| {
        UdpSocket::bind(options).map_err(|error| Failure::bind(Protocol::Udp, options.address, &key, &error))
    };
    if group.is_empty() {
        group.push(bind(&options)?);
    }
    options.address = group[0].local_address();
    options.reuse_port = true;
    if group.len() < count {
        let shared = group.iter().try_for_each(UdpSocket::share_port);
        shared.map_err(|error| Failure::bind(Protocol::Udp, options.address, &key, &error))?;
    }
    while group.len() < count {
        group.push(
            bind(&options)
                .map_err(|failure| if inherited > 0 { beside(failure, inherited, count) } else { failure })?,
        );
    }
    Ok(group)
}

/// A socket that cannot stand beside inherited ones: only those of one user share a port.
fn beside(failure: Failure, inherited: usize, count: usize) -> Failure {
    failure.fix(format!(
        "the port was bound by another user (systemd), and only sockets of one user share a port: let the socket unit \
         hand over one for each worker ({count} ListenDatagram= lines and ReusePort=yes), or set worker_threads = {inherited}"
    ))
}

fn listen(address: SocketAddr, key: &str) -> Result<Listener, Failure> {
    Listener::tcp(address, BACKLOG, false).map_err(|error| Failure::bind(Protocol::Tcp, address, key, &error))
}
