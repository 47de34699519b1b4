//! The command line: what an operator types, what is printed where, and the exit code.
//!
//! Data goes to standard output, everything else to standard error; a reader that goes away is no failure. Exit codes are
//! those of [`Exit`]. Each command has its file; nothing here knows how a request is served.

mod check;
mod demo;
mod explain;
mod fetch;
mod probe;
mod run;
mod terminal;
mod version;

use crate::control::{Exit, Failure};
use clap::{Parser, Subcommand};
use serde::Serialize;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Where the configuration is unless said otherwise.
const CONFIG: &str = "/etc/spooky/config.toml";

/// An HTTP/3-first edge reverse proxy. Without a command it runs.
#[derive(Debug, Parser)]
#[command(name = "spooky", disable_version_flag = true)]
struct Arguments {
    /// Configuration file [default: /etc/spooky/config.toml]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and exit: the same as `check`
    #[arg(short = 't', long = "test")]
    test: bool,
    /// Print the version
    #[arg(short = 'V', long)]
    version: bool,
    /// With --version: the libraries and the kernel's features too
    #[arg(short, long)]
    verbose: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy (the default)
    Run,
    /// Check a configuration: what it says and the memory it can need, or everything that is wrong with it
    Check {
        /// Configuration file
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Serve a built-in origin through the proxy, with a certificate made in memory; needs no file
    Demo {
        /// Listen here [default: 127.0.0.1:9889, or a free port if that is taken]
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Option<SocketAddr>,
        /// Exit after one HTTP/3 request through the proxy
        #[arg(long)]
        once: bool,
    },
    /// Tell what would become of a request, and why: routes considered, checks, limits, backends
    Explain(explain::Options),
    /// Ask a server over HTTP/3, and tell what it answered and what QUIC and TLS did
    Probe(probe::Options),
}

/// Runs the program.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and the like are no errors; clap knows the stream for each.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Exit::Usage } else { Exit::Success } as u8);
        }
    };
    let config = |file: Option<PathBuf>| file.or(arguments.config.clone()).unwrap_or_else(|| CONFIG.into());
    let done = match arguments.command {
        _ if arguments.version => {
            version::print(arguments.verbose);
            Ok(())
        }
        Some(Command::Check { file }) => check::check(&config(file)),
        None | Some(Command::Run) if arguments.test => check::check(&config(None)),
        None | Some(Command::Run) => run::run(&config(None)),
        Some(Command::Demo { listen, once }) => demo::demo(listen, once),
        Some(Command::Explain(options)) => explain::explain(&options, &config(None)),
        Some(Command::Probe(options)) => probe::probe(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            if let Some(text) = &stop.text {
                tell(format_args!("spooky: {text}"));
            }
            ExitCode::from(stop.exit as u8)
        }
    }
}

/// Why a command ends early: what is still to be said, and the exit code.
#[derive(Debug)]
struct Stop {
    text: Option<String>,
    exit: Exit,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self { text: Some(failure.to_string()), exit: failure.exit }
    }
}

/// Writes a line of data.
fn print(line: impl Display) {
    // A closed pipe: whoever read it has seen enough.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// One JSON object as a line. What serde leaves as it is, but terminals act on, is escaped.
fn json_line(report: &impl Serialize) -> String {
    // Strings, numbers and lists of them: nothing that could fail.
    let text = serde_json::to_string(report).unwrap_or_default();
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '\u{7f}'..='\u{9f}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            other => out.push(other),
        }
        out
    })
}

/// Writes a line of diagnostics.
fn tell(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(arguments: &[&str]) -> Arguments {
        Arguments::try_parse_from(["spooky"].iter().chain(arguments)).expect("good arguments")
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_file_may_stand_before_and_behind_the_command() {
        for arguments in [["-c", "f", "run"], ["run", "-c", "f"], ["run", "--config", "f"]] {
            let parsed = parse(&arguments);
            assert_eq!(parsed.config.as_deref(), Some("f".as_ref()), "{arguments:?}");
            assert!(matches!(parsed.command, Some(Command::Run)));
        }
        assert!(parse(&["-c", "f"]).command.is_none());
        assert!(parse(&["-t", "-c", "f"]).test);
    }

    #[test]
    fn usage_errors_have_their_code() {
        let run = |arguments: &[&str]| main(arguments.iter().map(OsString::from));
        assert_eq!(run(&["spooky", "no-such-command"]), ExitCode::from(2));
        assert_eq!(run(&["spooky", "--no-such-option"]), ExitCode::from(2));
    }
}
