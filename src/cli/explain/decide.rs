//! The walk: one request through everything that is judged before it goes upstream, in the order of the request path.

use super::ask::{Ask, Protocol, usage};
use super::report::{Asked, Check, Considered, Decision, Listener, Outcome, Report};
use super::way::{self, ways};
use super::words;
use crate::admit::Rates;
use crate::balance::KeyedHash;
use crate::config::{self, Action, Cleartext, EncodedSlash, Generation, Notes, Security};
use crate::control::Failure;
use crate::exchange::admission;
use crate::exchange::plan::{Asker, Plan, Refused, Snapshot, plan};
use crate::http::forward::Onward;
use crate::http::peer::{Peer, client_address};
use crate::http::respond::{self, Answer, BodyForm};
use crate::http::{Known, PathPair, Reason, RequestHead, ResponseHead, Scheme, date};
use crate::identity::{Handshake, Sites};
use crate::route::{self, RouteId};
use std::sync::Arc;
use std::time::Instant;

/// What is known beside the request.
pub(super) struct World<'a> {
    pub generation: Arc<Generation>,
    pub notes: &'a Notes,
    /// By listener; `None`: it has no TLS.
    pub sites: &'a [Option<Sites>],
    /// Of keys that clients choose; or why it is not known.
    pub hash: Result<KeyedHash, String>,
}

/// Everything that is judged, in this order.
const CHECKS: [&str; 12] = [
    "listener_clients",
    "head",
    "https",
    "identity",
    "method",
    "encoded_slash",
    "denied_paths",
    "route",
    "body_size",
    "rewritten_path",
    "clients",
    "rate_limits",
];

/// What has been judged so far.
#[derive(Default)]
struct Walk {
    checks: Vec<Check>,
}

impl Walk {
    fn note(&mut self, check: &'static str, outcome: Outcome, detail: impl Into<String>) {
        debug_assert_eq!(CHECKS.get(self.checks.len()), Some(&check));
        self.checks.push(Check { check, outcome, detail: detail.into() });
    }

    fn pass(&mut self, check: &'static str, detail: impl Into<String>) {
        self.note(check, Outcome::Passed, detail);
    }

    /// All checks; what was not judged was not reached.
    fn finish(mut self) -> Vec<Check> {
        for check in &CHECKS[self.checks.len()..] {
            self.checks.push(Check { check, outcome: Outcome::NotReached, detail: String::new() });
        }
        self.checks
    }
}

/// A request that the gate let through, and who asks.
pub(super) struct Subject<'a> {
    pub head: RequestHead,
    pub peer: &'a Peer,
    pub trusted: bool,
}

/// Explains a request.
///
/// # Errors
/// If the command line asks for what no listener does.
pub(super) fn decide(
    world: &World<'_>,
    ask: &Ask,
    protocol: Option<Protocol>,
    listener: Option<&str>,
) -> Result<Report, Failure> {
    let generation = &*world.generation;
    let (at, protocol) = choose_listener(generation, ask, protocol, listener)?;
    let listener = &generation.listeners[at];
    let sites = world.sites.get(at).and_then(Option::as_ref);
    let (peer, trusted) = (Peer::new(Some(ask.peer)), generation.trusts(ask.peer));
    let mut report = Report {
        request: Asked {
            protocol: protocol.word(),
            method: ask.method.clone(),
            scheme: scheme_of(listener).as_str(),
            authority: ask.authority.clone(),
            target: ask.target.clone(),
            host: None,
            match_path: None,
            tunnel: None,
            peer: ask.peer,
            trusted,
            client: None,
        },
        listener: Listener {
            name: listener.name.to_string(),
            address: listener.address.to_string(),
            server_name: ask.server_name.clone(),
            certificate: sites
                .map(|sites| sites.find(&ask.server_name).standing().name())
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
            proxy_protocol: (listener.proxies.as_ref())
                .filter(|_| protocol != Protocol::H3)
                .map(|proxies| if proxies.only { "refuse" } else { "serve" }),
        },
        decision: Decision::default(),
        checks: Vec::new(),
        considered: Vec::new(),
        ways: Vec::new(),
        response_fields: super::report::Changes::default(),
    };
    let mut walk = Walk::default();
    walk_through(world, ask, (listener, sites), protocol, (&peer, trusted), &mut walk, &mut report);
    report.checks = walk.finish();
    Ok(report)
}

