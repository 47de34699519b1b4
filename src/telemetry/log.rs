//! The operator's log: levels with our names, plain or JSON lines, never a wait on a ring thread.
//!
//! ```text
//! main, before and after the rings run:  event → line → written at once
//! worker and control threads:            event → line → bounded mailbox → control → its own ring → file or terminal
//!                                                       full: dropped, counted
//! ```
//! A terminal that is stopped or a disk that hangs would otherwise stop a worker in the middle of its turn. Bytes from
//! clients belong into fields (`?value`), whose debug form escapes control characters.

use crate::limits::LOG_QUEUE_LINES;
use spooky_uring::mailbox::{self, Receiver, Sender};
use std::cell::Cell;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Everything (`trace`).
    Whisper,
    /// What a developer asks for (`debug`).
    Haunt,
    /// What an operator wants to know (`info`).
    Spooky,
    /// What may need attention (`warn`).
    Scream,
    /// What does (`error`).
    Poltergeist,
    /// Nothing.
    Silence,
}

impl Level {
    /// The word of the logging library.
    const fn directive(self) -> &'static str {
        match self {
            Self::Whisper => "trace",
            Self::Haunt => "debug",
            Self::Spooky => "info",
            Self::Scream => "warn",
            Self::Poltergeist => "error",
            Self::Silence => "off",
        }
    }
}

/// Where lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error.
    #[default]
    Stderr,
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("standard error"),
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// The log as configured.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// For modules without a level of their own.
    pub level: Level,
    /// Modules (`spooky::h3`, or `h3` for short) with their level.
    pub modules: Vec<(String, Level)>,
    /// JSON lines instead of plain text.
    pub json: bool,
    /// Where lines go.
    pub target: LogTarget,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: Level::Spooky, modules: Vec::new(), json: false, target: LogTarget::Stderr }
    }
}

impl LogSettings {
    /// The filter in the logging library's words.
    fn directives(&self) -> String {
        let mut text = self.level.directive().to_owned();
        for (module, level) in &self.modules {
            let prefix = if module == "spooky" || module.starts_with("spooky") { "" } else { "spooky::" };
            text.push_str(&format!(",{prefix}{module}={}", level.directive()));
        }
        text
    }
}

struct Sink {
    queue: Sender<Vec<u8>>,
    direct: Mutex<Output>,
    dropped: AtomicU64,
}

enum Output {
    Stderr,
    Stdout,
    File(File),
}

impl Output {
    fn open(target: &LogTarget) -> io::Result<Self> {
        Ok(match target {
            LogTarget::Stderr => Self::Stderr,
            LogTarget::Stdout => Self::Stdout,
            LogTarget::File(path) => Self::File(open_append(path)?),
        })
    }

    fn write(&mut self, line: &[u8]) {
        // Nobody is left to tell that the log cannot be written.
        let _ = match self {
            Self::Stderr => io::stderr().lock().write_all(line),
            Self::Stdout => io::stdout().lock().write_all(line),
            Self::File(file) => file.write_all(line),
        };
    }
}

/// Opens a log file for appending, readable by its group.
///
/// # Errors
/// As the system says.
pub fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

static SINK: OnceLock<Sink> = OnceLock::new();

thread_local! {
    static QUEUED: Cell<bool> = const { Cell::new(false) };
}

/// From here on, what this thread logs goes to control through the queue (or, with `false`, is written at once).
pub fn queue_on_this_thread(queued: bool) {
    QUEUED.set(queued);
}

/// Lines given up because the queue was full, since the start.
pub fn dropped() -> u64 {
    SINK.get().map_or(0, |sink| sink.dropped.load(Relaxed))
}

/// Opens the target again by its name, after a rotation.
///
/// # Errors
/// As the system says; the old file stays in use.
pub fn reopen(target: &LogTarget) -> io::Result<()> {
    let output = Output::open(target)?;
    if let Some(sink) = SINK.get() {
        *sink.direct.lock().unwrap_or_else(PoisonError::into_inner) = output;
    }
    Ok(())
}

