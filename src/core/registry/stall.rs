//! When this process itself was stopped.
//!
//! The shell promises to call the registry at least every [`TICK`]. A longer gap between two calls means that the process
//! did not run: it was stopped (SIGSTOP, a debugger, a frozen container), or starved. Nobody could renew meanwhile, so the
//! gap must not count against anybody:
//!
//! - **Every lease is extended by the stall**, which is the whole gap. How much of its first second was still ours cannot be
//!   told; leases live that much longer rather than shorter.
//! - **A stall of at least half a lease's TTL gives that lease one fresh TTL**, as a restart does: its instance missed a
//!   heartbeat or more, and its sidecar may be in back-off.
//! - **At least a second is left to each**, for the heartbeats that piled up in sockets and queues meanwhile: they are
//!   answered before anybody lapses. One that was stamped before the stall's end counts from that end.
//! - **A probe that was under way says nothing**; it is made again.
//! - **Among replicas, a stall that outlasts graves** (`registry/graves.rs`) leaves every lease with nobody: whoever was removed
//!   meanwhile has no grave any more. Its instance stays while its lease does, unless the store lacks it; a renewal takes it over.
//!
//! The clock is monotonic (`CLOCK_MONOTONIC` on Linux), which stands still while the machine is suspended. So leases do not
//! age during a suspend, and there is no gap to notice or to make up for.
//!
//! A stall is rare, so each one may cost O(n log n): both orders are built anew, once.

use super::Registry;
use super::graves::KEPT_BEYOND;
use super::leases::Leases;
use crate::command::Effect;
use crate::event::Event;
use crate::lease::Lease;
use crate::record::ReplicaId;
use crate::time::Moment;
use std::time::Duration;

/// The shell calls [`Registry::expire`] at least so often.
pub const TICK: Duration = Duration::from_secs(1);
/// No lease ends earlier than this after a stall.
const LEFT_MIN: Duration = Duration::from_secs(1);

/// What the registry's own calls tell about time.
#[derive(Debug, Default)]
pub(super) struct Calls {
    last: Option<Moment>,
    /// The end of the last stall.
    resumed: Moment,
}

impl Registry {
    /// Every call comes here first: notices stalls, and tells what time a command that came at `now` counts as.
    pub(super) fn called_at(&mut self, now: Moment) -> Moment {
        let last = self.calls.last.unwrap_or(now);
        self.calls.last = Some(last.max(now));
        let gap = now.since(last);
        if gap > self.protection.stall_min {
            self.calls.resumed = now;
            self.leases.fall_silent(last);
            self.resume(gap, now);
        }
        now.max(self.calls.resumed)
    }

    fn resume(&mut self, stall: Duration, now: Moment) {
        let (mut deadlines, mut fresh) = (Vec::with_capacity(self.instances), Vec::with_capacity(self.instances));
        let entries = self
            .services
            .iter_mut()
            .flat_map(|(service, instances)| instances.iter_mut().map(move |(id, entry)| (service, id, entry)));
        for (service, id, entry) in entries {
            let before = entry.lease;
            let gets_fresh = stall >= before.ttl() / 2;
            if !gets_fresh && self.hold.holds(service, id) {
                continue;
            }
            let is_fresh = gets_fresh || self.leases.is_fresh(before, service, id);
            let may_be_forgotten = self.sharing.is_some() && stall >= before.ttl().saturating_add(KEPT_BEYOND);
            entry.lease = if may_be_forgotten {
                Lease::elsewhere(before.ttl(), before.ttl(), ReplicaId::NOBODY, now)
            } else if gets_fresh {
                before.refreshed(now)
            } else {
                before.extended(stall, now.plus(LEFT_MIN))
            };
            entry.cells.lease.set_lease(entry.lease);
            deadlines.push((entry.lease.due(), service.clone(), id.clone()));
            if is_fresh {
                fresh.push((entry.lease.silent_from(), service.clone(), id.clone()));
            }
            if gets_fresh {
                entry.cells.lease.set_held(false);
                self.hold.release(service, id);
            }
        }
        self.leases = Leases::of(deadlines, fresh);
        self.hold.stalled(now);
        self.effects.push(Effect::Tell(Event::Stalled { stall, leases: self.instances }));
    }
}