/// The listener that a request comes to, and what is spoken there.
fn choose_listener(
    generation: &Generation,
    ask: &Ask,
    protocol: Option<Protocol>,
    name: Option<&str>,
) -> Result<(usize, Protocol), Failure> {
    let spoken = |listener: &config::Listener| {
        let all = [
            (Protocol::H3, listener.protocols.h3),
            (Protocol::H2, listener.protocols.h2),
            (Protocol::H1, listener.protocols.h1),
        ];
        let mut all = all.into_iter().filter(|(one, spoken)| *spoken && protocol.is_none_or(|wanted| wanted == *one));
        all.next().map(|(one, _)| one).filter(|_| ask.scheme.is_none_or(|scheme| scheme == scheme_of(listener)))
    };
    let mut fitting = generation.listeners.iter().enumerate().filter_map(|(at, one)| Some((at, one, spoken(one)?)));
    if let Some(name) = name {
        let Some(known) = generation.listeners.iter().find(|listener| *listener.name == *name) else {
            let all: Vec<&str> = generation.listeners.iter().map(|listener| &*listener.name).collect();
            return Err(usage("--listener", &format!("there is no listener `{name}`; there is {}", all.join(", "))));
        };
        let found =
            fitting.find(|(_, listener, _)| listener.name == known.name).map(|(at, _, protocol)| (at, protocol));
        return found
            .ok_or_else(|| usage("--listener", &format!("`{name}` does not speak that: see its protocols and tls")));
    }
    let port = ask.port.or(ask.scheme.map(Scheme::default_port));
    let fitting: Vec<_> = fitting.collect();
    let found = fitting.iter().find(|(_, listener, _)| Some(listener.address.port()) == port).or(fitting.first());
    found.map(|&(at, _, protocol)| (at, protocol)).ok_or_else(|| {
        let what = protocol.map_or_else(String::new, |protocol| format!(" with --protocol {}", protocol.word()));
        usage("URL", &format!("no listener takes {}://{what}", ask.scheme.unwrap_or_default().as_str()))
    })
}

/// How connections to a listener are secured.
fn scheme_of(listener: &config::Listener) -> Scheme {
    if listener.tls().is_some() { Scheme::Https } else { Scheme::Http }
}

