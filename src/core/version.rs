//! Numbers that order the changes of an instance, wherever they were made.
//!
//! Alone, a process counts. Processes that share a store number their changes by the *store's* time, in microseconds, with a
//! tag of their own in the low bits; never lower than any number they have seen (Lamport, "Time, Clocks, and the Ordering of
//! Events in a Distributed System", 1978). So their own clocks may differ by minutes, and what happened later has the higher
//! number also when it happened while the store was away: the monotonic clock carries the store's time on.
//!
//! Only registrations and removals are numbered by time. Any other change of an instance (its status, a drain) may be made by a
//! replica that has not heard that the instance registered anew or is gone. It is numbered just above what it changes, so that
//! it never counts as later than that.
//!
//! The time that numbers are given by never goes back, as the store's own does when another server takes over whose clock is
//! behind: whoever sees a number that is ahead of its time goes on from there. So all replicas come to follow whichever clock is
//! furthest ahead, and what happens later goes on having the higher number.
//!
//! Before the first contact the store's time is guessed by the wall clock. Numbers that were given by the guess are shifted
//! by its error as soon as that is known.

use crate::record::ReplicaId;
use crate::time::{Moment, Now};

/// Bits for the tag.
const TAG_BITS: u32 = 10;

/// A change is numbered at most so many microseconds above what it changes.
const CHANGE_MICROS_MAX: u64 = 1 << 6;

/// Whoever registers anew does so later than this; until then a registration is not changed so often that numbers run further.
const REGISTRATION_MICROS: u64 = 1 << 16;

/// Gives numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Versions {
    last: u64,
    shared: Option<Shared>,
}

#[derive(Clone, Copy, Debug)]
struct Shared {
    tag: u64,
    /// Microseconds on the store's clock at [`Moment::ZERO`].
    origin: Option<Origin>,
}

#[derive(Clone, Copy, Debug)]
struct Origin {
    micros: i64,
    is_known: bool,
}

impl Versions {
    /// For a process that shares its store.
    pub(crate) fn shared(me: ReplicaId) -> Self {
        let tag = me.number() & ((1 << TAG_BITS) - 1);
        Self { last: 0, shared: Some(Shared { tag, origin: None }) }
    }

    /// A number above all that were given or seen.
    pub(crate) fn next(&mut self, now: Now) -> u64 {
        let Some(shared) = &mut self.shared else {
            self.last = self.last.saturating_add(1);
            return self.last;
        };
        let guess = || Origin { micros: micros(now.wall_ms * 1_000) - mono_micros(now.mono), is_known: false };
        let origin = *shared.origin.get_or_insert_with(guess);
        let time = u64::try_from(origin.micros.saturating_add(mono_micros(now.mono))).unwrap_or(0);
        let step = (self.last >> TAG_BITS).saturating_add(1);
        self.last = time.max(step).min(u64::MAX >> TAG_BITS) << TAG_BITS | shared.tag;
        self.last
    }

    /// A number for a change of what has the number `of`: above that, and below every registration and removal since.
    pub(crate) fn change(&mut self, of: u64, now: Now) -> u64 {
        let Some(Shared { tag, .. }) = self.shared else { return self.next(now) };
        // Two replicas may have the same tag, and change the same thing at once.
        let step = 1 + mono_micros(now.mono).unsigned_abs() % CHANGE_MICROS_MAX;
        let number = (of >> TAG_BITS).saturating_add(step).min(u64::MAX >> TAG_BITS) << TAG_BITS | tag;
        self.saw(number, now.mono);
        number
    }

    /// A number was seen.
    pub(crate) fn saw(&mut self, version_no: u64, now: Moment) {
        self.last = self.last.max(version_no);
        let origin = self.shared.as_mut().and_then(|shared| shared.origin.as_mut());
        if let Some(origin) = origin.filter(|origin| origin.is_known) {
            origin.micros = origin.micros.max(micros(version_no >> TAG_BITS) - mono_micros(now));
        }
    }

    /// It is now that many microseconds on the store's clock. By how much the numbers must be shifted that were given before
    /// it was known, if that was not so.
    pub(crate) fn store_time(&mut self, store_micros: u64, now: Moment) -> Option<i64> {
        let shared = self.shared.as_mut()?;
        let micros = micros(store_micros) - mono_micros(now);
        if let Some(known) = shared.origin.as_mut().filter(|origin| origin.is_known) {
            known.micros = known.micros.max(micros);
            return None;
        }
        let guess = shared.origin.replace(Origin { micros, is_known: true })?;
        let error = micros - guess.micros;
        self.last = shifted(self.last, error);
        Some(error)
    }
}

