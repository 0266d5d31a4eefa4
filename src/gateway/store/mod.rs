//! Persistence: what must outlive this process.
//!
//! A store keeps opaque keys and values; what they mean is the codec's business. It is
//! synchronous on purpose: one thread owns it, the data plane and the registrar never wait for it.
//!
//! **Invariant:** nothing here knows a lease, an instance or a clock, and nothing here decides.

pub mod codec;
mod embedded;
mod keeper;
mod memory;
#[cfg(test)]
mod suite;

pub use embedded::{MovedAside, Opened, open};
pub use keeper::{Keeper, StoreState};
pub use memory::Memory;

use std::path::PathBuf;

/// One key and the value stored under it.
pub type Record = (Vec<u8>, Vec<u8>);

/// One change to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is changed.
    pub key: Vec<u8>,
    /// The new value; `None` deletes the key, which need not exist.
    pub value: Option<Vec<u8>>,
}

/// Waits for the disk; see [`Store::begin_sync`].
pub type SyncJob = Box<dyn FnOnce() -> Result<(), StoreError> + Send>;

/// Where records are kept. Every implementation passes the same suite.
pub trait Store: Send {
    /// Writes the whole batch or nothing, later changes of one key winning over earlier ones.
    ///
    /// When it returns `Ok` and the store [is durable](Store::is_durable), the changes survive the
    /// sudden death of this process.
    ///
    /// # Errors
    /// The store stays usable: the same batch may be tried again, for instance once a full disk has
    /// space again.
    fn write(&mut self, batch: &[Change]) -> Result<(), StoreError>;

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

    /// All records, in no particular order.
    ///
    /// # Errors
    /// When they cannot all be read back exactly as they were written.
    fn load(&mut self) -> Result<Vec<Record>, StoreError>;

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
    /// The contents are not what was written. [`open`] never returns it: it starts afresh.
    #[error("failed to read the store {}: {cause}", path.display())]
    Corrupt {
        /// The directory of the store.
        path: PathBuf,
        /// The damage in words.
        cause: String,
    },
}
