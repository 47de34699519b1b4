//! TLS over TCP: handshakes, records, and what an idle connection holds.

use crate::harness::Harness;
use spooky::http::Output;
use spooky::identity::{ClientAuth, Identity, Site, Table, TicketKeys};
use spooky::tls::{
    Acceptor, Alpn, ClientContext, ClientSession, ClientSettings, MinVersion, ServerContexts, ServerSession,
    ServerSettings, Verify,
};
use spooky_uring::{Chunk, Lease};
use std::rc::Rc;
use std::sync::Arc;

/// Runs all of them.
pub fn run(harness: &mut Harness) {
    if !["tls handshake", "tls send", "tls idle"].iter().any(|name| harness.wants(name)) {
        return;
    }
    let (acceptor, context) = (acceptor(), context());
    harness.bench("tls handshake full, both sides", || Pair::new(&acceptor, &context.for_worker()));
    drop(Pair::new(&acceptor, &context));
    harness.bench("tls handshake resumed, both sides", || Pair::new(&acceptor, &context));

    let body = Chunk::from_vec(vec![7; 64 << 10]);
    for (name, length) in [("1 KiB", 1 << 10), ("16 KiB", 16 << 10), ("64 KiB", 64 << 10)] {
        let piece = body.slice(0..length);
        let mut pair = Pair::new(&acceptor, &context);
        harness.bench(&format!("tls send {name}"), || {
            pair.send(&piece);
            pair.wire.clear();
        });
        let mut pair = Pair::new(&acceptor, &context);
        harness.bench(&format!("tls send and receive {name}"), || {
            pair.send(&piece);
            pair.deliver()
        });
    }

    // The first one fills the free lists of buffers.
    drop(used(&acceptor, &context));
    harness.held("tls idle connection of a client", || used(&acceptor, &context).server);
    harness.held("tls idle connection to a backend", || used(&acceptor, &context).client);
}

/// A connection that has carried a request and a response.
fn used(acceptor: &Rc<Acceptor>, context: &ClientContext) -> Pair {
    let mut pair = Pair::new(acceptor, context);
    let piece = Chunk::from_vec(vec![7; 3000]);
    pair.send(&piece);
    pair.deliver();
    let (mut plain, mut out) = (Output::new(), Output::new());
    plain.push(piece);
    pair.server.send(&mut plain, &mut out).expect("open");
    while let Some(chunk) = out.pop() {
        pair.client.receive(lease(&chunk), drop, &mut pair.wire).expect("good records");
    }
    pair
}

struct Pair {
    client: ClientSession,
    server: ServerSession,
    /// From the client to the server.
    wire: Output,
}

impl Pair {
    fn new(acceptor: &Rc<Acceptor>, context: &ClientContext) -> Self {
        let client = ClientSession::new(context, "bench.test").expect("a name");
        let mut pair = Self { client, server: ServerSession::new(acceptor), wire: Output::new() };
        pair.client.start(&mut pair.wire).expect("a hello");
        let mut back = Output::new();
        while !pair.wire.is_empty() || !back.is_empty() {
            while let Some(chunk) = pair.wire.pop() {
                pair.server.receive(lease(&chunk), drop, &mut back).expect("a good client");
            }
            while let Some(chunk) = back.pop() {
                pair.client.receive(lease(&chunk), drop, &mut pair.wire).expect("a good server");
            }
        }
        assert!(!pair.client.is_handshaking() && !pair.server.is_handshaking());
        pair
    }

    fn send(&mut self, piece: &Chunk) {
        let mut plain = Output::new();
        plain.push(piece.clone());
        self.client.send(&mut plain, &mut self.wire).expect("open");
    }

    fn deliver(&mut self) -> usize {
        let (mut received, mut back) = (0, Output::new());
        while let Some(chunk) = self.wire.pop() {
            self.server.receive(lease(&chunk), |chunk| received += chunk.len(), &mut back).expect("good records");
        }
        received
    }
}

/// As the kernel would have filled it; the copy is part of the figure.
fn lease(chunk: &Chunk) -> Lease {
    Lease::from_vec(chunk.to_vec())
}

fn acceptor() -> Rc<Acceptor> {
    let identity = Identity::self_signed(&["bench.test"]).expect("an identity");
    let sites = Table::single(Site::new(Arc::new(identity), ClientAuth::Off));
    let tickets = TicketKeys::derive(b"a secret for benchmarks", || 0);
    let contexts = ServerContexts::new(&sites, &ServerSettings::default(), &tickets).expect("contexts");
    Acceptor::new(&Arc::new(contexts))
}

fn context() -> ClientContext {
    ClientContext::new(&ClientSettings {
        verify: Verify::Off,
        identity: None,
        min_version: MinVersion::Tls12,
        protocols: vec![Alpn::H2, Alpn::H1],
    })
    .expect("a context")
}
