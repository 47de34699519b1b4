//! `spooky demo`: the proxy with a built-in origin and a certificate made in memory, and one HTTP/3 request through it.
//!
//! No file is read or left behind. What is printed is what somebody needs to look for themselves: the address, a browser
//! that trusts the certificate by its key, a curl line.

mod origin;
mod page;
mod spki;
#[cfg(test)]
#[path = "tests.rs"]
mod whole;

use super::fetch::{Fetcher, Limits};
use super::{Stop, print};
use crate::config;
use crate::control::boot::probe;
use crate::control::{Failure, Start, start};
use crate::h3::client::{ClientRequest, Trust};
use crate::identity::Identity;
use crate::telemetry::log::{self, Level, LogSettings};
use origin::Origin;
use spooky_uring::Features;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// The usual port.
const PORT: u16 = 9889;

/// How long the demo's own request may take.
const PROOF_TIME: Duration = Duration::from_secs(10);

/// What the demo runs on; the addresses are set afterwards.
const CONFIG: &str = r#"
version = 1

[listen]

[upstream.demo]
route = { path_prefix = "/" }
backends = [ { id = "origin", address = "http://ORIGIN" } ]

[performance]
worker_threads = 1
pin_workers = false
"#;

/// Serves the demo until told to end, or makes its one request and ends.
pub(super) fn demo(listen: Option<SocketAddr>, once: bool) -> Result<(), Stop> {
    let started = Instant::now();
    let settings = LogSettings { level: Level::Scream, ..LogSettings::default() };
    let log = log::start(&settings).map_err(|error| Failure::new("the log", error))?;
    let features = probe()?;
    // Before any thread: the origin's must not be the one that a signal ends.
    spooky_uring::host::block_signals(&crate::control::runtime::SIGNALS)
        .map_err(|error| Failure::new("signals", error))?;
    let identity = Identity::self_signed(&["localhost", "127.0.0.1", "::1"])
        .map_err(|error| Failure::new("the demo's certificate", error))?;
    let leaf = identity.leaf().to_vec();
    let origin = Origin::start(&features)?;

    let text = CONFIG.replace("ORIGIN", &origin.address.to_string());
    let (mut generation, _) = config::from_str("the demo's configuration", &text)
        .map_err(|diagnostics| Failure::new("the demo's configuration", diagnostics))?;
    generation.listeners[0].address = listen.unwrap_or_else(|| free_address(once));
    // The usual ports may belong to a proxy that really serves.
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    if let Some(metrics) = &mut generation.observability.metrics {
        metrics.address = anywhere;
    }
    generation.observability.control_api = Some(anywhere);
    generation.observability.access_log = None;
    generation.secret = config::SecretSource::Memory;

    let running =
        start(Start { generation, identity: Some(identity), log: Some(log), features: features.clone(), started })?;
    let address = reachable(running.addresses.public[0]);
    let proof = prove(&features, address, &leaf);
    match &proof {
        Ok(Proof { status, body, handshake, first_byte }) => {
            if !once {
                guide(address, &leaf, &running.addresses, origin.address);
            }
            print(format_args!(
                "GET https://localhost:{}/ over HTTP/3 (h3): status {}, {} bytes; handshake {:.1} ms, first byte {:.1} ms",
                address.port(),
                status,
                body.len(),
                handshake.as_secs_f64() * 1e3,
                first_byte.as_secs_f64() * 1e3,
            ));
            if !once {
                print("It works. Ctrl-C ends the demo.");
            }
        }
        Err(_) => running.end(),
    }
    if once {
        running.end();
    }
    let ended = running.wait();
    origin.stop();
    proof?;
    Ok(ended?)
}

/// The usual address, or any port if that is taken.
fn free_address(once: bool) -> SocketAddr {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    if !once && UdpSocket::bind(usual).is_ok() {
        return usual;
    }
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Where a client on this machine reaches a listener.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) | IpAddr::V6(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    SocketAddr::new(ip, listening.port())
}

/// A response of the demo, and how long it took.
#[derive(Debug)]
struct Proof {
    status: u16,
    body: Vec<u8>,
    handshake: Duration,
    first_byte: Duration,
}

/// One request through everything: our client, QUIC, the proxy, the origin, and back.
fn prove(features: &Features, to: SocketAddr, leaf: &[u8]) -> Result<Proof, Stop> {
    let proof = ask(features, to, leaf, "/", PROOF_TIME)?;
    if proof.status != 200 || proof.body != page::index().as_bytes() {
        let seen = format!("status {} and {} bytes instead of the page", proof.status, proof.body.len());
        return Err(Failure::new(place(to), seen).into());
    }
    Ok(proof)
}

fn place(to: SocketAddr) -> String {
    format!("the demo's request to https://localhost:{}/", to.port())
}

fn ask(features: &Features, to: SocketAddr, leaf: &[u8], path: &str, limit: Duration) -> Result<Proof, Stop> {
    let authority = format!("localhost:{}", to.port());
    let request = ClientRequest::get(to, "localhost", &authority, path, Trust::Exactly(leaf));
    let mut body = Vec::new();
    let fetched = Fetcher::new(features)?.fetch(request, Limits { handshake: limit, whole: limit }, &mut |bytes| {
        body.extend_from_slice(bytes);
        Ok(())
    });
    match fetched.error {
        Some(error) => Err(Failure::new(place(to), error).into()),
        None => Ok(Proof {
            status: fetched.response.status,
            body,
            handshake: fetched.handshake.unwrap_or_default(),
            first_byte: fetched.first_byte.unwrap_or_default(),
        }),
    }
}

fn guide(address: SocketAddr, leaf: &[u8], addresses: &crate::control::sockets::Addresses, origin: SocketAddr) {
    print(format_args!("Spooky serves HTTP/3 on {address}, in front of its own origin on {origin}.\n"));
    print(format_args!("  page      https://{address}/"));
    print(format_args!("  curl      curl --http3-only -k https://{address}/"));
    print(format_args!("  probe     spooky probe -k https://{address}/"));
    let key = spki::hash(leaf).unwrap_or_default();
    print(format_args!(
        "  Chromium  chromium --user-data-dir=$(mktemp -d) --origin-to-force-quic-on={address} \\\n            \
         --ignore-certificate-errors-spki-list={key} https://{address}/"
    ));
    if let Some(metrics) = addresses.metrics {
        print(format_args!("  metrics   http://{metrics}/metrics"));
    }
    if let Some(control) = addresses.control {
        print(format_args!("  ready     http://{control}/ready"));
    }
    print("\nTo try:");
    for (path, text) in page::PAGES {
        print(format_args!("  {path:28} {text}"));
    }
    print("");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_good() {
        let text = CONFIG.replace("ORIGIN", "127.0.0.1:1");
        let (generation, warnings) = config::from_str("demo", &text).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(generation.listeners.len(), 1);
        assert!(warnings.is_empty(), "{warnings}");
    }

    #[test]
    fn an_unspecified_address_is_reached_by_loopback() {
        let at = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:5"), "127.0.0.1:5");
        assert_eq!(at("[::]:5"), "127.0.0.1:5");
        assert_eq!(at("[::1]:5"), "[::1]:5");
    }
}
