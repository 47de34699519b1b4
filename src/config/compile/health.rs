//! How backends are probed, and when they are ejected.

use super::Compiler;
use crate::config::diagnostic::Diagnostic;
use crate::config::generation::{Backend, BackendScheme, HealthCheck, Location, ProbeSpeech};
use crate::config::keys::{self, ProbeType};
use crate::config::schema::Located;
use crate::config::source::Place;
use crate::config::values::BackendAddress;
use crate::health::{Expectation, OutlierPolicy, ProbePolicy};
use spooky_uring::StreamAddress;

/// Looks at a table by itself: once, however many backends it is for.
pub(super) fn look_at(compiler: &mut Compiler<'_>, written: &Located<keys::HealthCheck>) {
    let keys = &written.value;
    let (timeout, interval) = (&keys.timeout, &keys.interval);
    if timeout.value > interval.value {
        let longer =
            Diagnostic::error("`timeout` is longer than `interval`: the next probe would be due before this one ends");
        let longer = match (timeout.is_written(), interval.is_written()) {
            (true, true) => longer.at(timeout.place, "longer").at(interval.place, "than this"),
            (true, false) => longer.at(timeout.place, "longer than the interval of 5s"),
            (false, _) => longer.at(interval.place, "shorter than the timeout of 1s"),
        };
        compiler.report(longer.help("shorten `timeout`, or lengthen `interval`"));
    }
    if let Some(body) = keys.expected_body.as_ref().filter(|body| body.value.0.is_empty()) {
        let empty = Diagnostic::error("every body contains the empty text").at(body.place, "");
        compiler.report(empty.help("remove `expected_body`, or write a text"));
    }
    if let Some(kind) = keys.r#type.as_ref().filter(|kind| kind.value == ProbeType::Tcp) {
        unheard(compiler, keys, kind.place);
    }
}

/// Compiles the check of one backend. `own`: it says it itself, and not its upstream.
pub(super) fn check(
    compiler: &mut Compiler<'_>,
    written: &Located<keys::HealthCheck>,
    address: &Located<BackendAddress>,
    own: bool,
) -> Option<HealthCheck> {
    let keys = &written.value;
    let speech = speech(compiler, keys, address, own)?;
    if let (Some(port), Location::Fixed(StreamAddress::Unix(_))) = (&keys.port, &address.value.location) {
        let none =
            Diagnostic::error("a unix socket has no port").at(port.place, "").at(address.place, "of this backend");
        compiler.report(none.help("remove `port`, or give the backend a health_check of its own"));
        return None;
    }
    Some(HealthCheck {
        policy: ProbePolicy {
            interval: keys.interval.value,
            timeout: keys.timeout.value,
            failures: keys.failure_threshold.value,
            successes: keys.success_threshold.value,
        },
        speech,
        port: keys.port.as_ref().map(|port| port.value),
        host: keys.host.as_ref().map_or(address.value.authority.as_str(), |host| &host.value.0).into(),
        target: keys.path.value.0.clone(),
        expectation: Expectation {
            statuses: keys.expected_status.value.0.iter().map(|range| range.value.0.clone()).collect(),
            body: keys.expected_body.as_ref().map(|body| body.value.0.as_bytes().into()),
        },
    })
}

/// What is spoken to a backend.
fn speech(
    compiler: &mut Compiler<'_>,
    keys: &keys::HealthCheck,
    address: &Located<BackendAddress>,
    own: bool,
) -> Option<ProbeSpeech> {
    let scheme = address.value.scheme;
    let Some(kind) = &keys.r#type else {
        return Some(match scheme {
            BackendScheme::Http => ProbeSpeech::H1,
            BackendScheme::Https => ProbeSpeech::Tls,
            BackendScheme::H2c => ProbeSpeech::H2,
        });
    };
    let speech = match kind.value {
        ProbeType::Tcp => ProbeSpeech::Nothing,
        ProbeType::Http => ProbeSpeech::H1,
        ProbeType::Https => ProbeSpeech::Tls,
        ProbeType::H2 if scheme == BackendScheme::Https => ProbeSpeech::TlsH2,
        ProbeType::H2 => ProbeSpeech::H2,
    };
    // On the port of its address it speaks as its address says. HTTP/2 in clear may be had beside HTTP/1.1.
    let contradiction = match (kind.value, scheme) {
        (ProbeType::Http, BackendScheme::Https) => Some("the backend is spoken to over TLS"),
        (ProbeType::Http, BackendScheme::H2c) => Some("the backend speaks HTTP/2"),
        (ProbeType::Https, BackendScheme::Http | BackendScheme::H2c) => Some("the backend is spoken to without TLS"),
        _ => None,
    };
    if let (Some(contradiction), None) = (contradiction, &keys.port) {
        let wrong = Diagnostic::error(format!("no probe of type \"{}\" can pass there", kind.value.as_str()))
            .at(kind.place, "")
            .at(address.place, contradiction);
        compiler.report(wrong.help(match own {
            true => "leave `type` out, or give the `port` where it is spoken",
            false => "leave `type` out, or give this backend a health_check of its own",
        }));
        return None;
    }
    Some(speech)
}

