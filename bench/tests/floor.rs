//! The generator, the floor, the relay and the origin together: bodies of any size arrive whole, on clean and on bad
//! networks, and every bad end is told as one.

mod support;

use serde_json::Value;
use support::{Certificate, Tool, assert_all_succeed, faults, text};

/// An origin with the floor before it.
struct Setup {
    _origin: Tool,
    floor: Tool,
    _certificate: Certificate,
}

impl Setup {
    fn new(name: &str) -> Self {
        let certificate = Certificate::new(name);
        let origin = Tool::start(&["origin"]);
        let at = format!("http://{}", origin.address);
        let (cert, key) = (certificate.cert(), certificate.key());
        let files = ["--cert", text(&cert), "--key", text(&key)];
        let floor = Tool::start(&[&["floor", "--listen", "127.0.0.1:0", "--origin", &at], &files[..]].concat());
        Self { _origin: origin, floor, _certificate: certificate }
    }

    fn load(&self, path: &str, arguments: &[&str]) -> Value {
        get(&self.floor.address, path, arguments)
    }
}

fn get(address: &str, path: &str, arguments: &[&str]) -> Value {
    support::load(address, &format!("https://bench.test{path}"), &[&["--insecure"], arguments].concat())
}

#[test]
fn bodies_of_any_size_arrive_whole_both_ways() {
    let setup = Setup::new("sizes");
    // Around one and several packets, around the initial window of ten packets, and far beyond every buffer.
    for size in ["0", "1", "1350", "13000", "14000", "65536", "1048577", "20000000"] {
        let report = setup.load(&format!("/bytes/{size}"), &["-n", "4", "-m", "2", "--expect-bytes", size]);
        assert_all_succeed(&report, 4);
        let report = setup.load(&format!("/chunked/{size}"), &["-n", "4", "-m", "2", "--expect-bytes", size]);
        assert_all_succeed(&report, 4);
        let answer = size.len().to_string();
        let report = setup.load("/upload", &["-n", "4", "-m", "2", "--body", size, "--expect-bytes", &answer]);
        assert_all_succeed(&report, 4);
    }
}

#[test]
fn ten_mebibytes_survive_a_bad_network_both_ways() {
    let setup = Setup::new("loss");
    for loss in ["1", "5"] {
        let relay = Tool::start(&[
            "relay",
            "--to",
            &setup.floor.address,
            "--loss",
            loss,
            "--reorder",
            "1",
            "--duplicate",
            "0.5",
            "--seed",
            "11",
        ]);
        let down = get(&relay.address, "/bytes/10485760", &["-n", "1", "--expect-bytes", "10MiB"]);
        assert_all_succeed(&down, 1);
        let up = get(&relay.address, "/upload", &["-n", "1", "--body", "10MiB", "--expect-bytes", "8"]);
        assert_all_succeed(&up, 1);
        assert!(up["packets_lost"].as_u64() > Some(0), "the relay loses packets: {up:#}");
    }
}

#[test]
fn bad_ends_are_told_as_what_they_are() {
    let setup = Setup::new("ends");
    let fault = |path: &str, arguments: &[&str]| {
        let report = setup.load(path, &[&["-n", "2"], arguments].concat());
        assert_eq!(report["succeeded"].as_u64(), Some(0), "{path}: {report:#}");
        faults(&report)
    };
    for path in ["/short/1000000", "/reset/1000000"] {
        // A reset, or 502 where the end came before the head was on its way.
        let seen = fault(path, &[]);
        assert!(seen.iter().all(|name| name == "reset" || name == "status"), "{path}: {seen:?}");
    }
    assert_eq!(fault("/status/503", &[]), ["status"]);
    assert_eq!(fault("/bytes/10", &["--expect-bytes", "11"]), ["length"]);
    assert_eq!(fault("/sink", &["--body", "1MiB", "--timeout", "500ms"]), ["request_timeout"]);
    let early = setup.load("/early", &["-n", "2", "--body", "50MiB", "--expect-status", "413", "--expect-bytes", "9"]);
    assert_all_succeed(&early, 2);
}

#[test]
fn churn_idle_crowd_and_open_loop_come_to_their_ends() {
    let setup = Setup::new("paces");
    let churn = setup.load("/bytes/100", &["-c", "4", "-n", "40", "--per-connection", "1"]);
    assert_all_succeed(&churn, 40);
    assert!(churn["connections"].as_u64() >= Some(40), "{churn:#}");
    let idle = setup.load("/bytes/100", &["-c", "20", "--connect-rate", "1000", "--idle", "100ms"]);
    assert_all_succeed(&idle, 40);
    assert_eq!(idle["idle"]["succeeded_after"].as_u64(), Some(20));
    let open = setup.load("/bytes/100", &["-c", "2", "-m", "4", "--rate", "200", "-n", "50", "--sockets", "1"]);
    assert_all_succeed(&open, 50);
}

#[test]
fn an_attacker_sends_what_no_library_would_and_hears_its_end() {
    let setup = Setup::new("flood");
    // The floor has no ledger: what ends here is what quiche ends.
    for (kind, path, end) in [
        ("resets", "/bytes/1", "still open"),
        ("pings", "/bytes/1", "still open"),
        ("path-challenges", "/bytes/1", "still open"),
        ("optimistic-acks", "/bytes/100000000", "0xa"),
        ("new-connection-ids", "/bytes/1", "0x9"),
    ] {
        let report = support::flood(&setup.floor.address, kind, path);
        assert!(report["packets"].as_u64() > Some(5), "{kind}: {report:#}");
        assert!(report["ends"][end].as_u64() > Some(0), "{kind}: {report:#}");
    }
    // Authentic packets: the server heard every head, and the next client is served.
    assert_all_succeed(&setup.load("/bytes/1000", &["-n", "4"]), 4);
}
