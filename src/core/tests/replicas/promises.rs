//! What must hold at any time, and what must hold in the end.

use super::fleet::Phase;
use super::oracle::{Removed, Well};
use super::replica::Shown;
use super::store::What;
use super::writer::RECONCILE_MS;
use super::{Key, World};
use crate::trouble::Fault;
use std::collections::BTreeMap;
use vertice_core::record::Why;

/// Whoever follows knows after this what was written.
const HEARD_MS: u64 = 5_000;
/// Whoever was cut off is itself again after this, longest lease included.
const SETTLED_MS: u64 = RECONCILE_MS + 45_000;
/// Nobody whose lease is over is judged so soon after the store is back.
const RECOVERY_MS: u64 = 5_000;
/// Clocks differ in speed.
const SLACK_MS: u64 = 200;

impl World {
    /// What must hold of a replica at any time.
    pub(crate) fn check(&mut self, n: usize) -> Result<(), String> {
        let shown = self.replicas[n].shown();
        self.check_few_events()?;
        self.check_store()?;
        self.check_heartbeats(n, &shown)?;
        self.check_removed(n, &shown)?;
        self.check_feed(n, &shown)?;
        self.check_stays(n, &shown)
    }

    /// The store never goes back to an older version, unless it loses data.
    fn check_store(&mut self) -> Result<(), String> {
        let stored = self.store.versions(self.trouble.store_ms(self.clock_ms));
        let before = std::mem::replace(&mut self.stored, stored);
        let is_older = |(key, version_no): &(&Key, &u64)| self.stored.get(*key).is_some_and(|now| now < *version_no);
        match before.iter().find(is_older) {
            Some((key, version_no)) => Err(format!("the store went back behind {version_no} with {}", key.1)),
            None => Ok(()),
        }
    }

    /// Whoever renewed here is here as long as that renewal lasts, and everywhere once things are settled.
    fn check_heartbeats(&self, n: usize, shown: &BTreeMap<Key, Shown>) -> Result<(), String> {
        let replica = &self.replicas[n];
        let life = (n, replica.life);
        let is_settled = self.trouble.partial_until_ms + SETTLED_MS < self.clock_ms
            && replica.following_since_ms.is_some_and(|since_ms| since_ms + SETTLED_MS < self.clock_ms);
        let runs = |well: &Well| well.runs(self.clock_ms + SLACK_MS);
        // Nothing is promised to those of whose registration nothing is known for certain.
        let is_known = |key: &Key| self.oracle.registered_no(key).is_some() && self.is_up(key);
        let lacking = self.oracle.well().filter(|(key, well)| is_known(key) && runs(well) && !shown.contains_key(key));
        for (key, well) in lacking {
            if well.by == life {
                return Err(format!("{} was renewed at replica {n} and is not there: {well:?}", key.1));
            }
            if is_settled && well.prompt_since_ms + SETTLED_MS < self.clock_ms {
                return Err(format!("{} is renewed all the time and replica {n} does not know it: {well:?}", key.1));
            }
        }
        Ok(())
    }

    /// Whether its client is; whoever has just died may be found dead by probes.
    fn is_up(&self, key: &Key) -> bool {
        self.clients.iter().any(|client| client.key() == *key && client.phase == Phase::Up)
    }

    /// Whoever deregistered here is not here, and nowhere once that could be heard.
    fn check_removed(&self, n: usize, shown: &BTreeMap<Key, Shown>) -> Result<(), String> {
        let life = (n, self.replicas[n].life);
        let follows = |since_ms: Option<u64>| since_ms.is_some_and(|since_ms| since_ms + HEARD_MS < self.clock_ms);
        let all_follow = self.replicas.iter().all(|replica| follows(replica.following_since_ms));
        let is_quiet = all_follow && self.trouble.any_until_ms + HEARD_MS + RECOVERY_MS < self.clock_ms;
        let lives = |removed: &Removed| self.replicas[removed.by.0].life == removed.by.1;
        for (key, removed) in self.oracle.removed().filter(|(key, _)| shown.contains_key(key)) {
            let is_heard = is_quiet && lives(removed) && removed.at_ms + HEARD_MS < self.clock_ms;
            if removed.is_acknowledged && (removed.by == life || is_heard) {
                return Err(format!("{} was deregistered and is back at replica {n}: {removed:?}", key.1));
            }
        }
        Ok(())
    }

    /// Whoever follows the store has what was told there.
    fn check_feed(&mut self, n: usize, shown: &BTreeMap<Key, Shown>) -> Result<(), String> {
        let replica = &self.replicas[n];
        let follows = replica.following_since_ms.is_some_and(|since_ms| since_ms + HEARD_MS < self.clock_ms);
        if !follows || self.trouble.any_until_ms + HEARD_MS > self.clock_ms {
            return Ok(());
        }
        for (key, slot) in self.store.slots().iter().filter(|(_, slot)| slot.told_ms + HEARD_MS < self.clock_ms) {
            let here = shown.get(key).map(|shown| shown.version_no);
            let is_behind = match slot.what {
                What::Record { .. } => here.is_none_or(|here| here < slot.version_no),
                What::Grave { why: Why::Removed, .. } => here.is_some_and(|here| here <= slot.version_no),
                // Whoever believes that it was renewed since asks when that is over, too.
                What::Grave { .. } => false,
            };
            // It may be about to say something itself.
            let replica = &self.replicas[n];
            if is_behind && !replica.outbox.writes.contains_key(key) && replica.writer.writing(key).is_none() {
                return Err(format!("replica {n} follows and does not know of {}: it has {here:?}, {slot:?}", key.1));
            }
            self.seen.feed_checked += 1;
        }
        Ok(())
    }

