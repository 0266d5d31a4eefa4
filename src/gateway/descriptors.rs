//! The process's descriptors: how many there are, and how many clients they are enough for.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// What the process itself needs: its files, listeners, timers, and connections to the store and to name servers.
const OWN: usize = 64;

/// Of the rest, the part that is kept for connections to instances: each takes one, and a second while one that is silent is
/// shut down. Most clients are idle most of the time.
const INSTANCES_PART: usize = 4;

/// Takes as many descriptors as the system lets this process have: the usual soft limit of 1024 is for programs that use
/// `select`.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "failed to raise the limit of open files");
    }
}

/// Whether a call failed because none is left, to this process or to the system.
#[must_use]
pub fn are_used_up(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// How many of `wanted` clients there can be, so that requests find descriptors for their instances: a client that is turned
/// away costs less than one whose request has nowhere to go.
#[must_use]
pub fn clients_max(wanted: usize) -> usize {
    let Some(limit) = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()) else { return wanted };
    let enough_for = enough_for(limit);
    if enough_for < wanted {
        tracing::warn!(
            open_files = limit,
            "limits.connections is {wanted}, but the limit of open files is enough for {enough_for}: no more are accepted"
        );
    }
    wanted.min(enough_for)
}

fn enough_for(limit: usize) -> usize {
    let left = limit.saturating_sub(OWN).max(limit / 2);
    (left - left / INSTANCES_PART).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_descriptors_for_the_rest() {
        for limit in [16, 64, 100, 128, 256, 1024, 4096, 1_048_576] {
            let clients = enough_for(limit);
            assert!(clients >= 1 && clients + limit / 10 < limit, "{clients} of {limit}");
        }
        assert!(enough_for(20_000) > 10_000);
    }
}
