//! What `spooky probe` is told: the options, and the request they make.
//!
//! Values of fields are secrets until proved otherwise: no message repeats one.

use super::target::Target;
use crate::config;
use crate::control::{Exit, Failure};
use crate::http::authority::Authority;
use crate::http::syntax::{is_field_value, is_token};
use clap::{Args, ValueEnum};
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of a request body at most: it is held in memory.
const REQUEST_BODY_BYTES: u64 = 64 << 20;

/// Bytes of a file with certificates at most.
const AUTHORITIES_BYTES: u64 = 16 << 20;

/// Bytes of a file with request fields at most.
const FIELDS_BYTES: u64 = 256 << 10;

/// Fields that belong to one connection and do not exist in HTTP/3 (RFC 9114 §4.2).
const CONNECTION_FIELDS: &[&str] =
    &["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings"];

/// The options of `spooky probe`.
#[derive(Debug, Args)]
#[command(after_help = "\
The facts go to standard output, the body to --output; with `-o -` the body takes standard output, and the facts \
standard error. A redirect is shown, not followed. Field values of the request are never shown.

Exit codes: 0 a response came, 1 failure, 2 usage, 6 no address, 7 refused or unreachable, 22 status 400 or higher with \
--fail, 23 output, 28 timeout, 35 handshake, 60 certificate, 63 body too large, 77 io_uring refused.")]
pub(in crate::cli) struct Options {
    /// What to ask for: https://HOST[:PORT][/PATH]
    #[arg(value_name = "URL")]
    url: String,
    /// The method [default: GET, with --data POST]
    #[arg(short = 'X', long, value_name = "METHOD")]
    method: Option<String>,
    /// A request field; may be given again. `host` replaces the authority; @FILE reads fields from a file, one a line
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE|@FILE")]
    fields: Vec<String>,
    /// A request body, sent as it is; @FILE reads it from a file, @- from standard input
    #[arg(short = 'd', long = "data", value_name = "DATA|@FILE")]
    data: Option<String>,
    /// Go on with any certificate, and tell what is wrong with it
    #[arg(short = 'k', long)]
    pub(super) insecure: bool,
    /// Trust these authorities (PEM) beside the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Use this address for a host and port instead of asking for it; may be given again
    #[arg(long, value_name = "HOST:PORT:ADDRESS")]
    resolve: Vec<String>,
    /// Ask so many times, each on a new connection; later ones resume the session of an earlier one
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) repeat: u32,
    /// Change the local port once the response began, and tell whether the server took the new path
    #[arg(long)]
    pub(super) migrate: bool,
    /// Take a status of 400 or higher for a failure (exit code 22)
    #[arg(short, long)]
    pub(super) fail: bool,
    /// Write the body there, those of several requests one behind the other; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// How the facts are written: lines for people, or one JSON object per request and line
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
    /// Time for each request, the resolution of its name included
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(super) timeout: Duration,
    /// Take no larger body
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    pub(super) max_body: u64,
    /// Use IPv4 addresses only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub(super) ipv4: bool,
    /// Use IPv6 addresses only
    #[arg(short = '6', long)]
    pub(super) ipv6: bool,
}

/// How the facts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One object per request.
    Json,
}

/// The request that the options make.
#[derive(Debug)]
pub(super) struct Ask {
    pub target: Target,
    pub method: String,
    /// What `:authority` says.
    pub authority: String,
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// Authorities beside the system's, as PEM.
    pub authorities: Vec<u8>,
    /// Addresses for the target that were given by hand.
    pub addresses: Vec<IpAddr>,
}

