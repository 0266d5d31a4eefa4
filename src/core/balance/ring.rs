//! A ring of points for consistent hashing (Ketama: Jones, 2007; Karger et al., "Consistent Hashing and Random Trees", 1997).
//!
//! Each instance owns points in proportion to its weight, at places that depend on its id alone; a key belongs to the first
//! point at or after its own place. So an instance that leaves gives away its own keys and no others.

use crate::seed;

/// More points than this are not made: above it, all instances have proportionally fewer.
pub const POINTS_MAX: usize = 1 << 17;
/// Points of an instance whose weight is 100, as Ketama has them.
const POINTS_EACH: usize = 160;
/// The lower bits of a point tell whose it is.
const OWNER_BITS: u32 = 20;

/// The points in the order of their places.
#[derive(Debug, PartialEq, Eq)]
pub struct Ring {
    points: Box<[u64]>,
    members: Box<[(u64, u16)]>,
}

impl Ring {
    /// The ring of these members: the hash of the id of each, and its weight.
    #[must_use]
    pub fn new(members: Vec<(u64, u16)>) -> Self {
        let share = |weight: u16| (usize::from(weight) * POINTS_EACH / 100).max(1);
        let total: usize = members.iter().map(|(_, weight)| share(*weight)).sum();
        let shift = (0..usize::BITS).find(|shift| total >> shift <= POINTS_MAX).unwrap_or(0);
        let points_of = |(owner, &(id, weight)): (usize, &(u64, u16))| {
            (0..(share(weight) >> shift).max(1)).map(move |nth| point(seed::mix(id ^ seed::mix(nth as u64)), owner))
        };
        let mut points: Vec<u64> = members.iter().enumerate().flat_map(points_of).collect();
        points.sort_unstable();
        Self { points: points.into(), members: members.into() }
    }

    /// Whether it is the ring of these members.
    #[must_use]
    pub fn is_of(&self, members: &[(u64, u16)]) -> bool {
        *self.members == *members
    }

    /// Where the key's owner stands among the members, then that of the next point, and so on, once around.
    pub fn owners(&self, key: u64) -> impl Iterator<Item = usize> {
        let first = self.points.partition_point(|&at| at < point(key, 0));
        let (before, after) = self.points.split_at(first);
        after.iter().chain(before).map(|at| (at & ((1 << OWNER_BITS) - 1)) as usize)
    }
}

const fn point(place: u64, owner: usize) -> u64 {
    place >> OWNER_BITS << OWNER_BITS | owner as u64 & ((1 << OWNER_BITS) - 1)
}

/// Where a key, or an instance's id, stands: the same in every process and release.
#[must_use]
pub fn place(bytes: &[u8]) -> u64 {
    let word = |chunk: &[u8]| chunk.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
    bytes.chunks(8).fold(seed::mix(bytes.len() as u64), |hash, chunk| seed::mix(hash ^ word(chunk)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owner(ring: &Ring, key: u64) -> u64 {
        ring.members[ring.owners(seed::mix(key)).next().unwrap()].0
    }

    proptest! {
        #[test]
        fn who_leaves_gives_away_its_own_keys_only(weights in proptest::collection::vec(1u16..400, 2..12), leaver: usize) {
            let members: Vec<(u64, u16)> = weights.iter().enumerate().map(|(n, &w)| (seed::mix(n as u64), w)).collect();
            let leaver = leaver % members.len();
            let (whole, mut rest) = (Ring::new(members.clone()), members.clone());
            rest.remove(leaver);
            let rest = Ring::new(rest);
            for key in 0..500 {
                let before = owner(&whole, key);
                if before != members[leaver].0 {
                    prop_assert_eq!(owner(&rest, key), before);
                }
            }
        }

        #[test]
        fn once_around_meets_everybody(count in 1usize..40, key: u64) {
            let ring = Ring::new((0..count).map(|n| (seed::mix(n as u64), 100)).collect());
            let mut met: Vec<usize> = ring.owners(key).collect();
            met.sort_unstable();
            met.dedup();
            prop_assert_eq!(met, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn keys_follow_the_weights() {
        let ring = Ring::new(vec![(seed::mix(1), 100), (seed::mix(2), 300)]);
        let light = (0..10_000).filter(|&key| owner(&ring, key) == seed::mix(1)).count();
        assert!((1_900..3_100).contains(&light), "{light} of 10000 at a quarter of the weight");
    }

    #[test]
    fn it_is_bounded_however_many_there_are() {
        let ring = Ring::new((0..10_000).map(|n| (seed::mix(n), 1000)).collect());
        assert!(ring.points.len() <= POINTS_MAX && ring.points.len() >= 10_000, "{}", ring.points.len());
    }

    #[test]
    fn places_differ_and_stay() {
        assert_ne!(place(b"a"), place(b"b"));
        assert_ne!(place(b"a"), place(b"\0a"));
        assert_ne!(place(b""), place(b"\0"));
        assert_eq!(place(b"replica-1"), place(b"replica-1"));
    }
}