/// Writes a line at once, whatever thread this is: for control, when its ring is gone.
pub fn write_now(line: &[u8]) {
    if let Some(sink) = SINK.get() {
        let mut output = sink.direct.lock().unwrap_or_else(PoisonError::into_inner);
        output.write(line);
    }
}

/// Starts the log of this process; the receiver is control's end of the queue.
///
/// # Errors
/// The target cannot be opened, or the log was started before.
pub fn start(settings: &LogSettings) -> io::Result<Receiver<Vec<u8>>> {
    let (queue, receiver) = mailbox::channel(LOG_QUEUE_LINES)?;
    let sink = Sink { queue, direct: Mutex::new(Output::open(&settings.target)?), dropped: AtomicU64::new(0) };
    let started = || io::Error::new(io::ErrorKind::AlreadyExists, "the log is running already");
    SINK.set(sink).map_err(|_| started())?;
    // RUST_LOG wins; one that does not parse is as good as none, and is said.
    let from_env = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let parsed = from_env.as_deref().map(EnvFilter::try_new);
    let refused = matches!(parsed, Some(Err(_)));
    let filter = match parsed {
        Some(Ok(filter)) => filter,
        _ => EnvFilter::new(settings.directives()),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Lines);
    if settings.json { builder.json().flatten_event(true).try_init() } else { builder.try_init() }
        .map_err(|_| started())?;
    if refused {
        tracing::warn!(value = ?from_env, "RUST_LOG does not parse and is not used");
    }
    Ok(receiver)
}

struct Lines;

/// The line being formatted; it leaves whole when dropped.
struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let (Some(sink), false) = (SINK.get(), self.0.is_empty()) else {
            return;
        };
        if QUEUED.get() {
            if sink.queue.send(std::mem::take(&mut self.0)).is_err() {
                sink.dropped.fetch_add(1, Relaxed);
            }
        } else {
            write_now(&self.0);
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Vec::with_capacity(256))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_level_names_become_directives_for_our_modules() {
        let settings = LogSettings {
            level: Level::Scream,
            modules: vec![("h3".to_owned(), Level::Whisper), ("spooky::worker".to_owned(), Level::Silence)],
            ..LogSettings::default()
        };
        assert_eq!(settings.directives(), "warn,spooky::h3=trace,spooky::worker=off");
        assert!(EnvFilter::try_new(settings.directives()).is_ok());
    }

    // One test owns the process-wide log: what a thread says before, while and after it queues.
    #[test]
    fn lines_of_queued_threads_wait_for_control_and_the_full_queue_drops() {
        let dir = std::env::temp_dir().join(format!("spooky-log-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("log");
        let settings = LogSettings { json: true, target: LogTarget::File(path.clone()), ..LogSettings::default() };
        let receiver = start(&settings).expect("first start");
        assert!(start(&settings).is_err(), "only once");

        tracing::info!(value = 1, "direct");
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(written.contains("\"message\":\"direct\""), "{written}");

        std::thread::spawn(|| {
            queue_on_this_thread(true);
            for n in 0..LOG_QUEUE_LINES + 3 {
                tracing::error!(n, "queued");
            }
        })
        .join()
        .unwrap();
        assert!(dropped() >= 3);
        let mut lines = 0;
        while let Some(line) = receiver.receive() {
            assert!(line.ends_with(b"\n"));
            lines += 1;
        }
        assert!(lines >= LOG_QUEUE_LINES);
        assert!(!std::fs::read_to_string(&path).unwrap().contains("queued"), "nothing was written by the worker");

        std::fs::rename(&path, dir.join("log.1")).unwrap();
        reopen(&settings.target).unwrap();
        tracing::warn!("after rotation");
        assert!(std::fs::read_to_string(&path).unwrap().contains("after"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
