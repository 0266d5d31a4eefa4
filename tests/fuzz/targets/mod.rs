//! The targets: `check` panics when a property does not hold. They are also compiled into the libFuzzer wrapper.

pub(crate) mod chunks;
pub(crate) mod forwarded;
pub(crate) mod head;
pub(crate) mod registry;
pub(crate) mod target;

/// Ascending places to cut an input, which depend only on it.
pub(crate) fn cuts(bytes: &[u8]) -> Vec<usize> {
    let mut state =
        bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mut at = 0;
    let mut cuts = Vec::new();
    while at < bytes.len() {
        cuts.push(at);
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        at += usize::try_from(state >> 60).unwrap_or(0) + 1;
    }
    cuts.push(bytes.len());
    cuts
}
