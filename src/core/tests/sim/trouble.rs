//! What goes wrong: in the network, and on purpose.

use crate::rng::Rng;
use std::time::Duration;
use vertice_core::registry::Protection;

/// A time in which what some clients send is lost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outage {
    pub(crate) until_ms: u64,
    /// Of all clients, in per cent.
    share: u64,
    salt: u64,
    /// Whether probes are lost, too.
    cuts_probes: bool,
}

impl Outage {
    pub(crate) fn start(now_ms: u64, rng: &mut Rng) -> Self {
        let until_ms = now_ms + rng.between(10_000, 60_000);
        Self { until_ms, share: rng.between(60, 100), salt: rng.below(100), cuts_probes: rng.percent(30) }
    }

    pub(crate) fn cuts_off(self, client: usize, now_ms: u64) -> bool {
        now_ms < self.until_ms && (client as u64 * 37 + self.salt) % 100 < self.share
    }

    pub(crate) fn loses_probes(self, now_ms: u64) -> bool {
        now_ms < self.until_ms && self.cuts_probes
    }
}

/// What is broken on purpose, to see that the invariants notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Answers are given before the store has the change.
    EarlyAnswers,
    /// Lapses are looked for up to a second late.
    SleepyTimer,
    /// Now and then the store forgets to write a record.
    LeakyStore,
    /// What is removed stays in the store.
    DeafStore,
    /// Nobody is held, however many fall silent.
    NoProtection,
    /// One silent instance is enough to hold all.
    EndlessHold,
    /// One failed probe removes an instance.
    HastyProbes,
    /// Failed probes are told as passed.
    KindProbes,
    /// A stall is not noticed.
    NoStalls,
    /// After a stall the shell makes up for the ticks it missed.
    TicksMadeUp,
}

impl Fault {
    /// What the registry is told about when to doubt itself.
    pub(crate) fn protection(fault: Option<Self>) -> Protection {
        let right = Protection::default();
        match fault {
            Some(Self::NoProtection) => Protection { instances_min: usize::MAX, ..right },
            Some(Self::EndlessHold) => Protection { silent_percent: 0, ..right },
            Some(Self::HastyProbes) => Protection { probe_failures: 1, ..right },
            Some(Self::NoStalls) => Protection { stall_min: Duration::MAX, ..right },
            _ => right,
        }
    }
}