/// Goes as far as the request gets.
fn walk_through(
    world: &World<'_>,
    ask: &Ask,
    (listener, sites): (&config::Listener, Option<&Sites>),
    protocol: Protocol,
    (peer, trusted): (&Peer, bool),
    walk: &mut Walk,
    report: &mut Report,
) {
    let generation = &*world.generation;
    match &listener.clients {
        None => walk.pass("listener_clients", "everybody may connect"),
        Some(rules) => {
            let detail = words::networks(world.notes, rules, ask.peer);
            if !rules.admits(ask.peer) {
                walk.note("listener_clients", Outcome::Refused, detail);
                // There is no answer to a connection that is not made.
                let detail = "the connection is refused or closed before anything is asked".to_owned();
                let reason = Some(Reason::AddressDenied.token());
                report.decision = Decision { action: "refuse", reason, detail, ..Decision::default() };
                return;
            }
            walk.pass("listener_clients", detail);
        }
    }

    let limits = match protocol {
        Protocol::H1 => generation.protocol.head_limits_h1(),
        Protocol::H2 | Protocol::H3 => generation.protocol.head_limits(),
    };
    let original = match ask.head((protocol, scheme_of(listener)), &limits) {
        Ok(head) => head,
        Err(refusal) => {
            walk.note("head", Outcome::Refused, refusal.reason.description());
            report.decision = refuse(generation, refusal.reason.into());
            report.decision.stream_error = refusal.malformed && protocol != Protocol::H1;
            return;
        }
    };
    walk.pass("head", format!("at most {} fields and {} bytes", limits.fields, limits.bytes));
    let client = client_address(&original.fields, ask.peer, |address| generation.trusts(address));
    report.request.host = Some(original.host().to_owned());
    report.request.match_path = original.target.matched().map(str::to_owned);
    report.request.tunnel = original.protocol.map(|_| "websocket");
    report.request.client = Some(client);

    match listener.security {
        Security::Cleartext(Cleartext::Redirect { port }) => {
            let mut answer = ResponseHead::default();
            if respond::to_https(&original, port, &NO_DATE, &mut answer) {
                walk.note("https", Outcome::Answered, "this listener sends everything to https");
                report.decision = redirect(&answer);
            } else {
                walk.note("https", Outcome::Refused, Reason::Authority.description());
                report.decision = refuse(generation, Reason::Authority.into());
            }
            return;
        }
        Security::Cleartext(Cleartext::Serve) => walk.pass("https", "this listener serves requests without TLS"),
        Security::Tls(_) => walk.pass("https", "the connection has TLS"),
    }

    if let Some(sites) = sites {
        let made = Handshake { standing: Arc::clone(sites.find(&ask.server_name).standing()), ..Handshake::default() };
        let (asked, got) = (sites.find(original.host()).standing(), made.standing.name());
        let name = |name: &str| {
            if name.is_empty() { "the listener's own certificate".to_owned() } else { format!("`{name}`") }
        };
        if !made.serves(asked) {
            let detail = format!(
                "the connection was made for {}, which is served with {}; {} is served with {}",
                words::quoted(&ask.server_name),
                name(got),
                words::quoted(original.host()),
                name(asked.name())
            );
            walk.note("identity", Outcome::Refused, detail);
            report.decision = refuse(generation, Reason::Misdirected.into());
            return;
        }
        walk.pass("identity", format!("served with {}", name(got)));
    } else {
        walk.pass("identity", "there is no certificate");
    }

    let snapshot = Snapshot::new(Arc::clone(&world.generation));
    let by_id = |byte| {
        let mut head = original.clone();
        let planned = plan(&snapshot, &mut head, &Asker { id: &[byte; 16], peer: ask.peer, trusted });
        planned.map(|plan| (plan, head))
    };
    // An id counts only where a split goes by it, and that is told as chance: a way that takes the body is followed.
    let planned = match by_id(0) {
        Err(refused) if refused.reason == Reason::BodyTooLarge => {
            (1..=u8::MAX).map(by_id).find(Result::is_ok).unwrap_or(Err(refused))
        }
        other => other,
    };
    let (planned, head) = match planned {
        Ok((plan, head)) => {
            let chance = way::upstream(generation, plan.route, (&original, client), trusted).is_none();
            judge_plan(generation, world.notes, &original, Ok((plan, &head, chance)), walk);
            (plan, head)
        }
        Err(refused) => {
            judge_plan(generation, world.notes, &original, Err(refused.reason), walk);
            // Before that nobody looked for a route.
            if walk.checks.iter().any(|judged| judged.check == "route") {
                report.considered = consider(world, &original, trusted);
            }
            report.decision = refuse(generation, refused);
            return;
        }
    };
    report.considered = consider(world, &original, trusted);
    take(world, planned, (original, head), (peer, trusted), client, walk, report);
}

