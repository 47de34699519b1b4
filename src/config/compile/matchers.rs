//! What a route takes beside hosts and methods: its path, and matchers of fields, query and cookies.

use super::Compiler;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys;
use crate::config::schema::Located;
use crate::config::source::Place;
use crate::config::values::{RoutePath, is_possible, subject};
use crate::limits;
use crate::route::{Matcher, PathPattern, Source, Subject, Test};

/// The path of a route in short form.
pub(super) fn prefix(written: Option<&Located<RoutePath>>) -> PathPattern {
    PathPattern::Prefix(written.map_or("/", |path| &path.value.0).into())
}

/// The path of a route in full form.
pub(super) fn path(compiler: &mut Compiler<'_>, keys: &keys::Match) -> Option<PathPattern> {
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

/// All matchers of a route; `None`: one of them is wrong, and was reported.
pub(super) fn matchers(compiler: &mut Compiler<'_>, keys: &keys::Match) -> Option<Vec<Matcher>> {
    let mut found: Vec<(Matcher, Place)> = Vec::new();
    let mut whole = true;
    for (source, written) in
        [(Source::Header, &keys.headers), (Source::Query, &keys.query), (Source::Cookie, &keys.cookies)]
    {
        for one in &written.value {
            let Some(matcher) = matcher(compiler, source, one) else {
                whole = false;
                continue;
            };
            if let Some((_, first)) = found.iter().find(|(known, _)| known.subject == matcher.subject) {
                let twice = Diagnostic::error(format!("two matchers look at {}", matcher.subject))
                    .at(one.place, "here again")
                    .at(*first, "first here");
                compiler.report(twice.help("join them: `exact` takes an array, and a pattern can have alternatives"));
                whole = false;
            }
            found.push((matcher, one.place));
        }
    }
    if let Some((_, place)) = found.get(limits::ROUTE_MATCHERS) {
        let many = Diagnostic::error(format!("a route has {} matchers at most", limits::ROUTE_MATCHERS));
        compiler.report(many.at(*place, "one too many").help("let the backend tell the rest apart"));
        whole = false;
    }
    whole.then(|| found.into_iter().map(|(matcher, _)| matcher).collect())
}

fn matcher(compiler: &mut Compiler<'_>, source: Source, written: &Located<keys::ValueMatch>) -> Option<Matcher> {
    let keys::ValueMatch { name, exact, regex, present } = &written.value;
    // A missing name was reported where it is missing.
    let name = name.as_ref()?;
    let subject = subject(source, &name.value.0, "use `host` of the match").map_err(|(wrong, help)| {
        compiler.report(Diagnostic::error(format!("`name`: {wrong}")).at(name.place, "").help(help));
    });
    let places: Vec<Place> = [
        exact.as_ref().map(|exact| exact.place),
        regex.as_ref().map(|regex| regex.place),
        present.as_ref().map(|present| present.place),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let [first, second, ..] = places[..] {
        let both = Diagnostic::error("a matcher has one of `exact`, `regex` and `present`");
        compiler.report(both.at(second, "").at(first, "and this").help("remove all but one"));
        return None;
    }
    if let Some(absent) = present.as_ref().filter(|present| !present.value) {
        let absent = Diagnostic::error("a matcher cannot ask for what is not there").at(absent.place, "");
        compiler.report(absent.help("make a route of its own for requests that have it; the others take this one"));
        return None;
    }
    let subject: Subject = subject.ok()?;
    let test = match (exact, regex, present) {
        (Some(values), ..) => {
            for value in values.value.0.iter().filter(|value| !is_possible(source, &value.value.0)) {
                let never =
                    Diagnostic::error(format!("no {} can have this value", source.as_str())).at(value.place, "");
                compiler.report(
                    never.help("write it as clients send it, without control characters and spaces at its ends"),
                );
            }
            Test::Exact(values.value.0.iter().map(|value| value.value.0.as_str().into()).collect())
        }
        (_, Some(pattern), _) => Test::Regex(pattern.value.clone()),
        (_, _, Some(_)) => Test::Present,
        (None, None, None) => {
            let empty = Diagnostic::error("a matcher needs `exact`, `regex` or `present`").at(written.place, "");
            compiler.report_missing(empty.help("add exact = \"…\", regex = \"…\", or present = true"));
            return None;
        }
    };
    Some(Matcher { subject, test })
}
