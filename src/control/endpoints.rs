//! The table of what the metrics and control addresses serve. Help, the 405 answers and the tests come from the rows.
//!
//! How to add an endpoint: a function here, a row in [`ENDPOINTS`].

use super::lifecycle::Phase;
use crate::http::{Known, Method};
use crate::telemetry::json::Object;
use crate::telemetry::registry::Sources;
use crate::telemetry::text;
use crate::worker::host::{Answer, NoSource};
use std::time::Instant;

/// Which address serves an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `[observability] control_api`.
    Control,
    /// `[observability] metrics`.
    Metrics,
}

/// One row.
#[derive(Debug)]
pub struct Endpoint {
    /// Where.
    pub place: Place,
    /// The method; HEAD goes with GET.
    pub method: Method,
    /// The path; the configuration may move that of the metrics.
    pub path: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Makes the answer.
    pub answer: fn(&mut Facts) -> Answer<NoSource>,
}

/// What answers are made from.
#[derive(Debug)]
pub struct Facts {
    /// Everything that is counted.
    pub sources: Sources,
    /// Where the process stands.
    pub phase: Phase,
    /// Names of backends that have no address.
    pub names_unresolved: u64,
    /// Backends that are unhealthy or ejected.
    pub backends_out: u64,
    /// When it started.
    pub started: Instant,
    /// The configured path of the metrics.
    pub metrics_path: Box<str>,
    /// The last page of metrics, for its size.
    page_bytes: usize,
}

impl Facts {
    /// Facts of a process that starts.
    pub fn new(sources: Sources, metrics_path: Box<str>, started: Instant) -> Self {
        Self {
            sources,
            phase: Phase::Starting,
            names_unresolved: 0,
            backends_out: 0,
            started,
            metrics_path,
            page_bytes: 16 * 1024,
        }
    }
}

/// Every endpoint there is.
pub static ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        place: Place::Control,
        method: Method::Get,
        path: "/",
        help: "What is served here.",
        answer: |facts| index(Place::Control, facts),
    },
    Endpoint {
        place: Place::Control,
        method: Method::Get,
        path: "/health",
        help: "200 while the process runs.",
        answer: health,
    },
    Endpoint {
        place: Place::Control,
        method: Method::Get,
        path: "/ready",
        help: "200 while new work is taken; 503 while starting and draining.",
        answer: ready,
    },
    Endpoint {
        place: Place::Metrics,
        method: Method::Get,
        path: "/",
        help: "What is served here.",
        answer: |facts| index(Place::Metrics, facts),
    },
    Endpoint {
        place: Place::Metrics,
        method: Method::Get,
        path: METRICS_PATH,
        help: "All metrics as Prometheus text.",
        answer: metrics,
    },
];

/// The metrics' path unless configured otherwise.
pub const METRICS_PATH: &str = "/metrics";

impl Endpoint {
    /// The path as configured.
    pub fn path<'a>(&self, facts: &'a Facts) -> &'a str {
        if self.path == METRICS_PATH && self.place == Place::Metrics {
            return &facts.metrics_path;
        }
        self.path
    }
}

/// A problem as RFC 9457 has it.
pub fn problem(status: u16, detail: &str) -> Answer<NoSource> {
    let mut body = Vec::new();
    let mut object = Object::open(&mut body);
    object
        .string("title", crate::http::head::phrase(status).as_bytes())
        .number("status", u64::from(status))
        .string("detail", detail.as_bytes());
    object.close();
    body.push(b'\n');
    Answer::whole(status, "application/problem+json", body).with(Known::CacheControl, b"no-store")
}

fn json(status: u16, write: impl FnOnce(&mut Object<'_>)) -> Answer<NoSource> {
    let mut body = Vec::new();
    let mut object = Object::open(&mut body);
    write(&mut object);
    object.close();
    body.push(b'\n');
    Answer::whole(status, "application/json", body).with(Known::CacheControl, b"no-store")
}

fn index(place: Place, facts: &mut Facts) -> Answer<NoSource> {
    let mut lines = String::from("spooky\n\n");
    for endpoint in ENDPOINTS.iter().filter(|e| e.place == place) {
        let (method, path) = (endpoint.method.as_str(), endpoint.path(facts));
        lines.push_str(&format!("{method:4} {path:12} {}\n", endpoint.help));
    }
    Answer::whole(200, "text/plain; charset=utf-8", lines.into_bytes())
}

fn health(facts: &mut Facts) -> Answer<NoSource> {
    let uptime = facts.started.elapsed().as_secs();
    json(200, |object| {
        object
            .string("status", b"ok")
            .string("version", facts.sources.build.version.as_bytes())
            .number("uptime_seconds", uptime);
    })
}

fn ready(facts: &mut Facts) -> Answer<NoSource> {
    let ready = facts.phase == Phase::Ready;
    let answer = json(if ready { 200 } else { 503 }, |object| {
        object
            .string("status", facts.phase.word().as_bytes())
            .number("generation", facts.sources.config.generation)
            .number("workers", facts.sources.workers.len() as u64)
            .number("names_unresolved", facts.names_unresolved)
            .number("backends_out", facts.backends_out);
    });
    if ready { answer } else { answer.with(Known::RetryAfter, b"1") }
}

fn metrics(facts: &mut Facts) -> Answer<NoSource> {
    facts.sources.ready = facts.phase == Phase::Ready;
    facts.sources.uptime = facts.started.elapsed();
    facts.sources.ask_kernel();
    let mut page = Vec::with_capacity(facts.page_bytes + facts.page_bytes / 8);
    facts.sources.render(&mut page);
    facts.page_bytes = page.len();
    Answer::whole(200, text::CONTENT_TYPE, page).with(Known::CacheControl, b"no-store")
}
