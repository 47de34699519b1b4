//! Stories of whole connections, over memory: raw frames written by hand, and our two sides with each other.

mod floods;
mod garbage;
mod pairs;
mod requests;
mod support;
