//! How things are said: in the operator's words, those of the configuration. No value of a field is ever said, and none that a
//! matcher wants: both may be secrets.

use super::report::Changes;
use crate::admit::{CountBy, LimitId, Networks};
use crate::cli::terminal::printable;
use crate::config::{Generation, Notes};
use crate::exchange::Plan;
use crate::http::{Edits, FieldName, Fields, RequestHead};
use crate::limits::AddressRules;
use crate::route::{Matcher, PathPattern, Request, RouteId, RouteSpec, Rule, Source, Test, WhyNot};
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Text that came from outside, in quotes and with everything escaped that a terminal acts on.
pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", printable(text))
}

/// The name of a field.
pub(super) fn field_name(name: &FieldName<'_>) -> String {
    printable(&String::from_utf8_lossy(name.name))
}

/// A time as it is written.
pub(super) fn duration(time: Duration) -> String {
    if time.subsec_millis() == 0 { format!("{}s", time.as_secs()) } else { format!("{}ms", time.as_millis()) }
}

/// Which network of some lists decides about an address.
pub(super) fn networks(notes: &Notes, rules: &Arc<AddressRules>, address: IpAddr) -> String {
    let (decided, at) = match notes.lists(rules) {
        Some((lists, at)) => (lists.deciding(address), at),
        None => (None, None),
    };
    let at = at.map_or_else(String::new, |at| format!(" ({at})"));
    match (decided, rules.admits(address)) {
        (Some((network, true)), _) => format!("{address} is in {network}, which is allowed{at}"),
        (Some((network, false)), _) => format!("{address} is in {network}, which is denied{at}"),
        (None, true) => format!("{address} is in no network of `deny`{at}"),
        (None, false) => format!("{address} is in no network of `allow`{at}"),
    }
}

/// A rate limit, and what a request is counted by.
pub(super) fn rate_limit(
    generation: &Generation,
    notes: &Notes,
    id: LimitId,
    fields: &Fields,
    client: IpAddr,
) -> String {
    let limit = &generation.rate_limits[usize::from(id.0)];
    let at = notes.rate_limit(id).map_or_else(String::new, |at| format!(" ({at})"));
    let by = match (&limit.by, limit.by.value(fields)) {
        (CountBy::Route, _) => "all requests of the route together".to_owned(),
        (by, Some(_)) => format!("by the request's {by}"),
        (CountBy::Client, None) => format!("by {}", network(limit.networks, client)),
        (by, None) => format!("by {}, because the request has no {by}", network(limit.networks, client)),
    };
    let dry = if limit.dry_run { ", a dry run that refuses nothing" } else { "" };
    format!("`{}`{at}, {}, counts {by}{dry}", limit.name, limit.policy)
}

/// How much of an address is one client.
fn network(networks: Networks, client: IpAddr) -> String {
    let bits = if client.is_ipv4() { networks.v4 } else { networks.v6 };
    match ipnet::IpNet::new(client, bits) {
        Ok(network) => format!("the client's address, {}", network.trunc()),
        Err(_) => "the client's address".to_owned(),
    }
}

/// The route that was found.
pub(super) fn route(generation: &Generation, notes: &Notes, id: RouteId) -> String {
    let at = notes.route(id).map_or_else(String::new, |at| format!(" ({at})"));
    format!("route `{}`{at} takes the request", generation.route(id).name)
}

/// What is said of the length of a request's body.
pub(super) fn body_size(generation: &Generation, head: &RequestHead, plan: Option<Plan>) -> String {
    let most = plan.map(|plan| generation.way(plan.way).limits.max_request_body_bytes);
    match (head.content_length, most) {
        (_, Some(None)) => "the body may have any length".to_owned(),
        (None, Some(Some(most))) => format!("at most {most} bytes, counted while they come"),
        (Some(length), Some(Some(most))) => format!("{length} bytes of at most {most}"),
        (Some(length), None) => format!("{length} bytes are more than max_request_body_bytes"),
        (None, None) => String::new(),
    }
}

