//! What `spooky explain` is told: the options, and the request they make, as a client would put it on the wire.
//!
//! Nothing of the request is judged here: what is wrong with it is for the gate to say. Values of fields are secrets until
//! proved otherwise: no message repeats one.

use crate::cli::probe::read_fields;
use crate::control::{Exit, Failure};
use crate::http::normalize::{self, RequestLine, WireRequest};
use crate::http::{Authority, HeadLimits, Refusal, RequestHead, Scheme, WireVersion};
use clap::{Args, ValueEnum};
use std::net::{IpAddr, Ipv4Addr};

/// The options of `spooky explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is sent, and no running process is asked: the answer follows from the file alone, with every backend at rest. \
Values of request fields are never shown.

Exit codes: 0 explained, whatever the answer; 2 usage; 77 a file may not be read; 78 bad configuration.")]
pub(in crate::cli) struct Options {
    /// The method of the request
    #[arg(value_name = "METHOD")]
    method: String,
    /// What it asks for: https://HOST[:PORT]/PATH; /PATH or * with -H 'host: …'; HOST:PORT with CONNECT
    #[arg(value_name = "URL")]
    url: String,
    /// A request field; may be given again. `host` replaces the authority, but not the name the connection is made for; @FILE
    /// reads fields from a file, one a line
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE|@FILE")]
    fields: Vec<String>,
    /// The address that the connection comes from
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    from: IpAddr,
    /// What the client speaks [default: the newest that the listener speaks]
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    pub(super) protocol: Option<Protocol>,
    /// The listener it comes to, by name [default: the one with the URL's port, or the first that fits]
    #[arg(long, value_name = "NAME")]
    pub(super) listener: Option<String>,
    /// How the answer is written: lines for people, or one JSON object
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Protocol {
    /// HTTP/1.1
    H1,
    /// HTTP/2
    H2,
    /// HTTP/3
    H3,
}

impl Protocol {
    /// The word that the access log has for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
            Self::H3 => "h3",
        }
    }
}

/// How the answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// Lines for people.
    #[default]
    Plain,
    /// One object.
    Json,
}

/// The request.
#[derive(Debug)]
pub(super) struct Ask {
    pub method: String,
    /// Of the connection; `None`: that of the listener.
    pub scheme: Option<Scheme>,
    /// What the client connects to; empty if the URL names no host.
    pub server_name: String,
    /// The port that it connects to, where the URL says one.
    pub port: Option<u16>,
    /// What `:authority` or Host says.
    pub authority: String,
    /// As it stands in the request.
    pub target: String,
    /// In the order given.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The other side of the connection.
    pub peer: IpAddr,
}

impl Options {
    /// Puts the request together.
    pub(super) fn ask(&self) -> Result<Ask, Failure> {
        let mut fields = Vec::new();
        let mut host = None;
        for given in read_fields(&self.fields)? {
            let (name, value) = split_field(&given)?;
            // The first one is what clients send as `:authority`; another stays, for the gate to refuse.
            if name.eq_ignore_ascii_case("host") && host.is_none() {
                host = Some(String::from_utf8_lossy(&value).into_owned());
            } else {
                fields.push((name, value));
            }
        }
        let missing = || usage("URL", "without a host in the URL it takes -H 'host: …'");
        let tunnel = fields.iter().any(|(name, _)| name == ":protocol");
        let (scheme, authority, target) = match self.url.split_once("://") {
            Some((scheme, rest)) => {
                let scheme = match scheme.to_ascii_lowercase().as_str() {
                    "https" => Scheme::Https,
                    "http" => Scheme::Http,
                    _ => return Err(usage("URL", "write https:// or http://")),
                };
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                let (authority, target) = rest.split_at(end);
                // What a client makes of a URL without a path.
                let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
                (Some(scheme), authority.to_owned(), target)
            }
            None if self.method == "CONNECT" && !tunnel => (None, self.url.clone(), String::new()),
            None if self.url == "*" || self.url.starts_with('/') => {
                (None, host.clone().ok_or_else(missing)?, self.url.clone())
            }
            None => return Err(usage("URL", "write https://HOST/PATH, or /PATH or * with -H 'host: …'")),
        };
        let whole = Authority::parse(authority.as_bytes());
        Ok(Ask {
            method: self.method.clone(),
            scheme,
            server_name: whole.as_ref().map_or_else(String::new, |whole| whole.host().to_owned()),
            port: whole.and_then(|whole| whole.port()),
            authority: host.unwrap_or(authority),
            target,
            fields,
            peer: self.from,
        })
    }
}

