//! `spooky run`: from a file to a serving process, until it is told to end.

use super::{Stop, check, tell};
use crate::config::{LogFormat, LogLevel};
use crate::control::boot::{self, log_target};
use crate::control::{Failure, Start, start};
use crate::telemetry::log::{self, Level, LogSettings, LogTarget};
use std::path::Path;
use std::time::Instant;

/// Runs the proxy.
pub(super) fn run(path: &Path) -> Result<(), Stop> {
    let started = Instant::now();
    let (generation, warnings) = check::load(path)?;
    let settings = log_settings(&generation.log);
    let log = log::start(&settings).map_err(|error| match &settings.target {
        LogTarget::File(file) => Failure::file(file, "[log] file", &error),
        LogTarget::Stderr | LogTarget::Stdout => Failure::new("the log", error),
    })?;
    if !warnings.is_empty() {
        tell(warnings.to_string().trim_end());
    }
    let features = boot::probe()?;
    tracing::info!(version = crate::control::VERSION, config = %path.display(), %features, "starts");
    let running = start(Start { generation, identity: None, log: Some(log), features, started })?;
    Ok(running.wait()?)
}

fn log_settings(log: &crate::config::Log) -> LogSettings {
    LogSettings {
        level: level(log.level),
        modules: log.modules.iter().map(|(module, of)| (module.to_string(), level(*of))).collect(),
        json: log.format == LogFormat::Json,
        target: log_target(&log.target),
    }
}

fn level(level: LogLevel) -> Level {
    match level {
        LogLevel::Whisper => Level::Whisper,
        LogLevel::Haunt => Level::Haunt,
        LogLevel::Spooky => Level::Spooky,
        LogLevel::Scream => Level::Scream,
        LogLevel::Poltergeist => Level::Poltergeist,
        LogLevel::Silence => Level::Silence,
    }
}
