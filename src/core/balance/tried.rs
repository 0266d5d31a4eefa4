//! Whom a request has been sent to so far.

use crate::cell::Cells;
use crate::table::{Attach, Upstream};
use std::sync::Arc;

/// The attempts that a request has made so far: which instances, and how often each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    entries: [Tries; Tried::MAX],
    len: usize,
}

/// The tries at one instance.
#[derive(Clone, Copy, Debug, Default)]
struct Tries {
    id: usize,
    /// The first of its addresses that was tried. Later ones are counted from here and not from where the instance would be
    /// started with now: a failed address moves that, and counting from there would skip one and try another twice.
    first_address: u32,
    times: u8,
}

impl Tried {
    /// More attempts than this are never made.
    pub const MAX: usize = 8;

    /// How often the instance has been tried.
    #[must_use]
    pub fn times(&self, cells: &Arc<Cells>) -> usize {
        self.at(cells).map_or(0, |tries| tries.times.into())
    }

    /// Notes one more try, at this one of the instance's addresses.
    pub fn note(&mut self, cells: &Arc<Cells>, address: usize) {
        let id = Arc::as_ptr(cells) as usize;
        if let Some(tries) = self.entries[..self.len].iter_mut().find(|tries| tries.id == id) {
            tries.times = tries.times.saturating_add(1);
        } else if self.len < Self::MAX {
            self.entries[self.len] = Tries { id, first_address: u32::try_from(address).unwrap_or(0), times: 1 };
            self.len += 1;
        }
    }

    /// How many attempts were made.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.entries[..self.len].iter().map(|tries| u32::from(tries.times)).sum()
    }

    /// Whether each address of the instance has been tried.
    pub(super) fn has_spent<X: Attach>(&self, upstream: &Upstream<X>) -> bool {
        self.times(&upstream.cells) >= upstream.addresses.len()
    }

    /// Which of the instance's `count` addresses is next.
    pub(super) fn next_address(&self, cells: &Arc<Cells>, count: usize) -> usize {
        match self.at(cells) {
            Some(tries) => (tries.first_address as usize + usize::from(tries.times)) % count.max(1),
            None => cells.address.first(count),
        }
    }

    fn at(&self, cells: &Arc<Cells>) -> Option<&Tries> {
        let id = Arc::as_ptr(cells) as usize;
        self.entries[..self.len].iter().find(|tries| tries.id == id)
    }
}
