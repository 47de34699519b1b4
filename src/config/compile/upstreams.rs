//! Upstreams and their backends.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{Compiler, health, overload, resilience, timeouts, upstream_tls};
use crate::balance::{NODES_MAX, Table};
use crate::config::diagnostic::Diagnostic;
use crate::config::generation::{
    Backend, BackendScheme, Balancing, ClientCertHeader, ForwardedMode, HostPolicy, Location, Upstream, UpstreamId,
};
use crate::config::keys::{self, BalancingType, HostMode, ProxyHeader};
use crate::config::schema::Located;
use crate::config::source::Place;
use crate::proxy_protocol::Version;

/// Upstreams with what their routes still need.
pub(super) struct Upstreams<'a> {
    /// By [`UpstreamId`].
    pub(super) list: Vec<Compiled<'a>>,
    /// All backends, those of one upstream together.
    pub(super) backends: Vec<Backend>,
    by_name: FxHashMap<&'a str, UpstreamId>,
}

/// An upstream with its rows.
pub(super) struct Compiled<'a> {
    pub(super) compiled: Upstream,
    pub(super) keys: &'a keys::Upstream,
    /// Its name in the file.
    pub(super) place: Place,
}

impl<'a> Upstreams<'a> {
    pub(super) fn find(&self, name: &str) -> Option<UpstreamId> {
        self.by_name.get(name).copied()
    }

    pub(super) fn get(&self, id: UpstreamId) -> &Compiled<'a> {
        &self.list[id.0 as usize]
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().copied()
    }
}

/// Compiles every `[upstream.<name>]`.
pub(super) fn compile<'a>(compiler: &mut Compiler<'a>) -> Upstreams<'a> {
    let root = compiler.root;
    let mut upstreams = Upstreams { list: Vec::new(), backends: Vec::new(), by_name: FxHashMap::default() };
    if root.upstream.value.0.is_empty() && !root.upstream.is_written() {
        compiler.report_missing(
            Diagnostic::error("there is no upstream")
                .at(compiler.start, "")
                .help("add [upstream.default] with backends: there is nowhere to forward to"),
        );
    }
    let mut trust = upstream_tls::Defaults::check(compiler);
    if let Some(outliers) = &root.resilience.value.outlier_ejection {
        health::look_at_outliers(compiler, outliers);
    }
    if let Some(adaptive) = &root.resilience.value.adaptive_admission {
        overload::look_at_adaptive(compiler, adaptive);
    }
    for (name, keys) in &root.upstream.value.0 {
        let id = UpstreamId(index(upstreams.list.len()));
        let start = index(upstreams.backends.len());
        backends(compiler, id, &name.value, name.place, keys, &mut upstreams.backends);
        let (performance, process) = (&root.performance.value, &root.resilience.value);
        let own = start as usize..upstreams.backends.len();
        let outliers = health::outliers(compiler, &name.value, keys, own.len());
        health::check_balancing(compiler, keys, outliers.is_some(), &upstreams.backends[own.clone()]);
        let own_limit = keys.limits.value.per_upstream_inflight_limit.as_ref();
        let inflight_limit = own_limit.unwrap_or(&performance.per_upstream_inflight_limit);
        let compiled = Upstream {
            name: name.value.as_str().into(),
            backends: start..index(upstreams.backends.len()),
            balancing: balancing(compiler, name, &keys.load_balancing, &upstreams.backends[own]),
            host_policy: host_policy(compiler, &keys.host_policy.value, keys.host_policy.place),
            forwarded_headers: forwarded_headers(compiler, keys),
            client_cert_header: client_cert_header(compiler, keys),
            proxy_protocol: match keys.proxy_protocol.value {
                ProxyHeader::Off => None,
                ProxyHeader::V1 => Some(Version::V1),
                ProxyHeader::V2 => Some(Version::V2),
            },
            tls: trust.compile(compiler, name, keys),
            inflight_limit: inflight_limit.value,
            adaptive: overload::adaptive(compiler, keys, inflight_limit),
            retry_budget: resilience::retry_budget(&keys.retry_budget.value, &process.retry_budget.value),
            circuit_breaker: resilience::circuit_breaker(
                keys.circuit_breaker.as_ref(),
                process.circuit_breaker.as_ref(),
            ),
            outliers,
            slow_start: keys.load_balancing.value.slow_start.as_ref().map(|written| written.value),
            panic_threshold: keys.load_balancing.value.panic_threshold.value,
        };
        timeouts::check_written(compiler, &keys.timeouts.value);
        upstreams.list.push(Compiled { compiled, keys, place: name.place });
        upstreams.by_name.insert(&name.value, id);
    }
    upstreams
}

