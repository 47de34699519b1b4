//! Whom a connection to a backend is made for, where its upstream wants to be told by the PROXY protocol.
//!
//! Such a connection belongs to one connection of one client: the backend takes every request on it for that client's.

use super::Worker;
use super::clients::Downkey;
use crate::config::BackendId;
use crate::proxy_protocol::{self, Ends, Version};
use spooky_uring::{Chunk, Io};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

impl<I: Io> Worker<I> {
    /// The client that a connection to a backend has to be made for. `None`: it may be anybody's.
    #[inline]
    pub(super) fn announced(&mut self, slot: u32, backend: BackendId) -> Option<Ends> {
        self.announces(backend)?;
        let key = self.exchanges.get(slot as usize)?.downkey;
        let source = self.clients.address(key)?;
        let destination = match (self.clients.destination(key), key) {
            (Some(known), _) => known,
            (None, Downkey::Tcp(tcp)) => {
                let found = self.io.local_address(tcp.stream).unwrap_or_else(|| nowhere(source));
                self.clients.tcp.get_mut(tcp)?.destination = Some(found);
                found
            }
            (None, Downkey::Quic { .. }) => nowhere(source),
        };
        Some(Ends { source, destination })
    }

    /// Begins a connection that is made with its header, if its upstream wants one.
    pub(super) fn announce(&mut self, slot: u32) {
        let Some(origin) = self.origins.get(slot) else {
            return;
        };
        if let Some(version) = self.announces(origin.backend) {
            let mut header = Vec::new();
            proxy_protocol::write(version, origin.client, &mut header);
            self.io.send(origin.stream, Chunk::from_vec(header));
        }
    }

    #[inline]
    fn announces(&self, backend: BackendId) -> Option<Version> {
        let generation = &self.snapshot.generation;
        generation.upstream(generation.backend(backend).upstream).proxy_protocol
    }
}

/// What is written of an end that is not known: no address, of the other end's family.
fn nowhere(other: SocketAddr) -> SocketAddr {
    match other.ip().to_canonical() {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}
