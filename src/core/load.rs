//! How busy and how fast an instance is, as far as this gateway can see.

use crate::time::Moment;

/// An exponentially weighted moving average of response times, packed into a word.
///
/// A hint, not an account: concurrent updates may lose one another, which costs nothing but precision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ewma {
    /// Microseconds; `None` until the first sample.
    micros: Option<f32>,
    stamp_ms: u32,
}

/// The weight of the past halves about every 7 s (τ = 10 s): long enough to smooth, short enough to notice.
const TAU_MS: f32 = 10_000.0;
/// An average older than this says nothing.
const KNOWN_FOR_MS: u32 = 5_000;
/// No thread is later than this between reading the clock and using it.
const LATE_MS: u32 = 60_000;

impl Ewma {
    /// Nothing known yet.
    pub const UNKNOWN: Self = Self { micros: None, stamp_ms: 0 };

    /// The average after one more response took `micros` microseconds.
    #[must_use]
    pub fn observe(self, micros: f32, now: Moment) -> Self {
        let Some(old) = self.micros else { return Self { micros: Some(micros.max(1.0)), stamp_ms: stamp(now) } };
        let elapsed = self.silent_ms(now);
        let keep = (-(elapsed.clamp(1, 60_000) as f32) / TAU_MS).exp().min(0.95);
        let average = old * keep + micros * (1.0 - keep);
        Self { micros: Some(average.max(1.0)), stamp_ms: self.stamp_ms.wrapping_add(elapsed) }
    }

    /// Microseconds; `None` until the first response.
    #[must_use]
    pub const fn micros(self) -> Option<f32> {
        self.micros
    }

    /// What to expect of the next response; `None` until the first one, and again when nothing was heard for 5 s.
    ///
    /// What is old is not known: otherwise one slow answer, at a cold start say, would keep an instance from ever being tried
    /// while its peer is fast. So a slow instance gets a request every 5 s, which renews the knowledge.
    #[must_use]
    pub fn expected(self, now: Moment) -> Option<f32> {
        self.micros.filter(|_| self.silent_ms(now) <= KNOWN_FOR_MS)
    }

    /// Packs the average into a word.
    #[must_use]
    pub fn pack(self) -> u64 {
        // Averages are at least 1.0, so the bits of 0.0 are free to mean "unknown".
        u64::from(self.micros.unwrap_or(0.0).to_bits()) << 32 | u64::from(self.stamp_ms)
    }

    /// Reads a word written by [`Ewma::pack`].
    #[must_use]
    pub fn unpack(word: u64) -> Self {
        let (bits, stamp_ms) = ((word >> 32) as u32, word as u32);
        let micros = f32::from_bits(bits);
        Self { micros: (micros >= 1.0).then_some(micros), stamp_ms }
    }

    /// Milliseconds since the last sample; 0 when that is a little later than `now`, as it is for a thread that read the clock a
    /// moment before another one noted its sample. Stamps are compared as on a dial, because they wrap.
    fn silent_ms(self, now: Moment) -> u32 {
        let past = stamp(now).wrapping_sub(self.stamp_ms);
        if past > u32::MAX - LATE_MS { 0 } else { past }
    }
}

fn stamp(now: Moment) -> u32 {
    now.millis() as u32
}

/// What sending one more request to an instance would cost: lower is better.
///
/// `(in flight + 1) × average / weight`. Two instances are compared with the same stand-in for an unknown average, so that a
/// new instance is judged by its in-flight requests alone and cannot swallow all traffic before its first answer.
#[must_use]
pub fn cost(in_flight: u32, average: f32, weight: u16) -> f64 {
    (f64::from(in_flight) + 1.0) * f64::from(average) / f64::from(weight.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_average_stays_between_its_samples(samples in proptest::collection::vec((1.0f32..1e7, 0u64..20_000), 1..50)) {
            let (mut ewma, mut now_ms) = (Ewma::UNKNOWN, 0);
            let low = samples.iter().map(|s| s.0).fold(f32::MAX, f32::min);
            let high = samples.iter().map(|s| s.0).fold(0.0, f32::max);
            for (micros, gap) in samples {
                now_ms += gap;
                ewma = ewma.observe(micros, Moment::from_millis(now_ms));
                prop_assert_eq!(Ewma::unpack(ewma.pack()), ewma);
            }
            let average = ewma.micros().unwrap();
            prop_assert!(average >= low * 0.999 && average <= high * 1.001);
        }
    }

    #[test]
    fn a_thread_that_read_the_clock_a_moment_earlier_neither_erases_nor_hides_what_is_known() {
        let known = (1..100u16).fold(Ewma::UNKNOWN, |ewma, n| ewma.observe(100.0, Moment::from_millis(n.into())));
        let earlier = Moment::from_millis(98);
        assert_eq!(known.expected(earlier), known.micros());
        let average = known.observe(1e6, earlier).micros().unwrap();
        assert!(average < 100_000.0, "one sample of 1 s made the average {average} µs");
        assert_eq!(known.observe(100.0, earlier).expected(Moment::from_millis(5_099)), Some(100.0), "the stamp went back");
    }

    #[test]
    fn unknown_survives_packing() {
        assert_eq!(Ewma::unpack(Ewma::UNKNOWN.pack()), Ewma::UNKNOWN);
    }

    #[test]
    fn old_samples_fade() {
        let slow = Ewma::UNKNOWN.observe(1e6, Moment::ZERO);
        let later = slow.observe(100.0, Moment::from_millis(60_000));
        assert!(later.micros().unwrap() < 3_000.0, "{later:?}");
    }
}
