//! Times and limits of one exchange: layers become one value, and times that contradict each other are found.

use std::time::Duration;

use super::Compiler;
use crate::config::diagnostic::Diagnostic;
use crate::config::generation::{BodyLimits, Timeouts};
use crate::config::keys;
use crate::config::schema::Located;

/// The first written value, route before upstream, else that of `[performance]`.
macro_rules! resolve {
    ($key:ident, $performance:expr, $($layer:expr),+) => {
        None$(.or($layer.and_then(|layer| layer.$key.as_ref())))+.unwrap_or(&$performance.$key).value
    };
}

/// Times of a way.
pub(super) fn resolve(
    route: Option<&keys::Timeouts>,
    upstream: Option<&keys::Timeouts>,
    performance: &keys::Performance,
) -> Timeouts {
    Timeouts {
        backend_connect: resolve!(backend_connect_timeout, performance, route, upstream),
        backend: resolve!(backend_timeout, performance, route, upstream),
        backend_body_idle: resolve!(backend_body_idle_timeout, performance, route, upstream),
        total: resolve!(total_request_timeout, performance, route, upstream).0,
        client_body_idle: resolve!(client_body_idle_timeout, performance, route, upstream),
        client_send: resolve!(client_send_timeout, performance, route, upstream),
        tunnel_idle: resolve!(tunnel_idle_timeout, performance, route, upstream),
    }
}

/// Limits of a way.
pub(super) fn resolve_limits(
    route: Option<&keys::RouteLimits>,
    upstream: Option<&keys::UpstreamLimits>,
    performance: &keys::Performance,
) -> BodyLimits {
    BodyLimits {
        max_request_body_bytes: resolve!(max_request_body_bytes, performance, route, upstream).0.map(|bytes| bytes.0),
        max_response_body_bytes: resolve!(max_response_body_bytes, performance, route, upstream).0.map(|bytes| bytes.0),
        max_response_header_bytes: resolve!(max_response_header_bytes, performance, route, upstream).to_u32(),
    }
}

/// Finds contradictions within one table of an upstream or route. Over several layers a shorter total is a wish, not a
/// contradiction.
pub(super) fn check_written(compiler: &mut Compiler<'_>, keys: &keys::Timeouts) {
    let Some(total) = &keys.total_request_timeout else {
        return;
    };
    let Some(limit) = total.value.0 else { return };
    for (name, inner) in [
        ("backend_connect_timeout", &keys.backend_connect_timeout),
        ("backend_timeout", &keys.backend_timeout),
        ("backend_body_idle_timeout", &keys.backend_body_idle_timeout),
        ("client_body_idle_timeout", &keys.client_body_idle_timeout),
        ("client_send_timeout", &keys.client_send_timeout),
    ] {
        if let Some(inner) = inner {
            contradiction(compiler, total, limit, name, inner);
        }
    }
}

/// The same within `[performance]`, for what is written there.
pub(super) fn check_performance(compiler: &mut Compiler<'_>) {
    let keys = &compiler.root.performance.value;
    let total = &keys.total_request_timeout;
    let Some(limit) = total.value.0 else { return };
    for (name, inner) in [
        ("backend_connect_timeout", &keys.backend_connect_timeout),
        ("backend_timeout", &keys.backend_timeout),
        ("backend_body_idle_timeout", &keys.backend_body_idle_timeout),
        ("client_body_idle_timeout", &keys.client_body_idle_timeout),
        ("client_send_timeout", &keys.client_send_timeout),
    ] {
        if inner.is_written() {
            contradiction(compiler, total, limit, name, inner);
        }
    }
}

fn contradiction<T>(
    compiler: &mut Compiler<'_>,
    total: &Located<T>,
    limit: Duration,
    name: &str,
    inner: &Located<Duration>,
) {
    if inner.value > limit {
        let never = Diagnostic::error(format!("`{name}` can never run out: the whole request has less time"))
            .at(inner.place, "longer than the whole");
        compiler.report(
            never.at(total.place, "the whole").help(format!("shorten `{name}`, or lengthen `total_request_timeout`")),
        );
    }
}
