//! Spooky: arguments in, exit code out. Read `cli` next.

use std::process::ExitCode;

fn main() -> ExitCode {
    spooky::cli::main(std::env::args_os())
}
