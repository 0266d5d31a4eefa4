//! Where seeds come from: everything that decides is told its random number.

use crate::clock;
use std::cell::Cell;
use vertice_core::seed;

/// A random number: for ids, picks and jitter, not for secrets.
#[must_use]
pub fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(first_state());
    }
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        state.set(next);
        seed::mix(next)
    })
}

/// Differs between threads (by the standard library's own random keys) and between starts.
fn first_state() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(clock::mono().nanos())
}
