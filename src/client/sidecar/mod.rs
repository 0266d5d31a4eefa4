//! The sidecar: a [`crate::Registration`] configured by environment variables, with a log on standard output, that ends on
//! SIGTERM and SIGINT. `exec` makes it the service's parent as well: `supervisor.rs` decides, `launcher.rs` does.

mod child;
pub mod config;
mod healthcheck;
mod launcher;
pub mod log;
pub mod run;
pub mod supervisor;
mod wake;

pub use run::run;
