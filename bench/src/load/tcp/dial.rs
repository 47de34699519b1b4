//! What the connections of a run have in common, and how a socket begins to connect.

use super::super::plan::{Plan, Protocol};
use crate::machine::Failure;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect as begin, socket};
use spooky::h2;
use spooky::http::{Authority, Fields, HeadLimits, Method, PathPair, RequestHead, Scheme, Target};
use spooky::identity::Authorities;
use spooky::tls::{Alpn, ClientContext, ClientSession, ClientSettings, MinVersion, Verify};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;

/// What every connection needs to know.
pub struct Terms {
    pub to: SocketAddr,
    pub protocol: Protocol,
    pub h2: h2::Settings,
    /// The request, always the same.
    pub head: RequestHead,
}

impl Terms {
    /// Whether the server agreed to what is to be spoken.
    pub fn takes(&self, alpn: Option<Alpn>) -> bool {
        match self.protocol {
            Protocol::H2 => alpn == Some(Alpn::H2),
            // Who says nothing speaks HTTP/1.1.
            _ => alpn != Some(Alpn::H2),
        }
    }
}

/// Makes connections.
pub struct Dialer {
    pub(super) terms: Rc<Terms>,
    tls: Option<ClientContext>,
    sni: String,
    resume: bool,
}

impl Dialer {
    /// What the plan says of connections over TCP.
    pub fn new(plan: &Plan) -> Result<Self, Failure> {
        let options = &plan.options;
        let scheme = if plan.secure { Scheme::Https } else { Scheme::Http };
        let window = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX).min(i32::MAX as u32);
        let h2 = h2::Settings {
            scheme,
            streams: u32::try_from(options.streams).unwrap_or(u32::MAX),
            stream_window: window(options.window),
            connection_window: window(options.connection_window),
            head: HeadLimits::RESPONSE,
            ..h2::Settings::CLIENT
        };
        let alpn = if plan.protocol == Protocol::H2 { Alpn::H2 } else { Alpn::H1 };
        let verify = if options.insecure {
            Verify::Off
        } else {
            Verify::Certificates { authorities: Arc::new(Authorities::file(&options.ca)?), strict_sni: true }
        };
        let settings = ClientSettings { verify, identity: None, min_version: MinVersion::Tls12, protocols: vec![alpn] };
        let tls = if plan.secure { Some(ClientContext::new(&settings)?) } else { None };
        let terms = Terms { to: plan.to, protocol: plan.protocol, h2, head: request(plan, scheme)? };
        Ok(Self { terms: Rc::new(terms), tls, sni: plan.sni.clone(), resume: options.resume })
    }

    /// TLS for one connection, if it has any.
    pub(super) fn session(&self) -> io::Result<Option<Box<ClientSession>>> {
        let Some(context) = &self.tls else {
            return Ok(None);
        };
        // Sessions are kept beside the context: one of its own has none to resume.
        let fresh = (!self.resume).then(|| context.for_worker());
        let session = ClientSession::new(fresh.as_ref().unwrap_or(context), &self.sni).map_err(io::Error::other)?;
        Ok(Some(Box::new(session)))
    }
}

/// The fields of the plan as a head; the pseudo fields come first.
fn request(plan: &Plan, scheme: Scheme) -> Result<RequestHead, Failure> {
    let value = |name: &str| {
        let found = plan.fields.iter().find(|field| field.0 == name.as_bytes());
        found.map_or(&[][..], |field| &field.1[..])
    };
    let mut fields = Fields::default();
    for (name, value) in &plan.fields {
        // These are written from the head's own members.
        if !name.starts_with(b":") && name != b"content-length" {
            fields.push(name, value);
        }
    }
    Ok(RequestHead {
        method: Method::parse(value(":method")).ok_or("--method is no method")?,
        scheme,
        authority: Authority::parse(value(":authority")).ok_or("the authority of the URL is none")?,
        target: Target::Path(PathPair::parse(value(":path")).map_err(|_| "the path of the URL is none")?),
        fields,
        content_length: plan.options.body,
        ..RequestHead::default()
    })
}

/// Why a socket does not connect.
pub enum NotBegun {
    /// There is none.
    NoSocket(io::Error),
    /// The kernel said no at once.
    Refused(TcpStream),
}

/// Begins to connect a socket; it is writable when that is done, or failed.
pub fn connect(to: SocketAddr) -> Result<TcpStream, NotBegun> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, None).map_err(|error| NotBegun::NoSocket(error.into()))?;
    let begun = begin(socket.as_raw_fd(), &SockaddrStorage::from(to));
    let socket = TcpStream::from(socket);
    match begun {
        // Small writes must not wait for acknowledgements; where that cannot be said, they do.
        Ok(()) | Err(Errno::EINPROGRESS) => {
            let _ = socket.set_nodelay(true);
            Ok(socket)
        }
        Err(_) => Err(NotBegun::Refused(socket)),
    }
}
