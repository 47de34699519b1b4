//! Spooky: an HTTP/3-first edge reverse proxy for Linux on io_uring.
#![deny(unsafe_code)]

pub mod admit;
pub mod balance;
pub mod cli;
pub mod config;
pub mod control;
pub mod exchange;
pub mod h1;
pub mod h2;
pub mod h3;
pub mod health;
pub mod http;
pub mod identity;
pub mod limits;
pub mod overload;
pub mod proxy_protocol;
pub mod resilience;
pub mod route;
pub mod telemetry;
pub mod tls;
pub mod worker;
