//! The commands that ask a running gateway: `status`, `services`, `instances`, `watch`, `drain`, `reload`; `healthcheck`; and `completions`.
//!
//! Arguments and environment come in, text goes out through one writer ([`output`]), an exit code comes back. What a
//! registry sends is data of strangers: [`text`] makes it harmless before a terminal sees it.
//!
//! **Invariant:** this room is a client. It knows the wire contract and nothing else of the gateway: no configuration file, no
//! registrar, no store. It starts no runtime, and no wait of it is without a limit except that of `watch`.

mod access;
mod age;
mod arguments;
mod changes;
mod colour;
mod completions;
mod drain;
mod events;
mod failure;
mod healthcheck;
mod instances;
mod json;
mod output;
mod reader;
mod reload;
mod reply;
mod run;
mod services;
mod status;
mod stream;
mod table;
mod text;
mod watch;

pub use arguments::Call;
pub use run::{check_health, run};
