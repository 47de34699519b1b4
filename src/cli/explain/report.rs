//! What is told of one request. The names of the JSON members are an interface: docs/OPERATING.md lists them.

use serde::Serialize;
use std::net::IpAddr;

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub request: Asked,
    pub listener: Listener,
    pub decision: Decision,
    /// What is judged, in the order in which it is.
    pub checks: Vec<Check>,
    /// Every route, in the order of the file; empty if none was looked for.
    pub considered: Vec<Considered>,
    /// The ways that the request can take from its route.
    pub ways: Vec<Way>,
    /// Changes to the fields of the response.
    pub response_fields: Changes,
}

/// The request, as it was understood.
#[derive(Debug, Serialize)]
pub(super) struct Asked {
    pub protocol: &'static str,
    pub method: String,
    pub scheme: &'static str,
    pub authority: String,
    pub target: String,
    /// What routes compare; `null`: the request was refused before.
    pub host: Option<String>,
    /// What routes and policies look at; `null` also for a target without a path.
    pub match_path: Option<String>,
    /// What it asks to become a tunnel of: `websocket`.
    pub tunnel: Option<&'static str>,
    /// The other side of the connection.
    pub peer: IpAddr,
    /// Whether it is one of the trusted proxies.
    pub trusted: bool,
    /// Whom lists and rate limits judge.
    pub client: Option<IpAddr>,
}

/// Where the request comes in.
#[derive(Debug, Serialize)]
pub(super) struct Listener {
    pub name: String,
    pub address: String,
    /// What the connection was made for.
    pub server_name: String,
    /// The name in `certificates` whose certificate it gets; `null`: that of the listener, or none.
    pub certificate: Option<String>,
    /// The client is the one that a header of the PROXY protocol names, and connections from elsewhere are `serve`d or `refuse`d;
    /// `null`: there is no such header.
    pub proxy_protocol: Option<&'static str>,
}

/// What becomes of the request.
#[derive(Debug, Default, Serialize)]
pub(super) struct Decision {
    /// `forward`, `redirect`, `respond`, `refuse` or `answer_options`.
    pub action: &'static str,
    pub route: Option<String>,
    /// Where the route is written.
    pub at: Option<String>,
    /// `null` where nobody is asked, or chance decides.
    pub upstream: Option<String>,
    /// `null` where chance or what is in flight decides.
    pub backend: Option<String>,
    /// Of an answer of our own.
    pub status: Option<u16>,
    /// The word of the access log and the metrics.
    pub reason: Option<&'static str>,
    /// The value of Proxy-Status.
    pub proxy_status: Option<String>,
    /// HTTP/2 and HTTP/3 end the stream with an error in place of an answer.
    pub stream_error: bool,
    /// Of a redirect.
    pub location: Option<String>,
    /// Of 405.
    pub allow: Option<String>,
    /// In words.
    pub detail: String,
    /// Of the upstream, if that is certain.
    pub backend_scores: Vec<Score>,
}

/// One thing that is judged.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub check: &'static str,
    pub outcome: Outcome,
    pub detail: String,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The request goes on.
    Passed,
    /// It ends here.
    Refused,
    /// It ends here, with the answer that the listener has for everybody.
    Answered,
    /// It had ended before.
    NotReached,
    /// What is in flight or was counted decides, which a file does not tell.
    Depends,
}

impl Outcome {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Refused => "refused",
            Self::Answered => "answered",
            Self::NotReached => "not reached",
            Self::Depends => "depends",
        }
    }
}

/// One route.
#[derive(Debug, Serialize)]
pub(super) struct Considered {
    pub route: String,
    /// `file:line:column`.
    pub at: Option<String>,
    /// `null`: this one was taken. Else `host`, `path`, `method`, `header`, `query`, `cookie`: the first thing that does not
    /// fit; or `less_specific`: it fits, and another one comes first.
    pub why_not: Option<&'static str>,
    /// In words.
    pub detail: String,
}

/// One way that a route can send requests.
#[derive(Debug, Serialize)]
pub(super) struct Way {
    /// `null`: the route answers itself.
    pub upstream: Option<String>,
    /// Its part of the route's requests.
    pub share: f64,
    /// `null`: each request goes by its id.
    pub chosen: Option<bool>,
    /// What chooses it.
    pub by: String,
    /// The path that the upstream is asked for, with the query.
    pub forwarded_path: Option<String>,
    /// The host that the backend is asked for.
    pub host: Option<String>,
    pub balancing: Option<Balancing>,
    pub backend: Option<String>,
    pub backend_scores: Vec<Score>,
    /// Times and limits.
    pub settings: Vec<Setting>,
    /// What becomes of failures.
    pub policies: Vec<Policy>,
    /// Changes to the fields that go upstream.
    pub request_fields: Changes,
}

/// How a backend is picked.
#[derive(Debug, Serialize)]
pub(super) struct Balancing {
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Of `consistent-hash`.
    pub key: Option<String>,
    /// In words.
    pub detail: String,
}

/// One backend.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Score {
    pub backend: String,
    pub address: String,
    pub weight: u32,
    /// How it is probed; `null`: not at all.
    pub health_check: Option<String>,
    /// Its part of requests like this one, with every backend at rest: 1 or 0 where a hash decides.
    pub share: f64,
    /// Where a hash decides: 1 is who gets the request, 2 who gets it when that one is left out; only the first eight.
    pub rank: Option<u32>,
    pub picked: bool,
}

/// One time or limit.
#[derive(Debug, Serialize)]
pub(super) struct Setting {
    pub key: &'static str,
    pub value: String,
    /// `route`, `upstream`, `performance` or `default`.
    pub from: &'static str,
    pub at: Option<String>,
}

/// One policy.
#[derive(Debug, Serialize)]
pub(super) struct Policy {
    pub policy: &'static str,
    pub detail: String,
}

/// Names of fields.
#[derive(Debug, Default, Serialize)]
pub(super) struct Changes {
    pub removed: Vec<String>,
    pub changed: Vec<String>,
    pub added: Vec<String>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.changed.is_empty() && self.added.is_empty()
    }
}
