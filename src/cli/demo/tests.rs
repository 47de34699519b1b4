//! The whole program in one process: client, proxy, origin and control on real rings and sockets.

use super::*;
use crate::control::Running;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

struct Stage {
    running: Running,
    origin: Origin,
    leaf: Vec<u8>,
    folder: PathBuf,
}

impl Stage {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("spooky-demo-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let features = probe().unwrap();
        let origin = Origin::start(&features).unwrap();
        let identity = Identity::self_signed(&["localhost"]).unwrap();
        let leaf = identity.leaf().to_vec();
        let mut generation = generation(&origin.address.to_string());
        generation.observability.access_log =
            Some(config::LogTarget::File(folder.join("access.log").into_boxed_path()));
        let running =
            start(Start { generation, identity: Some(identity), log: None, features, started: Instant::now() })
                .unwrap_or_else(|failure| panic!("{failure}"));
        Self { running, origin, leaf, folder }
    }

    fn get(&self, path: &str) -> Proof {
        self.asker()(path)
    }

    /// Something that asks from any thread.
    fn asker(&self) -> impl Fn(&str) -> Proof + Send + 'static {
        let (to, leaf) = (self.running.addresses.public[0], self.leaf.clone());
        move |path| {
            let asked = ask(&probe().unwrap(), to, &leaf, path, Duration::from_secs(20));
            asked.unwrap_or_else(|stop| panic!("{path}: {stop:?}"))
        }
    }

    /// One request on the metrics or control address.
    fn plain(&self, at: Option<SocketAddr>, path: &str) -> String {
        let mut socket = TcpStream::connect(at.unwrap()).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Ends it; what the access log holds then.
    fn end(self) -> Vec<serde_json::Value> {
        self.running.end();
        self.running.wait().unwrap_or_else(|failure| panic!("{failure}"));
        self.origin.stop();
        let log = std::fs::read_to_string(self.folder.join("access.log")).unwrap();
        std::fs::remove_dir_all(&self.folder).unwrap();
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn generation(origin: &str) -> config::Generation {
    let (mut generation, _) = config::from_str("test", &CONFIG.replace("ORIGIN", origin)).unwrap();
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    generation.listeners[0].address = anywhere;
    generation.observability.control_api = Some(anywhere);
    if let Some(metrics) = &mut generation.observability.metrics {
        metrics.address = anywhere;
    }
    generation
}

#[test]
fn requests_go_through_and_are_counted_and_logged() {
    let stage = Stage::new("through");
    assert_eq!(stage.get("/").body, page::index().as_bytes());
    for len in [0usize, 1, 13_000, 14_000, 3_000_000] {
        let response = stage.get(&format!("/bytes/{len}"));
        assert_eq!(response.status, 200);
        assert_eq!(response.body.len(), len);
        assert!(response.body.iter().enumerate().all(|(i, b)| *b == (i % 251) as u8), "{len}");
    }
    assert_eq!(stage.get("/status/503").status, 503);
    assert_eq!(stage.get("/trailers").body, b"line 1 of 3\nline 2 of 3\nline 3 of 3\n");
    let seen = String::from_utf8(stage.get("/headers?a=b").body).unwrap();
    assert!(seen.starts_with("GET /headers?a=b HTTP/1.1\nhost: localhost:"), "{seen}");
    assert!(seen.contains("\nx-forwarded-proto: https\n"), "{seen}");

    let ready = stage.plain(stage.running.addresses.control, "/ready");
    assert!(ready.starts_with("HTTP/1.1 200 OK\r\n") && ready.contains("\"ready\""), "{ready}");
    let metrics = stage.plain(stage.running.addresses.metrics, "/metrics");
    for line in [
        "spooky_requests_total{worker=\"0\",status=\"200\"} 8",
        "spooky_requests_total{worker=\"0\",status=\"503\"} 1",
        "spooky_requests_active{worker=\"0\"} 0",
        "spooky_connections_opened_total{worker=\"0\",protocol=\"h3\"} 9",
        "spooky_ready 1",
    ] {
        assert!(metrics.contains(&format!("\n{line}\n")), "{line}\n{metrics}");
    }

    let lines = stage.end();
    assert_eq!(lines.len(), 9);
    assert_eq!(lines[4]["path"], "/bytes/14000");
    assert_eq!(lines[4]["response_bytes"], 14_000);
    assert_eq!(lines[6]["status"], 503);
    for line in &lines {
        assert_eq!((&line["upstream"], &line["backend"]), (&"demo".into(), &"origin".into()), "{line}");
        assert!(line["duration_us"].as_u64() >= line["first_byte_us"].as_u64(), "{line}");
    }
}

#[test]
fn a_drain_finishes_what_runs() {
    let stage = Stage::new("drain");
    let ask = stage.asker();
    let (began, begun) = std::sync::mpsc::channel();
    let client = std::thread::spawn(move || {
        ask("/");
        began.send(()).unwrap();
        ask("/slow?chunks=4&delay=100").body
    });
    begun.recv().unwrap();
    // Until the slow request is under way.
    while !stage.plain(stage.running.addresses.metrics, "/metrics").contains("requests_active{worker=\"0\"} 1") {
        std::thread::yield_now();
    }
    let control = stage.running.addresses.control;
    stage.running.end();
    let ready = stage.plain(control, "/ready");
    assert!(ready.starts_with("HTTP/1.1 503 ") || ready.contains("\"ready\""), "{ready}");
    assert_eq!(client.join().unwrap().len(), 4 * "line 1 of 4\n".len());
    let lines = stage.end();
    assert_eq!(lines.len(), 2);
    assert!(lines[1].get("reason").is_none(), "{}", lines[1]);
}

#[test]
fn a_taken_port_is_a_failure_that_names_it() {
    let stage = Stage::new("taken");
    let taken = stage.running.addresses.public[0];
    let mut generation = generation("127.0.0.1:1");
    generation.listeners[0].address = taken;
    let identity = Some(Identity::self_signed(&["localhost"]).unwrap());
    let again = start(Start { generation, identity, log: None, features: probe().unwrap(), started: Instant::now() });
    let Err(failure) = again else {
        panic!("two processes on one port");
    };
    assert!(failure.to_string().contains(&taken.to_string()), "{failure}");
    stage.end();
}

#[test]
fn another_certificate_is_not_taken() {
    let stage = Stage::new("other");
    let other = Identity::self_signed(&["localhost"]).unwrap().leaf().to_vec();
    let to = stage.running.addresses.public[0];
    let refused = ask(&probe().unwrap(), to, &other, "/", Duration::from_secs(20)).unwrap_err();
    assert!(refused.text.unwrap().contains("the server showed another certificate"));
    assert!(stage.end().is_empty(), "the request was not sent");
}
