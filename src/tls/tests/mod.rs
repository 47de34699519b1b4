//! Both sides against each other, over bytes that are cut wherever it hurts.

mod bad_input;
mod identities;
mod resumption;
mod support;
mod transfer;
mod verdicts;
