//! Routes in both forms, one table.

use rustc_hash::FxHashMap;

use super::actions::{Answerers, action, edits};
use super::matchers::{matchers, path, prefix};
use super::upstreams::{Compiled, Upstreams};
use super::{Compiler, overload, resilience, timeouts};
use crate::config::diagnostic::Diagnostic;
use crate::config::generation::{Action, Route, UpstreamId, Way};
use crate::config::keys;
use crate::config::notes::Setting;
use crate::config::schema::Located;
use crate::config::source::Place;
use crate::config::values::{MethodName, OneOrMany};
use crate::http::path::has_prefix;
use crate::http::{Edits, Method};
use crate::route::{HostPattern, PathPattern, RouteId, RouteSpec, Shares, Table};

/// What all routes become.
pub(super) struct Routes {
    pub(super) table: Table,
    /// By [`RouteId`].
    pub(super) routes: Vec<Route>,
    /// By [`crate::config::WayId`].
    pub(super) ways: Vec<Way>,
}

/// Routes while they are collected; the first three vectors run in parallel and are indexed by [`RouteId`].
#[derive(Default)]
struct Collected {
    specs: Vec<RouteSpec>,
    routes: Vec<Route>,
    /// What says which requests a route takes.
    places: Vec<Place>,
    ways: Vec<Way>,
    /// By [`crate::config::WayId`].
    settings: Vec<Vec<Setting>>,
}

/// Compiles `route` of every upstream and `[[routes]]`.
pub(super) fn compile(compiler: &mut Compiler<'_>, upstreams: &Upstreams<'_>) -> Routes {
    let root = compiler.root;
    let mut collected = Collected::default();
    let mut names: FxHashMap<&str, Place> = FxHashMap::default();
    let mut used = vec![false; upstreams.list.len()];

    for (at, upstream) in upstreams.list.iter().enumerate() {
        if let Some(short) = &upstream.keys.route {
            used[at] = true;
            names.insert(&upstream.compiled.name, upstream.place);
            let spec = RouteSpec {
                hosts: hosts(short.value.host.as_ref()),
                path: prefix(short.value.path_prefix.as_ref()),
                methods: methods(short.value.method.as_ref()),
                matchers: Vec::new(),
            };
            let id = UpstreamId(u32::try_from(at).unwrap_or(u32::MAX));
            let route = Parts {
                name: &upstream.compiled.name,
                action: Action::Forward { shares: Shares::new([1], None), rewrite: None },
                request_fields: Edits::default(),
                response_fields: Edits::default(),
            };
            let way = way(compiler, Some((id, upstream)), None);
            collected.add(compiler, spec, route, vec![way], short.place);
        }
    }
    for full in &root.routes.value {
        compile_full(compiler, upstreams, full, &mut names, &mut used, &mut collected);
    }

    if collected.routes.is_empty() && !upstreams.list.is_empty() && root.routes.value.is_empty() {
        let place = upstreams.list[0].place;
        compiler.report_missing(
            Diagnostic::error("there is no route: every request would be answered 404")
                .at(place, "")
                .help("add route = { path_prefix = \"/\" } to this upstream"),
        );
    } else {
        for (upstream, _) in upstreams.list.iter().zip(&used).filter(|(_, used)| !**used) {
            let idle = Diagnostic::warning(format!("no route leads to upstream `{}`", upstream.compiled.name))
                .at(upstream.place, "");
            compiler.report(idle.help("add route = { … } to it, or a [[routes]] entry that names it"));
        }
    }
    let table = build(compiler, &collected);
    compiler.notes.specs = collected.specs;
    compiler.notes.routes = collected.places;
    compiler.notes.ways = collected.settings;
    Routes { table, routes: collected.routes, ways: collected.ways }
}