impl Ask {
    /// What the gate makes of the request, as a client of this protocol would send it on a connection of this scheme.
    pub(super) fn head(
        &self,
        (protocol, scheme): (Protocol, Scheme),
        limits: &HeadLimits,
    ) -> Result<RequestHead, Refusal> {
        let (method, authority) = (self.method.as_bytes(), self.authority.as_bytes());
        let connect = self.method == "CONNECT" && !self.fields.iter().any(|(name, _)| name == ":protocol");
        if protocol == Protocol::H1 {
            let target = if connect { authority } else { self.target.as_bytes() };
            let fields = self.fields.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
            let fields = std::iter::once((&b"Host"[..], authority)).chain(fields);
            let line = Some(RequestLine { method, target });
            return normalize::request(WireVersion::H1_1, WireRequest { scheme, line, fields }, limits);
        }
        let mut pairs: Vec<(&[u8], &[u8])> = vec![(b":method", method), (b":authority", authority)];
        if !connect {
            pairs.push((b":scheme", scheme.as_str().as_bytes()));
            pairs.push((b":path", self.target.as_bytes()));
        }
        // Clients write names in lower case there.
        let lower: Vec<String> = self.fields.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        let fields = lower.iter().zip(&self.fields).map(|(name, (_, value))| (name.as_bytes(), value.as_slice()));
        let (pseudo, others): (Vec<_>, Vec<_>) = fields.partition(|(name, _)| name.starts_with(b":"));
        pairs.extend(pseudo.into_iter().chain(others));
        let version = if protocol == Protocol::H2 { WireVersion::H2 } else { WireVersion::H3 };
        normalize::request(version, WireRequest { scheme, line: None, fields: pairs }, limits)
    }
}

/// A mistake in the command line.
pub(super) fn usage(place: &str, why: &str) -> Failure {
    Failure::new(place, why).exit(Exit::Usage)
}

/// `NAME: VALUE`; the name may be that of a pseudo-header.
fn split_field(text: &str) -> Result<(String, Vec<u8>), Failure> {
    // Only what is surely a name may be shown: without a colon all of it may be a secret.
    let behind = text.strip_prefix(':').unwrap_or(text);
    let Some((name, value)) = behind.split_once(':') else {
        return Err(usage("--header", "write 'NAME: VALUE'; there is no colon"));
    };
    let colon = if behind.len() < text.len() { ":" } else { "" };
    Ok((format!("{colon}{}", name.trim()), value.trim_matches([' ', '\t']).as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Method, Reason, Target};
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn ask(arguments: &[&str]) -> Result<Ask, Failure> {
        let line = Line::try_parse_from(["explain"].iter().chain(arguments)).expect("arguments that clap takes");
        line.options.ask()
    }

    fn head(arguments: &[&str], protocol: Protocol) -> Result<RequestHead, Reason> {
        let asked = ask(arguments).expect("a request");
        asked.head((protocol, Scheme::Https), &HeadLimits::REQUEST).map_err(|refusal| refusal.reason)
    }

    const ALL: [Protocol; 3] = [Protocol::H1, Protocol::H2, Protocol::H3];

    #[test]
    fn a_url_becomes_the_same_request_on_every_protocol() {
        for protocol in ALL {
            let head = head(&["GET", "https://A.test:8443?x=1", "-H", "X-A: 1 "], protocol).expect("good");
            assert_eq!((head.method.as_str(), head.host(), head.authority.port()), ("GET", "a.test", Some(8443)));
            assert_eq!(head.target.path().map(|path| path.forwarded()), Some("/?x=1"));
            assert_eq!(head.fields.find(b"x-a"), Some(&b"1"[..]));
        }
    }

    #[test]
    fn a_host_field_replaces_the_authority_and_not_the_name_of_the_connection() {
        let asked = ask(&["GET", "https://a.test/", "-H", "Host: b.test"]).expect("good");
        assert_eq!((asked.server_name.as_str(), asked.authority.as_str()), ("a.test", "b.test"));
        for protocol in ALL {
            let twice = head(&["GET", "https://a.test/", "-H", "host: b.test", "-H", "host: c.test"], protocol);
            assert!(matches!(twice, Err(Reason::Authority | Reason::AuthorityMismatch)), "{protocol:?}: {twice:?}");
        }
    }

    #[test]
    fn requests_without_a_path_are_taken_too() {
        for protocol in ALL {
            let all = head(&["OPTIONS", "*", "-H", "host: a.test"], protocol).expect("good");
            assert_eq!((all.target, all.method), (Target::Asterisk, Method::Options));
            assert_eq!(head(&["CONNECT", "a.test:443"], protocol).err(), Some(Reason::MethodRefused));
            assert_eq!(head(&["GET", "/x", "-H", "host: a.test"], protocol).expect("good").host(), "a.test");
        }
        let tunnel = ["CONNECT", "https://a.test/ws", "-H", ":protocol: websocket", "-H", "sec-websocket-version: 13"];
        assert!(head(&tunnel, Protocol::H3).expect("good").protocol.is_some());
    }

    #[test]
    fn what_is_wrong_with_a_request_is_for_the_gate_to_say() {
        for protocol in ALL {
            for (arguments, reason) in [
                (&["GET", "https://a.test/a\\b"][..], Reason::Target),
                (&["GET", "https://a.test/#x"], Reason::Target),
                (&["GET", "https://u@a.test/"], Reason::Authority),
                (&["TRACE", "https://a.test/"], Reason::MethodRefused),
                (&["G(T", "https://a.test/"], Reason::Method),
                (&["GET", "https://a.test/", "-H", "content-length: x"], Reason::ContentLength),
            ] {
                assert_eq!(head(arguments, protocol).err(), Some(reason), "{protocol:?}: {arguments:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_asked_is_a_usage_error_and_no_value_is_repeated() {
        for arguments in [
            &["GET", "ftp://a/"][..],
            &["GET", "a.test"],
            &["GET", "/x"],
            &["OPTIONS", "*"],
            &["GET", "https://a/", "-H", "hush-hush"],
        ] {
            let failure = ask(arguments).unwrap_err();
            assert!(failure.exit == Exit::Usage && !failure.to_string().contains("hush"), "{failure}");
        }
    }
}
