//! Persistence: what must outlive this process, and what replicas share.
//!
//! A store keeps instances, each in its latest version. It is synchronous on purpose: threads of its own wait for it, the data
//! plane and the registrar never do.
//!
//! **Invariant:** nothing here decides. What is newer is told by versions, everything else by core.

pub mod codec;
mod embedded;
mod keeper;
mod local;
mod memory;
pub mod redis;
mod state;
#[cfg(test)]
pub(crate) mod suite;

pub use embedded::{MovedAside, Opened, open};
pub use keeper::Keeper;
pub use memory::Memory;
pub use state::StoreState;

use crate::registrar::outbox::{Change, Key};
use std::collections::BTreeMap;
use std::path::PathBuf;
use vertice_core::table::Facts;

/// Waits for the disk; see [`Store::begin_sync`].
pub type SyncJob = Box<dyn FnOnce() -> Result<(), StoreError> + Send>;

/// Where instances are kept. Every implementation passes the same suite.
pub trait Store: Send {
    /// Writes the changes, each unless the store knows something newer of its instance: a late write never beats a newer one,
    /// and what is gone does not come back by an older word. Returns those that were beaten.
    ///
    /// When it returns `Ok` and the store [is durable](Store::is_durable), the changes survive the
    /// sudden death of this process.
    ///
    /// # Errors
    /// The store stays usable: the same changes may be tried again, for instance once a full disk has
    /// space again.
    fn write(&mut self, changes: &BTreeMap<Key, Change>) -> Result<Vec<Key>, StoreError>;

    /// Makes everything written so far survive a power loss. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// What was written still survives this process; call again later.
    fn sync(&mut self) -> Result<(), StoreError> {
        let Some(job) = self.begin_sync()? else { return Ok(()) };
        job().inspect_err(|_| self.sync_failed())
    }

    /// The part of [`sync`](Store::sync) that waits for the disk, to be run on another thread while this one goes on
    /// writing: it covers what was written before this call. `None` when there is nothing to do.
    ///
    /// # Errors
    /// As for `sync`.
    fn begin_sync(&mut self) -> Result<Option<SyncJob>, StoreError>;

    /// The job that `begin_sync` gave away has failed.
    fn sync_failed(&mut self) {}

    /// All instances, in no particular order. Those that cannot be read are left out.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn load(&mut self) -> Result<Vec<Facts>, StoreError>;

    /// Whether a successful [`write`](Store::write) survives this process.
    fn is_durable(&self) -> bool;

    /// The word for this implementation in status and logs.
    fn kind(&self) -> &'static str;
}

/// Why a store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the store.
    #[error("failed to lock the store {}: another process holds it", path.display())]
    Locked {
        /// The directory of the store.
        path: PathBuf,
    },
    /// The store cannot be created or changed: permissions, a read-only or full disk, a path that
    /// is not a directory, or records of a newer version that must not be touched.
    #[error("failed to write the store {}: {cause}", path.display())]
    Unwritable {
        /// The directory of the store.
        path: PathBuf,
        /// The reason in words.
        cause: String,
    },
    /// The store is on another machine and cannot be used now.
    #[error("failed to use the store: {cause}")]
    Away {
        /// The reason in a word, of a bounded set.
        word: &'static str,
        /// The reason in words; never a password.
        cause: String,
    },
    /// The contents are not what was written. [`open`] never returns it: it starts afresh.
    #[error("failed to read the store {}: {cause}", path.display())]
    Corrupt {
        /// The directory of the store.
        path: PathBuf,
        /// The damage in words.
        cause: String,
    },
}
