//! The data plane's decisions, shared by every lane that moves bytes.
//!
//! **Invariant:** this room sees the core, telemetry, the clock, what hangs on instances, the snapshot, and who looks names up. It knows no
//! registrar, store, configuration or control plane, and no Pingora session: a lane asks it and moves the bytes.

pub mod admit;
pub mod affinity;
pub mod again;
pub mod answer;
pub mod attempt;
pub mod cause;
pub mod client;
pub mod conclude;
pub mod ctx;
pub mod explain;
pub mod fail;
pub mod fields;
pub mod forwarding;
pub mod headers;
pub mod limits;
pub mod outgoing;
pub mod overload;
pub mod pooled;
pub mod rules;
pub mod watch;
