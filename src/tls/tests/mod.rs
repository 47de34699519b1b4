//! Both sides against each other, over bytes that are cut wherever it hurts.

mod support;
mod transfer;
