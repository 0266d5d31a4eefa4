//! The targets: `check` panics when a property does not hold. They are also compiled into the libFuzzer wrapper.

pub(crate) mod answer;
pub(crate) mod chunks;
pub(crate) mod forwarded;
pub(crate) mod head;
pub(crate) mod plain;
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

/// Runs what Pingora does over a stream in memory.
pub(crate) fn block_on(future: impl Future<Output = ()>) {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future));
}

/// Fields by their name in lower case; those of one name in their order.
pub(crate) fn by_name<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut fields: Vec<_> = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect();
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    fields
}

/// Fields as names and values.
pub(crate) fn pairs(fields: &http::HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    fields.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}