impl Options {
    /// Reads the files and puts the request together.
    pub(super) fn ask(&self) -> Result<Ask, Failure> {
        let target = Target::parse(&self.url).map_err(|why| usage("URL", why))?;
        let body = self.body()?;
        let method = self.method.clone().unwrap_or_else(|| {
            let method = if self.data.is_some() { "POST" } else { "GET" };
            method.to_owned()
        });
        if !is_token(method.as_bytes()) || method == "CONNECT" {
            return Err(usage("--method", "a method is a word such as GET or POST, and CONNECT asks for no response"));
        }
        let (host, mut fields) = split_host(read_fields(&self.fields)?.iter().map(|field| parse_field(field)))?;
        if !has(&fields, "user-agent") {
            fields.push(("user-agent".to_owned(), format!("spooky/{}", env!("CARGO_PKG_VERSION")).into_bytes()));
        }
        if !has(&fields, "accept") {
            fields.push(("accept".to_owned(), b"*/*".to_vec()));
        }
        if self.data.is_some() {
            if !has(&fields, "content-type") {
                fields.push(("content-type".to_owned(), b"application/x-www-form-urlencoded".to_vec()));
            }
            if !has(&fields, "content-length") {
                fields.push(("content-length".to_owned(), body.len().to_string().into_bytes()));
            }
        }
        let addresses = self.addresses(&target)?;
        let authority = host.unwrap_or_else(|| target.authority());
        Ok(Ask { target, method, authority, fields, body, authorities: self.authorities()?, addresses })
    }

    fn body(&self) -> Result<Vec<u8>, Failure> {
        match self.data.as_deref() {
            None => Ok(Vec::new()),
            Some("@-") => read("standard input (--data)", std::io::stdin().lock(), REQUEST_BODY_BYTES),
            Some(data) => match data.strip_prefix('@') {
                Some(path) => read_file(Path::new(path), "--data", REQUEST_BODY_BYTES),
                None => Ok(data.as_bytes().to_vec()),
            },
        }
    }

    fn authorities(&self) -> Result<Vec<u8>, Failure> {
        let Some(path) = &self.ca else {
            return Ok(Vec::new());
        };
        let pem = read_file(path, "--ca", AUTHORITIES_BYTES)?;
        if crate::h3::client::count_authorities(&pem) == 0 {
            let place = format!("{} (--ca)", path.display());
            return Err(Failure::new(place, "holds no certificate")
                .fix("give a PEM file, which has lines of `-----BEGIN CERTIFICATE-----`")
                .exit(Exit::Usage));
        }
        Ok(pem)
    }

    /// The addresses of `--resolve` that are for the target.
    fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, Failure> {
        let mut addresses = Vec::new();
        for text in &self.resolve {
            let (place, address) = parse_resolve(text).ok_or_else(|| {
                usage(
                    "--resolve",
                    "write HOST:PORT:ADDRESS, as in example.net:443:192.0.2.7 or example.net:443:[2001:db8::7]",
                )
            })?;
            if place.host() == target.host_text() && place.port() == Some(target.port) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }
}

/// Fields as they were written, those in files too.
pub(in crate::cli) fn read_fields(given: &[String]) -> Result<Vec<String>, Failure> {
    let mut fields = Vec::new();
    for given in given {
        let Some(path) = given.strip_prefix('@') else {
            fields.push(given.clone());
            continue;
        };
        let text = String::from_utf8(read_file(Path::new(path), "--header", FIELDS_BYTES)?);
        let text = text.map_err(|_| usage(&format!("{path} (--header)"), "this is no text"))?;
        fields.extend(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
    }
    Ok(fields)
}

/// A mistake in the command line.
pub(super) fn usage(place: &str, why: &str) -> Failure {
    Failure::new(place, why).exit(Exit::Usage)
}

fn has(fields: &[(String, Vec<u8>)], name: &str) -> bool {
    fields.iter().any(|(known, _)| known == name)
}

/// `NAME: VALUE` with the name in lower case.
fn parse_field(text: &str) -> Result<(String, Vec<u8>), Failure> {
    // Only what is surely a name may be shown: without a colon all of it may be a secret.
    let Some((name, value)) = text.split_once(':') else {
        return Err(usage("--header", "write 'NAME: VALUE'; there is no colon"));
    };
    let name = name.trim().to_ascii_lowercase();
    if !is_token(name.as_bytes()) {
        return Err(usage("--header", "what stands before the colon is no field name"));
    }
    let value = value.trim_matches([' ', '\t']);
    let refused = |why: &str| Err(usage(&format!("--header {name}"), why));
    if !is_field_value(value.as_bytes()) {
        return refused("the value holds control characters");
    }
    if CONNECTION_FIELDS.contains(&name.as_str()) || name == "te" && !value.eq_ignore_ascii_case("trailers") {
        return refused("the field belongs to HTTP/1.1 connections and may not stand in HTTP/3 (RFC 9114 section 4.2)");
    }
    Ok((name, value.as_bytes().to_vec()))
}

type Parsed = (Option<String>, Vec<(String, Vec<u8>)>);

/// Takes `host` out of the fields: HTTP/3 says it as `:authority`.
fn split_host(parsed: impl Iterator<Item = Result<(String, Vec<u8>), Failure>>) -> Result<Parsed, Failure> {
    let (mut host, mut fields) = (None, Vec::new());
    for field in parsed {
        let (name, value) = field?;
        if name == "host" {
            let authority = Authority::parse(&value).ok_or_else(|| usage("--header host", "this is no HOST[:PORT]"))?;
            host = Some(authority.as_str().to_owned());
        } else {
            fields.push((name, value));
        }
    }
    Ok((host, fields))
}

/// `HOST:PORT:ADDRESS`.
fn parse_resolve(text: &str) -> Option<(Authority, IpAddr)> {
    // The host may be an address in brackets, with colons of its own.
    let host_end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':')? };
    let port_end = host_end + 1 + text.get(host_end + 1..)?.find(':')?;
    let authority = Authority::parse(&text.as_bytes()[..port_end])?;
    authority.port()?;
    let address = &text[port_end + 1..];
    let address = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    Some((authority, address.parse().ok()?))
}

