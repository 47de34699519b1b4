//! How names of backends are resolved.

use super::Compiler;
use crate::config::diagnostic::Diagnostic;
use crate::config::generation::Resolver;
use crate::limits;

/// Compiles `[resolver]`.
pub(super) fn compile(compiler: &mut Compiler<'_>) -> Resolver {
    let keys = &compiler.root.resolver.value;
    let (min, max) = (&keys.min_ttl, &keys.max_ttl);
    // The ranges meet in the defaults, so both are written then.
    if min.value > max.value {
        compiler.report(
            Diagnostic::error("`min_ttl` is longer than `max_ttl`")
                .at(min.place, "")
                .at(max.place, "longer than this")
                .help("an answer is asked for again between the two"),
        );
    }
    if let Some(beyond) = keys.servers.value.get(limits::RESOLVER_SERVERS) {
        compiler.report(
            Diagnostic::error(format!("more than {} servers", limits::RESOLVER_SERVERS))
                .at(beyond.place, "this one is too many")
                .help("a name that two servers do not answer is asked of nobody else in time"),
        );
    }
    Resolver {
        servers: keys.servers.value.iter().map(|server| server.value.0).collect(),
        timeout: keys.timeout.as_ref().map(|written| written.value),
        attempts: keys.attempts.as_ref().map(|written| written.value),
        min_ttl: min.value,
        max_ttl: max.value,
        start_timeout: keys.start_timeout.value,
    }
}
