//! The accept room: everything between a client's socket and the lane that serves its request.
//!
//! **Invariant:** no request reaches a lane before its head was read under a deadline and checked ([`head`]), and no lane
//! sees a byte that belongs to another request. The room knows nothing of services, routes or the registry; it answers a
//! request itself only when that request cannot be served by anyone, with bytes that its [`AcceptObserver`] makes.

mod app;
mod connection;
mod crowd;
mod decoded;
mod drain;
mod express;
mod gate;
mod gathering;
pub mod head;
mod http2;
mod listener;
mod pacing;
mod request_stream;
mod service;
mod tls;
mod workers;

pub use app::{AcceptApp, AcceptObserver, AcceptSettings, Protocol};
pub use connection::Connection;
pub use drain::{Drain, DrainSignal, DrainTimes};
pub use express::{ExpressLane, Incoming, Served};
pub use gate::{is_cut, is_malformed_body};
pub use head::{FieldIndex, Head, HeadLimits, Refusal};
pub use http2::Http2Limits;
pub use listener::{BindError, BoundListener};
pub use pacing::{Pacing, is_slow_body};
pub use request_stream::is_grpc;
pub use service::{AcceptService, Entrance, service};
pub use tls::{Certificate, Tls};
pub use workers::{Serve, Workers};