    /// While nothing but the store is in trouble, whoever is renewed all the time stays wherever it was.
    fn check_stays(&mut self, n: usize, shown: &BTreeMap<Key, Shown>) -> Result<(), String> {
        let known = std::mem::take(&mut self.known[n]);
        let is_promised = self.trouble.partial_until_ms + SETTLED_MS < self.clock_ms || self.trouble.partial_until_ms == 0;
        let gone = known.iter().filter(|(key, _)| is_promised && !shown.contains_key(key));
        // Whoever was only known as what it had been may not be found there any more.
        for (key, _) in gone.filter(|(key, version_no)| self.oracle.registered_no(key).is_some_and(|no| no <= **version_no)) {
            let well = self.oracle.well_of(key).filter(|well| well.runs(self.clock_ms + SLACK_MS));
            if let Some(well) = well.filter(|well| self.is_up(key) && well.prompt_since_ms + HEARD_MS < self.clock_ms) {
                return Err(format!("{} is well and was taken from replica {n}: {well:?}", key.1));
            }
        }
        let well = shown.iter().filter(|(key, _)| self.oracle.well_of(key).is_some());
        self.known[n] = well.map(|(key, shown)| (key.clone(), shown.version_no)).collect();
        Ok(())
    }

    /// A process has started and loaded what the store had.
    pub(crate) fn loaded(&mut self, n: usize) -> Result<(), String> {
        let shown = self.replicas[n].shown();
        let in_store = |key: &Key| {
            let slot = self.store.slots().get(key);
            slot.is_some_and(|slot| matches!(slot.what, What::Record { .. }) && slot.told_ms + HEARD_MS < self.clock_ms)
        };
        if let Some(key) = self.oracle.durable().find(|key| in_store(key) && !shown.contains_key(key)) {
            return Err(format!("{} is in the store, and replica {n} starts without it", key.1));
        }
        self.seen.loaded += u64::from(!shown.is_empty());
        Ok(())
    }

    /// What must hold when everybody could talk to everybody for long enough.
    pub(crate) fn check_settled(&self) -> Result<(), String> {
        let mut all: Vec<BTreeMap<Key, Shown>> = self.replicas.iter().map(|replica| replica.shown()).collect();
        if self.seen.failovers > 0 {
            // The end of a drain is a time on the store's clock, and that of another server may be minutes off.
            all.iter_mut().flat_map(BTreeMap::values_mut).for_each(|shown| shown.is_draining = false);
        }
        for (n, shown) in all.iter().enumerate() {
            if let Some(key) = shown.keys().find(|key| self.oracle.well_of(key).is_none_or(|well| !well.runs(self.clock_ms))) {
                return Err(format!("a ghost at replica {n}: {} {:?}", key.1, shown[key]));
            }
            let well = self.oracle.well().filter(|(_, well)| well.runs(self.clock_ms));
            for (key, well) in well {
                let Some(here) = shown.get(key) else {
                    return Err(format!("{} is missing at replica {n}: {well:?}", key.1));
                };
                let right = self.oracle.endpoints(key);
                if !right.is_empty() && !right.contains(&here.endpoint.as_str()) {
                    return Err(format!("{} is at {} at replica {n} instead of {right:?}", key.1, here.endpoint));
                }
                let stored = self.store.slots().get(key).map(|slot| (slot.version_no, &slot.what));
                if !matches!(stored, Some((version_no, What::Record { .. })) if version_no == here.version_no) {
                    return Err(format!("{} differs from the store at replica {n}: {here:?}, {stored:?}", key.1));
                }
            }
            if *shown != all[0] {
                return Err(format!("replicas 0 and {n} differ:\n  {:?}\n  {shown:?}", all[0]));
            }
            let (graves, instances) = (self.replicas[n].graves(), self.clients.len() * 2);
            if graves > instances {
                return Err(format!("replica {n} keeps {graves} graves of {instances} instances"));
            }
            let outbox = &self.replicas[n].outbox;
            if outbox.writes.len() + outbox.fetches.len() > 0 {
                return Err(format!("replica {n} does not come to an end: {outbox:?}"));
            }
        }
        let live = self.store.slots().values().filter(|slot| matches!(slot.what, What::Record { .. })).count();
        if live != all[0].len() && self.fault != Some(Fault::NoGraves) {
            return Err(format!("the store has {live} records, the replicas have {}", all[0].len()));
        }
        Ok(())
    }
}
