//! What is held against an instance beside its breaker, and since when it takes traffic.
//!
//! Ejections and failed probes are judgements of this gateway: they keep traffic away while enough other instances are left
//! (`crate::balance`), and are ignored when not. What an instance says of itself, and an open breaker, are never ignored.

use crate::probing::{ProbePolicy, Probed};
use crate::time::Moment;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The judgements about one instance, for everybody to read. Each field has one writer at a time, so plain stores do.
#[derive(Debug, Default)]
pub struct StandingCell {
    /// The end of its ejection; 0 when it was never ejected.
    ejected_until_nanos: AtomicU64,
    /// [`Probed`], packed.
    probed: AtomicU32,
    /// How often it was ejected lately: sets how long the next time is.
    ejections: AtomicU32,
    /// Since when it takes traffic, or will; 0 for longer than anybody remembers.
    since_nanos: AtomicU64,
    /// When its next probe is due; 0 before the first one has been planned.
    probe_due_nanos: AtomicU64,
}

impl StandingCell {
    /// Whether something is held against it now.
    #[must_use]
    pub fn is_out(&self, now: Moment) -> bool {
        self.ejected_until_nanos.load(Ordering::Relaxed) > now.nanos() || self.has_failed_probes()
    }

    /// Whether its active probes fail.
    #[must_use]
    pub fn has_failed_probes(&self) -> bool {
        // A verdict that comes after probing was switched off means nothing, and would stand for ever.
        self.probed().is_failed() && self.probe_due().is_some()
    }

    /// When its ejection ends, if it is ejected.
    #[must_use]
    pub fn ejected_until(&self, now: Moment) -> Option<Moment> {
        let until = Moment::from_nanos(self.ejected_until_nanos.load(Ordering::Relaxed));
        (until > now).then_some(until)
    }

    /// What its active probes have shown.
    #[must_use]
    pub fn probed(&self) -> Probed {
        Probed::unpack(self.probed.load(Ordering::Relaxed))
    }

    /// Since when it takes traffic; may lie in the future.
    #[must_use]
    pub fn since(&self) -> Moment {
        Moment::from_nanos(self.since_nanos.load(Ordering::Relaxed))
    }

    /// It takes traffic from `now` on: it registered, or its breaker closed.
    pub fn starts(&self, now: Moment) {
        self.since_nanos.store(now.nanos(), Ordering::Relaxed);
    }

    /// It registered anew: nothing that was held against it counts any more.
    pub fn starts_over(&self, now: Moment) {
        self.ejected_until_nanos.store(0, Ordering::Relaxed);
        self.probed.store(Probed::default().pack(), Ordering::Relaxed);
        self.ejections.store(0, Ordering::Relaxed);
        self.starts(now);
    }

    /// Notes the result of an active probe; tells the verdict when that changed it.
    pub fn note_probe(&self, passed: bool, policy: &ProbePolicy, now: Moment) -> Option<bool> {
        let before = self.probed();
        let after = before.after(passed, policy);
        self.probed.store(after.pack(), Ordering::Relaxed);
        if before.is_failed() == after.is_failed() {
            return None;
        }
        if !after.is_failed() {
            self.starts(now);
        }
        Some(!after.is_failed())
    }

    /// When its next probe is due; `None` before one has been planned.
    #[must_use]
    pub fn probe_due(&self) -> Option<Moment> {
        match self.probe_due_nanos.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Moment::from_nanos(nanos)),
        }
    }

    /// It is probed from now on, at `first` for the first time.
    pub fn begin_probes(&self, first: Moment) {
        self.probed.store(Probed::default().pack(), Ordering::Relaxed);
        self.plan_probe(first);
    }

    /// Plans its next probe.
    pub fn plan_probe(&self, due: Moment) {
        self.probe_due_nanos.store(due.nanos().max(1), Ordering::Relaxed);
    }

    /// Nobody probes it any more: what probes have shown is forgotten.
    pub fn forget_probes(&self) {
        self.probed.store(Probed::default().pack(), Ordering::Relaxed);
        self.probe_due_nanos.store(0, Ordering::Relaxed);
    }

    /// How often it was ejected lately.
    #[must_use]
    pub fn ejections(&self) -> u32 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// It gets no traffic until then, and starts anew after that.
    pub(crate) fn eject(&self, until: Moment) {
        self.ejections.store(self.ejections().saturating_add(1), Ordering::Relaxed);
        self.ejected_until_nanos.store(until.nanos(), Ordering::Relaxed);
        self.starts(until);
    }

    /// Nobody is compared any more: if it is ejected, it takes traffic from `now` on.
    pub fn pardon(&self, now: Moment) {
        self.ejections.store(0, Ordering::Relaxed);
        if self.ejected_until(now).is_some() {
            self.ejected_until_nanos.store(0, Ordering::Relaxed);
            self.starts(now);
        }
    }

    /// It did well for a while: the next ejection is shorter.
    pub(crate) fn forgive(&self) {
        self.ejections.store(self.ejections().saturating_sub(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ejection_ends_by_itself_and_a_new_start_ends_everything() {
        let (cell, until) = (StandingCell::default(), Moment::from_millis(50));
        assert!(!cell.is_out(Moment::ZERO));
        cell.eject(until);
        assert!(cell.is_out(Moment::from_millis(49)) && !cell.is_out(until));
        assert_eq!((cell.since(), cell.ejections()), (until, 1));
        let policy = ProbePolicy { failures: 1, ..ProbePolicy::default() };
        cell.begin_probes(until);
        assert_eq!(cell.note_probe(false, &policy, until), Some(false));
        assert!(cell.is_out(until));
        cell.starts_over(Moment::from_millis(60));
        assert!(!cell.is_out(Moment::ZERO));
        assert_eq!((cell.since(), cell.ejections()), (Moment::from_millis(60), 0));
    }

    #[test]
    fn a_pardon_ends_an_ejection_and_is_no_new_start_for_others() {
        let (cell, now) = (StandingCell::default(), Moment::from_millis(10));
        cell.pardon(now);
        assert_eq!(cell.since(), Moment::ZERO);
        cell.eject(Moment::from_millis(50));
        cell.pardon(now);
        assert!(!cell.is_out(now));
        assert_eq!((cell.since(), cell.ejections()), (now, 0));
    }

    #[test]
    fn a_verdict_that_comes_too_late_means_nothing() {
        let (cell, policy) = (StandingCell::default(), ProbePolicy { failures: 1, ..ProbePolicy::default() });
        cell.begin_probes(Moment::ZERO);
        cell.forget_probes();
        cell.note_probe(false, &policy, Moment::ZERO);
        assert!(!cell.is_out(Moment::ZERO));
        cell.begin_probes(Moment::ZERO);
        assert!(!cell.is_out(Moment::ZERO));
    }

    #[test]
    fn an_instance_that_passes_again_starts_anew() {
        let (cell, policy) = (StandingCell::default(), ProbePolicy { failures: 1, successes: 1, ..ProbePolicy::default() });
        cell.note_probe(true, &policy, Moment::from_millis(1));
        assert_eq!(cell.since(), Moment::ZERO, "it was well before");
        cell.note_probe(false, &policy, Moment::from_millis(2));
        assert_eq!(cell.note_probe(true, &policy, Moment::from_millis(3)), Some(true));
        assert_eq!(cell.since(), Moment::from_millis(3));
    }
}
