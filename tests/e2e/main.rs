//! End-to-end tests: the real programs over real sockets, asserting what a user would notice.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking, and show why; helpers outside #[test] functions count as tests too"
)]

mod balance;
mod cli;
mod corpus;
mod demo;
mod discovery;
mod dns;
mod explain;
mod fuzz;
mod harness;
mod health_cache;
mod images;
mod mass_lapse;
mod metrics;
mod openapi;
mod process;
mod protocols;
mod redis;
mod registry_api;
mod reload;
mod resilience;
mod resolution;
mod rolling;
mod routing;
mod sidecar;
mod sidecar_exec;
mod status;
mod store;
mod streaming;
mod watch;
mod wire;
