//! A listener of datagrams: its endpoint, its socket, and what the worker keeps for each of its connections.

use super::Client;
use crate::h3;
use spooky_uring::UdpId;

/// One public listener's QUIC share of this worker.
pub(in crate::worker) struct Listener {
    /// The connections.
    pub endpoint: h3::Endpoint,
    /// Where datagrams come and go.
    pub socket: UdpId,
    /// What the worker keeps per connection, by the connection's slot.
    clients: Vec<Client>,
}

impl Listener {
    /// A listener without connections.
    pub(in crate::worker) fn new(endpoint: h3::Endpoint, socket: UdpId) -> Self {
        Self { endpoint, socket, clients: Vec::new() }
    }

    /// What the worker keeps for a connection.
    pub(in crate::worker) fn client(&mut self, connection: h3::ConnKey) -> &mut Client {
        let slot = connection.slot as usize;
        if slot >= self.clients.len() {
            self.clients.resize(slot + 1, Client::default());
        }
        &mut self.clients[slot]
    }
}
