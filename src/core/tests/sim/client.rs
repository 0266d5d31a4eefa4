//! Who registers: sidecars, more or less well behaved.

use super::{CLIENTS, DEFAULT_TTL, HOSTS, SERVICES};
use crate::rng::Rng;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use vertice_core::command::{Command, Deregistration, Registration, Renewal};
use vertice_core::endpoint::Endpoint;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::status::Status;

/// What a client is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Off,
    Registering,
    Up,
    Leaving,
}

/// A sidecar, more or less well behaved.
pub(crate) struct Client {
    pub(crate) service: ServiceName,
    pub(crate) id: Option<InstanceId>,
    pub(crate) registrant: IpAddr,
    pub(crate) endpoint: Endpoint,
    pub(crate) ttl: Option<Duration>,
    pub(crate) phase: Phase,
    /// Whether the service itself answers.
    pub(crate) serves: bool,
    pub(crate) turn: u64,
}

impl Client {
    pub(crate) fn new(n: usize, rng: &mut Rng) -> Self {
        let id = rng.percent(60).then(|| InstanceId::parse(&format!("i{n}")).unwrap());
        Self {
            service: ServiceName::parse(SERVICES[rng.below(SERVICES.len() as u64) as usize]).unwrap(),
            id,
            // Some share an address, as behind one NAT.
            registrant: [10, 9, 0, rng.below(CLIENTS as u64) as u8].into(),
            endpoint: some_endpoint(rng),
            ttl: rng.percent(70).then(|| Duration::from_secs(rng.between(5, 60))),
            phase: Phase::Off,
            serves: true,
            turn: 0,
        }
    }

    pub(crate) fn ttl_ms(&self) -> u64 {
        self.ttl.unwrap_or(DEFAULT_TTL).as_millis() as u64
    }

    /// Whether an instance of that id is its service.
    pub(crate) fn is_known_as(&self, service: &ServiceName, id: &InstanceId) -> bool {
        self.service == *service && self.id.clone().unwrap_or_else(|| InstanceId::of_registrant(self.registrant)) == *id
    }

    pub(crate) fn register(&self, rng: &mut Rng) -> Command {
        Command::Register(Box::new(Registration {
            service: self.service.clone(),
            id: self.id.clone(),
            registrant: self.registrant,
            endpoint: self.endpoint.clone(),
            resolved: None,
            health_endpoint: "/health".into(),
            metadata: BTreeMap::new(),
            ttl: self.ttl,
            weight: rng.below(200) as u16,
            zone: None,
            version: None,
            tags: Vec::new(),
            status: Status::Healthy,
        }))
    }

    pub(crate) fn renew(&self, rng: &mut Rng) -> Command {
        let status = rng.percent(10).then(|| Status::ALL[rng.below(5) as usize]);
        let metadata = rng.percent(5).then(|| BTreeMap::from([("n".to_owned(), rng.below(3).to_string())]));
        Command::Renew(Renewal {
            service: self.service.clone(),
            id: self.id.clone(),
            registrant: self.registrant,
            status,
            metadata,
        })
    }

    pub(crate) fn deregister(&self, rng: &mut Rng) -> Command {
        let (service, id) = (self.service.clone(), self.id.clone());
        Command::Deregister(Deregistration { service, id, all: rng.percent(3), registrant: self.registrant, drain: None })
    }
}

/// Few enough that clients take over the endpoints of others now and then.
pub(crate) fn some_endpoint(rng: &mut Rng) -> Endpoint {
    let url = match rng.below(10) {
        0..2 => format!("http://{}:{}", HOSTS[rng.below(2) as usize], 8000 + rng.below(6)),
        _ => format!("http://10.0.0.{}:8080", 1 + rng.below(40)),
    };
    Endpoint::parse(&url).unwrap()
}
