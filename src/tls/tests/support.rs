//! Authorities, contexts, and a client and a server with a wire between them.

use crate::http::Output;
use crate::identity::{Authorities, ClientAuth, Identity, ServerName, Site, TicketKeys, Trust, sites};
use crate::tls::{
    Acceptor, Alpn, ClientContext, ClientSession, ClientSettings, Fault, MinVersion, ServerContexts, ServerSession,
    ServerSettings, Verify,
};
use spooky_uring::{Chunk, Lease};
use std::rc::Rc;
use std::sync::Arc;

pub struct Authority {
    pub pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self { pem, issuer: rcgen::Issuer::new(parameters, key) }
    }

    /// What a client shows.
    pub fn badge(&self, serial: u64) -> Arc<Identity> {
        self.badge_with(serial, |_| {})
    }

    pub fn badge_with(&self, serial: u64, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Arc<Identity> {
        self.issue(Vec::new(), |parameters| {
            parameters.distinguished_name.push(rcgen::DnType::CommonName, "a client");
            parameters.serial_number = Some(serial.into());
            parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            change(parameters);
        })
    }

    /// What a server of these names shows.
    pub fn identity(&self, names: &[&str], change: impl FnOnce(&mut rcgen::CertificateParams)) -> Arc<Identity> {
        self.issue(names.iter().map(|name| (*name).to_owned()).collect(), change)
    }

    fn issue(&self, names: Vec<String>, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Arc<Identity> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        change(&mut parameters);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap().pem();
        Arc::new(Identity::from_pem(certificate.as_bytes(), key.serialize_pem().as_bytes()).unwrap())
    }

    /// A list of revoked serial numbers, good until the given year.
    pub fn revoke(&self, serials: &[u64], until: i32) -> String {
        let revoked = serials.iter().map(|&serial| rcgen::RevokedCertParams {
            serial_number: serial.into(),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(until, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    pub fn trust(&self, lists: Option<&str>) -> Arc<Trust> {
        Arc::new(Trust::from_pem(self.pem.as_bytes(), lists.map(str::as_bytes)).unwrap())
    }

    /// As a backend's authority, read from a file.
    pub fn authorities(&self) -> Arc<Authorities> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("spooky-ca-{}-{number}.pem", std::process::id()));
        std::fs::write(&path, &self.pem).unwrap();
        let authorities = Authorities::file(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        Arc::new(authorities)
    }
}

pub fn site(name: &str, client_auth: ClientAuth) -> Site {
    Site::new(Arc::new(Identity::self_signed(&[name]).unwrap()), client_auth)
}

pub fn tickets() -> TicketKeys {
    TicketKeys::derive(b"a secret of the tests", || 0)
}

pub fn contexts(fallback: Site, named: &[(&str, &Site)]) -> Arc<ServerContexts> {
    contexts_with(fallback, named, &ServerSettings::default(), &tickets())
}

pub fn contexts_with(
    fallback: Site,
    named: &[(&str, &Site)],
    settings: &ServerSettings,
    tickets: &TicketKeys,
) -> Arc<ServerContexts> {
    let named = named.iter().map(|(name, site)| (ServerName::parse(name).unwrap(), (*site).clone()));
    Arc::new(ServerContexts::new(&sites(fallback, named.collect()).unwrap(), settings, tickets).unwrap())
}

/// A client that believes everybody.
pub fn trusting() -> ClientSettings {
    ClientSettings {
        verify: Verify::Off,
        identity: None,
        min_version: MinVersion::Tls12,
        protocols: vec![Alpn::H2, Alpn::H1],
    }
}

pub fn client(settings: &ClientSettings) -> ClientContext {
    ClientContext::new(settings).unwrap()
}

/// A client that speaks nothing newer than TLS 1.2.
pub fn old_client() -> ClientContext {
    let mut config = rustls::ClientConfig::clone(&client(&trusting()).config());
    let verifier = Arc::new(crate::tls::verdict::Anyone::new(crate::tls::settings::provider()));
    let alpn = std::mem::take(&mut config.alpn_protocols);
    let mut config = rustls::ClientConfig::builder_with_provider(crate::tls::settings::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = alpn;
    ClientContext::of(config)
}

/// A client and a server, and what each has read.
pub struct Pair {
    pub client: ClientSession,
    pub server: ServerSession,
    /// Bytes of one read at most.
    pub cut: usize,
    pub to_server: Output,
    pub to_client: Output,
    pub at_server: Vec<u8>,
    pub at_client: Vec<u8>,
    pub server_fault: Option<Fault>,
    pub client_fault: Option<Fault>,
}

impl Pair {
    pub fn new(client: &ClientContext, name: &str, contexts: &Arc<ServerContexts>) -> Self {
        let acceptor: Rc<Acceptor> = Acceptor::new(contexts);
        let mut client = ClientSession::new(client, name).unwrap();
        let mut to_server = Output::new();
        client.start(&mut to_server).unwrap();
        Self {
            client,
            server: ServerSession::new(&acceptor),
            cut: usize::MAX,
            to_server,
            to_client: Output::new(),
            at_server: Vec::new(),
            at_client: Vec::new(),
            server_fault: None,
            client_fault: None,
        }
    }

    /// A handshake that is over, one way or the other.
    pub fn shaken(client: &ClientContext, name: &str, contexts: &Arc<ServerContexts>) -> Self {
        let mut pair = Self::new(client, name, contexts);
        pair.run();
        pair
    }

    /// Carries bytes until nobody has any.
    pub fn run(&mut self) {
        while !self.to_server.is_empty() || !self.to_client.is_empty() {
            for piece in cut(&mut self.to_server, self.cut) {
                let plain = |chunk: Chunk| self.at_server.extend_from_slice(&chunk);
                let result = self.server.receive(piece, plain, &mut self.to_client);
                self.server_fault = self.server_fault.take().or(result.err());
            }
            for piece in cut(&mut self.to_client, self.cut) {
                let plain = |chunk: Chunk| self.at_client.extend_from_slice(&chunk);
                let result = self.client.receive(piece, plain, &mut self.to_server);
                self.client_fault = self.client_fault.take().or(result.err());
            }
        }
    }

    /// Both faults are none.
    pub fn is_fine(&self) -> bool {
        self.server_fault.is_none() && self.client_fault.is_none()
    }

    pub fn client_sends(&mut self, bytes: &[u8]) {
        self.client.send(&mut output(bytes), &mut self.to_server).unwrap();
    }

    pub fn server_sends(&mut self, bytes: &[u8]) {
        self.server.send(&mut output(bytes), &mut self.to_client).unwrap();
    }
}

pub fn output(bytes: &[u8]) -> Output {
    let mut out = Output::new();
    out.push(Chunk::copy_from(bytes));
    out
}

/// All that is in the list, in one piece.
pub fn bytes(out: &mut Output) -> Vec<u8> {
    std::iter::from_fn(|| out.pop()).flat_map(|chunk| chunk.to_vec()).collect()
}

/// All that is in the list, as reads of at most so many bytes.
pub fn cut(out: &mut Output, most: usize) -> Vec<Lease> {
    let bytes = bytes(out);
    bytes.chunks(most.min(bytes.len().max(1))).map(|piece| Lease::from_vec(piece.to_vec())).collect()
}

/// Bytes that tell their place.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + (at >> 8) * 7) as u8).collect()
}
