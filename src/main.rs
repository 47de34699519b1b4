//! Spooky.
fn main() {}