/// Names that a route changes.
pub(super) fn edits(edits: &Edits) -> Changes {
    let names = |names: Vec<FieldName<'_>>| {
        let mut names: Vec<String> = names.iter().map(field_name).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let (dropped, pushed) = (names(edits.dropped().collect()), names(edits.pushed().collect()));
    let (changed, removed) = dropped.into_iter().partition(|name| pushed.contains(name));
    let changed: Vec<String> = changed;
    let added = pushed.into_iter().filter(|name| !changed.contains(name)).collect();
    Changes { removed, changed, added }
}

/// Why a route was not taken: the word for it, and a sentence.
pub(super) fn why_not(
    generation: &Generation,
    spec: &RouteSpec,
    why_not: Option<WhyNot>,
    request: &Request<'_>,
) -> (Option<&'static str>, String) {
    let Some(why_not) = why_not else {
        return (None, "taken".to_owned());
    };
    let asked = match request.path {
        Some(path) => quoted(path),
        None => "no path".to_owned(),
    };
    let (word, detail) = match why_not {
        WhyNot::Host => ("host", format!("it is for {}, the request for {}", list(&spec.hosts), quoted(request.host))),
        WhyNot::Path => ("path", format!("it takes {}, the request has {asked}", path(&spec.path))),
        WhyNot::Method => {
            let methods: Vec<&str> = spec.methods.iter().map(|method| method.as_str()).collect();
            ("method", format!("it takes {}, not {}", list(&methods), printable(request.method.as_str())))
        }
        WhyNot::Matcher { at, there } => match spec.matchers.get(at) {
            Some(matcher) => (matcher.subject.source().as_str(), unmet(matcher, there, request)),
            None => (Source::Header.as_str(), String::new()),
        },
        WhyNot::After { first, by } => ("less_specific", after(generation, first, by)),
    };
    (Some(word), detail)
}

fn path(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Prefix(path) => format!("paths under `{path}`"),
        PathPattern::Exact(path) => format!("the path `{path}` alone"),
        PathPattern::Pathless => "the target `*` alone".to_owned(),
    }
}

fn unmet(matcher: &Matcher, there: bool, request: &Request<'_>) -> String {
    let subject = &matcher.subject;
    let wanted = match &matcher.test {
        Test::Exact(values) if values.len() == 1 => "the value it wants",
        Test::Exact(_) => "one of the values it wants",
        Test::Regex(_) => "a value that its pattern matches",
        Test::Present => "any value",
    };
    match (there, subject.is_guarded() && !request.trusted) {
        (true, _) => format!("the request has another value of {subject} than {wanted}"),
        (false, true) => format!("it wants {wanted} of {subject}, which only a trusted proxy may say"),
        (false, false) => format!("it wants {wanted} of {subject}, and the request has none"),
    }
}

fn after(generation: &Generation, first: Option<RouteId>, by: Rule) -> String {
    let first = first.map(|first| format!("`{}`", generation.route(first).name));
    match (by, first) {
        (Rule::Host, Some(first)) => format!("it fits, but {first} has a more specific host"),
        (Rule::Host, None) => {
            "it fits, but routes of a more specific host take the path, with other methods".to_owned()
        }
        (Rule::NoFallback, _) => "it fits, but a more specific host has routes, and host_fallback is off".to_owned(),
        (Rule::Path, Some(first)) => format!("it fits, but {first} has a longer or exact path"),
        (Rule::Method, Some(first)) => format!("it fits, but {first} names the method"),
        (Rule::Matchers, Some(first)) => format!("it fits, but {first} has more matchers, or more telling ones"),
        // Only a more specific host ends the search without a route.
        (_, None) => "it fits".to_owned(),
    }
}

/// One or several of something.
fn list(items: &[impl Display]) -> String {
    match items {
        [] => "any".to_owned(),
        items => items.iter().map(|item| format!("`{item}`")).collect::<Vec<_>>().join(" or "),
    }
}
