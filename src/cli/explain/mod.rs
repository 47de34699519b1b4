//! `spooky explain METHOD URL`: what would become of a request, and why, from the configuration alone.
//!
//! It decides nothing by itself: the gate, the plan, the lists, the key of a hash and the rules of forwarding are the
//! functions of the request path, asked once. What only they know the outcome of is said beside: every route that was
//! considered (`route::explain`), every check in its order, where each time and limit comes from (`config::Notes`).
//!
//! [`ask`] is the request, [`decide`] the walk, [`way`] what a route's upstream makes of it, [`policies`] the rules for when that
//! fails, [`words`] how it is said, [`report`] what is told, [`text`] writes it for people.

mod ask;
mod decide;
mod policies;
mod report;
mod text;
mod way;
mod words;

#[cfg(test)]
mod tests;

pub(super) use ask::Options;

use super::check::refused;
use super::{Stop, json_line, print, tell};
use crate::config;
use crate::control::{identities, secret};
use ask::Format;
use decide::World;
use std::path::Path;
use std::sync::Arc;

/// Explains one request.
pub(super) fn explain(options: &Options, path: &Path) -> Result<(), Stop> {
    let ask = options.ask()?;
    let (generation, warnings, notes) = config::load_with_notes(path).map_err(|diagnostics| refused(&diagnostics))?;
    if !warnings.is_empty() {
        tell(warnings.to_string().trim_end());
    }
    let failed = |failure: crate::control::Failure| Stop {
        text: Some(format!("error: {}: {failure}", path.display())),
        exit: failure.exit,
    };
    let sites = identities::load(&generation, None).map_err(failed)?;
    // Without it all but the backend of a hash can be told.
    let hash = match secret::existing(&generation.secret) {
        Ok(Some(secret)) => Ok(secret.request_hash()),
        Ok(None) => Err("the secret of this process is made at its first start".to_owned()),
        Err(failure) => Err(format!("the secret cannot be read: {failure}")),
    };
    let world = World { generation: Arc::new(generation), notes: &notes, sites: &sites, hash };
    let report = decide::decide(&world, &ask, options.protocol, options.listener.as_deref())?;
    print(match options.format {
        Format::Json => json_line(&report),
        Format::Plain => text::write(&report).trim_end().to_owned(),
    });
    Ok(())
}
