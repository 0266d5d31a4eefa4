//! What operators see: metrics, events, the log and the access log.
//!
//! **Invariant:** this is the only room that knows Prometheus, and metric names exist once, in [`metrics`].

pub mod access;
pub mod event;
pub mod log;
pub mod metrics;
pub mod service;
