//! The store that replicas share.
//!
//! Two threads, a connection each. One writes (`writer.rs`): the outbox, that this replica lives, everything compared now and
//! then. One reads (`reader.rs`): what the others wrote, from a capped stream with contiguous numbers. A third answers questions
//! of the health-check cache, so that a slow Redis costs those questions 50 ms and nothing else. None of them decides: what is
//! newer, who holds a lease and who lapses is core's business, told by commands; what two replicas write at once is settled
//! by versions inside Redis (`scripts/`).
//!
//! **Invariant:** whatever Redis does, the threads end when they are told to, and nobody else waits for them longer than the
//! bound that the caller set.

mod connect;
mod failure;
mod health;
mod literal;
mod load;
mod predecessor;
mod reader;
mod reconcile;
mod record;
mod script;
mod settings;
mod shared;
mod shelf;
mod skipped;
mod state;
#[cfg(test)]
mod tests;
mod threads;
mod writer;

pub use health::HealthLayer;
pub use load::{Loaded, load};
pub use settings::Settings;
pub use state::{RedisState, Replica};
pub use threads::{Threads, start};
