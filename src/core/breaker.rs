//! The circuit breaker of one instance.
//!
//! *Closed* means that traffic flows, *open* that it is shed, *half-open* that one request at a time may try whether the
//! instance has recovered. The state is a `Copy` value that fits into a `u64`; [`crate::cell::BreakerCell`] applies these
//! functions to an atomic, so the happy path is one load.

use crate::outcome::Verdict;
use crate::seed;
use crate::time::Moment;
use std::time::Duration;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Consecutive failures that open it; 1 to 63.
    pub failures: u32,
    /// Successes in half-open that close it; 1 to 15.
    pub successes: u32,
    /// How long it stays open the first time.
    pub open: Duration,
    /// Each time it reopens, the wait doubles up to this.
    pub open_max: Duration,
    /// A probe that has not reported for this long is taken for lost, and another one is admitted.
    pub probe_lost: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            failures: 3,
            successes: 2,
            open: Duration::from_secs(30),
            open_max: Duration::from_secs(300),
            probe_lost: Duration::from_secs(60),
        }
    }
}

/// Whether traffic flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Traffic flows.
    Closed,
    /// Traffic is shed.
    Open,
    /// One request at a time tries the instance.
    HalfOpen,
}

impl Phase {
    /// Every phase, for documentation.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word used in answers and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }

    /// The number used in metrics: 0 closed, 1 open, 2 half-open.
    #[must_use]
    pub const fn as_number(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Open => 1,
            Self::HalfOpen => 2,
        }
    }
}

/// The whole state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    phase: Phase,
    /// Closed: failures in a row. Half-open: successes so far.
    count: u8,
    /// How often it has opened without closing in between; sets the wait.
    opened: u8,
    /// Half-open: a probe is on its way.
    probing: bool,
    /// Open: closed until then. Half-open: when the probe is taken for lost. Milliseconds on the monotonic clock.
    until_ms: u64,
}

/// What a request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Go ahead.
    Flow,
    /// Go ahead as the one probe: whatever comes of it must be recorded.
    Probe,
    /// Not here; worth asking again at the given moment.
    Shed {
        /// When the breaker will admit a probe.
        until: Moment,
    },
}

impl Breaker {
    /// A new breaker lets traffic flow.
    pub const CLOSED: Self = Self { phase: Phase::Closed, count: 0, opened: 0, probing: false, until_ms: 0 };

    /// The phase it shows: an open breaker whose wait is over shows half-open.
    #[must_use]
    pub fn phase(self, now: Moment) -> Phase {
        match self.phase {
            Phase::Open if now.millis() >= self.until_ms => Phase::HalfOpen,
            phase => phase,
        }
    }

    /// Whether a request may go ahead, and the state after that decision.
    #[must_use]
    pub fn admit(self, policy: &BreakerPolicy, now: Moment) -> (Admission, Self) {
        match self.phase(now) {
            Phase::Closed => (Admission::Flow, self),
            Phase::Open => (self.shed(), self),
            Phase::HalfOpen if self.probing && now.millis() < self.until_ms => (self.shed(), self),
            Phase::HalfOpen => {
                let successes = if self.phase == Phase::HalfOpen { self.count } else { 0 };
                let until_ms = now.plus(policy.probe_lost).millis();
                (Admission::Probe, Self { phase: Phase::HalfOpen, count: successes, probing: true, until_ms, ..self })
            }
        }
    }

    /// The state after an attempt that ended with `verdict`. `seed` draws the jitter of the wait.
    #[must_use]
    pub fn record(self, verdict: Verdict, policy: &BreakerPolicy, now: Moment, seed: u64) -> Self {
        match (self.phase, verdict) {
            (Phase::Closed, Verdict::Success) => Self { count: 0, ..self },
            (Phase::Closed, Verdict::Failure) => {
                let count = self.count.saturating_add(1).min(63);
                if u32::from(count) >= policy.failures { self.open(policy, now, seed) } else { Self { count, ..self } }
            }
            // Sent before it opened, not the probe's: its news is older than the decision (and where the instance has
            // registered anew, about the process before).
            (Phase::HalfOpen, _) if !self.probing => self,
            (Phase::HalfOpen, Verdict::Success) => {
                let count = self.count.saturating_add(1).min(63);
                if u32::from(count) >= policy.successes { Self::CLOSED } else { Self { count, probing: false, ..self } }
            }
            (Phase::HalfOpen, Verdict::Failure) => self.open(policy, now, seed),
            (Phase::HalfOpen, Verdict::Neutral) => Self { probing: false, ..self },
            // A request admitted before it opened: its news is older than the decision.
            (Phase::Open, _) | (Phase::Closed, Verdict::Neutral) => self,
        }
    }

    /// The state after the instance registered anew or passed an active probe: worth trying at once.
    #[must_use]
    pub const fn try_now(self) -> Self {
        match self.phase {
            Phase::Closed | Phase::HalfOpen => self,
            Phase::Open => Self { phase: Phase::HalfOpen, count: 0, probing: false, ..self },
        }
    }

