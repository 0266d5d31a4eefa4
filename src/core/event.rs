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
    /// An instance reported another status.
    StatusChanged {
        /// Its service.
        service: ServiceName,
        /// Its id.
        instance: InstanceId,
        /// The new status.
        status: crate::status::Status,
    },
}
