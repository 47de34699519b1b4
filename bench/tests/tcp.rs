//! The generator over TCP, with the origin at the other end: HTTP/2 and HTTP/1.1, with TLS and without.

mod support;

use serde_json::Value;
use support::{Certificate, Tool, assert_all_succeed, faults, text};

/// An origin, and how it is asked.
struct Origin {
    tool: Tool,
    scheme: &'static str,
    protocol: &'static str,
    certificate: Option<Certificate>,
}

impl Origin {
    /// All four: each protocol with TLS and without.
    fn all(name: &str) -> impl Iterator<Item = Self> {
        [("h2", true), ("h2", false), ("h1", true), ("h1", false)].into_iter().map(move |(protocol, secure)| {
            let certificate = secure.then(|| Certificate::new(&format!("{name}-{protocol}")));
            let tool = match &certificate {
                Some(files) => Tool::start(&["origin", "--cert", text(&files.cert()), "--key", text(&files.key())]),
                None => Tool::start(&["origin"]),
            };
            Self { tool, scheme: if secure { "https" } else { "http" }, protocol, certificate }
        })
    }

    fn load(&self, path: &str, arguments: &[&str]) -> Value {
        let url = format!("{}://bench.test{path}", self.scheme);
        let ours = ["--protocol", self.protocol, "--insecure"];
        let report = support::load(&self.tool.address, &url, &[&ours, arguments].concat());
        assert_eq!(report["protocol"].as_str(), Some(self.protocol));
        report
    }

    /// So many requests at once, where the protocol can: on each connection, or on so many connections.
    fn at_once(&self, count: &'static str) -> [&'static str; 2] {
        [if self.protocol == "h2" { "-m" } else { "-c" }, count]
    }

    fn name(&self) -> String {
        format!("{} over {}", self.protocol, self.scheme)
    }
}

#[test]
fn bodies_of_any_size_arrive_whole_both_ways() {
    for origin in Origin::all("tcp-sizes") {
        let many = origin.at_once("3");
        // Around one frame and record of 16 KiB, around the windows that HTTP/2 begins with, and beyond every buffer.
        for size in ["0", "1", "16384", "65535", "65536", "1048577", "5000000"] {
            let down = [&["-n", "6", "--expect-bytes", size], &many[..]].concat();
            let report = origin.load(&format!("/bytes/{size}"), &down);
            assert_all_succeed(&report, 6);
            assert_eq!(
                report["bytes_down"].as_u64(),
                size.parse::<u64>().ok().map(|bytes| 6 * bytes),
                "{}",
                origin.name()
            );
            assert_all_succeed(&origin.load(&format!("/chunked/{size}"), &down), 6);
            let answer = size.len().to_string();
            let up = [&["-n", "6", "--body", size, "--expect-bytes", &answer], &many[..]].concat();
            assert_all_succeed(&origin.load("/upload", &up), 6);
        }
    }
}

#[test]
fn bad_ends_are_told_as_what_they_are() {
    for origin in Origin::all("tcp-ends") {
        let fault = |path: &str, arguments: &[&str]| {
            let report = origin.load(path, &[&["-n", "2"], arguments].concat());
            assert_eq!(report["succeeded"].as_u64(), Some(0), "{}: {path}: {report:#}", origin.name());
            faults(&report)
        };
        assert_eq!(fault("/short/1000000", &[]), ["connection_lost"], "{}", origin.name());
        // A stream can be reset alone over HTTP/2 only.
        let reset = if origin.protocol == "h2" { "reset" } else { "connection_lost" };
        assert_eq!(fault("/reset/1000000", &[]), [reset], "{}", origin.name());
        assert_eq!(fault("/status/503", &[]), ["status"]);
        assert_eq!(fault("/bytes/10", &["--expect-bytes", "11"]), ["length"]);
        assert_eq!(fault("/sink", &["--body", "1MiB", "--timeout", "500ms"]), ["request_timeout"]);
        let early = ["-n", "2", "--body", "50MiB", "--expect-status", "413", "--expect-bytes", "9"];
        assert_all_succeed(&origin.load("/early", &early), 2);
    }
}

#[test]
fn a_server_that_is_not_what_was_asked_for_is_no_success() {
    // Nobody there, nobody who speaks TLS, and a certificate that nobody vouches for.
    let [tls, clear]: [Origin; 2] = Origin::all("tcp-refused")
        .filter(|origin| origin.protocol == "h2")
        .collect::<Vec<_>>()
        .try_into()
        .ok()
        .unwrap();
    let gone = Tool::start(&["origin"]).address.clone();
    let brief = ["--protocol", "h2", "-d", "300ms"];
    let failed = |address: &str, url: &str, more: &[&str]| {
        let report = support::load(address, url, &[&brief, more].concat());
        assert_eq!(report["succeeded"].as_u64(), Some(0), "{report:#}");
        assert_eq!(faults(&report), ["handshake_failed"], "{report:#}");
    };
    failed(&gone, "http://bench.test/bytes/1", &[]);
    failed(&clear.tool.address, "https://bench.test/bytes/1", &["--insecure"]);
    let certificate = tls.certificate.as_ref().unwrap();
    let other = Certificate::new("tcp-other");
    failed(&tls.tool.address, "https://bench.test/bytes/1", &["--ca", text(&other.cert())]);
    failed(&tls.tool.address, "https://other.test/bytes/1", &["--ca", text(&certificate.cert())]);
    let trust = certificate.cert();
    let trusted = ["--protocol", "h2", "-n", "1", "--ca", text(&trust)];
    assert_all_succeed(&support::load(&tls.tool.address, "https://bench.test/bytes/1", &trusted), 1);
}