    /// When an open or probing breaker is worth asking again.
    #[must_use]
    pub const fn until(self) -> Moment {
        Moment::from_millis(self.until_ms)
    }

    /// Packs the state into a word; [`Breaker::unpack`] is its inverse.
    #[must_use]
    pub const fn pack(self) -> u64 {
        let phase = self.phase.as_number() as u64;
        phase
            | (self.count as u64 & 0x3f) << 2
            | (self.opened as u64 & 0x1f) << 8
            | (self.probing as u64) << 13
            | (self.until_ms & UNTIL_MAX) << 14
    }

    /// Reads a word written by [`Breaker::pack`].
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        let phase = match word & 3 {
            1 => Phase::Open,
            2 => Phase::HalfOpen,
            _ => Phase::Closed,
        };
        Self {
            phase,
            count: (word >> 2 & 0x3f) as u8,
            opened: (word >> 8 & 0x1f) as u8,
            probing: word >> 13 & 1 == 1,
            until_ms: word >> 14,
        }
    }

    fn open(self, policy: &BreakerPolicy, now: Moment, seed: u64) -> Self {
        let full = policy.open.saturating_mul(1 << self.opened.min(20)).min(policy.open_max.max(policy.open));
        // Up to 10 % longer, so that breakers which opened together do not probe together. Never shorter: a promised
        // Retry-After must hold.
        let wait = full.mul_f64(1.0 + 0.1 * seed::unit(seed::mix(seed)));
        Self {
            phase: Phase::Open,
            count: 0,
            opened: self.opened.saturating_add(1).min(0x1f),
            probing: false,
            until_ms: now.plus(wait).millis(),
        }
    }

    const fn shed(self) -> Admission {
        Admission::Shed { until: self.until() }
    }
}

