//! How the usable instances of a service stand in line: made with each publish, so that a pick only looks things up.

use super::ring::{Ring, place};
use crate::policy::{Algorithm, Balance};
use crate::table::{Attach, Upstream, Wheel};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The order in which instances are chosen from.
#[derive(Debug)]
pub struct Lineup {
    /// Everybody.
    pub(super) whole: Rota,
    /// Our own zone and the others, where ours is preferred and there are both.
    pub(super) zones: Option<Zones>,
    /// What clients' cookies call the instances, sorted, and where they stand.
    tokens: Box<[(u64, u32)]>,
}

/// A part of the usable instances, and how to choose among them.
#[derive(Debug)]
pub(super) struct Rota {
    /// Where they stand.
    pub(super) range: Range<usize>,
    /// For choosing in turn, or by chance and weight.
    pub(super) wheel: Wheel,
    /// For choosing by key.
    pub(super) ring: Option<Arc<Ring>>,
}

/// The instances of our own zone, and all others.
#[derive(Debug)]
pub(super) struct Zones {
    pub(super) near: Rota,
    pub(super) far: Rota,
    /// In how many zones the service has instances.
    pub(super) count: u32,
}

impl Lineup {
    /// Puts those that take traffic in line. What is as it was in `old` is taken over from there.
    #[must_use]
    pub fn arrange<X: Attach>(
        instances: &[Arc<Upstream<X>>],
        balance: &Balance,
        old: Option<&Self>,
    ) -> (Box<[Arc<Upstream<X>>]>, Self) {
        let mut usable: Vec<Arc<Upstream<X>>> = instances.iter().filter(|upstream| upstream.takes_traffic()).cloned().collect();
        let is_near = |upstream: &Arc<Upstream<X>>| balance.zone.is_some() && upstream.facts.zone == balance.zone;
        usable.sort_by_key(|upstream| !is_near(upstream));
        let near = usable.partition_point(is_near);
        let turn = old.map_or_else(Arc::<AtomicU64>::default, |old| old.turn().clone());
        let old_rings: Vec<&Arc<Ring>> = old.map(Self::rings).unwrap_or_default();
        let rota = |range: Range<usize>| Rota::new(&usable, range, balance.algorithm, &turn, &old_rings);
        let zones = (near > 0 && near < usable.len()).then(|| Zones {
            near: rota(0..near),
            far: rota(near..usable.len()),
            count: count_zones(instances),
        });
        let whole = rota(0..usable.len());
        let named = usable.iter().zip(0u32..).filter(|(upstream, _)| upstream.token != 0);
        let mut tokens: Box<[(u64, u32)]> = named.map(|(upstream, at)| (upstream.token, at)).collect();
        tokens.sort_unstable();
        (usable.into(), Self { whole, zones, tokens })
    }

    /// Whose turn it is; goes on from table to table.
    #[must_use]
    pub const fn turn(&self) -> &Arc<AtomicU64> {
        &self.whole.wheel.turn
    }

    /// Where the instance stands that a client's cookie calls so.
    pub(super) fn named(&self, token: u64) -> Option<usize> {
        let at = self.tokens.binary_search_by_key(&token, |&(token, _)| token).ok()?;
        Some(self.tokens[at].1 as usize)
    }

    fn rings(&self) -> Vec<&Arc<Ring>> {
        let zones = self.zones.iter().flat_map(|zones| [&zones.near, &zones.far]);
        zones.chain([&self.whole]).filter_map(|rota| rota.ring.as_ref()).collect()
    }
}

impl Rota {
    fn new<X: Attach>(
        usable: &[Arc<Upstream<X>>],
        range: Range<usize>,
        algorithm: Algorithm,
        turn: &Arc<AtomicU64>,
        old: &[&Arc<Ring>],
    ) -> Self {
        let members = &usable[range.clone()];
        let wheel = Wheel::new(members.iter().map(|upstream| upstream.facts.weight), turn.clone());
        let ring = (algorithm == Algorithm::ConsistentHash).then(|| {
            let members: Vec<(u64, u16)> =
                members.iter().map(|upstream| (place(upstream.facts.id.as_str().as_bytes()), upstream.facts.weight)).collect();
            let kept = old.iter().find(|ring| ring.is_of(&members));
            kept.map_or_else(|| Arc::new(Ring::new(members)), |ring| Arc::clone(ring))
        });
        Self { range, wheel, ring }
    }
}

/// Instances that name no zone are in one of their own.
fn count_zones<X: Attach>(instances: &[Arc<Upstream<X>>]) -> u32 {
    let zones: BTreeSet<Option<&str>> = instances.iter().map(|upstream| upstream.facts.zone.as_deref()).collect();
    u32::try_from(zones.len()).unwrap_or(u32::MAX)
}