/// What becomes of a request that has a route.
fn take(
    world: &World<'_>,
    planned: Plan,
    (original, head): (RequestHead, RequestHead),
    (peer, trusted): (&Peer, bool),
    client: std::net::IpAddr,
    walk: &mut Walk,
    report: &mut Report,
) {
    let generation = &*world.generation;
    let route = generation.route(planned.route);
    let found = |decision: Decision| Decision {
        route: Some(route.name.to_string()),
        at: world.notes.route(planned.route),
        ..decision
    };
    // Nothing was counted yet, so no rate limit is reached; the lists are as they are.
    let now = Instant::now();
    let rates = Rates::new(&generation.rate_limits, generation.routes.len(), now);
    let admitted = admission::admit(generation, &rates, planned, &head, (peer, trusted), now, |_, _| {});
    let clients = route.clients.as_ref();
    let detail =
        clients.map_or_else(|| "everybody may come".to_owned(), |rules| words::networks(world.notes, rules, client));
    if let Some(reason) = admitted.refused {
        walk.note("clients", Outcome::Refused, detail);
        let upstream = way::upstream(generation, planned.route, (&original, client), trusted);
        report.decision = found(Decision { upstream, ..refuse(generation, reason.into()) });
        return;
    }
    walk.pass("clients", detail);
    match &*route.rate_limits {
        [] => walk.pass("rate_limits", "no rate limit applies"),
        limits => {
            let told = limits.iter().map(|&id| words::rate_limit(generation, world.notes, id, &head.fields, client));
            walk.note("rate_limits", Outcome::Depends, told.collect::<Vec<_>>().join("; "));
        }
    }

    report.response_fields = words::edits(&route.response_fields);
    report.decision = found(match &route.action {
        Action::Redirect(redirection) => {
            let mut answer = ResponseHead::default();
            redirection.write(&head, &NO_DATE, &mut answer);
            redirect(&answer)
        }
        Action::Respond(response) => {
            let detail = format!("a fixed response with a body of {} bytes", response.body.len());
            Decision { action: "respond", status: Some(response.status), detail, ..Decision::default() }
        }
        Action::Forward { shares, .. } => {
            let subject = Subject { head, peer, trusted };
            let (ways, onward) = ways(world, planned, shares, (&original, client), &subject);
            report.ways = ways;
            let chosen = report.ways.iter().find(|way| way.chosen == Some(true));
            match onward {
                Onward::AnswerHere => {
                    let detail = "Max-Forwards is 0, so OPTIONS is answered here (RFC 9110 §7.6.2)".to_owned();
                    Decision { action: "answer_options", status: Some(204), detail, ..Decision::default() }
                }
                Onward::Forward => Decision {
                    action: "forward",
                    upstream: chosen.and_then(|way| way.upstream.clone()),
                    backend: chosen.and_then(|way| way.backend.clone()),
                    backend_scores: chosen.map_or_else(Vec::new, |way| way.backend_scores.clone()),
                    detail: match chosen {
                        Some(way) => way.by.clone(),
                        None => "one of several upstreams, by the id that the request gets".to_owned(),
                    },
                    ..Decision::default()
                },
            }
        }
    });
}

/// Dates are told by answers, and not by us.
const NO_DATE: [u8; date::LENGTH] = [b' '; date::LENGTH];

fn redirect(answer: &ResponseHead) -> Decision {
    let location = answer.fields.get(Known::Location).map(|value| String::from_utf8_lossy(value).into_owned());
    let detail = format!("the client is sent to {}", words::quoted(location.as_deref().unwrap_or_default()));
    Decision { action: "redirect", status: Some(answer.status), location, detail, ..Decision::default() }
}

/// The answer to a request that is refused, as a client gets it.
fn refuse(generation: &Generation, refused: Refused<'_>) -> Decision {
    let (reason, mut head) = (refused.reason, ResponseHead::default());
    let answer = Answer {
        reason,
        request_id: b"",
        form: BodyForm::Plain,
        allow: refused.allow.as_deref().map(str::as_bytes),
        retry_after: None,
        proxy_status: generation.observability.proxy_status,
        date: &NO_DATE,
    };
    answer.write(&mut head, &mut Vec::new());
    let field = |known| head.fields.get(known).map(|value| String::from_utf8_lossy(value).into_owned());
    Decision {
        action: "refuse",
        status: Some(reason.status()),
        reason: Some(reason.token()),
        proxy_status: field(Known::ProxyStatus),
        allow: field(Known::Allow),
        detail: reason.description().to_owned(),
        ..Decision::default()
    }
}

