//! The accept room: everything between a client's socket and the lane that serves its request.
//!
//! **Invariant:** no request reaches a lane before its head was read under a deadline and checked ([`head`]), and no lane
//! sees a byte that belongs to another request. The room knows nothing of services, routes or the registry; it answers a
//! request itself only when that request cannot be served by anyone, with bytes that its [`AcceptObserver`] makes.

mod app;
pub mod chunks;
mod crowd;
mod drain;
mod gate;
pub mod head;
mod listener;
mod pacing;

pub use app::{AcceptApp, AcceptObserver, AcceptSettings};
pub use drain::{Drain, DrainSignal, DrainTimes};
pub use gate::is_malformed_body;
pub use head::{HeadLimits, Refusal};
pub use listener::{AcceptService, BindError, BoundListener, service};
pub use pacing::is_slow_body;
