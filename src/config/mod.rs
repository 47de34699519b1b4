//! From the operator's TOML to a [`Generation`], or to a list of everything that is wrong with it.
//!
//! The way of a file: [`source`] and [`include`] read texts, [`tree`] parses them with places, [`schema`] walks the tree
//! along the rows of [`keys`] with the types of [`values`], [`compile`] checks what rows cannot and makes the
//! [`generation`]. Nothing on the way stops at the first mistake: findings collect in [`diagnostic`], which shows them.
//! [`reference`] prints the rows as documentation, [`notes`] keeps what only people ask for. Refuses to know sockets, certificates' contents and the running state.

use std::path::Path;

mod budget;
mod compile;
mod diagnostic;
mod generation;
mod include;
mod keys;
mod notes;
mod redact;
pub mod reference;
mod schema;
mod source;
mod suggest;
mod tree;
mod values;
mod written;

#[cfg(test)]
mod tests;

pub use diagnostic::{Diagnostics, Finding, Severity, Warnings};
pub use generation::{
    Action, AllowedMethods, AltSvc, Backend, BackendId, BackendScheme, Balancing, BodyLimits, Cleartext,
    ClientAuthSource, ClientCertHeader, CongestionControl, EncodedSlash, ForwardedMode, Generation, HashKey,
    HealthCheck, HostPolicy, Listener, ListenerTls, Location, Log, LogFormat, LogLevel, LogTarget, MetricsEndpoint,
    MinVersion, NamedCertificate, Observability, Performance, ProbeSpeech, ProtocolPolicy, Protocols, Proxies, Quic,
    Resolver, RetryMode, Rewrite, Route, Routing, SecretSource, Security, Timeouts, TlsSource, Upstream, UpstreamId,
    UpstreamTls, Way, WayId,
};
pub use notes::{Layer, NetworkLists, Notes, Setting};
pub use source::Position;
pub use values::{parse_bytes, parse_millis};

use diagnostic::Findings;
use source::{Place, Source, Sources};

/// Reads, checks and compiles a configuration file. Referenced files are opened, and their kind is checked.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(path: &Path) -> Result<(Generation, Warnings), Diagnostics> {
    load_with_notes(path).map(|(generation, warnings, _)| (generation, warnings))
}

/// The same with what only people ask for.
///
/// # Errors
/// As [`load`].
pub fn load_with_notes(path: &Path) -> Result<(Generation, Warnings, Notes), Diagnostics> {
    load_with(path, &Options { check_files: true, supplied_tls: false })
}

/// Checks and compiles a text, such as the built-in one of the demo. Referenced files are not looked at, and a listener
/// without `tls` is one whose identity the caller supplies.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn from_str(name: &str, text: &str) -> Result<(Generation, Warnings), Diagnostics> {
    from_str_with_notes(name, text).map(|(generation, warnings, _)| (generation, warnings))
}

/// The same with what only people ask for.
///
/// # Errors
/// As [`from_str`].
pub fn from_str_with_notes(name: &str, text: &str) -> Result<(Generation, Warnings, Notes), Diagnostics> {
    let mut sources = Sources::default();
    let main = sources.add(Source::new(name, Path::new(""), text.to_owned()));
    read(main, sources, Findings::default(), &Options { check_files: false, supplied_tls: true })
}

/// How strictly the world around a configuration is checked.
#[derive(Clone, Copy, Debug)]
struct Options {
    /// Open certificates, keys and folders of logs.
    check_files: bool,
    /// A listener may go without `tls`.
    supplied_tls: bool,
}

fn load_with(path: &Path, options: &Options) -> Result<(Generation, Warnings, Notes), Diagnostics> {
    let mut sources = Sources::default();
    let mut findings = Findings::default();
    match include::read_main(path, &mut sources, &mut findings) {
        Some(main) => read(main, sources, findings, options),
        None => Err(findings.refuse(sources)),
    }
}

fn read(
    main: source::SourceId,
    mut sources: Sources,
    mut findings: Findings,
    options: &Options,
) -> Result<(Generation, Warnings, Notes), Diagnostics> {
    let tree = include::read_tree(main, &mut sources, &mut findings);
    // What a broken line said is unknown, so nothing is called missing then.
    let whole = !findings.has_errors();
    let start = Place::new(main, &(0..0));
    let root = keys::Root::read_table(&tree, start, &mut schema::Reader::new(&sources, &mut findings, whole));
    let (generation, notes) = compile::compile(&root, start, whole, options, &mut findings);
    let notes = Notes { sources: sources.clone(), ..notes };
    let warnings = findings.conclude(sources)?;
    Ok((generation, warnings, notes))
}
