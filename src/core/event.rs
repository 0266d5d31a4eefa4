//! What happened, told once; the shell turns each event into a log line, metrics and an audit record.

use crate::name::{InstanceId, ServiceName};

/// Something that changed the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An instance registered. `replaced` tells whether it was known before.
    Registered {
        /// Its service.
        service: ServiceName,
        /// Its id.
        instance: InstanceId,
        /// Whether an earlier registration was replaced.
        replaced: bool,
    },
    /// An instance was deregistered.
    Deregistered {
        /// Its service.
        service: ServiceName,
        /// Its id.
        instance: InstanceId,
    },
    /// An instance gets no new requests for a while.
    DrainStarted {
        /// Its service.
        service: ServiceName,
        /// Its id.
        instance: InstanceId,
        /// How long.
        span: std::time::Duration,
        /// Whether it is deregistered afterwards.
        leaves: bool,
    },
    /// An instance gets requests again, as far as its status allows.
    DrainEnded {
        /// Its service.
        service: ServiceName,
        /// Its id.
        instance: InstanceId,
    },
    /// A lease ran out.
    Lapsed {
        /// Its service.
        service: ServiceName,
        /// Its id.
        instance: InstanceId,
    },
    /// An instance came back from the store.
    Restored {
        /// Its service.
        service: ServiceName,
        /// Its id.
        instance: InstanceId,
    },
    /// An instance registered at another replica.
    Learned {
        /// Its service.
        service: ServiceName,
        /// Its id.
        instance: InstanceId,
        /// Whether an earlier registration was replaced.
        replaced: bool,
    },
    /// An instance is gone, says another replica.
    Departed {
        /// Its service.
        service: ServiceName,
        /// Its id.
        instance: InstanceId,
    },
    /// An instance reported another status.
    StatusChanged {
        /// Its service.
        service: ServiceName,
        /// Its id.
        instance: InstanceId,
        /// The new status.
        status: crate::status::Status,
    },
    /// A lease is due, and most instances are silent: from now on nobody lapses.
    HoldStarted {
        /// Registered instances.
        instances: usize,
        /// Of these, not renewed lately.
        silent: usize,
    },
    /// Most instances are heard of again, or too few are left to tell.
    HoldEnded {
        /// How long it was.
        lasted: std::time::Duration,
        /// Registered instances.
        instances: usize,
        /// Of these, past their deadline; they have one more TTL to be renewed.
        on_grace: usize,
    },
    /// An instance that a hold had kept was removed: its health endpoint did not say that it is well.
    Evicted {
        /// Its service.
        service: ServiceName,
        /// Its id.
        instance: InstanceId,
        /// Failed probes in a row.
        failures: u32,
    },
    /// This process did not run for a while; every lease was extended.
    Stalled {
        /// For so long.
        stall: std::time::Duration,
        /// So many leases.
        leases: usize,
    },
}
