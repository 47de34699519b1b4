//! What a run of the generator is asked to do: the options, checked and turned into a plan.

use crate::machine::{Failure, parse_duration, parse_size};
use crate::udp;
use serde::Serialize;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

/// Options of `load`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// What to fetch: https://host[:port]/path, or without TLS http://host[:port]/path
    pub url: String,
    /// What to speak (default: HTTP/3, or HTTP/1.1 for http://). HTTP/2 without TLS begins without asking
    #[arg(long, value_enum)]
    pub protocol: Option<Protocol>,
    /// Send here, whatever the URL's host resolves to
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub connect: Option<SocketAddr>,
    /// Name in the TLS handshake (default: the URL's host)
    #[arg(long)]
    pub sni: Option<String>,
    /// Value of :authority (default: from the URL)
    #[arg(long)]
    pub authority: Option<String>,
    /// Accept any certificate
    #[arg(long, short = 'k')]
    pub insecure: bool,
    /// Certificates to trust
    #[arg(long, default_value = "/etc/ssl/certs/ca-certificates.crt")]
    pub ca: PathBuf,

    /// Connections kept open
    #[arg(long, short = 'c', default_value_t = 1)]
    pub connections: usize,
    /// Requests in flight on each connection; HTTP/1.1 has one
    #[arg(long, short = 'm', default_value_t = 1)]
    pub streams: usize,
    /// Measure this many requests (started after the warm-up)
    #[arg(long, short = 'n', conflicts_with = "duration")]
    pub requests: Option<u64>,
    /// Measure for this long (default 5s if neither this nor --requests is given)
    #[arg(long, short = 'd', value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Load without counting, before the measurement
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// Open loop: start this many requests a second, whatever the answers do. Latency then counts from the time a
    /// request was due, so that a stall is not hidden by the requests it kept from being sent
    #[arg(long)]
    pub rate: Option<f64>,
    /// Churn: close a connection after this many requests and open another. The first request of a connection then
    /// counts from the connection's start
    #[arg(long, value_name = "REQUESTS")]
    pub per_connection: Option<u64>,
    /// New connections a second at most
    #[arg(long)]
    pub connect_rate: Option<f64>,
    /// Idle crowd: one request on each connection, silence for this long, then one more on each
    #[arg(long, value_parser = parse_duration, conflicts_with_all = ["rate", "per_connection", "requests", "duration"])]
    pub idle: Option<Duration>,
    /// Offer the last session ticket on new connections
    #[arg(long)]
    pub resume: bool,

    /// Request method (default GET, or POST with a body)
    #[arg(long)]
    pub method: Option<String>,
    /// Size of the request body
    #[arg(long, value_parser = parse_size)]
    pub body: Option<u64>,
    /// Further header field, `name: value`
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// Only this status is a success (default: any 2xx)
    #[arg(long)]
    pub expect_status: Option<u16>,
    /// Only a response body of this size is a success
    #[arg(long, value_parser = parse_size)]
    pub expect_bytes: Option<u64>,
    /// Report the SHA-256 of the response bodies
    #[arg(long)]
    pub digest: bool,
    /// Slow reader: take this many KiB a second of each response
    #[arg(long, value_name = "KiB/s")]
    pub read_rate: Option<f64>,
    /// Give up a request (or a handshake) that made no progress for this long
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,

    /// HTTP/3: share this many UDP sockets among the connections (default: one for each, as real clients have)
    #[arg(long)]
    pub sockets: Option<usize>,
    /// HTTP/3: receive buffer of each socket as the kernel counts it (default: the system's, usually 208 KiB)
    #[arg(long, value_parser = parse_size)]
    pub receive_buffer: Option<u64>,
    /// HTTP/3: take datagrams one by one
    #[arg(long)]
    pub no_gro: bool,
    /// HTTP/3: send datagrams one by one
    #[arg(long)]
    pub no_gso: bool,
    /// HTTP/3: largest UDP payload sent
    #[arg(long, default_value_t = 1350)]
    pub payload: usize,
    /// Receive window of a stream (default: that of Chromium)
    #[arg(long, default_value = "6MiB", value_parser = parse_size)]
    pub window: u64,
    /// Receive window of a connection (default: that of Chromium)
    #[arg(long, default_value = "15MiB", value_parser = parse_size)]
    pub connection_window: u64,
    /// HTTP/3: congestion control of uploads: cubic or reno
    #[arg(long, default_value = "cubic")]
    pub congestion: String,

    /// Run on this CPU
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Report CPU and memory of this process and its descendants over the measured time
    #[arg(long, value_name = "PID")]
    pub watch: Option<u32>,
    /// With --watch: the CPU that process is pinned to; what others used of it is reported
    #[arg(long, value_name = "CPU", requires = "watch")]
    pub watch_cpu: Option<usize>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/3 over QUIC.
    H3,
    /// HTTP/2 over TCP.
    H2,
    /// HTTP/1.1 over TCP.
    H1,
}

/// How the result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// When requests are started.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As soon as another one ends.
    Closed,
    /// At a fixed interval.
    Open {
        /// Between two starts.
        interval: Duration,
    },
    /// One on each connection, silence, one more on each.
    Idle {
        /// The silence.
        gap: Duration,
    },
}

/// When the measurement ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After a time.
    Time(Duration),
    /// After a number of requests.
    Requests(u64),
}

