//! The sidecar's real binary and the library, against scripted services and registries on real sockets.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod discovery;
mod exec;
mod harness;
mod library;
mod sidecar;
mod watched;
