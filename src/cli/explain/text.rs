//! A report as lines for people. What came from outside is escaped.

use super::report::{Changes, Outcome, Report, Score, Way};
use crate::cli::terminal::printable;
use std::fmt::Write;

/// Routes that are shown beside the one that was taken, those that came closest.
const ROUTES_SHOWN: usize = 20;

/// Writes the report.
pub(super) fn write(report: &Report) -> String {
    let mut out = String::new();
    let asked = &report.request;
    let whole = if asked.target.starts_with('/') {
        format!("{}://{}{}", asked.scheme, asked.authority, asked.target)
    } else {
        format!("{} {}", asked.target, asked.authority).trim().to_owned()
    };
    line(&mut out, "request", &format!("{} {whole} over {} from {}", asked.method, asked.protocol, asked.peer));
    if let Some(client) = asked.client.filter(|client| *client != asked.peer) {
        line(&mut out, "client", &format!("{client}, behind the trusted proxy {}", asked.peer));
    }
    if let Some(path) = &asked.match_path {
        line(&mut out, "match path", path);
    }
    let listener = &report.listener;
    let certificate = listener.certificate.as_ref().map_or_else(String::new, |name| format!(", certificate of {name}"));
    line(&mut out, "listener", &format!("{} ({}){certificate}", listener.name, listener.address));
    if listener.proxy_protocol.is_some() {
        line(&mut out, "", "behind its proxies the client is the one that their PROXY protocol names");
    }
    if let Some(protocol) = asked.tunnel {
        line(&mut out, "tunnel", protocol);
    }
    decision(&mut out, report);

    let _ = writeln!(out, "\nchecks");
    for check in &report.checks {
        let mark = if matches!(check.outcome, Outcome::Refused | Outcome::Answered) { "✗" } else { " " };
        let text = format!(" {mark} {:<17} {:<11} {}", check.check, check.outcome.word(), printable(&check.detail));
        let _ = writeln!(out, "{}", text.trim_end());
    }
    routes(&mut out, report);
    for way in &report.ways {
        self::way(&mut out, way, report.ways.len() > 1);
    }
    changes(&mut out, "fields of the response", &report.response_fields);
    out
}

fn line(out: &mut String, name: &str, text: &str) {
    let _ = writeln!(out, "{name:<12} {}", printable(text));
}

fn decision(out: &mut String, report: &Report) {
    let decision = &report.decision;
    let status = decision.status.map_or_else(String::new, |status| format!(" {status}"));
    let reason = decision.reason.map_or_else(String::new, |reason| format!(" {reason}"));
    line(out, "decision", &format!("{}{status}{reason}: {}", decision.action, decision.detail));
    if let Some(value) = &decision.proxy_status {
        line(out, "proxy-status", value);
    }
    if decision.stream_error {
        line(out, "", "the stream is reset in place of an answer");
    }
    if let Some(location) = &decision.location {
        line(out, "location", location);
    }
    if let Some(allow) = &decision.allow {
        line(out, "allow", allow);
    }
    if let Some(route) = &decision.route {
        let at = decision.at.as_ref().map_or_else(String::new, |at| format!(" ({at})"));
        line(out, "route", &format!("{route}{at}"));
    }
    if let Some(upstream) = &decision.upstream {
        line(out, "upstream", upstream);
    }
    if let Some(backend) = &decision.backend {
        line(out, "backend", backend);
    }
}

/// The routes that came closest: those that failed late, and the one that was taken first of all.
fn routes(out: &mut String, report: &Report) {
    if report.considered.is_empty() {
        return;
    }
    let late = |word: Option<&str>| match word {
        None => 0,
        Some("less_specific") => 1,
        Some("header" | "query" | "cookie") => 2,
        Some("method") => 3,
        Some("path") => 4,
        Some(_) => 5,
    };
    let mut sorted: Vec<_> = report.considered.iter().collect();
    sorted.sort_by_key(|route| late(route.why_not));
    let _ = writeln!(out, "\nroutes considered");
    for route in sorted.iter().take(ROUTES_SHOWN + 1) {
        let at = route.at.as_deref().map_or_else(String::new, |at| format!(" ({at})"));
        let mark = if route.why_not.is_none() { "✓" } else { " " };
        let word = route.why_not.unwrap_or("taken");
        let detail = if route.why_not.is_none() { String::new() } else { format!(": {}", printable(&route.detail)) };
        let _ = writeln!(out, " {mark} {}{at}: {word}{detail}", route.route);
    }
    if let Some(more @ 1..) = sorted.len().checked_sub(ROUTES_SHOWN + 1) {
        let _ = writeln!(out, "   and {more} more, for other hosts or paths at the least; --format json has all");
    }
}

fn way(out: &mut String, way: &Way, several: bool) {
    let upstream = way.upstream.as_deref().unwrap_or("-");
    let share = if several { format!(", {:.1} % of the route's requests", way.share * 100.0) } else { String::new() };
    let chosen = match way.chosen {
        Some(true) if several => "chosen ",
        Some(false) => "not chosen ",
        _ => "",
    };
    let _ = writeln!(out, "\nupstream {upstream}{share}: {chosen}{}", printable(&way.by));
    // Of one that is not taken nothing more is to be told.
    if way.chosen == Some(false) {
        return;
    }
    if let Some(path) = &way.forwarded_path {
        let _ = writeln!(out, "   asked for         {}", printable(path));
    }
    let host = way.host.as_deref().unwrap_or("the backend's own address");
    let _ = writeln!(out, "   host              {}", printable(host));
    if let Some(balancing) = &way.balancing {
        let _ = writeln!(out, "   load balancing    {}: {}", balancing.kind, printable(&balancing.detail));
    }
    for score in &way.backend_scores {
        let _ = writeln!(out, "{}", backend(score));
    }
    for setting in &way.settings {
        let from = setting.at.as_ref().map_or_else(|| setting.from.to_owned(), |at| format!("{}, {at}", setting.from));
        let _ = writeln!(out, "   {:<28} {:<8} ({from})", setting.key, setting.value);
    }
    let (off, on): (Vec<_>, Vec<_>) = way.policies.iter().partition(|policy| policy.detail == "off");
    for policy in on {
        let _ = writeln!(out, "   {:<28} {}", policy.policy, policy.detail);
    }
    if !off.is_empty() {
        let names: Vec<&str> = off.iter().map(|policy| policy.policy).collect();
        let _ = writeln!(out, "   {:<28} {}", "off", names.join(", "));
    }
    changes(out, "fields of the request, as the backend gets it", &way.request_fields);
}

fn backend(score: &Score) -> String {
    let mark = if score.picked { "✓" } else { " " };
    let rank = score.rank.map_or_else(String::new, |rank| format!(", number {rank}"));
    format!(
        "   {mark} {:<15} {}, weight {}, {:.1} %{rank}",
        score.backend,
        score.address,
        score.weight,
        score.share * 100.0
    )
}

fn changes(out: &mut String, what: &str, changes: &Changes) {
    if changes.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{what}");
    for (verb, names) in [("removed", &changes.removed), ("changed", &changes.changed), ("added", &changes.added)] {
        if !names.is_empty() {
            let _ = writeln!(out, "   {verb:<8} {}", names.join(", "));
        }
    }
}
