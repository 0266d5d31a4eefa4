//! Who registers: sidecars behind a load balancer, each with ids and endpoints that nobody else has.

use super::{Due, Key, World};
use crate::rng::Rng;
use std::collections::BTreeMap;
use std::time::Duration;
use vertice_core::command::{Command, Deregistration, Draining, Refused, Registration, Renewal, Reply};
use vertice_core::endpoint::Endpoint;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::status::Status;

pub(crate) const SERVICES: [&str; 3] = ["alpha", "bravo", "charlie"];
const ANSWER_TIMEOUT_MS: u64 = 2_000;
pub(crate) const TTLS_S: [u64; 4] = [6, 10, 20, 30];

/// What a client is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Off,
    Registering,
    Up,
    Leaving,
}

/// A sidecar and its service.
pub(crate) struct Client {
    n: usize,
    service: ServiceName,
    id: InstanceId,
    pub(crate) endpoint: Endpoint,
    status: Status,
    ttl: Duration,
    pub(crate) phase: Phase,
    /// Whether the service itself answers.
    pub(crate) serves: bool,
    /// The replica that it is always sent to, while that lets clients in.
    sticky: Option<usize>,
    turn: u64,
}

/// A request on its way.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) client: usize,
    pub(crate) turn: u64,
    pub(crate) command: Command,
}

impl Envelope {
    /// The instance that it is about.
    pub(crate) fn key(&self) -> Key {
        match &self.command {
            Command::Register(it) => (it.service.clone(), it.id.clone().unwrap()),
            Command::Renew(it) => (it.service.clone(), it.id.clone().unwrap()),
            Command::Deregister(it) => (it.service.clone(), it.id.clone().unwrap()),
            other => panic!("no client sends {other:?}"),
        }
    }
}

impl Client {
    pub(crate) fn new(n: usize, replicas: u64, rng: &mut Rng) -> Self {
        Self {
            n,
            service: ServiceName::parse(SERVICES[rng.below(SERVICES.len() as u64) as usize]).unwrap(),
            id: some_id(n, rng),
            endpoint: some_endpoint(n, rng),
            status: Status::Healthy,
            ttl: Duration::from_secs(TTLS_S[rng.below(TTLS_S.len() as u64) as usize]),
            phase: Phase::Off,
            serves: true,
            sticky: rng.percent(40).then(|| rng.below(replicas) as usize),
            turn: 0,
        }
    }

    pub(crate) fn key(&self) -> Key {
        (self.service.clone(), self.id.clone())
    }

    pub(crate) fn ttl_ms(&self) -> u64 {
        self.ttl.as_millis() as u64
    }

    fn register(&self) -> Command {
        Command::Register(Box::new(Registration {
            service: self.service.clone(),
            id: Some(self.id.clone()),
            registrant: [10, 9, 0, self.n as u8].into(),
            endpoint: self.endpoint.clone(),
            resolved: None,
            health_endpoint: "/health".into(),
            metadata: BTreeMap::new(),
            ttl: Some(self.ttl),
            weight: 100,
            zone: None,
            version: None,
            tags: Vec::new(),
            status: self.status,
        }))
    }

    fn renew(&self) -> Command {
        let registrant = [10, 9, 0, self.n as u8].into();
        let (service, id) = (self.service.clone(), Some(self.id.clone()));
        Command::Renew(Renewal { service, id, registrant, status: Some(self.status), metadata: None })
    }

    fn deregister(&self) -> Command {
        let (service, id) = (self.service.clone(), Some(self.id.clone()));
        let registrant = [10, 9, 0, self.n as u8].into();
        Command::Deregister(Deregistration { service, id, all: false, registrant, drain: None })
    }
}

fn some_id(n: usize, rng: &mut Rng) -> InstanceId {
    InstanceId::parse(&format!("c{n}-{}", rng.below(2))).unwrap()
}

fn some_endpoint(n: usize, rng: &mut Rng) -> Endpoint {
    Endpoint::parse(&format!("http://10.0.{n}.{}:8080", 1 + rng.below(3))).unwrap()
}

impl World {
    pub(crate) fn plan_client(&mut self, client: usize, after_ms: u64) {
        self.clients[client].turn += 1;
        let turn = self.clients[client].turn;
        self.plan(after_ms, Due::Client { client, turn });
    }

