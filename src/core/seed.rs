//! Randomness as an argument: a seed goes in, numbers come out.

/// Mixes a 64-bit value so that neighbouring inputs give unrelated outputs.
///
/// The finaliser of `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number in `0..bound` taken from the upper half of `seed`; 0 when `bound` is 0.
///
/// Multiply-shift (Lemire, "Fast random integer generation in an interval", 2019) without the rejection step: the bias is
/// below `bound / 2^32`, which does not matter for picking an instance.
#[must_use]
pub const fn below(seed: u64, bound: u32) -> u32 {
    (((seed >> 32) * bound as u64) >> 32) as u32
}

/// A fraction in `[0, 1)`.
#[must_use]
pub fn unit(seed: u64) -> f64 {
    let mantissa = (seed >> 11) as f64;
    mantissa / 9_007_199_254_740_992.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_stays_below_and_reaches_every_value() {
        let mut seen = [false; 7];
        for n in 0..1000 {
            seen[below(mix(n), 7) as usize] = true;
        }
        assert_eq!(seen, [true; 7]);
        assert_eq!(below(u64::MAX, 0), 0);
        assert_eq!(below(u64::MAX, 5), 4);
    }

    #[test]
    fn unit_is_a_fraction() {
        assert_eq!(unit(0), 0.0);
        assert!(unit(u64::MAX) < 1.0);
    }
}