/// Name and value of a header field.
pub type Field = (Vec<u8>, Vec<u8>);

/// A checked plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is spoken.
    pub protocol: Protocol,
    /// With TLS.
    pub secure: bool,
    /// The server.
    pub to: SocketAddr,
    /// Name in the TLS handshake.
    pub sni: String,
    /// Header fields of every request, pseudo fields first.
    pub fields: Vec<Field>,
    /// Size of the request body.
    pub body: u64,
    /// When requests are started.
    pub pace: Pace,
    /// When the measurement ends.
    pub until: Until,
    /// Between two new connections at least.
    pub connect_interval: Duration,
    /// How sockets are made.
    pub socket: udp::Settings,
    /// Everything that needs no checking.
    pub options: Options,
}

impl Plan {
    /// Checks the options.
    pub fn new(options: Options) -> Result<Self, Failure> {
        let (secure, rest) = match (options.url.strip_prefix("https://"), options.url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(format!("`{}` begins with neither https:// nor http://", options.url).into()),
        };
        let protocol = options.protocol.unwrap_or(if secure { Protocol::H3 } else { Protocol::H1 });
        if protocol == Protocol::H3 && !secure {
            return Err("HTTP/3 has TLS always: use https://".into());
        }
        if protocol == Protocol::H1 && options.streams > 1 {
            return Err(
                "HTTP/1.1 has one request at a time on each connection: more of them take more connections".into()
            );
        }
        let slash = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = (&rest[..slash], &rest[slash..]);
        let (host, port) = split_port(authority, if secure { 443 } else { 80 })?;
        let to = match options.connect {
            Some(address) => address,
            None => (host, port)
                .to_socket_addrs()
                .map_err(|error| format!("cannot resolve `{host}`: {error}"))?
                .next()
                .ok_or_else(|| format!("`{host}` has no address"))?,
        };
        if options.connections == 0 || options.streams == 0 || options.sockets == Some(0) {
            return Err("connections, streams and sockets must be at least 1".into());
        }
        let pace = match (options.rate, options.idle) {
            (Some(rate), _) => Pace::Open { interval: interval_of(rate)? },
            (None, Some(gap)) => Pace::Idle { gap },
            (None, None) => Pace::Closed,
        };
        Ok(Self {
            protocol,
            secure,
            to,
            sni: options.sni.clone().unwrap_or_else(|| host.to_owned()),
            fields: request_fields(&options, secure, authority, path)?,
            body: options.body.unwrap_or(0),
            pace,
            until: options
                .requests
                .map_or(Until::Time(options.duration.unwrap_or(Duration::from_secs(5))), Until::Requests),
            connect_interval: options.connect_rate.map_or(Ok(Duration::ZERO), interval_of)?,
            socket: udp::Settings {
                receive_buffer: options.receive_buffer.and_then(|bytes| usize::try_from(bytes).ok()),
                gro: !options.no_gro,
                gso: !options.no_gso,
            },
            options,
        })
    }
}

fn interval_of(rate: f64) -> Result<Duration, Failure> {
    if rate.is_finite() && rate > 0.0 {
        Ok(Duration::from_secs_f64(1.0 / rate))
    } else {
        Err(format!("`{rate}` is not a rate").into())
    }
}

/// Splits `host:port`; IPv6 literals stand in brackets; the port defaults to the scheme's.
fn split_port(authority: &str, default: u16) -> Result<(&str, u16), Failure> {
    let after_bracket = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[after_bracket..].rfind(':') {
        Some(at) => (
            &authority[..after_bracket + at],
            authority[after_bracket + at + 1..].parse().map_err(|_| format!("`{authority}` has no valid port"))?,
        ),
        None => (authority, default),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err("the URL names no host".into());
    }
    Ok((host, port))
}

fn request_fields(options: &Options, secure: bool, authority: &str, path: &str) -> Result<Vec<Field>, Failure> {
    let default_method = if options.body.is_some() { "POST" } else { "GET" };
    let mut fields: Vec<Field> = [
        (":method", options.method.as_deref().unwrap_or(default_method)),
        (":scheme", if secure { "https" } else { "http" }),
        (":authority", options.authority.as_deref().unwrap_or(authority)),
        (":path", if path.is_empty() { "/" } else { path }),
        ("user-agent", "spooky-bench"),
    ]
    .into_iter()
    .map(|(name, value)| (name.into(), value.into()))
    .collect();
    if let Some(bytes) = options.body {
        fields.push((b"content-length".to_vec(), bytes.to_string().into_bytes()));
    }
    for header in &options.headers {
        let (name, value) = header.split_once(':').ok_or_else(|| format!("`{header}` is not `name: value`"))?;
        fields.push((name.trim().to_ascii_lowercase().into(), value.trim().into()));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_split_with_and_without_port_and_brackets() {
        assert_eq!(split_port("a.test:8443", 443).unwrap(), ("a.test", 8443));
        assert_eq!(split_port("a.test", 443).unwrap(), ("a.test", 443));
        assert_eq!(split_port("[::1]:9", 443).unwrap(), ("::1", 9));
        assert_eq!(split_port("[::1]", 443).unwrap(), ("::1", 443));
        assert!(split_port("a.test:http", 443).is_err());
        assert!(split_port("", 443).is_err());
    }
}
