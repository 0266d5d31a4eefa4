//! The I/O shell of the Vértice Gateway.
//!
//! **Invariant:** nothing here decides what `vertice-core` can decide. It is a library only so that its own binary, tests
//! and benches can share it; nobody else links it. `src/ARCHITECTURE.md` draws the rooms and the arrows between them.

pub mod accept;
pub mod active_probes;
pub mod aliases;
pub mod buffers;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod deadline;
pub mod demo;
pub mod descriptors;
pub mod edge;
pub mod express;
pub mod held;
pub mod lanes;
pub mod leash;
pub mod listeners;
pub mod noticeboard;
pub mod outliers;
pub mod persistence;
pub mod probe;
mod problem;
pub mod proxy;
pub mod random;
pub mod rates;
pub mod registrar;
pub mod reloads;
pub mod request_id;
pub mod resolve;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod upstream;

/// What was built: the commit, where the build knew it.
pub const BUILD: &str = match option_env!("VERTICE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
