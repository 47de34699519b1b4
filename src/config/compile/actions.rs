//! What becomes of the requests of a route: who answers, where to, with what, and what is changed on the way.

use super::Compiler;
use super::upstreams::Upstreams;
use crate::config::diagnostic::Diagnostic;
use crate::config::generation::{Action, Rewrite, UpstreamId};
use crate::config::keys;
use crate::config::schema::Located;
use crate::config::source::Place;
use crate::config::suggest;
use crate::config::values::Name;
use crate::http::Edits;
use crate::http::edits::EditedName;
use crate::http::respond::{FixedResponse, Redirect};
use crate::route::{PathPattern, Shares};

/// Who answers.
pub(super) enum Answerers {
    /// Each of these by its share.
    Upstreams(Vec<UpstreamId>),
    /// We do.
    Us,
}

/// Compiles an action; `None`: it is wrong, and was reported. `path` is what the route takes, if that is right.
pub(super) fn action(
    compiler: &mut Compiler<'_>,
    upstreams: &Upstreams<'_>,
    written: &Located<keys::Action>,
    path: Option<&PathPattern>,
) -> Option<(Answerers, Action)> {
    let keys::Action { upstream, upstreams: split, sticky, rewrite, redirect, respond } = &written.value;
    let given: Vec<(&str, Place)> = [
        ("upstream", upstream.as_ref().map(|upstream| upstream.place)),
        ("upstreams", split.is_written().then_some(split.place)),
        ("redirect", redirect.as_ref().map(|redirect| redirect.place)),
        ("respond", respond.as_ref().map(|respond| respond.place)),
    ]
    .into_iter()
    .filter_map(|(key, place)| Some((key, place?)))
    .collect();
    let what = match given[..] {
        [] => {
            let none = Diagnostic::error("an action needs `upstream`, `upstreams`, `redirect` or `respond`");
            compiler.report_missing(
                none.at(written.place, "").help("add upstream = \"…\": the name of an [upstream.<name>]"),
            );
            return None;
        }
        [(what, _)] => what,
        [(first, at), (second, again), ..] => {
            let both = Diagnostic::error(format!("an action has `{first}` or `{second}`, not both"));
            compiler.report(both.at(again, "").at(at, "and this").help("remove one of them"));
            return None;
        }
    };
    if let Some(sticky) = sticky.as_ref().filter(|_| what != "upstreams") {
        let idle = Diagnostic::error("`sticky` does nothing without `upstreams`").at(sticky.place, "");
        compiler.report(idle.help("write upstreams = [ { upstream = \"…\", weight = 90 }, … ], or remove `sticky`"));
    }
    if let Some(rewrite) = rewrite.as_ref().filter(|_| matches!(what, "redirect" | "respond")) {
        let idle =
            Diagnostic::error("`rewrite` does nothing on a route that forwards no request").at(rewrite.place, "");
        compiler.report(idle.help("remove it; `location` of a redirect says where to"));
    }
    let rewrite = rewrite.as_ref().and_then(|rewrite| compile_rewrite(compiler, rewrite, path));
    if let Some(redirect) = redirect {
        return Some((Answerers::Us, Action::Redirect(compile_redirect(compiler, &redirect.value, path)?)));
    }
    if let Some(respond) = respond {
        return Some((Answerers::Us, Action::Respond(compile_respond(compiler, &respond.value)?)));
    }
    if let Some(target) = upstream {
        let id = find(compiler, upstreams, target)?;
        return Some((Answerers::Upstreams(vec![id]), Action::Forward { shares: Shares::new([1], None), rewrite }));
    }
    let sticky = sticky.as_ref().map(|sticky| sticky.value.0.clone());
    let (ids, weights) = compile_split(compiler, upstreams, split)?;
    Some((Answerers::Upstreams(ids), Action::Forward { shares: Shares::new(weights, sticky), rewrite }))
}

/// The upstreams of a split with their weights, in the order of their names: the order of the file means nothing.
fn compile_split(
    compiler: &mut Compiler<'_>,
    upstreams: &Upstreams<'_>,
    split: &Located<Vec<Located<keys::Share>>>,
) -> Option<(Vec<UpstreamId>, Vec<u32>)> {
    if split.value.len() < 2 {
        let few = Diagnostic::error("a split has at least two upstreams").at(split.place, "");
        compiler.report_missing(few.help("add another { upstream = \"…\" }, or write upstream = \"…\""));
        return None;
    }
    let mut found: Vec<(&str, UpstreamId, u32, Place)> = Vec::new();
    let mut whole = true;
    for share in &split.value {
        let target = share.value.upstream.as_ref();
        let id = target.and_then(|target| find(compiler, upstreams, target));
        let (Some(target), Some(id)) = (target, id) else {
            whole = false;
            continue;
        };
        if let Some((.., first)) = found.iter().find(|(_, known, ..)| *known == id) {
            let twice = Diagnostic::error(format!("two shares of this split go to upstream `{}`", target.value.0))
                .at(target.place, "here again")
                .at(*first, "first here");
            compiler.report(twice.help("add up their weights"));
            whole = false;
        }
        found.push((&target.value.0, id, share.value.weight.value, target.place));
    }
    found.sort_by_key(|(name, ..)| *name);
    whole.then(|| found.into_iter().map(|(_, id, weight, _)| (id, weight)).unzip())
}