/// 50 bits of milliseconds: 35 000 years.
const UNTIL_MAX: u64 = (1 << 50) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: BreakerPolicy = BreakerPolicy {
        failures: 3,
        successes: 2,
        open: Duration::from_secs(30),
        open_max: Duration::from_secs(300),
        probe_lost: Duration::from_secs(60),
    };

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    fn opened_at_zero() -> Breaker {
        (0..3).fold(Breaker::CLOSED, |b, _| b.record(Verdict::Failure, &POLICY, at(0), 0))
    }

    #[test]
    fn three_in_a_row_open_it_and_a_success_in_between_does_not() {
        let two = (0..2).fold(Breaker::CLOSED, |b, _| b.record(Verdict::Failure, &POLICY, at(0), 0));
        assert_eq!(two.phase(at(0)), Phase::Closed);
        assert_eq!(two.record(Verdict::Success, &POLICY, at(0), 0), Breaker::CLOSED);
        assert_eq!(two.record(Verdict::Neutral, &POLICY, at(0), 0), two);
        assert_eq!(two.record(Verdict::Failure, &POLICY, at(0), 0).phase(at(0)), Phase::Open);
    }

    #[test]
    fn open_sheds_for_thirty_seconds_then_admits_one_probe_at_a_time() {
        let open = opened_at_zero();
        assert!(matches!(open.admit(&POLICY, at(29)).0, Admission::Shed { until } if until >= at(30)));
        let (first, probing) = open.admit(&POLICY, at(34));
        assert_eq!(first, Admission::Probe);
        assert!(matches!(probing.admit(&POLICY, at(35)).0, Admission::Shed { .. }));
        let half = probing.record(Verdict::Success, &POLICY, at(36), 0);
        assert_eq!(half.phase(at(36)), Phase::HalfOpen);
        let (second, probing) = half.admit(&POLICY, at(36));
        assert_eq!(second, Admission::Probe);
        assert_eq!(probing.record(Verdict::Success, &POLICY, at(37), 0), Breaker::CLOSED);
    }

    #[test]
    fn a_failed_probe_reopens_for_twice_as_long_up_to_the_limit() {
        let mut breaker = opened_at_zero();
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..6 {
            waits.push(breaker.until().since(now).as_secs());
            now = breaker.until();
            breaker = breaker.admit(&POLICY, now).1.record(Verdict::Failure, &POLICY, now, 0);
        }
        for (wait, full) in waits.iter().zip([30, 60, 120, 240, 300, 300]) {
            assert!((full..=full + full / 10).contains(wait), "{waits:?}");
        }
    }

    #[test]
    fn a_client_that_leaves_gives_the_probe_back_and_a_lost_probe_is_replaced() {
        let (_, probing) = opened_at_zero().admit(&POLICY, at(40));
        let back = probing.record(Verdict::Neutral, &POLICY, at(41), 0);
        assert_eq!(back.admit(&POLICY, at(41)).0, Admission::Probe);
        assert_eq!(probing.admit(&POLICY, at(101)).0, Admission::Probe);
    }

    #[test]
    fn a_new_registration_is_tried_at_once() {
        let tried = opened_at_zero().try_now();
        assert_eq!(tried.admit(&POLICY, at(1)).0, Admission::Probe);
        assert_eq!(Breaker::CLOSED.try_now(), Breaker::CLOSED);
    }

    #[test]
    fn in_half_open_only_the_probe_counts() {
        let tried = opened_at_zero().try_now();
        for verdict in [Verdict::Success, Verdict::Failure, Verdict::Neutral] {
            assert_eq!(tried.record(verdict, &POLICY, at(1), 0), tried, "a request from before it opened: {verdict:?}");
        }
        let probing = tried.admit(&POLICY, at(1)).1;
        assert_eq!(probing.record(Verdict::Failure, &POLICY, at(1), 0).phase(at(1)), Phase::Open);
    }

    /// The whole machine as a committed text, so that a change to it is a diff that a reviewer can read. Where this fails
    /// on purpose, the text it prints replaces the file.
    #[test]
    fn the_transition_table_is_the_committed_one() {
        let table = transition_table();
        assert!(table == include_str!("breaker/transitions.txt"), "src/core/breaker/transitions.txt should be:\n{table}");
    }

    /// Every state reachable from closed without opening a third time, and where each input leads from it.
    fn transition_table() -> String {
        let mut table = String::new();
        let mut queue = std::collections::VecDeque::from([(Breaker::CLOSED, at(0))]);
        let mut seen = vec![in_words(Breaker::CLOSED, at(0))];
        while let Some((breaker, now)) = queue.pop_front() {
            table += &format!("{}\n", in_words(breaker, now));
            for (input, answer, next, later) in outcomes_of_every_input(breaker, now) {
                let words = in_words(next, later);
                let shown = if words == in_words(breaker, now) { "stays".to_owned() } else { words.clone() };
                table += &format!("    {input:<24} {answer:<6} {shown}\n");
                if next.opened < 2 && !seen.contains(&words) {
                    seen.push(words);
                    queue.push_back((next, later));
                }
            }
        }
        table
    }

    fn outcomes_of_every_input(breaker: Breaker, now: Moment) -> Vec<(&'static str, &'static str, Breaker, Moment)> {
        let (admission, admitted) = breaker.admit(&POLICY, now);
        let answer = match admission {
            Admission::Flow => "flow",
            Admission::Probe => "probe",
            Admission::Shed { .. } => "shed",
        };
        let record = |verdict| breaker.record(verdict, &POLICY, now, 0);
        vec![
            ("a request asks", answer, admitted, now),
            ("an attempt succeeds", "", record(Verdict::Success), now),
            ("an attempt fails", "", record(Verdict::Failure), now),
            ("an attempt says nothing", "", record(Verdict::Neutral), now),
            ("the instance registers", "", breaker.try_now(), now),
            ("the wait is over", "", breaker, now.max(breaker.until())),
        ]
    }

    fn in_words(breaker: Breaker, now: Moment) -> String {
        let over = now >= breaker.until();
        let state = match (breaker.phase, breaker.probing) {
            (Phase::Closed, _) => format!("closed, failures {}", breaker.count),
            (Phase::Open, _) if over => "open, wait over".to_owned(),
            (Phase::Open, _) => "open".to_owned(),
            (Phase::HalfOpen, false) => format!("half-open, successes {}", breaker.count),
            (Phase::HalfOpen, true) if over => format!("half-open, successes {}, probe lost", breaker.count),
            (Phase::HalfOpen, true) => format!("half-open, successes {}, probing", breaker.count),
        };
        match breaker.opened {
            0 => state,
            opened => format!("{state} (opened {opened}x)"),
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Admit,
        Record(Verdict),
        TryNow,
        Wait(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::Admit),
            Just(Step::Record(Verdict::Success)),
            Just(Step::Record(Verdict::Failure)),
            Just(Step::Record(Verdict::Neutral)),
            Just(Step::TryNow),
            (0u32..400_000).prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn packing_loses_nothing_and_an_open_breaker_always_heals(steps in steps(), seed: u64) {
            let (mut breaker, mut now) = (Breaker::CLOSED, Moment::ZERO);
            for step in steps {
                match step {
                    Step::Admit => breaker = breaker.admit(&POLICY, now).1,
                    Step::Record(verdict) => breaker = breaker.record(verdict, &POLICY, now, seed),
                    Step::TryNow => breaker = breaker.try_now(),
                    Step::Wait(ms) => now = now.plus(Duration::from_millis(ms.into())),
                }
                prop_assert_eq!(Breaker::unpack(breaker.pack()), breaker);
                // Whatever happened: after the longest wait (with jitter) a request gets through again.
                let later = now.plus(Duration::from_secs(331));
                let sheds = matches!(breaker.admit(&POLICY, later).0, Admission::Shed { .. });
                prop_assert!(!sheds);
            }
        }
    }
}
