//! Times and limits of one exchange: layers become one value, and times that contradict each other are found.

use std::time::Duration;

use super::Compiler;
use crate::config::diagnostic::Diagnostic;
use crate::config::generation::{BodyLimits, Timeouts};
use crate::config::keys;
use crate::config::notes::{Layer, Setting};
use crate::config::schema::Located;
use crate::config::values::{Bytes, OrOff, show_bytes, show_millis};

/// The first written value, route before upstream, else that of `[performance]`; and whose it is.
macro_rules! layered {
    ($key:ident, $performance:expr, $route:expr, $upstream:expr) => {{
        let (route, upstream) =
            ($route.and_then(|keys| keys.$key.as_ref()), $upstream.and_then(|keys| keys.$key.as_ref()));
        match (route, upstream) {
            (Some(own), _) => (own, Layer::Route),
            (None, Some(own)) => (own, Layer::Upstream),
            (None, None) if $performance.$key.is_written() => (&$performance.$key, Layer::Performance),
            (None, None) => (&$performance.$key, Layer::Default),
        }
    }};
}

/// The same for people, under the name of the key.
macro_rules! setting {
    ($key:ident, $performance:expr, $route:expr, $upstream:expr) => {{
        let (written, from) = layered!($key, $performance, $route, $upstream);
        Setting { key: stringify!($key), value: written.value.show(), from, place: written.place }
    }};
}

/// Times of a way.
pub(super) fn resolve(
    route: Option<&keys::Timeouts>,
    upstream: Option<&keys::Timeouts>,
    performance: &keys::Performance,
) -> Timeouts {
    Timeouts {
        backend_connect: layered!(backend_connect_timeout, performance, route, upstream).0.value,
        backend: layered!(backend_timeout, performance, route, upstream).0.value,
        backend_body_idle: layered!(backend_body_idle_timeout, performance, route, upstream).0.value,
        total: layered!(total_request_timeout, performance, route, upstream).0.value.0,
        client_body_idle: layered!(client_body_idle_timeout, performance, route, upstream).0.value,
        client_send: layered!(client_send_timeout, performance, route, upstream).0.value,
        tunnel_idle: layered!(tunnel_idle_timeout, performance, route, upstream).0.value,
    }
}

/// The same for people.
pub(super) fn settings(
    route: Option<&keys::Timeouts>,
    upstream: Option<&keys::Timeouts>,
    performance: &keys::Performance,
) -> Vec<Setting> {
    vec![
        setting!(backend_connect_timeout, performance, route, upstream),
        setting!(backend_timeout, performance, route, upstream),
        setting!(backend_body_idle_timeout, performance, route, upstream),
        setting!(total_request_timeout, performance, route, upstream),
        setting!(client_body_idle_timeout, performance, route, upstream),
        setting!(client_send_timeout, performance, route, upstream),
        setting!(tunnel_idle_timeout, performance, route, upstream),
    ]
}

/// Limits of a way.
pub(super) fn resolve_limits(
    route: Option<&keys::RouteLimits>,
    upstream: Option<&keys::UpstreamLimits>,
    performance: &keys::Performance,
) -> BodyLimits {
    let bytes = |limit: OrOff<Bytes>| limit.0.map(|bytes| bytes.0);
    BodyLimits {
        max_request_body_bytes: bytes(layered!(max_request_body_bytes, performance, route, upstream).0.value),
        max_response_body_bytes: bytes(layered!(max_response_body_bytes, performance, route, upstream).0.value),
        max_response_header_bytes: layered!(max_response_header_bytes, performance, route, upstream).0.value.to_u32(),
    }
}

/// The same for people, with the limits that an upstream has beside them.
pub(super) fn limit_settings(
    route: Option<&keys::RouteLimits>,
    upstream: Option<&keys::UpstreamLimits>,
    performance: &keys::Performance,
) -> Vec<Setting> {
    let of_upstream = None::<&keys::UpstreamLimits>;
    vec![
        setting!(max_request_body_bytes, performance, route, upstream),
        setting!(max_response_body_bytes, performance, route, upstream),
        setting!(max_response_header_bytes, performance, route, upstream),
        setting!(per_upstream_inflight_limit, performance, of_upstream, upstream),
        setting!(per_backend_inflight_limit, performance, of_upstream, upstream),
    ]
}

/// A value as an operator writes it.
trait Show {
    fn show(&self) -> String;
}

impl Show for u32 {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Show for Duration {
    fn show(&self) -> String {
        show_millis(u64::try_from(self.as_millis()).unwrap_or(u64::MAX)).trim_matches('"').to_owned()
    }
}

impl Show for Bytes {
    fn show(&self) -> String {
        show_bytes(self.0).trim_matches('"').to_owned()
    }
}

impl<T: Show> Show for OrOff<T> {
    fn show(&self) -> String {
        self.0.as_ref().map_or_else(|| "off".to_owned(), T::show)
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
