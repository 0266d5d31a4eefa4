//! What goes wrong: with the store, between it and the replicas, with the replicas; and what is broken on purpose.

use super::replica::EPOCH_MS;
use super::{Due, World};
use crate::rng::Rng;

/// What is broken on purpose, to see that the oracle notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Replicas number changes by their own wall clocks.
    WallVersions,
    /// What the store lacks is taken for deleted.
    AbsenceDeletes,
    /// The store deletes instead of leaving a grave, and nobody says twice that somebody is gone.
    NoGraves,
    /// The reader notes its position after everything was loaded.
    LatePosition,
    /// Missing events are not noticed.
    GapsIgnored,
    /// Whoever does not hold a lease lapses it without asking.
    HastyLapses,
    /// What is heard is written again, and told again.
    Echo,
    /// The last write wins, whatever it says.
    NoComparison,
}

/// What is out of order now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trouble {
    kind: Kind,
    pub(crate) is_down: bool,
    /// Counts its starts; no connection outlives one.
    pub(crate) store_life: u32,
    pub(crate) stalled_until_ms: u64,
    /// By replica: no connection to the store until then.
    pub(crate) cut_until_ms: Vec<u64>,
    /// How far the store's clock is ahead of the wall, in seconds, plus 600.
    store_ahead_s: u64,
    /// The last moment at which replicas could not hear each other though the store was there, or at which one was not
    /// itself.
    pub(crate) partial_until_ms: u64,
    /// The last moment of trouble of any kind.
    pub(crate) any_until_ms: u64,
    /// When the store lost data for the last time.
    pub(crate) lost_data_ms: Option<u64>,
}

/// What goes wrong in this run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// Nothing but the store, and for all replicas alike.
    #[default]
    Store,
    Links,
    Processes,
    Everything,
}

impl Trouble {
    pub(crate) fn new(seed: u64, replicas: usize, rng: &mut Rng) -> Self {
        let kind = [Kind::Store, Kind::Links, Kind::Processes, Kind::Everything][seed as usize % 4];
        let store_ahead_s = rng.below(1_200);
        Self { kind, cut_until_ms: vec![0; replicas], store_ahead_s, ..Self::default() }
    }

    /// What the store's clock says.
    pub(crate) fn store_ms(&self, true_ms: u64) -> u64 {
        EPOCH_MS - 600_000 + true_ms + self.store_ahead_s * 1_000
    }

    /// Everything is well from now on.
    pub(crate) fn end(&mut self, now_ms: u64) {
        self.is_down = false;
        self.stalled_until_ms = 0;
        self.cut_until_ms.fill(0);
        (self.any_until_ms, self.partial_until_ms) = (now_ms, now_ms);
    }
}

impl World {
    /// Something goes wrong.
    pub(crate) fn make_trouble(&mut self) {
        if self.is_calm {
            return;
        }
        let after_ms = self.rng.between(8_000, 50_000);
        self.plan(after_ms, Due::Trouble);
        let kind = match self.trouble.kind {
            Kind::Everything => [Kind::Store, Kind::Links, Kind::Processes][self.rng.below(3) as usize],
            kind => kind,
        };
        match kind {
            Kind::Store => self.trouble_of_store(),
            Kind::Links => self.trouble_of_links(),
            Kind::Processes | Kind::Everything => self.trouble_of_processes(),
        }
    }

    fn trouble_of_store(&mut self) {
        if self.trouble.is_down {
            return;
        }
        match self.rng.below(10) {
            0 => {
                self.store.flush();
                self.lost_data();
                self.seen.flushes += 1;
                self.some_trouble(5_000, false);
            }
            1..3 => {
                let span_ms = self.rng.between(300, 8_000);
                self.trouble.stalled_until_ms = self.clock_ms + span_ms;
                self.seen.store_stalls += 1;
                self.some_trouble(span_ms, false);
            }
            roll => {
                let span_ms = if self.rng.percent(30) { self.rng.below(120_000) } else { self.rng.between(500, 8_000) };
                self.trouble.is_down = true;
                self.some_trouble(span_ms, false);
                self.plan(span_ms, Due::StoreReturns { roll });
            }
        }
    }

    /// The store is there again: with everything, with nothing, or without the latest and with another clock.
    pub(crate) fn store_returns(&mut self, roll: u64) {
        self.note(|_| format!("trouble: the store returns, {roll}"));
        self.trouble.is_down = false;
        self.trouble.store_life += 1;
        self.blocked.clear();
        match roll {
            3..5 => self.seen.store_restarts += 1,
            5 => {
                self.store.flush();
                self.lost_data();
                self.seen.store_fresh += 1;
            }
            _ => {
                self.store.fail_over(self.copy.clone());
                let before_s = std::mem::replace(&mut self.trouble.store_ahead_s, self.rng.below(1_200));
                if self.trouble.store_ahead_s < before_s && self.trouble.kind == Kind::Everything {
                    // When all who have seen the earlier numbers have died as well, nobody knows that they were ahead.
                    self.oracle.haunt_all();
                }
                self.lost_data();
                self.seen.failovers += 1;
            }
        }
    }

    fn lost_data(&mut self) {
        self.trouble.lost_data_ms = Some(self.clock_ms);
        self.copy = self.store.clone();
        self.oracle.store_lost_data();
        self.stored.clear();
    }

    fn trouble_of_links(&mut self) {
        if self.rng.percent(30) {
            let n = self.rng.below(self.replicas.len() as u64) as usize;
            let span_ms = self.rng.between(2_000, 40_000);
            self.replicas[n].stalled_until_ms = self.clock_ms + span_ms;
            self.seen.stalls += 1;
            return self.some_trouble(span_ms, true);
        }
        let span_ms = if self.rng.percent(40) { self.rng.below(120_000) } else { self.rng.between(300, 15_000) };
        let share = self.rng.between(20, 80);
        for n in 0..self.replicas.len() {
            if self.rng.percent(share) {
                self.trouble.cut_until_ms[n] = self.clock_ms + span_ms;
                self.seen.cuts += 1;
            }
        }
        self.some_trouble(span_ms, true);
    }

    fn trouble_of_processes(&mut self) {
        let all = self.rng.percent(20);
        let share = self.rng.between(20, 80);
        let mut longest_ms = 0;
        for n in 0..self.replicas.len() {
            if (all || self.rng.percent(share)) && self.replicas[n].registry.is_some() {
                let down_ms = if self.rng.percent(30) { self.rng.below(60_000) } else { self.rng.between(50, 5_000) };
                longest_ms = longest_ms.max(down_ms);
                self.kill(n);
                self.plan(down_ms, Due::Start { replica: n });
            }
        }
        self.seen.killed_all += u64::from(all);
        self.some_trouble(longest_ms, true);
    }

    fn some_trouble(&mut self, span_ms: u64, is_partial: bool) {
        let until_ms = self.clock_ms + span_ms;
        self.note(|world| format!("trouble until {until_ms} ms: {:?}", world.trouble));
        self.trouble.any_until_ms = self.trouble.any_until_ms.max(until_ms);
        if is_partial {
            self.trouble.partial_until_ms = self.trouble.partial_until_ms.max(until_ms);
        }
    }
}
