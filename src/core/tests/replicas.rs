//! Deterministic simulation of several replicas that share a store: their registries, their clocks, the sidecars behind a load
//! balancer, the store's scripts and streams, and everything that goes wrong between them.
//!
//! Everything random comes from one seed. `SIM_SEEDS=n` runs n seeds, `SIM_SEED=s` replays one, and both together run n from s
//! on; `SIM_ABOUT=c3-1` tells only what happened to that instance. A run has four minutes of trouble, then everybody can talk to everybody until all must agree, then nothing may
//! happen any more but heartbeats. Everything that may go wrong does, in one run in four all of it; the other three have only
//! one kind, so that the stricter promises that hold then can be seen to be kept.
//!
//! The oracle knows what clients asked and were told, and the promises; [`store`] is the protocol's other side.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use fleet::{Client, Envelope};
use link::{Answer, Exchange, Ticket};
use oracle::Oracle;
use replica::Replica;
use rng::Rng;
use seen::Seen;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use store::Store;
use trouble::{Fault, Trouble};
use vertice_core::command::{Command, Limits, Probe};
use vertice_core::name::{InstanceId, ServiceName};

#[path = "replicas/fleet.rs"]
mod fleet;
#[path = "replicas/link.rs"]
mod link;
#[path = "replicas/oracle.rs"]
mod oracle;
#[path = "replicas/process.rs"]
mod process;
#[path = "replicas/promises.rs"]
mod promises;
#[path = "replicas/reader.rs"]
mod reader;
#[path = "replicas/replica.rs"]
mod replica;
#[path = "sim/rng.rs"]
mod rng;
#[path = "sim/seeds.rs"]
mod seeds;
#[path = "replicas/seen.rs"]
mod seen;
#[path = "replicas/store.rs"]
mod store;
#[path = "replicas/trail.rs"]
mod trail;
#[path = "replicas/trouble.rs"]
mod trouble;
#[path = "replicas/writer.rs"]
mod writer;

const SEEDS: u64 = 200;
const TROUBLE_MS: u64 = 240_000;
/// Anti-entropy, the longest lease twice, asking, probing.
const SETTLE_MS: u64 = 150_000;
const QUIET_MS: u64 = 60_000;
const LIMITS: Limits = Limits { services: 10, instances: 100, per_service: 50 };
const DEFAULT_TTL: Duration = Duration::from_secs(20);
const STALE_AFTER: Duration = Duration::from_secs(60);
const TICK_MS: u64 = 1_000;
/// An answer waits so long for the store.
const DURABLE_MS: u64 = 250;

/// An instance.
type Key = (ServiceName, InstanceId);

/// What happens next.
#[derive(Clone, Debug)]
enum Due {
    /// A client does what its state calls for; void when its turn has passed.
    Client { client: usize, turn: u64 },
    /// A request arrives.
    Deliver { replica: usize, life: u32, envelope: Box<Envelope> },
    /// An answer has waited for the store for long enough.
    Impatient { replica: usize, life: u32 },
    /// The timer that a replica set for its next deadline fires.
    Wake { replica: usize, life: u32 },
    /// The registry is called because it must be called now and then.
    Tick { replica: usize, life: u32 },
    /// A probe ends.
    Probed { replica: usize, life: u32, probe: Probe },
    /// What another replica said comes out of the registrar's queue.
    Heard { replica: usize, life: u32, command: Box<Command> },
    /// A replica looks what there is to do with the store.
    Look { replica: usize, life: u32, no: u64 },
    /// The store gets to a question.
    Execute(Box<Exchange>),
    /// Its answer arrives.
    Back { replica: usize, life: u32, ticket: Ticket, answer: Box<Answer> },
    /// No answer came.
    Timeout { replica: usize, life: u32, ticket: Ticket },
    /// The process starts.
    Start { replica: usize },
    /// An operator does something.
    Operate,
    /// Something goes wrong.
    Trouble,
    /// The store is there again.
    StoreReturns { roll: u64 },
    /// The store's own replica has caught up.
    Copy,
    /// From now on nothing goes wrong.
    Calm,
    /// Everybody must agree.
    Settled,
}

/// Everything there is.
struct World {
    clock_ms: u64,
    rng: Rng,
    fault: Option<Fault>,
    agenda: BTreeMap<(u64, u64), Due>,
    planned: u64,
    replicas: Vec<Replica>,
    clients: Vec<Client>,
    store: Store,
    /// What a failover would find.
    copy: Store,
    /// Readers that wait for news.
    blocked: Vec<Exchange>,
    trouble: Trouble,
    is_calm: bool,
    /// Events when everybody had to agree.
    settled: Option<u64>,
    oracle: Oracle,
    /// By replica: who was there at the last look, in which version.
    known: Vec<BTreeMap<Key, u64>>,
    /// What the store had at the last look.
    stored: BTreeMap<Key, u64>,
    seen: Seen,
    /// The last steps, if they are kept; if `about` is set, only those that mention it.
    trail: Option<VecDeque<String>>,
    about: Option<String>,
    steps: u64,
}

