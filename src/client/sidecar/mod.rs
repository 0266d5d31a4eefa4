//! The sidecar: a [`crate::Registration`] configured by environment variables, with a log on standard output, that ends on
//! SIGTERM and SIGINT.

pub mod config;
pub mod log;
pub mod run;

pub use run::run;