    pub(crate) fn client_acts(&mut self, n: usize, turn: u64) {
        if self.clients[n].turn != turn {
            return;
        }
        let (client, rng, is_calm) = (&mut self.clients[n], &mut self.rng, self.is_calm);
        let command = match (client.phase, rng.below(100)) {
            // Once all is calm nobody changes anything any more.
            (Phase::Up, _) if is_calm => client.renew(),
            (Phase::Off, _) if is_calm => return,
            (Phase::Up, 0..3) => {
                client.phase = Phase::Off;
                client.serves = rng.percent(30);
                let away_ms = rng.below(4 * client.ttl_ms());
                return self.plan_client(n, away_ms);
            }
            (Phase::Up, 3..6) | (Phase::Leaving, _) => {
                client.phase = Phase::Leaving;
                client.deregister()
            }
            (Phase::Up, 6..9) => {
                client.endpoint = some_endpoint(n, rng);
                client.phase = Phase::Registering;
                client.register()
            }
            (Phase::Up, roll) => {
                if roll < 20 {
                    client.status = Status::ALL[rng.below(5) as usize];
                }
                client.renew()
            }
            (Phase::Off, 0..30) => {
                // Comes back under another name, often where it was.
                client.id = some_id(n, rng);
                if rng.percent(30) {
                    client.endpoint = some_endpoint(n, rng);
                }
                client.start()
            }
            (Phase::Off, _) => client.start(),
            (Phase::Registering, _) => client.register(),
        };
        self.request(n, command);
    }

    fn request(&mut self, n: usize, command: Command) {
        let late_ms = ANSWER_TIMEOUT_MS + self.rng.below(1_000);
        self.plan_client(n, late_ms);
        let turn = self.clients[n].turn;
        let delay_ms = match self.rng.below(200) {
            0 if !self.is_calm => return,
            1 if !self.is_calm => self.rng.below(3_000),
            _ => self.rng.below(5),
        };
        let open: Vec<usize> = (0..self.replicas.len()).filter(|n| self.replicas[*n].serves).collect();
        let sticky = self.clients[n].sticky.filter(|n| open.contains(n));
        let Some(replica) = sticky.or_else(|| (!open.is_empty()).then(|| open[self.rng.below(open.len() as u64) as usize]))
        else {
            return self.plan_client(n, 500);
        };
        if matches!(command, Command::Deregister(_)) {
            self.seen.deregistrations += 1;
        }
        let life = self.replicas[replica].life;
        let envelope = Box::new(Envelope { client: n, turn, command });
        self.plan(delay_ms, Due::Deliver { replica, life, envelope });
    }

    /// An operator takes somebody out of rotation, or back in.
    pub(crate) fn operate(&mut self) {
        let open: Vec<usize> = (0..self.replicas.len()).filter(|n| self.replicas[*n].serves).collect();
        let again_ms = self.rng.between(5_000, 20_000);
        self.plan(again_ms, Due::Operate);
        if open.is_empty() || self.is_calm {
            return;
        }
        let replica = open[self.rng.below(open.len() as u64) as usize];
        let (service, id) = self.clients[self.rng.below(self.clients.len() as u64) as usize].key();
        let spans = [5, 20, 3_600, 0];
        let span = Some(spans[self.rng.below(4) as usize]).filter(|span| *span > 0).map(Duration::from_secs);
        let command = Command::Drain(Draining { service, id: Some(id), span });
        if self.replicas[replica].stalled_until_ms <= self.clock_ms && self.apply(replica, command).is_ok() {
            self.seen.drains += 1;
        }
    }

    /// An answer reaches a client.
    pub(crate) fn answered(&mut self, envelope: &Envelope, reply: &Result<Reply, Refused>) {
        let n = envelope.client;
        if self.clients[n].turn != envelope.turn {
            return;
        }
        let (client, rng) = (&mut self.clients[n], &mut self.rng);
        let next_ms = match reply {
            Ok(Reply::Registered { .. } | Reply::Renewed(_)) => {
                client.phase = Phase::Up;
                let late_ms = if !self.is_calm && rng.percent(4) { rng.below(2 * client.ttl_ms()) } else { 0 };
                client.ttl_ms() / 2 + late_ms
            }
            Err(Refused::NotRegistered) => {
                client.phase = Phase::Registering;
                rng.below(100)
            }
            _ => {
                client.phase = Phase::Off;
                client.serves = false;
                rng.below(3 * client.ttl_ms())
            }
        };
        self.plan_client(n, next_ms);
    }

    /// Whether the service behind an instance answers where a replica believes it to be.
    pub(crate) fn is_well(&self, key: &Key, endpoint: Option<&Endpoint>) -> bool {
        self.clients.iter().any(|client| client.key() == *key && client.serves && endpoint == Some(&client.endpoint))
    }
}

impl Client {
    fn start(&mut self) -> Command {
        self.phase = Phase::Registering;
        self.serves = true;
        self.register()
    }
}
