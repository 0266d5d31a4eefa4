//! Buffers that are lent for as long as bytes are under way.
//!
//! An idle connection holds none, and a busy one allocates none: what is given back waits for the next borrower of the same
//! thread. So many are kept as a burst needs; beyond that they go back to the allocator.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// For heads, and bodies that are small beside them.
pub const SMALL_BYTES: usize = 16 * 1024;

/// For large bodies: a head and what a common piece of them is.
pub const LARGE_BYTES: usize = 136 * 1024;

/// Small buffers that a thread keeps: 4 MiB.
const SMALL_KEPT: usize = 256;

/// Large buffers that a thread keeps: 4.25 MiB.
const LARGE_KEPT: usize = 32;

thread_local! {
    static FREE: RefCell<Free> = const { RefCell::new(Free { small: Vec::new(), large: Vec::new() }) };
}

struct Free {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

impl Free {
    /// The buffers of that capacity, and how many of them are kept.
    const fn of(&mut self, capacity: usize) -> Option<(&mut Vec<Vec<u8>>, usize)> {
        match capacity {
            SMALL_BYTES => Some((&mut self.small, SMALL_KEPT)),
            LARGE_BYTES => Some((&mut self.large, LARGE_KEPT)),
            _ => None,
        }
    }
}

/// A buffer on loan; a default one has no room and costs nothing.
#[derive(Debug, Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// An empty one of [`SMALL_BYTES`].
    #[must_use]
    pub fn small() -> Self {
        Self::lend(SMALL_BYTES)
    }

    /// An empty one of [`LARGE_BYTES`].
    #[must_use]
    pub fn large() -> Self {
        Self::lend(LARGE_BYTES)
    }

    /// Whether it has any room at all.
    #[must_use]
    pub fn is_lent(&self) -> bool {
        self.0.capacity() > 0
    }

    fn lend(capacity: usize) -> Self {
        let free = FREE.try_with(|free| free.borrow_mut().of(capacity)?.0.pop());
        Self(free.ok().flatten().unwrap_or_else(|| Vec::with_capacity(capacity)))
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut own = std::mem::take(&mut self.0);
        own.clear();
        // A thread that ends keeps none.
        let _ = FREE.try_with(|free| {
            if let Some((kept, most)) = free.borrow_mut().of(own.capacity())
                && kept.len() < most
            {
                kept.push(own);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_lent_again_empty() {
        let mut first = Buffer::small();
        first.extend_from_slice(b"secret");
        let place = first.as_ptr();
        drop(first);
        let again = Buffer::small();
        assert_eq!((again.as_ptr(), again.len(), again.capacity()), (place, 0, SMALL_BYTES));
        assert_ne!(Buffer::large().capacity(), SMALL_BYTES);
    }

    #[test]
    fn what_has_grown_and_what_is_too_many_is_not_kept() {
        let mut grown = Buffer::large();
        grown.reserve(LARGE_BYTES + 1);
        drop(grown);
        let many: Vec<_> = (0..LARGE_KEPT + 10).map(|_| Buffer::large()).collect();
        drop(many);
        FREE.with(|free| assert_eq!(free.borrow().large.len(), LARGE_KEPT));
        assert!(!Buffer::default().is_lent());
    }
}
