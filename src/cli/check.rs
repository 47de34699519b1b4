//! `spooky check`: reads a configuration as a start would, and says what it means or what is wrong with it.

use super::{Stop, print, tell};
use crate::config::{self, Diagnostics, Generation, Warnings};
use crate::control::{Exit, identities, secret};
use crate::h3::tickets::TicketKeys;
use std::path::Path;

/// Checks a file and prints what it amounts to.
pub(super) fn check(path: &Path) -> Result<(), Stop> {
    let (generation, warnings) = load(path)?;
    if !warnings.is_empty() {
        tell(warnings.to_string().trim_end());
    }
    check_identities(path, &generation)?;
    secret::check(&generation.secret)
        .map_err(|failure| Stop { text: Some(format!("error: {}: {failure}", path.display())), exit: failure.exit })?;
    print(format_args!("OK: {}: {}", path.display(), summary(&generation)));
    print(generation.budget().to_string().trim_end());
    Ok(())
}

/// Reads a file; what is wrong with it has been told.
pub(super) fn load(path: &Path) -> Result<(Generation, Warnings), Stop> {
    config::load(path).map_err(|diagnostics| refused(&diagnostics))
}

/// What a refused configuration ends with; it has been told.
pub(super) fn refused(diagnostics: &Diagnostics) -> Stop {
    tell(diagnostics.to_string().trim_end());
    let exit = if diagnostics.is_denied() { Exit::Permission } else { Exit::Configuration };
    Stop { text: None, exit }
}

/// Certificates and keys are read and compared, as a start does.
fn check_identities(path: &Path, generation: &Generation) -> Result<(), Stop> {
    let sites = identities::load(generation, None);
    let made = sites.and_then(|sites| {
        identities::contexts(generation, &sites, &TicketKeys::derive(b"a check", identities::unix_seconds))
    });
    made.map(|_| ()).map_err(|failure| Stop {
        text: Some(format!("error: {}: {failure}", path.display())),
        exit: Exit::Configuration,
    })
}

fn summary(generation: &Generation) -> String {
    let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    [
        count(generation.listeners.len(), "listener"),
        count(generation.routes.len(), "route"),
        count(generation.upstreams.len(), "upstream"),
        count(generation.backends.len(), "backend"),
        count(usize::from(generation.performance.worker_threads), "worker"),
    ]
    .join(", ")
}