/// A number that was given by a guess, by the time it should have been given by.
pub(crate) fn shifted(version_no: u64, error_micros: i64) -> u64 {
    let time = (version_no >> TAG_BITS).saturating_add_signed(error_micros).min(u64::MAX >> TAG_BITS);
    time << TAG_BITS | version_no & ((1 << TAG_BITS) - 1)
}

/// Whether a later number may be that of a change of what has the earlier one; if not, that registered anew.
pub(crate) const fn may_be_change(later: u64, earlier: u64) -> bool {
    (later >> TAG_BITS).saturating_sub(earlier >> TAG_BITS) < REGISTRATION_MICROS
}

/// Microseconds on the store's clock at which a number was given, among processes that share one.
#[must_use]
pub const fn micros_of(version_no: u64) -> u64 {
    version_no >> TAG_BITS
}

fn micros(of: u64) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

fn mono_micros(moment: Moment) -> i64 {
    micros(moment.nanos() / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ReplicaId = ReplicaId::of(5);
    const B: ReplicaId = ReplicaId::of(6);

    fn at(mono_ms: u64, wall_ms: u64) -> Now {
        Now { mono: Moment::from_millis(mono_ms), wall_ms }
    }

    #[test]
    fn alone_a_process_counts() {
        let mut versions = Versions::default();
        assert_eq!((versions.next(at(7, 9)), versions.next(at(7, 9))), (1, 2));
        versions.saw(41, Moment::ZERO);
        assert_eq!(versions.next(at(8, 9)), 42);
        assert_eq!(versions.store_time(1, Moment::ZERO), None);
    }

    #[test]
    fn what_happened_later_has_the_higher_number_whatever_the_clocks_say() {
        let (mut a, mut b) = (Versions::shared(A), Versions::shared(B));
        // A's wall clock is two minutes ahead, B's two behind; the store says what time it is.
        assert_eq!(a.store_time(1_000_000_000, Moment::from_millis(10)), None, "nothing was guessed yet");
        b.store_time(1_000_500_000, Moment::from_millis(99_000));
        let first = a.next(at(1_010, 1_120_000));
        let later = b.next(at(99_600, 880_000));
        assert!(first < later);
        assert_eq!(micros_of(first), 1_001_000_000);
        b.saw(u64::MAX >> 2, Moment::from_millis(99_600));
        assert!(b.next(at(99_700, 880_000)) > u64::MAX >> 2, "never below what was seen");
    }

    #[test]
    fn a_change_is_later_than_what_it_changes_and_earlier_than_the_next_registration() {
        let (mut a, mut b) = (Versions::shared(A), Versions::shared(B));
        a.store_time(1_000_000_000, Moment::ZERO);
        b.store_time(1_000_000_000, Moment::ZERO);
        let registered = a.next(at(0, 0));
        let again = a.next(at(50, 0));
        let changed = (0..20).fold(registered, |of, n| b.change(of, at(60_000 + n, 0)));
        assert!(registered < changed && changed < again);
        assert_ne!(a.change(registered, at(7, 0)), b.change(registered, at(7, 0)));
    }

    #[test]
    fn the_time_of_numbers_never_goes_back() {
        let (mut a, mut b) = (Versions::shared(A), Versions::shared(B));
        a.store_time(1_000_000_000, Moment::ZERO);
        // Another server takes over, a minute behind; B knows no other.
        a.store_time(940_000_000, Moment::ZERO);
        b.store_time(940_000_000, Moment::ZERO);
        let first = a.next(at(0, 0));
        assert_eq!(micros_of(first), 1_000_000_000);
        b.saw(first, Moment::from_millis(5));
        let unheard = a.next(at(1_000, 0));
        assert!(b.next(at(2_000, 0)) > unheard, "also than what was not heard of");
    }

    #[test]
    fn a_guess_is_made_good() {
        let mut versions = Versions::shared(A);
        let guessed = versions.next(at(100, 5_000_000));
        let error = versions.store_time(1_000_000_000, Moment::from_millis(300)).unwrap();
        assert_eq!(micros_of(shifted(guessed, error)), 999_800_000, "200 ms before the store told its time");
        assert!(versions.next(at(301, 5_000_000)) > shifted(guessed, error));
        assert_eq!(versions.store_time(1_000_000_000, Moment::from_millis(300)), None, "only once");
    }

    #[test]
    fn numbers_at_the_end_of_the_scale_stay_there() {
        let mut versions = Versions::shared(A);
        versions.saw(u64::MAX, Moment::ZERO);
        assert!(versions.next(at(1, 1)) > u64::MAX - (1 << TAG_BITS));
    }
}
