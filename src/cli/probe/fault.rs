//! Why a probe failed, in three forms: a word for programs, a sentence with a fix for people, an exit code for scripts.

use super::options::Options;
use super::resolve::ResolveError;
use crate::cli::fetch::FetchError;
use crate::control::{Exit, Failure};
use crate::h3::client::{CertificateFault, ClientError, FaultKind, SEND_BYTES, Stage};
use std::net::SocketAddr;
use std::time::Duration;

/// EMSGSIZE: a datagram is larger than the interface takes.
const TOO_LONG: i32 = 90;

/// Why.
#[derive(Debug)]
pub(super) struct Fault {
    /// One word, stable.
    pub kind: &'static str,
    /// What happened.
    pub message: String,
    /// What to do; empty if nothing is known.
    pub fix: String,
    /// The exit code.
    pub exit: Exit,
}

impl Fault {
    fn new(kind: &'static str, message: impl ToString, exit: Exit) -> Self {
        Self { kind, message: crate::cli::terminal::printable(&message.to_string()), fix: String::new(), exit }
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    /// As the command line says it.
    pub(super) fn failure(&self, url: &str) -> Failure {
        Failure::new(url, &self.message).fix(self.fix.as_str()).exit(self.exit)
    }

    pub(super) fn of_resolve(error: &ResolveError, host: &str, limit: Duration) -> Self {
        let message = match error {
            ResolveError::Unknown(why) => format!("no address for {host}: {why}"),
            ResolveError::Late => format!("no address for {host} within {limit:?}: the resolver does not answer"),
        };
        Self::new("dns", message, Exit::Resolve)
            .fix(format!("`getent ahosts {host}` asks the same; --resolve HOST:PORT:ADDRESS goes without"))
    }

    pub(super) fn of_fetch(error: &FetchError, address: SocketAddr, options: &Options) -> Self {
        let at = |what: &dyn std::fmt::Display| format!("{address}: {what}");
        match error {
            FetchError::Refused => Self::new("refused", at(error), Exit::Connect).fix(format!(
                "is HTTP/3 on there, and UDP port {} published, not TCP alone? `ss -lunp 'sport = :{0}'` on the server",
                address.port()
            )),
            FetchError::Unreachable(_) => Self::new("unreachable", at(error), Exit::Connect)
                .fix("`ip route get` tells the way; -4 or -6 keeps to one family"),
            FetchError::Socket(cause) if cause.raw_os_error() == Some(TOO_LONG) => Self::new(
                "datagram_size",
                at(&format_args!("the path does not carry datagrams of {SEND_BYTES} bytes")),
                Exit::Connect,
            )
            .fix("`ip route get` tells the MTU of the way: QUIC needs 1228 bytes with IPv4, 1248 with IPv6"),
            FetchError::Socket(cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => {
                Self::new("socket", at(error), Exit::Connect).fix("a firewall on this machine forbids it")
            }
            FetchError::Socket(_) => Self::new("socket", at(error), Exit::Failure),
            FetchError::Late(Stage::Connecting) => Self::new("timeout", at(error), Exit::Timeout).fix(format!(
                "a firewall that drops UDP port {}, or no HTTP/3 there: from outside they look the same",
                address.port()
            )),
            FetchError::Late(_) => Self::new("timeout", at(error), Exit::Timeout).fix("--timeout TIME waits longer"),
            FetchError::Output(_) => Self::new("output", error, Exit::Output),
            FetchError::Client(error) => Self::of_client(error, address, options),
        }
    }

    fn of_client(error: &ClientError, address: SocketAddr, options: &Options) -> Self {
        let message = format!("{address}: {error}");
        match error {
            ClientError::Certificate(fault) => {
                Self::new("certificate", message, Exit::Certificate).fix(certificate_fix(fault))
            }
            ClientError::Alert(_) => Self::new("handshake", message, Exit::Handshake),
            ClientError::Versions(_) => Self::new("version", message, Exit::Handshake),
            ClientError::Timeout => Self::new("timeout", message, Exit::Timeout),
            ClientError::Reset(_) => Self::new("stream_reset", message, Exit::Failure),
            ClientError::Closed { .. } => Self::new("closed", message, Exit::Failure),
            ClientError::StatelessReset => Self::new("stateless_reset", message, Exit::Failure),
            ClientError::GoAway => {
                Self::new("goaway", message, Exit::Failure).fix("ask again: it did nothing with this one")
            }
            ClientError::TooLarge => {
                let most = options.max_body;
                Self::new("too_large", format!("{message} ({most} bytes)"), Exit::TooLarge)
                    .fix("--max-body SIZE permits more")
            }
            ClientError::Protocol(_) => Self::new("protocol", message, Exit::Failure),
        }
    }
}

fn certificate_fix(fault: &CertificateFault) -> &'static str {
    match fault.kind {
        FaultKind::Expired => "renew it, or set this machine's clock right; --insecure goes on all the same",
        FaultKind::NotYetValid => "set this machine's clock right, or the issuer's; --insecure goes on all the same",
        FaultKind::WrongHost => {
            "ask for one of those names (--resolve NAME:PORT:ADDRESS keeps the address); --insecure goes on all the same"
        }
        FaultKind::SelfSigned | FaultKind::UnknownIssuer => {
            "--ca FILE trusts its issuer; a server that leaves intermediate certificates out looks the same; --insecure goes on"
        }
        FaultKind::Other | FaultKind::Refused => "--insecure goes on all the same",
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_kind_is_documented() {
        let page = include_str!("../../../docs/OPERATING.md");
        let source = include_str!("fault.rs").split("mod tests").next().unwrap();
        // The word is the first argument, on the same line or on the next.
        let kinds = source
            .split("Self::new(")
            .skip(1)
            .filter_map(|call| call.trim_start().strip_prefix('"')?.split('"').next());
        let kinds: Vec<_> = kinds.collect();
        assert!(kinds.len() > 15, "{kinds:?}");
        for kind in kinds {
            assert!(page.contains(&format!("`{kind}`")), "docs/OPERATING.md does not name `{kind}`");
        }
    }
}