fn find(compiler: &mut Compiler<'_>, upstreams: &Upstreams<'_>, target: &Located<Name>) -> Option<UpstreamId> {
    let name = &target.value.0;
    if let Some(id) = upstreams.find(name) {
        return Some(id);
    }
    let unknown = Diagnostic::error(format!("there is no upstream `{name}`")).at(target.place, "");
    match suggest::nearest(name, upstreams.names()) {
        // A slip of the finger is one even where another line could not be read.
        Some(near) => compiler.report(unknown.help(format!("did you mean `{near}`?"))),
        None => compiler.report_missing(unknown.help(format!("add [upstream.{name}]"))),
    }
    None
}

fn compile_rewrite(
    compiler: &mut Compiler<'_>,
    rewrite: &Located<crate::config::values::RoutePath>,
    path: Option<&PathPattern>,
) -> Option<Rewrite> {
    let behind = match path? {
        PathPattern::Prefix(prefix) => Some(prefix.clone()),
        PathPattern::Exact(_) => None,
        PathPattern::Pathless => {
            let idle = Diagnostic::error("`rewrite` does nothing: the target \"*\" has no path").at(rewrite.place, "");
            compiler.report(idle.help("remove it"));
            return None;
        }
    };
    Some(Rewrite { base: rewrite.value.0.as_str().into(), behind })
}

fn compile_redirect(
    compiler: &mut Compiler<'_>,
    keys: &keys::Redirect,
    path: Option<&PathPattern>,
) -> Option<Redirect> {
    let status = &keys.status;
    if matches!(status.value, 304..=306) {
        let odd = Diagnostic::error(format!("status {} sends nobody anywhere", status.value)).at(status.place, "");
        compiler.report(odd.help("write 301, 302, 303, 307 or 308"));
        return None;
    }
    let behind = match path {
        Some(PathPattern::Prefix(prefix)) if keys.keep_path.value => Some(prefix.clone()),
        Some(PathPattern::Exact(_) | PathPattern::Pathless) if keys.keep_path.value => {
            let idle = Diagnostic::error("`keep_path` does nothing: there is nothing behind an exact path");
            compiler.report(idle.at(keys.keep_path.place, "").help("use `path_prefix`, or remove it"));
            return None;
        }
        _ => None,
    };
    let location = &keys.location.as_ref()?.value;
    Some(Redirect {
        status: status.value,
        base: location.base.as_str().into(),
        query: location.query.as_deref().map(Into::into),
        fragment: location.fragment.as_deref().map(Into::into),
        behind,
        keep_query: keys.keep_query.value,
    })
}

fn compile_respond(compiler: &mut Compiler<'_>, keys: &keys::Respond) -> Option<FixedResponse> {
    let status = keys.status.as_ref()?;
    let body = keys.body.as_ref().filter(|body| !body.value.0.is_empty());
    if let Some(body) = body.filter(|_| matches!(status.value, 204 | 205 | 304)) {
        let none = Diagnostic::error(format!("a response with status {} has no body", status.value)).at(body.place, "");
        compiler.report(none.at(status.place, "the status").help("remove `body`, or take another status"));
    }
    if let (None, Some(idle)) = (body, &keys.content_type) {
        let idle = Diagnostic::error("`content_type` does nothing without `body`").at(idle.place, "");
        compiler.report(idle.help("add `body`, or remove it"));
    }
    Some(FixedResponse {
        status: status.value,
        body: body.map_or(&[][..], |body| body.value.0.as_bytes()).into(),
        content_type: keys.content_type.as_ref().map_or("text/plain; charset=utf-8", |kind| &kind.value.0).into(),
    })
}

/// Compiles changes to fields.
pub(super) fn edits(compiler: &mut Compiler<'_>, keys: &keys::HeaderEdits) -> Edits {
    let mut edits = Edits::default();
    let lines = |lines: &'_ Located<Vec<Located<keys::HeaderLine>>>| -> Vec<(Located<EditedName>, String)> {
        let whole =
            lines.value.iter().filter_map(|line| Some((line.value.name.clone()?, line.value.value.clone()?.value.0)));
        whole.collect()
    };
    let set = lines(&keys.set);
    // All fields of a name go once.
    let mut gone: Vec<&Located<EditedName>> = Vec::new();
    for name in keys.remove.value.iter().chain(set.iter().map(|(name, _)| name)) {
        if let Some(first) = gone.iter().find(|known| known.value == name.value) {
            let twice =
                Diagnostic::error("the fields of one name are removed or set twice").at(name.place, "here again");
            let help = "remove one of them: `set` replaces all fields of its name, and `add` adds a second one";
            compiler.report(twice.at(first.place, "first here").help(help));
        }
        gone.push(name);
    }
    keys.remove.value.iter().for_each(|name| edits.remove(name.value.clone()));
    set.iter().for_each(|(name, value)| edits.set(name.value.clone(), value));
    lines(&keys.add).iter().for_each(|(name, value)| edits.add(name.value.clone(), value));
    edits
}
