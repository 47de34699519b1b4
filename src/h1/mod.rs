//! HTTP/1.1 without I/O.

mod chunked;
mod input;
mod output;
mod parse;

#[cfg(test)]
mod testing;

pub use output::Output;