impl World {
    fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut rng = Rng::new(seed);
        let count = rng.between(3, 5);
        let replicas: Vec<Replica> = (0..count).map(|_| Replica::new()).collect();
        let clients = (0..rng.between(4, 14) as usize).map(|n| Client::new(n, count, &mut rng)).collect();
        let trouble = Trouble::new(seed, replicas.len(), &mut rng);
        let known = replicas.iter().map(|_| BTreeMap::new()).collect();
        let mut world = Self {
            clock_ms: 0,
            rng,
            fault,
            agenda: BTreeMap::new(),
            planned: 0,
            replicas,
            clients,
            store: Store::default(),
            copy: Store::default(),
            blocked: Vec::new(),
            trouble,
            is_calm: false,
            settled: None,
            oracle: Oracle::default(),
            known,
            stored: BTreeMap::new(),
            seen: Seen::default(),
            trail: None,
            about: setting("SIM_ABOUT"),
            steps: 0,
        };
        (0..world.replicas.len()).for_each(|replica| world.plan(0, Due::Start { replica }));
        for client in 0..world.clients.len() {
            let after_ms = world.rng.below(20_000);
            world.plan_client(client, after_ms);
        }
        let first_ms = world.rng.between(10_000, 40_000);
        for (after_ms, due) in [
            (first_ms, Due::Trouble),
            (0, Due::Copy),
            (5_000, Due::Operate),
            (TROUBLE_MS, Due::Calm),
            (TROUBLE_MS + SETTLE_MS, Due::Settled),
        ] {
            world.plan(after_ms, due);
        }
        world
    }

    /// Runs to the end.
    fn run(&mut self) -> Result<(), String> {
        while self.clock_ms < TROUBLE_MS + SETTLE_MS + QUIET_MS {
            let ((at_ms, _), due) = self.agenda.pop_first().ok_or("nothing is left to do")?;
            self.clock_ms = at_ms;
            self.steps += 1;
            self.step(due).map_err(|what| self.report(&what))?;
        }
        self.check_settled().and_then(|()| self.check_quiet()).map_err(|what| self.report(&what))
    }

    fn step(&mut self, due: Due) -> Result<(), String> {
        if let Some(n) = due.replica() {
            if due.life().is_some_and(|life| !self.lives(n, life)) {
                return Ok(());
            }
            let until_ms = self.replicas[n].stalled_until_ms;
            if until_ms > self.clock_ms {
                self.plan(until_ms - self.clock_ms, due);
                return Ok(());
            }
        }
        match due {
            Due::Client { client, turn } => self.client_acts(client, turn),
            Due::Deliver { replica, envelope, .. } => return self.deliver(replica, *envelope),
            Due::Impatient { replica, .. } => {
                let clock_ms = self.clock_ms;
                self.answer_waiting(replica, |waiting| waiting.until_ms <= clock_ms, false);
            }
            Due::Wake { replica, .. } => self.wake(replica),
            Due::Tick { replica, life } => {
                self.plan(TICK_MS, Due::Tick { replica, life });
                self.wake(replica);
                self.read_on(replica);
                return self.check(replica);
            }
            Due::Probed { replica, probe, .. } => return self.probed(replica, &probe),
            Due::Heard { replica, command, .. } => {
                self.apply(replica, *command)?;
            }
            Due::Look { replica, no, .. } => self.looks(replica, no),
            Due::Execute(exchange) => self.execute(*exchange),
            Due::Back { replica, ticket, answer, .. } => return self.back(replica, ticket, *answer),
            Due::Timeout { replica, ticket, .. } => return self.timed_out(replica, ticket),
            Due::Start { replica } => self.start(replica),
            Due::Operate => self.operate(),
            Due::Trouble => self.make_trouble(),
            Due::StoreReturns { roll } if !self.is_calm => self.store_returns(roll),
            Due::StoreReturns { .. } => {}
            Due::Copy => {
                self.copy = self.store.clone();
                let after_ms = self.rng.between(50, 1_500);
                self.plan(after_ms, Due::Copy);
            }
            Due::Calm => self.calm(),
            Due::Settled => {
                self.settled = Some(self.store.events_ever);
                return self.check_settled();
            }
        }
        Ok(())
    }

    fn lives(&self, replica: usize, life: u32) -> bool {
        self.replicas[replica].life == life && self.replicas[replica].registry.is_some()
    }

    fn plan(&mut self, after_ms: u64, due: Due) {
        self.planned += 1;
        self.agenda.insert((self.clock_ms + after_ms, self.planned), due);
    }

    fn calm(&mut self) {
        self.is_calm = true;
        // Whoever is stopped goes on when it would have.
        let stalled_ms = self.replicas.iter().map(|replica| replica.stalled_until_ms).max().unwrap_or(0);
        self.trouble.end(self.clock_ms.max(stalled_ms));
        (0..self.replicas.len()).for_each(|n| self.start(n));
        // Whoever lost its sidecar ends as well.
        for client in self.clients.iter_mut().filter(|client| client.phase == fleet::Phase::Off) {
            client.serves = false;
        }
    }

    /// Few events follow from a change: the change, a lapse, an answer to what was out of date. Whoever lost data gets it again.
    fn check_few_events(&self) -> Result<(), String> {
        let losses = self.seen.flushes + self.seen.store_fresh + self.seen.failovers;
        let expected = 3 * (self.oracle.changes + self.seen.drains) + self.clients.len() as u64 * (losses + 1) + 20;
        let (told, refused) = (self.store.events_ever, self.seen.writes_refused);
        if told > expected {
            Err(format!("{told} events are an echo, {expected} would be many"))
        } else if refused > expected {
            Err(format!("{refused} writes were refused, {expected} would be many"))
        } else {
            Ok(())
        }
    }

    /// Nothing was told since everybody agreed.
    fn check_quiet(&self) -> Result<(), String> {
        let told = self.store.events_ever - self.settled.unwrap_or(0);
        match told {
            0 => Ok(()),
            told => Err(format!("{told} events while nothing happened")),
        }
    }

    // Telling.

    fn report(&self, what: &str) -> String {
        let trail: Vec<&str> = self.trail.iter().flatten().map(String::as_str).collect();
        format!("at {} ms: {what}\nthe last steps:\n{}", self.clock_ms, trail.join("\n"))
    }
}