/// Compiles one entry of `[[routes]]`; whatever is wrong with it, all of it is looked at.
fn compile_full<'a>(
    compiler: &mut Compiler<'_>,
    upstreams: &Upstreams<'_>,
    full: &'a Located<keys::Route>,
    names: &mut FxHashMap<&'a str, Place>,
    used: &mut [bool],
    collected: &mut Collected,
) {
    let keys::Route { name, r#match, action: written, request_headers, response_headers, .. } = &full.value;
    if let Some(name) = name
        && let Some(first) = names.insert(&name.value.0, name.place)
    {
        let twice = Diagnostic::error(format!("two routes are named `{}`", name.value.0))
            .at(name.place, "here again")
            .at(first, "first here");
        compiler.report(twice.help("a `route` inside an upstream has the upstream's name"));
    }
    timeouts::check_written(compiler, &full.value.timeouts.value);
    let path = path(compiler, &r#match.value);
    let matchers = matchers(compiler, &r#match.value);
    let request_fields = edits(compiler, &request_headers.value);
    let response_fields = edits(compiler, &response_headers.value);
    let Some(written) = written else {
        return;
    };
    let Some((answerers, action)) = action(compiler, upstreams, written, path.as_ref()) else {
        return;
    };
    let ways = match answerers {
        Answerers::Upstreams(ids) => {
            ids.iter().for_each(|id| used[id.0 as usize] = true);
            let answerers: Vec<_> = ids.iter().map(|id| upstreams.get(*id)).collect();
            resilience::check_route(compiler, &full.value, &answerers);
            ids.iter().map(|&id| way(compiler, Some((id, upstreams.get(id))), Some(&full.value))).collect()
        }
        Answerers::Us => {
            acts_on_forwarded_only(compiler, &full.value);
            vec![way(compiler, None, None)]
        }
    };
    let (Some(name), Some(path), Some(matchers)) = (name, path, matchers) else {
        return;
    };
    let spec = RouteSpec {
        hosts: hosts(r#match.value.host.as_ref()),
        path,
        methods: methods(r#match.value.method.as_ref()),
        matchers,
    };
    let place = if r#match.is_written() { r#match.place } else { full.place };
    let route = Parts { name: &name.value.0, action, request_fields, response_fields };
    collected.add(compiler, spec, route, ways, place);
}

/// A [`Route`] without its ways.
struct Parts<'a> {
    name: &'a str,
    action: Action,
    request_fields: Edits,
    response_fields: Edits,
}

impl Collected {
    fn add(
        &mut self,
        compiler: &mut Compiler<'_>,
        spec: RouteSpec,
        parts: Parts<'_>,
        ways: Vec<(Way, Vec<Setting>)>,
        place: Place,
    ) {
        let id = RouteId(index(self.routes.len()));
        let start = index(self.ways.len());
        for (way, settings) in ways {
            self.ways.push(Way { route: id, ..way });
            self.settings.push(settings);
        }
        let Parts { name, action, request_fields, response_fields } = parts;
        let ways = start..index(self.ways.len());
        // Who may come, and how often, is filled in by `admission`; whether it is a core route, by `overload`.
        let (clients, rate_limits, core) = (None, Box::default(), false);
        let route =
            Route { name: name.into(), ways, action, request_fields, response_fields, clients, core, rate_limits };
        unreachable_by_policy(compiler, &spec, &route, place);
        self.specs.push(spec);
        self.routes.push(route);
        self.places.push(place);
    }

    fn place(&self, id: RouteId) -> Place {
        self.places[id.0 as usize]
    }

    fn name(&self, id: RouteId) -> &str {
        &self.routes[id.0 as usize].name
    }
}

/// One way of a route in full form, or of a short one; its route is filled in when it has a number.
fn way(
    compiler: &Compiler<'_>,
    upstream: Option<(UpstreamId, &Compiled<'_>)>,
    full: Option<&keys::Route>,
) -> (Way, Vec<Setting>) {
    let performance = &compiler.root.performance.value;
    let timeouts = full.map(|full| &full.timeouts.value);
    let limits = full.map(|full| &full.limits.value);
    let keys = upstream.map(|(_, upstream)| upstream.keys);
    let (upstream_timeouts, upstream_limits) =
        (keys.map(|keys| &keys.timeouts.value), keys.map(|keys| &keys.limits.value));
    let way = Way {
        route: RouteId(u32::MAX),
        upstream: upstream.map(|(id, _)| id),
        timeouts: timeouts::resolve(timeouts, upstream_timeouts, performance),
        limits: timeouts::resolve_limits(limits, upstream_limits, performance),
        retry: resilience::retry(
            full.map(|full| &full.retry.value),
            keys.map(|keys| &keys.retry.value),
            &compiler.root.resilience.value.retry.value,
        ),
        hedging: resilience::hedging([
            full.and_then(|full| full.hedging.as_ref()),
            keys.and_then(|keys| keys.hedging.as_ref()),
            compiler.root.resilience.value.hedging.as_ref(),
        ]),
        queue: upstream.and_then(|_| overload::queue(limits, &compiler.root.resilience.value.route_queue.value)),
    };
    let mut settings = timeouts::settings(timeouts, upstream_timeouts, performance);
    settings.extend(timeouts::limit_settings(limits, upstream_limits, performance));
    (way, settings)
}

/// Reports what a route says of forwarding that forwards nothing.
fn acts_on_forwarded_only(compiler: &mut Compiler<'_>, route: &keys::Route) {
    let written = [
        ("timeouts", route.timeouts.is_written(), route.timeouts.place),
        ("limits", route.limits.is_written(), route.limits.place),
        ("retry", route.retry.is_written(), route.retry.place),
        ("hedging", route.hedging.is_some(), route.hedging.as_ref().map_or(Place::NOWHERE, |written| written.place)),
        ("request_headers", route.request_headers.is_written(), route.request_headers.place),
    ];
    for (key, _, place) in written.into_iter().filter(|(_, is_written, _)| *is_written) {
        let idle = Diagnostic::error(format!("`{key}` does nothing on a route that forwards no request")).at(place, "");
        compiler.report(idle.help(format!("remove `{key}`, or answer with an upstream")));
    }
}

fn hosts(written: Option<&Located<OneOrMany<HostPattern>>>) -> Vec<HostPattern> {
    written.map_or_else(Vec::new, |hosts| hosts.value.0.iter().map(|host| host.value.clone()).collect())
}

fn methods(written: Option<&Located<OneOrMany<MethodName>>>) -> Vec<Method> {
    written.map_or_else(Vec::new, |methods| methods.value.0.iter().map(|method| method.value.0.clone()).collect())
}

/// Routes that the policies before routing never let a request through to.
fn unreachable_by_policy(compiler: &mut Compiler<'_>, spec: &RouteSpec, route: &Route, place: Place) {
    let policy = &compiler.root.resilience.value.protocol.value;
    let path = match &spec.path {
        PathPattern::Prefix(path) | PathPattern::Exact(path) => path,
        PathPattern::Pathless => "",
    };
    let denied = policy.denied_path_prefixes.value.iter().find(|denied| has_prefix(path, &denied.value.0));
    let refused = policy.allowed_methods.as_ref().filter(|allowed| {
        let passes = |method: &Method| allowed.value.iter().any(|one| one.value.0 == *method);
        !spec.methods.is_empty() && !spec.methods.iter().any(passes)
    });
    if let Some(denied) = denied {
        compiler.report(
            Diagnostic::warning(format!("no request reaches route `{}`: its paths are denied", route.name))
                .at(place, "")
                .at(denied.place, "denied here"),
        );
    } else if let Some(refused) = refused {
        compiler.report(
            Diagnostic::warning(format!("no request reaches route `{}`: none of its methods is allowed", route.name))
                .at(place, "")
                .at(refused.place, "allowed are these"),
        );
    }
}

/// Compiles the table; on conflicts they are reported and an empty one is returned.
fn build(compiler: &mut Compiler<'_>, collected: &Collected) -> Table {
    let fallback = &compiler.root.routing.value.host_fallback;
    match Table::build(&collected.specs, fallback.value) {
        Ok(table) => {
            shadows(compiler, collected, &table);
            for exposure in table.exposures() {
                let warning = Diagnostic::warning(format!(
                    "route `{}` also answers on host {}, for paths that the host's own routes do not take",
                    collected.name(exposure.exposed),
                    exposure.host
                ));
                let warning = warning
                    .at(collected.place(exposure.own), "a route of that host")
                    .at(collected.place(exposure.exposed), "answers there too");
                compiler.report(warning.help("if that is not meant, set [routing] host_fallback = false"));
            }
            table
        }
        Err(conflicts) => {
            for conflict in conflicts {
                let (first, second) = (collected.name(conflict.first), collected.name(conflict.second));
                let error = Diagnostic::error(format!(
                    "no rule can order the routes `{first}` and `{second}`: both take {}",
                    conflict.taken
                ));
                let error = error
                    .at(collected.place(conflict.second), "this one")
                    .at(collected.place(conflict.first), "and this one");
                compiler.report(error.help("change host, path, method or matchers of one of them, or remove it"));
            }
            Table::default()
        }
    }
}

/// Reports routes of which others take every request.
fn shadows(compiler: &mut Compiler<'_>, collected: &Collected, table: &Table) {
    let allowed = compiler.root.resilience.value.protocol.value.allowed_methods.as_ref();
    let allowed: Option<Vec<Method>> =
        allowed.map(|allowed| allowed.value.iter().map(|method| method.value.0.clone()).collect());
    for shadow in table.shadows(&collected.specs, allowed.as_deref()) {
        let names: Vec<String> = shadow.by.iter().map(|&by| format!("`{}`", collected.name(by))).collect();
        let takes = if names.len() == 1 { "takes" } else { "take" };
        let mut warning = Diagnostic::warning(format!(
            "no request reaches route `{}`: {} {takes} all that it would",
            collected.name(shadow.route),
            names.join(" and ")
        ));
        warning = warning.at(collected.place(shadow.route), "");
        for by in shadow.by {
            warning = warning.at(collected.place(by), "comes first");
        }
        compiler.report(warning.help("remove one of them, or change what it takes"));
    }
}

/// A length as an index; the size of a configuration file keeps it far below the limit.
fn index(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
