//! Every listening socket of the process, bound once and in one place, before any thread starts.
//!
//! A public address is a group of UDP sockets, one for each worker (SO_REUSEPORT), whose size and order stay for the
//! life of the process. A group would let in a second process of the same user without a word, so the port is first
//! proven to be free by a socket that does not share.

use super::endpoints::Place;
use super::failure::{Failure, Protocol};
use crate::config::Generation;
use spooky_uring::{Listener, UdpOptions, UdpSocket};
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

impl Sockets {
    /// Binds everything that `generation` names.
    ///
    /// # Errors
    /// The first address that cannot be had, with the fix.
    pub fn bind(generation: &Generation) -> Result<Self, Failure> {
        let performance = &generation.performance;
        let count = usize::from(performance.worker_threads);
        let mut workers: Vec<Vec<UdpSocket>> = (0..count).map(|_| Vec::new()).collect();
        let mut addresses = Addresses::default();
        for listener in &generation.listeners {
            let mut options = UdpOptions {
                receive_buffer: performance.udp_receive_buffer_bytes as usize,
                send_buffer: performance.udp_send_buffer_bytes as usize,
                reuse_port: false,
                ..UdpOptions::new(listener.address)
            };
            let refused = |error| {
                let key = format!("listener `{}`", listener.name);
                Failure::bind(Protocol::Udp, listener.address, &key, &error)
            };
            // Alone on its port; dropped again if there is to be a group.
            let alone = UdpSocket::bind(&options).map_err(refused)?;
            options.address = alone.local_address();
            addresses.public.push(options.address);
            for warning in alone.buffers().warnings() {
                tracing::warn!(listener = %listener.name, "{warning}");
            }
            if let [only] = workers.as_mut_slice() {
                only.push(alone);
                continue;
            }
            drop(alone);
            options.reuse_port = true;
            for worker in &mut workers {
                worker.push(UdpSocket::bind(&options).map_err(refused)?);
            }
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
}

fn listen(address: SocketAddr, key: &str) -> Result<Listener, Failure> {
    Listener::tcp(address, BACKLOG, false).map_err(|error| Failure::bind(Protocol::Tcp, address, key, &error))
}
