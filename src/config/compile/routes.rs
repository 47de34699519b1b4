//! Routes in both forms, one table.

use rustc_hash::FxHashMap;

use super::upstreams::{Compiled, Upstreams};
use super::{Compiler, timeouts};
use crate::config::diagnostic::Diagnostic;
use crate::config::generation::{Route, UpstreamId};
use crate::config::keys;
use crate::config::schema::Located;
use crate::config::source::Place;
use crate::config::suggest;
use crate::config::values::{MethodName, OneOrMany, RoutePath};
use crate::http::path::has_prefix;
use crate::route::{HostPattern, PathPattern, RouteId, RouteSpec, Table};

/// Routes while they are collected; the vectors run in parallel and are indexed by [`RouteId`].
struct Collected {
    specs: Vec<RouteSpec>,
    routes: Vec<Route>,
    /// What says which requests a route takes.
    places: Vec<Place>,
}

/// Compiles `route` of every upstream and `[[routes]]`.
pub(super) fn compile(compiler: &mut Compiler<'_>, upstreams: &Upstreams<'_>) -> (Table, Vec<Route>) {
    let root = compiler.root;
    let mut collected = Collected { specs: Vec::new(), routes: Vec::new(), places: Vec::new() };
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
            };
            let id = UpstreamId(u32::try_from(at).unwrap_or(u32::MAX));
            collected.add(compiler, spec, route(compiler, &upstream.compiled.name, id, upstream, None), short.place);
        }
    }
    for full in &root.routes.value {
        let keys::Route { name, r#match, action, .. } = &full.value;
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
        let Some(target) = action.as_ref().and_then(|action| action.value.upstream.as_ref()) else {
            continue;
        };
        let Some(id) = upstreams.find(&target.value.0) else {
            unknown_upstream(compiler, upstreams, target);
            continue;
        };
        used[id.0 as usize] = true;
        let (Some(name), Some(path)) = (name, path) else {
            continue;
        };
        let spec = RouteSpec {
            hosts: hosts(r#match.value.host.as_ref()),
            path,
            methods: methods(r#match.value.method.as_ref()),
        };
        let place = if r#match.is_written() { r#match.place } else { full.place };
        collected.add(compiler, spec, route(compiler, &name.value.0, id, upstreams.get(id), Some(&full.value)), place);
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
    (table, collected.routes)
}

impl Collected {
    fn add(&mut self, compiler: &mut Compiler<'_>, spec: RouteSpec, route: Route, place: Place) {
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

fn route(
    compiler: &Compiler<'_>,
    name: &str,
    id: UpstreamId,
    upstream: &Compiled<'_>,
    full: Option<&keys::Route>,
) -> Route {
    let performance = &compiler.root.performance.value;
    let keys = upstream.keys;
    Route {
        name: name.into(),
        upstream: id,
        timeouts: timeouts::resolve(full.map(|full| &full.timeouts.value), &keys.timeouts.value, performance),
        limits: timeouts::resolve_limits(full.map(|full| &full.limits.value), &keys.limits.value, performance),
        // What every route has is filled in by `admission`.
        clients: None,
        rate_limits: Box::default(),
    }
}

fn hosts(written: Option<&Located<OneOrMany<HostPattern>>>) -> Vec<HostPattern> {
    written.map_or_else(Vec::new, |hosts| hosts.value.0.iter().map(|host| host.value.clone()).collect())
}

fn methods(written: Option<&Located<OneOrMany<MethodName>>>) -> Vec<crate::http::Method> {
    written.map_or_else(Vec::new, |methods| methods.value.0.iter().map(|method| method.value.0.clone()).collect())
}

fn prefix(written: Option<&Located<RoutePath>>) -> PathPattern {
    PathPattern::Prefix(written.map_or("/", |path| &path.value.0).into())
}

fn path(compiler: &mut Compiler<'_>, keys: &keys::Match) -> Option<PathPattern> {
    match (&keys.path, &keys.path_prefix) {
        (Some(path), Some(prefix)) => {
            compiler.report(
                Diagnostic::error("a route has `path` or `path_prefix`, not both")
                    .at(path.place, "")
                    .at(prefix.place, "and this")
                    .help("remove one of them"),
            );
            None
        }
        (Some(path), None) if path.value.0 == "*" => Some(PathPattern::Pathless),
        (Some(path), None) => Some(PathPattern::Exact(path.value.0.as_str().into())),
        (None, written) => Some(prefix(written.as_ref())),
    }
}

fn unknown_upstream(
    compiler: &mut Compiler<'_>,
    upstreams: &Upstreams<'_>,
    target: &Located<crate::config::values::Name>,
) {
    let name = &target.value.0;
    let unknown = Diagnostic::error(format!("there is no upstream `{name}`")).at(target.place, "");
    match suggest::nearest(name, upstreams.names()) {
        // A slip of the finger is one even where another line could not be read.
        Some(near) => compiler.report(unknown.help(format!("did you mean `{near}`?"))),
        None => compiler.report_missing(unknown.help(format!("add [upstream.{name}]"))),
    }
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
        let passes = |method: &crate::http::Method| allowed.value.iter().any(|one| one.value.0 == *method);
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
                compiler.report(error.help("change host, path or method of one of them, or remove it"));
            }
            Table::default()
        }
    }
}