/// The steps of `plan`, up to the one that refused the request; with the head that it made of it if none did, and whether it is
/// chance which way that goes.
fn judge_plan(
    generation: &Generation,
    notes: &Notes,
    original: &RequestHead,
    planned: Result<(Plan, &RequestHead, bool), Reason>,
    walk: &mut Walk,
) {
    let path = original.target.path();
    let denied = |path: &PathPair| {
        let prefixes = &generation.protocol.denied_path_prefixes;
        prefixes.iter().find(|prefix| path.lies_under(std::slice::from_ref(*prefix)))
    };
    let denied_first = path.is_some_and(|path| denied(path).is_some());
    let steps: [(&'static str, &[Reason]); 6] = [
        ("method", &[Reason::MethodRefused]),
        ("encoded_slash", &[Reason::EncodedSlash]),
        ("denied_paths", if denied_first { &[Reason::PathDenied] } else { &[] }),
        ("route", &[Reason::NoRoute, Reason::MethodNotAllowed]),
        ("body_size", &[Reason::BodyTooLarge]),
        ("rewritten_path", &[Reason::PathDenied, Reason::Target]),
    ];
    for (check, reasons) in steps {
        let refused = planned.err().filter(|reason| reasons.contains(reason));
        let detail = match check {
            "method" => generation.protocol.allowed_methods.as_ref().map_or_else(
                || "every method that can be forwarded is allowed".to_owned(),
                |allowed| format!("allowed_methods are {}", allowed.allow),
            ),
            "encoded_slash" => match generation.routing.encoded_slash {
                EncodedSlash::Keep => "encoded slashes stay as they are".to_owned(),
                EncodedSlash::Refuse => "the path may have no encoded slash".to_owned(),
            },
            "denied_paths" => match path.and_then(denied) {
                Some(prefix) => format!("the path lies under the denied prefix {prefix}"),
                None if generation.protocol.denied_path_prefixes.is_empty() => "no path is denied".to_owned(),
                None => "the path lies under no denied prefix".to_owned(),
            },
            "route" => match planned {
                Ok((plan, ..)) => words::route(generation, notes, plan.route),
                Err(reason) if refused.is_some() => reason.description().to_owned(),
                Err(_) => "a route takes the request".to_owned(),
            },
            "body_size" => words::body_size(generation, original, planned.ok().map(|(plan, ..)| plan)),
            _ => match planned {
                Ok((_, head, _)) if head.target != original.target => {
                    format!("rewritten to {}", words::quoted(head.target.path().map_or("", PathPair::forwarded)))
                }
                Ok(_) => "the path is not rewritten".to_owned(),
                Err(reason) => format!("after the rewrite: {}", reason.description()),
            },
        };
        match refused {
            Some(_) => {
                walk.note(check, Outcome::Refused, detail);
                return;
            }
            None => match planned {
                Ok((plan, _, true)) if check == "body_size" && way::some_refuse(generation, plan.route, original) => {
                    walk.note(check, Outcome::Depends, "the body is too large for some of the route's upstreams");
                }
                _ => walk.pass(check, detail),
            },
        }
    }
}

/// Every route, and why it was not taken.
fn consider(world: &World<'_>, head: &RequestHead, trusted: bool) -> Vec<Considered> {
    let generation = &*world.generation;
    let request = route::Request {
        host: head.host(),
        path: head.target.matched(),
        method: &head.method,
        query: head.target.path().and_then(PathPair::query),
        fields: &head.fields,
        trusted,
    };
    let explained = route::explain(&world.notes.specs, generation.routing.host_fallback, &request);
    let routes = world.notes.specs.iter().zip(&explained.why_not).zip(0..);
    let told = routes.map(|((spec, why_not), at)| {
        let (why_not, detail) = words::why_not(generation, spec, *why_not, &request);
        Considered {
            route: generation.route(RouteId(at)).name.to_string(),
            at: world.notes.route(RouteId(at)),
            why_not,
            detail,
        }
    });
    told.collect()
}