fn read_file(path: &Path, key: &str, most: u64) -> Result<Vec<u8>, Failure> {
    let file = std::fs::File::open(path).map_err(|error| {
        let place = format!("{} ({key})", path.display());
        let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        Failure::new(place, error).exit(if denied { Exit::Permission } else { Exit::Usage })
    })?;
    read(&format!("{} ({key})", path.display()), file, most)
}

fn read(place: &str, from: impl Read, most: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes).map_err(|error| Failure::new(place, error))?;
    if bytes.len() as u64 > most {
        return Err(usage(place, &format!("holds more than {} MiB", most >> 20)));
    }
    Ok(bytes)
}

fn time(text: &str) -> Result<Duration, &'static str> {
    let millis = config::parse_millis(text).ok_or("write a time as 250ms, 5s, 2m or 1h")?;
    if (1..=86_400_000).contains(&millis) { Ok(Duration::from_millis(millis)) } else { Err("between 1ms and 24h") }
}

fn size(text: &str) -> Result<u64, &'static str> {
    config::parse_bytes(text).ok_or("write a size as 512B, 16KiB, 8MiB or 1GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn ask(arguments: &[&str]) -> Result<Ask, Failure> {
        let line = Line::try_parse_from(["probe"].iter().chain(arguments)).expect("arguments that clap takes");
        line.options.ask()
    }

    fn field<'a>(ask: &'a Ask, name: &str) -> Option<&'a str> {
        ask.fields.iter().find(|(known, _)| known == name).map(|(_, value)| str::from_utf8(value).unwrap())
    }

    #[test]
    fn a_plain_url_is_a_get() {
        let asked = ask(&["https://Example.NET/a?b"]).unwrap();
        assert_eq!((asked.method.as_str(), asked.authority.as_str()), ("GET", "example.net"));
        assert!(field(&asked, "user-agent").unwrap().starts_with("spooky/"));
        assert!(asked.body.is_empty() && field(&asked, "content-length").is_none());
    }

    #[test]
    fn data_is_a_post_with_a_length() {
        let asked = ask(&["https://a", "-d", "x=1"]).unwrap();
        assert_eq!((asked.method.as_str(), asked.body.as_slice()), ("POST", &b"x=1"[..]));
        assert_eq!(field(&asked, "content-length"), Some("3"));
        assert_eq!(field(&asked, "content-type"), Some("application/x-www-form-urlencoded"));
        let asked = ask(&["https://a", "-X", "PUT", "-d", "", "-H", "Content-Type: a/b"]).unwrap();
        assert_eq!((asked.method.as_str(), field(&asked, "content-length")), ("PUT", Some("0")));
        assert_eq!(field(&asked, "content-type"), Some("a/b"));
    }

    #[test]
    fn data_comes_from_a_file() {
        let path = std::env::temp_dir().join(format!("spooky-probe-data-{}", std::process::id()));
        std::fs::write(&path, b"bytes\n\0").unwrap();
        let given = format!("@{}", path.display());
        assert_eq!(ask(&["https://a", "-d", &given]).unwrap().body, b"bytes\n\0");
        let wrong = ask(&["https://a", "--ca", path.to_str().unwrap()]).unwrap_err();
        assert!(wrong.to_string().contains("holds no certificate"), "{wrong}");
        std::fs::remove_file(&path).unwrap();
        let missing = ask(&["https://a", "-d", &given]).unwrap_err();
        assert!(missing.exit == Exit::Usage && missing.to_string().contains("--data"), "{missing}");
    }

    #[test]
    fn a_body_over_the_bound_is_refused() {
        assert_eq!(read("it", std::io::repeat(7).take(8), 8).unwrap().len(), 8);
        assert!(read("it", std::io::repeat(7).take(9), 8).is_err());
    }

    #[test]
    fn a_host_field_is_the_authority() {
        let asked = ask(&["https://127.0.0.1:9889/", "-H", "Host: Example.net:8443"]).unwrap();
        assert_eq!(asked.authority, "Example.net:8443");
        assert!(field(&asked, "host").is_none());
        assert!(ask(&["https://a", "-H", "host: a b"]).is_err());
    }

    #[test]
    fn fields_that_http3_forbids_are_refused_and_no_value_is_repeated() {
        for bad in [
            "Connection: hush-hush",
            "transfer-encoding: hush-hush",
            "te: hush-hush",
            "authorization: hush-hush\u{7}",
            "hush-hush",
            "hush hush: x",
            ":path: /hush-hush",
        ] {
            let refused = ask(&["https://a", "-H", bad]).unwrap_err();
            assert_eq!(refused.exit, Exit::Usage, "{bad}");
            assert!(!refused.to_string().contains("hush"), "{refused}");
        }
        assert_eq!(field(&ask(&["https://a", "-H", "TE: trailers"]).unwrap(), "te"), Some("trailers"));
        assert_eq!(field(&ask(&["https://a", "-H", "x-empty:"]).unwrap(), "x-empty"), Some(""));
    }

    #[test]
    fn addresses_are_given_by_hand() {
        let given = [
            "--resolve",
            "a.net:443:192.0.2.7",
            "--resolve",
            "b.net:443:192.0.2.8",
            "--resolve",
            "A.net:443:[2001:db8::7]",
        ];
        let asked = ask(&[&["https://a.net/"], &given[..]].concat()).unwrap();
        assert_eq!(asked.addresses, ["192.0.2.7".parse::<IpAddr>().unwrap(), "2001:db8::7".parse().unwrap()]);
        assert!(ask(&[&["https://a.net:8443/"], &given[..]].concat()).unwrap().addresses.is_empty());
        for bad in ["a.net", "a.net:443", "a.net::192.0.2.7", "a.net:443:name", "a.net:x:192.0.2.7", "[::1:443:::1"] {
            assert!(ask(&["https://a.net/", "--resolve", bad]).is_err(), "{bad}");
        }
        let (place, address) = parse_resolve("[::1]:443:::2").unwrap();
        assert_eq!((place.host(), address.to_string()), ("[::1]", "::2".to_owned()));
    }

    #[test]
    fn methods_times_and_sizes_have_their_forms() {
        assert!(ask(&["https://a", "-X", "GE T"]).is_err());
        assert!(ask(&["https://a", "-X", "CONNECT"]).is_err());
        assert_eq!(time("1500ms"), Ok(Duration::from_millis(1500)));
        assert!(time("10").is_err() && time("0s").is_err() && time("25h").is_err());
        assert_eq!(size("2KiB"), Ok(2048));
        let line = |arguments: &[&str]| Line::try_parse_from(["probe"].iter().chain(arguments)).is_ok();
        assert!(!line(&["https://a", "-4", "-6"]) && !line(&["https://a", "--repeat", "0"]) && !line(&[]));
    }
}
