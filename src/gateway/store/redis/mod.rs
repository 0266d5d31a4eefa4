//! The store that replicas share.
//!
//! Two threads, a connection each. One writes (`writer.rs`): the outbox, that this replica lives, everything compared now and
//! then. One reads (`reader.rs`): what the others wrote, from a capped stream with contiguous numbers. A third answers questions
//! of the health-check cache, so that a slow Redis costs those questions 50 ms and nothing else. A fourth counts rate limits together
//! with the other replicas. None of them decides: what is
//! newer, who holds a lease and who lapses is core's business, told by commands; what two replicas write at once is settled
//! by versions inside Redis (`scripts/`).
//!
//! What is in Redis (no cluster: scripts name keys by their contents):
//!
//! | key | type | what |
//! |---|---|---|
//! | `services:{name}` | hash | the best instance as the predecessor reads it: `endpoint`, `health_endpoint`, `metadata` (a JSON object of strings), `registered_at`, `last_heartbeat`; expires with its lease |
//! | `services:index` | set | names that have one |
//! | `services:{name}:i:{id}` | hash | a record: `v` (20 digits), `holder`, `until`, `drain_until`, `record` (JSON, `codec.rs`); expires a day after its lease. Or a grave: `v`, `gone` (by whom), `why`; expires a minute after the lease would have |
//! | `vx:i:{name}` | hash | id → `r` or `g` with the version: what a comparison reads |
//! | `vx:names` | set | names that have such an index |
//! | `vx:events` | stream | `n` (contiguous), `t` (store's ms), `by`, `at` (decided, store's µs), `put` or `gone`; 10 000 entries or 64 MiB |
//! | `vx:renewals` | stream | `t`, `by`, `r`: service, id, version and what is left, up to 200 at once |
//! | `vx:seq`, `vx:epoch` | strings | the number of the last event; who flushes takes the epoch away |
//! | `vx:replicas` | hash | replica → name, zone, release, when it said so last |
//! | `vx:mirrors` | hash | what gateways wrote into `services:{name}`, so that it is not taken for the predecessor's |
//! | `vx:rate:{limit}:{key}` | string | the theoretical arrival time of a shared rate limit, in µs; expires when nothing is owed |
//! | `health:{name}` | hash | a good health check, for 30 s |
//!
//! **Invariant:** whatever Redis does, the threads end when they are told to, and nobody else waits for them longer than the
//! bound that the caller set.

mod connect;
mod contents;
mod failure;
mod health;
mod literal;
mod load;
mod predecessor;
mod pulse;
mod rates;
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
