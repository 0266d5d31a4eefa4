//! What many watchers are sent is rendered once.
//!
//! A thousand watchers that wake for the same change want the same bytes. Whoever comes first makes them, the others wait for
//! it, and a moment later they are forgotten: times and breakers in them would be out of date.

use super::error::Error;
use super::lookup::{Filter, Snapshot};
use super::off_worker;
use crate::clock;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use vertice_core::name::ServiceName;
use vertice_core::time::Moment;

/// For so long the same bytes are handed out.
const FRESH: Duration = Duration::from_secs(1);
/// Renderings kept at once, in each of two ages.
const COUNT_MAX: usize = 1024;
/// Bytes kept at once, in each of two ages; the last rendering may exceed it.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Services with more instances than this are rendered off the workers.
const SMALL: usize = 64;

/// What was rendered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// The answer to `GET /services`.
    List {
        /// Objects instead of names.
        detail: bool,
        /// Which.
        filter: Filter,
    },
    /// The answer to `GET /services/{name}`.
    Service(ServiceName),
    /// An event about a service.
    Event(ServiceName, Filter),
}

/// What is rendered, as it was at that generation.
type Key = (What, u64);

/// Every service by the generation of its last change, oldest first.
pub(super) type Roll = Arc<[(u64, ServiceName)]>;

/// See the module.
#[derive(Default)]
pub struct Renderings {
    ages: Mutex<Ages>,
    roll: Mutex<Option<(u64, Arc<OnceCell<Roll>>)>>,
}

/// Younger and older renderings; the older ones are dropped together.
#[derive(Default)]
struct Ages {
    young: HashMap<Key, Rendering>,
    young_bytes: usize,
    young_since: Moment,
    old: HashMap<Key, Rendering>,
}

#[derive(Clone)]
struct Rendering {
    at: Moment,
    bytes: Arc<OnceCell<Bytes>>,
}

impl Renderings {
    /// The bytes of `what` at `generation`; made by `make` unless they are there. `size` is how many instances go into them.
    pub(super) async fn get(
        &self,
        what: What,
        generation: u64,
        size: usize,
        make: impl FnOnce() -> Result<Bytes, Error> + Send + 'static,
    ) -> Result<Bytes, Error> {
        let cell = self.ages.lock().rendering((what, generation), clock::mono());
        let render = async || {
            let bytes = if size > SMALL { off_worker(make).await } else { make() }?;
            self.ages.lock().young_bytes += bytes.len();
            Ok(bytes)
        };
        cell.get_or_try_init(render).await.cloned()
    }

    /// All listed services of the table.
    pub(super) async fn roll(&self, table: &Arc<Snapshot>) -> Result<Roll, Error> {
        let generation = table.generation();
        let cell = {
            let mut kept = self.roll.lock();
            match &*kept {
                Some((of, cell)) if *of == generation => cell.clone(),
                _ => kept.insert((generation, Arc::default())).1.clone(),
            }
        };
        let table = table.clone();
        cell.get_or_try_init(|| off_worker(move || Ok(call_roll(&table)))).await.cloned()
    }
}

fn call_roll(table: &Snapshot) -> Roll {
    let listed = table.iter().filter(|service| !service.is_fallback);
    let mut roll: Vec<_> = listed.map(|service| (service.changed_at, service.name.clone())).collect();
    roll.sort_unstable();
    roll.into()
}

impl Ages {
    fn rendering(&mut self, key: Key, now: Moment) -> Arc<OnceCell<Bytes>> {
        let is_full = self.young.len() >= COUNT_MAX || self.young_bytes >= BYTES_MAX;
        if is_full || now.since(self.young_since) > FRESH {
            self.old = std::mem::take(&mut self.young);
            (self.young_bytes, self.young_since) = (0, now);
        }
        let kept = self.young.get(&key).or_else(|| self.old.get(&key));
        if let Some(kept) = kept.filter(|kept| now.since(kept.at) <= FRESH) {
            return kept.bytes.clone();
        }
        let new = Rendering { at: now, bytes: Arc::default() };
        self.young.insert(key, new.clone());
        new.bytes
    }
}

impl std::fmt::Debug for Renderings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renderings").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(no: u64) -> Key {
        (What::List { detail: false, filter: Filter::default() }, no)
    }

    #[test]
    fn the_same_moment_gets_the_same_bytes_and_a_later_one_new_ones() {
        let mut ages = Ages::default();
        let at = |ms| Moment::from_millis(ms);
        let first = ages.rendering(key(1), at(5000));
        assert!(Arc::ptr_eq(&first, &ages.rendering(key(1), at(5900))));
        assert!(!Arc::ptr_eq(&first, &ages.rendering(key(2), at(5900))));
        assert!(!Arc::ptr_eq(&first, &ages.rendering(key(1), at(6001))), "out of date");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut ages = Ages::default();
        let now = Moment::from_millis(5000);
        for no in 0..10 * COUNT_MAX as u64 {
            ages.rendering(key(no), now);
        }
        assert!(ages.young.len() + ages.old.len() <= 2 * COUNT_MAX);
        ages.young_bytes = BYTES_MAX;
        ages.rendering(key(0), now);
        assert_eq!(ages.young.len(), 1);
        ages.rendering(key(0), now.plus(FRESH * 2));
        ages.rendering(key(1), now.plus(FRESH * 4));
        assert_eq!((ages.young.len(), ages.old.len()), (1, 1), "time forgets, too");
    }
}
