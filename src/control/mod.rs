//! The control thread: the same reactor as the workers, for everything that is not a client's request.
pub mod endpoints;
pub mod failure;
pub mod journal;
pub mod lifecycle;
pub mod service;