#[test]
fn churn_idle_crowd_and_open_loop_come_to_their_ends() {
    for origin in Origin::all("tcp-paces") {
        let name = origin.name();
        let churn = origin.load("/bytes/100", &["-c", "4", "-n", "40", "--per-connection", "1"]);
        assert_all_succeed(&churn, 40);
        assert!(churn["connections"].as_u64() >= Some(40), "{name}: {churn:#}");
        assert_eq!(churn["resumed"].as_u64(), Some(0), "{name}: nobody asked for it");
        if origin.scheme == "https" {
            let churn = origin.load("/bytes/100", &["-c", "1", "-n", "10", "--per-connection", "1", "--resume"]);
            assert_all_succeed(&churn, 10);
            assert!(churn["resumed"].as_u64() >= Some(8), "{name}: {churn:#}");
        }
        let idle = origin.load("/bytes/100", &["-c", "20", "--connect-rate", "1000", "--idle", "100ms"]);
        assert_all_succeed(&idle, 40);
        assert_eq!(idle["idle"]["succeeded_after"].as_u64(), Some(20), "{name}");
        let open = origin.load("/bytes/100", &["-c", "4", "--rate", "200", "-n", "50"]);
        assert_all_succeed(&open, 50);
    }
}

#[test]
fn a_slow_reader_takes_what_it_may_and_no_more() {
    for origin in Origin::all("tcp-slow") {
        let slow = origin.load("/bytes/20480", &["-n", "1", "--read-rate", "40", "--expect-bytes", "20480"]);
        assert_all_succeed(&slow, 1);
        // Half a second's worth, of which none is there at the beginning; a machine that is busy makes it longer only.
        assert!(slow["latency_ms"]["max"].as_f64() > Some(400.0), "{}: {slow:#}", origin.name());
    }
}

#[test]
fn slow_answers_of_one_connection_do_not_wait_for_each_other() {
    let origin = Tool::start(&["origin"]);
    let arguments = ["--protocol", "h2", "-m", "20", "-n", "20"];
    // One after another they would take twice as long as each may.
    let waits = support::load(
        &origin.address,
        "http://bench.test/wait/1000",
        &[&arguments[..], &["--timeout", "10s"]].concat(),
    );
    assert_all_succeed(&waits, 20);
    assert_eq!(waits["connections"].as_u64(), Some(1));
    let drops = support::load(
        &origin.address,
        "http://bench.test/dribble/20/5",
        &[&arguments[..], &["--expect-bytes", "20"]].concat(),
    );
    assert_all_succeed(&drops, 20);
}

#[test]
fn an_attacker_sends_frames_and_crowds_that_no_library_would_and_hears_their_ends() {
    let of = |protocol: &str| {
        Origin::all("tcp-floods").find(|origin| origin.protocol == protocol && origin.scheme == "https")
    };
    let (http2, http1) = (of("h2").unwrap(), of("h1").unwrap());
    // The origin is made of the proxy's own machine, which keeps the ledger: ENHANCE_YOUR_CALM.
    for kind in ["h2-resets", "h2-pings", "h2-continuations", "h2-empty-data"] {
        let report = support::flood(&http2.tool.address, kind, "/bytes/1");
        assert!(report["frames"].as_u64() > Some(100), "{kind}: {report:#}");
        assert!(report["ends"]["GOAWAY 0xb"].as_u64() > Some(0), "{kind}: {report:#}");
    }
    let shut = support::flood(&http2.tool.address, "h2-zero-windows", "/bytes/1000000");
    assert_eq!(shut["ends"]["still open"].as_u64(), Some(5), "{shut:#}");
    for kind in ["tls-hellos", "slow-heads", "slow-bodies", "slow-reads"] {
        let report = support::flood(&http1.tool.address, kind, "/bytes/100000000");
        assert_eq!(report["ends"]["still open"].as_u64(), Some(5), "{kind}: {report:#}");
    }
    let churn = support::flood(&http1.tool.address, "handshakes", "/");
    assert!(churn["connections"].as_u64() > Some(5), "{churn:#}");
    // Nobody was broken by it.
    assert_all_succeed(&http2.load("/bytes/1000", &["-n", "4"]), 4);
    assert_all_succeed(&http1.load("/bytes/1000", &["-n", "4"]), 4);
}
