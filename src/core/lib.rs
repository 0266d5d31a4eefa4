//! The decisions of the Vértice Gateway, without its I/O.
//!
//! **Invariant:** nothing in this crate opens a socket or a file, reads a clock, draws a random number, spawns a thread or
//! awaits. Time ([`time::Moment`], [`time::Now`]) and seeds are arguments, so that every decision can be replayed. Atomics are
//! allowed: a state machine here is a function over a `Copy` state which a cell applies by compare-and-swap.
//!
//! The shell (`vertice-gateway`) feeds [`registry::Registry`] with commands, publishes what changed as a
//! [`table::Snapshot`], and lets the data plane read that snapshot.

pub mod backoff;
pub mod balance;
pub mod bounds;
pub mod breaker;
pub mod cell;
pub mod changelog;
pub mod chunks;
pub mod command;
pub mod concurrency;
pub mod decimal;
pub mod endpoint;
pub mod event;
pub mod follow;
pub mod grammar;
pub mod lease;
pub mod limiter;
pub mod load;
pub mod name;
mod names;
pub mod outcome;
pub mod outlier;
pub mod pace;
pub mod policy;
pub mod priority;
pub mod probing;
pub mod reason;
pub mod record;
pub mod registry;
pub mod retry;
pub mod route;
pub mod rule;
pub mod seed;
pub mod standing;
pub mod status;
pub mod table;
pub mod time;
pub mod version;
