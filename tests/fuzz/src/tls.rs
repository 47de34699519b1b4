//! The first bytes of a TLS client: the server name in them, and the machine that gets them.

use crate::pieces;
use spooky::http::Output;
use spooky::identity::{ClientAuth, Identity, Site, Table, TicketKeys};
use spooky::tls::{Acceptor, Hello, ServerContexts, ServerSession, ServerSettings, read_hello};
use spooky_uring::Lease;
use std::rc::Rc;
use std::sync::Arc;

thread_local! {
    static ACCEPTOR: Rc<Acceptor> = {
        let identity = Identity::self_signed(&["fuzz.test"]).expect("an identity");
        let sites = Table::single(Site::new(Arc::new(identity), ClientAuth::Off));
        let tickets = TicketKeys::derive(b"a secret for fuzzing", || 0);
        let contexts = ServerContexts::new(&sites, &ServerSettings::default(), &tickets).expect("contexts");
        Acceptor::new(&Arc::new(contexts))
    };
}

/// Bytes of a client.
pub fn tls_hello(data: &[u8]) {
    // What a beginning says, more bytes do not change.
    let whole = read_hello(data);
    let mut seen = 0;
    for piece in pieces(data) {
        seen += piece.len();
        let told = read_hello(&data[..seen]);
        assert!(told == Hello::Incomplete || told == whole, "{told:?} became {whole:?}");
    }
    if let Hello::Whole(Some(name)) = &whole {
        assert!(name.is_ascii() && (1..=254).contains(&name.len()), "no host has this name");
    }
    assert_eq!(meet(std::iter::once(data)), meet(pieces(data)), "another cut, another story");
}

/// What becomes of a connection that gets these bytes, then FIN.
fn meet<'a>(input: impl Iterator<Item = &'a [u8]>) -> String {
    let mut session = ACCEPTOR.with(ServerSession::new);
    let mut out = Output::new();
    for piece in input {
        let plain = |_| panic!("nobody can have the keys");
        if let Err(fault) = session.receive(Lease::from_vec(piece.to_vec()), plain, &mut out) {
            assert!(!fault.tells || !out.is_empty(), "an alert that is not there");
            return format!("{fault} {}", fault.tells);
        }
    }
    match session.receive_end() {
        Err(fault) => fault.kind.word().to_owned(),
        Ok(()) => "the end".to_owned(),
    }
}
