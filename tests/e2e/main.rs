//! End-to-end tests: the real programs over real sockets, asserting what a user would notice.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking, and show why; helpers outside #[test] functions count as tests too"
)]

mod harness;
mod registry_api;
mod wire;
mod routing;
mod resolution;
mod streaming;
mod resilience;
mod dns;
mod health_cache;
mod status;
mod store;
