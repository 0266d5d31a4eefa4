//! What the registry can be asked to do, and what it answers.

use crate::endpoint::{Endpoint, Guard};
use crate::event::Event;
use crate::name::{InstanceId, ServiceName};
use crate::policy::Policy;
use crate::record::{Gone, Record, ReplicaId, Standing, StoreNews, Stored};
use crate::status::Status;
use crate::table::Facts;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A request to change the registry.
#[derive(Clone, Debug)]
pub enum Command {
    /// An instance wants traffic.
    Register(Box<Registration>),
    /// A heartbeat.
    Renew(Renewal),
    /// An instance wants no more traffic.
    Deregister(Deregistration),
    /// A name resolved to these addresses (never empty: the last good answer is kept).
    Resolved {
        /// The name.
        host: Arc<str>,
        /// Every address of the answer.
        addresses: Vec<IpAddr>,
    },
    /// An operator takes instances out of rotation for a while.
    Drain(Draining),
    /// A record from the store: its lease starts anew.
    Restore(Box<Facts>),
    /// What another replica, or the store, says of an instance.
    Merge(Box<Record>),
    /// What another replica, or the store, says of an instance that is gone.
    MergeGone(Gone),
    /// An instance was renewed at another replica.
    Renewed {
        /// Its service.
        service: ServiceName,
        /// Its id.
        id: InstanceId,
        /// The version that was renewed.
        version_no: u64,
        /// What is left of the lease.
        left: Duration,
        /// Who holds it now.
        holder: ReplicaId,
    },
    /// Everything that the store has of one service. What it lacks is written, what it has newer is fetched.
    Compare {
        /// The service.
        service: ServiceName,
        /// Its instances and graves.
        stored: Vec<(InstanceId, Standing)>,
    },
    /// What was fetched is the store's record of an instance, or that it has none.
    Fetched {
        /// Its service.
        service: ServiceName,
        /// Its id.
        id: InstanceId,
        /// The record.
        record: Option<Box<Record>>,
        /// Whether the replica that holds the record's lease is alive.
        is_holder_alive: bool,
    },
    /// How the store is.
    Store(StoreNews),
    /// The operator's decisions, all of them.
    SetPolicies(Policies),
    /// How much may be registered, and for how long. Who is registered already keeps what it has.
    SetTerms(Terms),
    /// Where services are found that nobody registered, all of them.
    SetFallbacks(BTreeMap<ServiceName, Endpoint>),
    /// Which addresses may be instances.
    SetGuard(Guard),
    /// A probe that was asked for has ended.
    Probed {
        /// Its number.
        no: u64,
        /// Whether the instance said that it is well.
        passed: bool,
    },
}

/// Everything an instance says when it registers. Already validated field by field.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Its service.
    pub service: ServiceName,
    /// Its id, if it sent one.
    pub id: Option<InstanceId>,
    /// Who registers it: its identity when it sent no id.
    pub registrant: IpAddr,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// The addresses of the endpoint's name, if it is one and has been resolved.
    pub resolved: Option<Vec<IpAddr>>,
    /// The path of its health check.
    pub health_endpoint: Arc<str>,
    /// Free-form.
    pub metadata: BTreeMap<String, String>,
    /// How long a renewal shall last, if not the default.
    pub ttl: Option<Duration>,
    /// Share of traffic.
    pub weight: u16,
    /// Where it runs.
    pub zone: Option<Arc<str>>,
    /// Which release it is.
    pub version: Option<Arc<str>>,
    /// Labels.
    pub tags: Vec<String>,
    /// What it says about itself.
    pub status: Status,
}

/// Everything a heartbeat says.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// The service.
    pub service: ServiceName,
    /// The instance, if named.
    pub id: Option<InstanceId>,
    /// Who sends it.
    pub registrant: IpAddr,
    /// A new status, if sent.
    pub status: Option<Status>,
    /// New metadata in place of the old, if sent.
    pub metadata: Option<BTreeMap<String, String>>,
}

/// Who shall go.
#[derive(Clone, Debug)]
pub struct Deregistration {
    /// The service.
    pub service: ServiceName,
    /// The instance, if named.
    pub id: Option<InstanceId>,
    /// Every instance of the service.
    pub all: bool,
    /// Who asks.
    pub registrant: IpAddr,
    /// How long it may finish what it has, without new requests, before it goes; at once if `None`.
    pub drain: Option<Duration>,
}

/// Who shall get no new requests.
#[derive(Clone, Debug)]
pub struct Draining {
    /// The service.
    pub service: ServiceName,
    /// The instance; every instance of the service if not named.
    pub id: Option<InstanceId>,
    /// For how long; `None` ends a drain.
    pub span: Option<Duration>,
}

/// Policies by service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies {
    /// For services without one of their own.
    pub default: Arc<Policy>,
    /// For the others.
    pub services: BTreeMap<ServiceName, Arc<Policy>>,
}

impl Policies {
    /// The policy of a service.
    #[must_use]
    pub fn of(&self, name: &ServiceName) -> &Arc<Policy> {
        self.services.get(name).unwrap_or(&self.default)
    }
}

/// How much the registry holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Services.
    pub services: usize,
    /// Instances of all services together.
    pub instances: usize,
    /// Instances of one service.
    pub per_service: usize,
}

/// On what terms registrations are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How many.
    pub limits: Limits,
    /// How long a renewal of those lasts that ask for nothing else.
    pub ttl: Duration,
    /// How long after its last renewal a lease that another replica renewed is doubted, while the store is away.
    pub stale_after: Duration,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The instance is registered and, if resolved, routable as soon as the change is published.
    Registered {
        /// The id it goes by.
        id: InstanceId,
        /// How long each renewal lasts.
        ttl: Duration,
        /// Whether it has an address to be reached at.
        resolved: bool,
    },
    /// So many leases were renewed.
    Renewed(usize),
    /// So many instances were removed; 0 is fine.
    Deregistered(usize),
    /// These instances are out of rotation, or back in it.
    Draining(Vec<InstanceId>),
    /// Done.
    Done,
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A limit is reached; it names which.
    Full(&'static str),
    /// There is no such lease.
    NotRegistered,
    /// Several instances could be meant.
    Ambiguous {
        /// How many.
        instances: usize,
    },
    /// The endpoint's address may not be registered; the end of a sentence.
    Address(&'static str),
}

/// What the shell must do because of a command. In order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write this instance to the store.
    Persist(Stored),
    /// Remove this instance from the store.
    Forget(Gone),
    /// Tell the other replicas, some time soon, that this instance was renewed.
    Renewal {
        /// The instance.
        stored: Stored,
        /// Whether the lease was almost over: others may be about to act.
        is_urgent: bool,
    },
    /// Ask the store for this instance, and answer with [`Command::Fetched`] or [`Command::MergeGone`].
    Fetch {
        /// Its service.
        service: ServiceName,
        /// Its id.
        id: InstanceId,
    },
    /// Tell people.
    Tell(Event),
    /// Resolve this name from now on, and again now and then.
    WantName(Arc<str>),
    /// Nobody needs this name any more.
    DropName(Arc<str>),
    /// Ask this instance whether it is well, and answer with [`Command::Probed`].
    Probe(Probe),
}

/// A question to an instance whose lease is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its number, which the answer repeats: an answer that is no longer waited for changes nothing.
    pub no: u64,
    /// The instance's service.
    pub service: ServiceName,
    /// Its id.
    pub instance: InstanceId,
}