impl Due {
    /// The replica that it happens in.
    fn replica(&self) -> Option<usize> {
        match self {
            Self::Deliver { replica, .. }
            | Self::Impatient { replica, .. }
            | Self::Wake { replica, .. }
            | Self::Tick { replica, .. }
            | Self::Probed { replica, .. }
            | Self::Heard { replica, .. }
            | Self::Look { replica, .. }
            | Self::Back { replica, .. }
            | Self::Timeout { replica, .. } => Some(*replica),
            _ => None,
        }
    }

    fn life(&self) -> Option<u32> {
        match self {
            Self::Deliver { life, .. }
            | Self::Impatient { life, .. }
            | Self::Wake { life, .. }
            | Self::Tick { life, .. }
            | Self::Probed { life, .. }
            | Self::Heard { life, .. }
            | Self::Look { life, .. }
            | Self::Back { life, .. }
            | Self::Timeout { life, .. } => Some(*life),
            _ => None,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the replay is asked for through the environment")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Runs one seed; the steps it took and what happened in them, or what went wrong.
fn simulate(seed: u64, fault: Option<Fault>) -> Result<(u64, Seen), String> {
    let mut world = World::new(seed, fault);
    if world.run().is_ok() {
        return Ok((world.steps, world.seen));
    }
    // The same again, this time taking notes.
    let mut world = World { trail: Some(VecDeque::new()), ..World::new(seed, fault) };
    let what = world.run().expect_err("the same seed takes the same steps");
    Err(format!("seed {seed} (replay with SIM_SEED={seed}) {what}"))
}

#[test]
fn replicas_agree_and_lose_nobody() {
    let simulated = Duration::from_millis(TROUBLE_MS + SETTLE_MS + QUIET_MS);
    let (seen, is_usual) = seeds::run(SEEDS, simulated, Seen::plus, |seed| simulate(seed, None));
    assert!(!is_usual || seen.is_everything_at_least(5), "the simulation no longer meets what it is for: {seen:?}");
}

#[test]
fn the_same_seed_gives_the_same_steps() {
    let trail = |seed| {
        let mut world = World { trail: Some(VecDeque::new()), ..World::new(seed, None) };
        world.run().unwrap();
        (world.steps, world.trail)
    };
    assert_eq!(trail(3), trail(3));
}

fn noticed(fault: Fault, as_one_of: &[&str]) {
    seeds::noticed(&fault, 60, as_one_of, |seed| simulate(seed, Some(fault)));
}

#[test]
fn numbers_by_wall_clocks_are_noticed() {
    noticed(Fault::WallVersions, &["instead of", "is back", "is not there", "differ", "does not know"]);
}

#[test]
fn absence_taken_for_deletion_is_noticed() {
    noticed(Fault::AbsenceDeletes, &["was taken from", "is not there"]);
}

#[test]
fn a_store_without_graves_is_noticed() {
    noticed(Fault::NoGraves, &["is back", "follows and does not know"]);
}

#[test]
fn a_position_noted_too_late_is_noticed() {
    noticed(Fault::LatePosition, &["follows and does not know"]);
}

#[test]
fn gaps_that_nobody_minds_are_noticed() {
    noticed(Fault::GapsIgnored, &["follows and does not know"]);
}

#[test]
fn lapses_that_nobody_asked_about_are_noticed() {
    noticed(Fault::HastyLapses, &["was taken from", "is not there"]);
}

#[test]
fn echoes_are_noticed() {
    noticed(Fault::Echo, &["events are an echo", "events while nothing happened", "does not come to an end"]);
}

#[test]
fn writes_without_a_comparison_are_noticed() {
    noticed(Fault::NoComparison, &["the store went back"]);
}