fn backends(
    compiler: &mut Compiler<'_>,
    upstream: UpstreamId,
    name: &str,
    name_place: Place,
    keys: &keys::Upstream,
    into: &mut Vec<Backend>,
) {
    let Some(written) = &keys.backends else {
        return;
    };
    if written.value.is_empty() {
        let none = Diagnostic::error(format!("upstream `{name}` has no backends"))
            .at(written.place, "")
            .at(name_place, "this upstream");
        compiler.report_missing(none.help("add { id = \"…\", address = \"http://…\" }"));
        return;
    }
    if let Some(check) = &keys.health_check {
        health::look_at(compiler, check);
    }
    let performance = &compiler.root.performance.value;
    let inflight_limit =
        keys.limits.value.per_backend_inflight_limit.as_ref().unwrap_or(&performance.per_backend_inflight_limit).value;
    let mut ids: FxHashMap<&str, Place> = FxHashMap::default();
    let mut locations: FxHashMap<(BackendScheme, &Location), Place> = FxHashMap::default();
    for backend in &written.value {
        let keys::Backend { id, address, weight, health_check } = &backend.value;
        if let Some(id) = id
            && let Some(first) = ids.insert(&id.value.0, id.place)
        {
            compiler.report(
                Diagnostic::error(format!("two backends of upstream `{name}` have the id `{}`", id.value.0))
                    .at(id.place, "here again")
                    .at(first, "first here")
                    .help("give each its own id"),
            );
        }
        let (Some(id), Some(address)) = (id, address) else {
            continue;
        };
        if let Some(first) = locations.insert((address.value.scheme, &address.value.location), address.place) {
            let twice = Diagnostic::warning(format!("two backends of upstream `{name}` have the same address"))
                .at(address.place, "here again")
                .at(first, "first here");
            compiler.report(twice.help("use `weight` to give an origin a larger share"));
        }
        if let Some(check) = health_check {
            health::look_at(compiler, check);
        }
        into.push(Backend {
            id: id.value.0.as_str().into(),
            upstream,
            scheme: address.value.scheme,
            location: address.value.location.clone(),
            authority: address.value.authority.as_str().into(),
            server_name: address.value.server_name.as_str().into(),
            weight: weight.value,
            inflight_limit,
            health_check: health_check
                .as_ref()
                .or(keys.health_check.as_ref())
                .and_then(|check| health::check(compiler, check, address, health_check.is_some())),
        });
    }
}