/// What a probe that says nothing has no use for.
fn unheard(compiler: &mut Compiler<'_>, keys: &keys::HealthCheck, kind: Place) {
    let places = [
        ("path", keys.path.is_written().then_some(keys.path.place)),
        ("host", keys.host.as_ref().map(|host| host.place)),
        ("expected_status", keys.expected_status.is_written().then_some(keys.expected_status.place)),
        ("expected_body", keys.expected_body.as_ref().map(|body| body.place)),
    ];
    for (name, place) in places {
        if let Some(place) = place {
            let idle = Diagnostic::error(format!("`{name}` does nothing with type \"tcp\""))
                .at(place, "")
                .at(kind, "it sends no request");
            compiler.report(idle.help(format!("remove `{name}`, or write another type")));
        }
    }
}

/// Looks at a table of ejections by itself: once, however many upstreams it is for.
pub(super) fn look_at_outliers(compiler: &mut Compiler<'_>, written: &Located<keys::OutlierEjection>) {
    let (base, most) = (&written.value.base_ejection_time, &written.value.max_ejection_time);
    if base.value > most.value {
        let longer = Diagnostic::error("`base_ejection_time` is longer than `max_ejection_time`");
        let longer = match (base.is_written(), most.is_written()) {
            (true, true) => longer.at(base.place, "longer").at(most.place, "than this"),
            (true, false) => longer.at(base.place, "longer than the 5m that no ejection exceeds"),
            (false, _) => longer.at(most.place, "shorter than the 10s of the first ejection"),
        };
        compiler.report(longer.help("shorten the one, or lengthen the other"));
    }
}

/// Compiles when a backend of an upstream with so many is ejected.
pub(super) fn outliers(
    compiler: &mut Compiler<'_>,
    name: &str,
    upstream: &keys::Upstream,
    backends: usize,
) -> Option<OutlierPolicy> {
    let root = compiler.root;
    let own = upstream.outlier_ejection.as_ref();
    if let Some(own) = own {
        look_at_outliers(compiler, own);
    }
    let written = own.or(root.resilience.value.outlier_ejection.as_ref())?;
    let keys = &written.value;
    if !keys.enabled.value {
        return None;
    }
    let policy = OutlierPolicy {
        consecutive: keys.consecutive_failures.value,
        percent: keys.failure_percent.value.0,
        requests: u64::from(keys.min_requests.value),
        interval: keys.interval.value,
        base_time: keys.base_ejection_time.value,
        max_time: keys.max_ejection_time.value.max(keys.base_ejection_time.value),
        max_percent: keys.max_ejected_percent.value,
    };
    // The table of the process is for all upstreams, small ones too; and beside one alone there is nobody to ask.
    if own.is_some() && backends > 1 && !policy.permits(backends, 0) {
        let share = &keys.max_ejected_percent;
        let never = Diagnostic::warning(format!(
            "upstream `{name}` has {backends} backends: {} % of them is less than one, and none is ever ejected",
            share.value
        ));
        let place = if share.is_written() { share.place } else { written.place };
        compiler.report(never.at(place, "").help("raise `max_ejected_percent`, add backends, or remove this"));
    }
    Some(policy)
}

/// What acts on health needs something that tells it.
pub(super) fn check_balancing(
    compiler: &mut Compiler<'_>,
    upstream: &keys::Upstream,
    ejects: bool,
    backends: &[Backend],
) {
    if ejects || backends.iter().any(|backend| backend.health_check.is_some()) {
        return;
    }
    let keys::LoadBalancing { slow_start, panic_threshold, .. } = &upstream.load_balancing.value;
    let places = [
        ("slow_start", slow_start.as_ref().map(|written| written.place)),
        ("panic_threshold", panic_threshold.is_written().then_some(panic_threshold.place)),
    ];
    for (name, place) in places {
        if let Some(place) = place {
            let idle = Diagnostic::warning(format!("`{name}` does nothing: no backend here is ever unhealthy"));
            compiler.report(idle.at(place, "").help("add `health_check` or `outlier_ejection`, or remove it"));
        }
    }
}
