//! A bounded mailbox between threads, with a doorbell that a ring can wait on.

/// Rings the mailbox's owner awake.
#[derive(Debug, Clone)]
pub struct Doorbell;