fn balancing(
    compiler: &mut Compiler<'_>,
    name: &Located<String>,
    keys: &Located<keys::LoadBalancing>,
    backends: &[Backend],
) -> Balancing {
    let keys::LoadBalancing { r#type, key, .. } = &keys.value;
    if let Some(key) = key
        && r#type.value != BalancingType::ConsistentHash
    {
        let idle = Diagnostic::error("`key` acts only with type \"consistent-hash\"")
            .at(key.place, "")
            .at(if r#type.is_written() { r#type.place } else { keys.place }, "the type is another one");
        compiler.report(idle.help("write type = \"consistent-hash\", or remove `key`"));
    }
    match r#type.value {
        BalancingType::RoundRobin => Balancing::RoundRobin,
        BalancingType::Random => Balancing::Random,
        BalancingType::LeastConnections => Balancing::LeastConnections,
        BalancingType::PowerOfTwoChoices => Balancing::TwoChoices,
        BalancingType::LatencyAware => Balancing::LatencyAware,
        BalancingType::ConsistentHash => {
            let Some(key) = key else {
                compiler.report_missing(
                    Diagnostic::error("type \"consistent-hash\" needs `key`")
                        .at(r#type.place, "")
                        .help("add what requests are kept together by, such as key = \"client_ip\" or \"cookie:NAME\""),
                );
                return Balancing::RoundRobin;
            };
            match table(compiler, name, r#type.place, backends) {
                Some(table) => Balancing::ConsistentHash(key.value.clone(), table),
                None => Balancing::RoundRobin,
            }
        }
        BalancingType::StickyCid => match table(compiler, name, r#type.place, backends) {
            Some(table) => Balancing::StickyCid(table),
            None => Balancing::RoundRobin,
        },
    }
}

/// The table of a type that hashes; `None`: that was refused.
fn table(compiler: &mut Compiler<'_>, name: &Located<String>, of: Place, backends: &[Backend]) -> Option<Arc<Table>> {
    if backends.len() > NODES_MAX {
        let many = Diagnostic::error(format!(
            "upstream `{}` has {} backends: types that hash take {NODES_MAX} at most",
            name.value,
            backends.len()
        ));
        compiler.report(many.at(of, "").at(name.place, "this upstream").help("use another type, or several upstreams"));
        return None;
    }
    Some(Arc::new(Table::new(backends.iter().map(|backend| (&*backend.id, backend.weight)))))
}

fn host_policy(compiler: &mut Compiler<'_>, keys: &keys::HostPolicy, place: Place) -> HostPolicy {
    match (keys.mode.value, &keys.host) {
        (HostMode::Rewrite, Some(host)) => HostPolicy::Rewrite(host.value.0.as_str().into()),
        (HostMode::Rewrite, None) => {
            compiler.report_missing(
                Diagnostic::error("mode \"rewrite\" needs `host`")
                    .at(keys.mode.place, "")
                    .at(place, "in this table")
                    .help("add host = \"…\""),
            );
            HostPolicy::PassThrough
        }
        (mode, host) => {
            if let Some(host) = host {
                compiler.report(
                    Diagnostic::error("`host` acts only with mode \"rewrite\"")
                        .at(host.place, "")
                        .at(keys.mode.place, "the mode is this")
                        .help("write mode = \"rewrite\", or remove `host`"),
                );
            }
            if mode == HostMode::Upstream { HostPolicy::Upstream } else { HostPolicy::PassThrough }
        }
    }
}

fn forwarded_headers(compiler: &mut Compiler<'_>, keys: &keys::Upstream) -> ForwardedMode {
    let mode = &keys.forwarded_headers.value.mode;
    if mode.value != ForwardedMode::Overwrite && compiler.root.routing.value.trusted_proxies.value.is_empty() {
        let idle = Diagnostic::warning(format!(
            "\"{}\" acts only for peers in `trusted_proxies`, which is empty",
            mode.value.as_str()
        ))
        .at(mode.place, "acts as \"overwrite\"");
        compiler.report(idle.help("add the networks of your proxies to [routing] trusted_proxies"));
    }
    mode.value
}

fn client_cert_header(compiler: &mut Compiler<'_>, keys: &keys::Upstream) -> ClientCertHeader {
    let header = &keys.client_cert_header;
    let root = compiler.root;
    let mut listeners =
        root.listen.iter().chain(&root.listeners.value).filter_map(|listener| listener.value.tls.as_ref());
    let asked = |tls: &Located<keys::ListenerTls>| {
        let named = tls.value.certificates.value.iter().filter_map(|named| named.value.client_auth.as_ref());
        named.chain([&tls.value.client_auth]).any(|auth| auth.value.enabled.value)
    };
    if header.value != ClientCertHeader::Off && !listeners.any(asked) {
        let idle = Diagnostic::warning("no listener asks clients for a certificate").at(header.place, "sends nothing");
        compiler.report(idle.help("set tls.client_auth = { enabled = true, ca_file = \"…\" } in a listener"));
    }
    header.value
}

/// A length as an index; the size of a configuration file keeps it far below the limit.
fn index(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
