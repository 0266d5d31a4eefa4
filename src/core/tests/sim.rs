//! Deterministic simulation: clients, a network, a store and the registry on a virtual clock. Now and then the network loses
//! what many clients send at once, and now and then the process is stopped for a while.
//!
//! Everything random comes from one seed. Plain `cargo test` runs 256 seeds; `SIM_SEEDS=n` runs n, `SIM_SEED=s` replays
//! one, and both together run n from s on.
//! A failure prints its seed and the last steps. After every step the oracle, which knows the rules but not the registry,
//! says which leases must be alive, which must be held and which must be gone.
//!
//! There is one replica, with a store of its own; `replicas.rs` simulates several that share one.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use client::{Client, Phase, some_endpoint};
use invariants::{check_limits, check_table, same};
use oracle::{Key, Oracle};
use replica::{ModelStore, Replica};
use rng::Rng;
use rules::{Rules, Seen};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use trouble::{Fault, Outage};
use vertice_core::command::{Command, Effect, Limits, Probe, Refused, Reply};
use vertice_core::endpoint::Endpoint;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::registry::Registry;
use vertice_core::time::Moment;

#[path = "sim/client.rs"]
mod client;
#[path = "sim/invariants.rs"]
mod invariants;
#[path = "sim/oracle.rs"]
mod oracle;
#[path = "sim/replica.rs"]
mod replica;
#[path = "sim/rng.rs"]
mod rng;
#[path = "sim/rules.rs"]
mod rules;
#[path = "sim/seeds.rs"]
mod seeds;
#[path = "sim/trouble.rs"]
mod trouble;

const SEEDS: u64 = 256;
const SIMULATED: Duration = Duration::from_secs(240);
const LIMITS: Limits = Limits { services: 3, instances: 16, per_service: 7 };
const DEFAULT_TTL: Duration = Duration::from_secs(20);
const SERVICES: [&str; 4] = ["alpha", "bravo", "charlie", "delta"];
const HOSTS: [&str; 2] = ["box-a", "box-b"];
const CLIENTS: usize = 22;
/// An instance is gone between its deadline and so long after it.
const TOLERANCE_MS: u64 = 100;
const TICK_MS: u64 = 1_000;
const ANSWER_TIMEOUT_MS: u64 = 2_000;

/// What happens next.
#[derive(Clone, Debug)]
enum Due {
    /// A client does what its state calls for; void when its turn has passed.
    Client { client: usize, turn: u64 },
    /// A request arrives.
    Deliver { replica: usize, envelope: Box<Envelope> },
    /// A replica takes everything that has arrived.
    Batch { replica: usize, life: u32 },
    /// The store has acknowledged the oldest batch.
    Written { replica: usize, life: u32 },
    /// The timer that a replica set for its next deadline fires.
    Wake { replica: usize, life: u32 },
    /// The registry is called because it must be called now and then.
    Tick { replica: usize, life: u32 },
    /// A probe ends.
    Probed { replica: usize, life: u32, probe: Probe },
    /// From now on what many clients send is lost.
    Outage,
    /// A replica is stopped for a while.
    Stall { replica: usize, life: u32 },
    /// A name server answers.
    Resolved { replica: usize, life: u32, host: Arc<str> },
    /// A name gets another address.
    NameMoves,
    /// `kill -9`.
    Kill { replica: usize, life: u32 },
    /// The process starts again.
    Start { replica: usize },
}

/// A request on its way.
#[derive(Clone, Debug)]
struct Envelope {
    client: usize,
    turn: u64,
    sent_ms: u64,
    command: Command,
}

/// An answer that waits for the store.
struct Answer {
    envelope: Envelope,
    reply: Result<Reply, Refused>,
    receipt: oracle::Receipt,
}

/// Effects of one batch and the answers that may be given once the store has them.
#[derive(Default)]
struct Batch {
    effects: Vec<Effect>,
    answers: Vec<Answer>,
}

/// Everything there is.
struct World {
    clock_ms: u64,
    rng: Rng,
    fault: Option<Fault>,
    agenda: BTreeMap<(u64, u64), Due>,
    planned: u64,
    replicas: Vec<Replica>,
    store: ModelStore,
    clients: Vec<Client>,
    hosts: BTreeMap<Arc<str>, u8>,
    oracle: Oracle,
    rules: Rules,
    outage: Outage,
    /// The last steps, if they are kept.
    trail: Option<VecDeque<String>>,
    steps: u64,
}

impl World {
    fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut rng = Rng::new(seed);
        let clients = (0..CLIENTS).map(|n| Client::new(n, &mut rng)).collect();
        let mut world = Self {
            clock_ms: 0,
            rng,
            fault,
            agenda: BTreeMap::new(),
            planned: 0,
            replicas: vec![Replica::new()],
            store: ModelStore::default(),
            clients,
            hosts: HOSTS.map(|host| (host.into(), 1)).into(),
            oracle: Oracle::default(),
            rules: Rules::default(),
            outage: Outage::default(),
            trail: None,
            steps: 0,
        };
        (0..world.replicas.len()).for_each(|replica| world.plan(0, Due::Start { replica }));
        for client in 0..CLIENTS {
            let after_ms = world.rng.below(30_000);
            world.plan_client(client, after_ms);
        }
        world.plan(60_000, Due::NameMoves);
        let first_ms = world.rng.between(20_000, 80_000);
        world.plan(first_ms, Due::Outage);
        world
    }

    /// Runs until the clock says `until`.
    fn run(&mut self, until: Duration) -> Result<(), String> {
        while self.clock_ms < until.as_millis() as u64 {
            let ((at_ms, _), due) = self.agenda.pop_first().ok_or("nothing is left to do")?;
            self.clock_ms = at_ms;
            self.steps += 1;
            self.note(&due);
            let changes_a_replica =
                !matches!(due, Due::Client { .. } | Due::Deliver { .. } | Due::NameMoves | Due::Outage | Due::Stall { .. });
            let (looks_at_time, decided) = (matches!(due, Due::Wake { .. } | Due::Tick { .. }), self.rules.decided);
            self.step(due).map_err(|what| self.report(&what))?;
            let is_quiet = looks_at_time && decided == self.rules.decided && self.replicas.iter().all(|replica| !replica.news);
            if changes_a_replica && !is_quiet {
                self.check().map_err(|what| self.report(&what))?;
            }
        }
        Ok(())
    }

    fn step(&mut self, due: Due) -> Result<(), String> {
        if let Some(until_ms) = self.stopped(&due) {
            self.plan(until_ms - self.clock_ms, due);
            return Ok(());
        }
        match due {
            Due::Client { client, turn } if self.clients[client].turn == turn => self.client_acts(client),
            Due::Deliver { replica, envelope } => self.deliver(replica, *envelope),
            Due::Batch { replica, life } if self.lives(replica, life) => return self.batch(replica),
            Due::Written { replica, life } if self.lives(replica, life) => self.written(replica),
            Due::Wake { replica, life } if self.lives(replica, life) => return self.wake(replica),
            Due::Tick { replica, life } if self.lives(replica, life) => return self.tick(replica, life),
            Due::Probed { replica, life, probe } if self.lives(replica, life) => self.probed(replica, probe),
            Due::Stall { replica, life } if self.lives(replica, life) => self.stall(replica, life),
            Due::Outage => self.outage(),
            Due::Resolved { replica, life, host } if self.lives(replica, life) => self.resolved(replica, &host),
            Due::NameMoves => self.name_moves(),
            Due::Kill { replica, life } if self.lives(replica, life) => self.kill(replica),
            Due::Start { replica } => return self.start(replica),
            // Timers of a former life, and turns that have passed.
            _ => {}
        }
        Ok(())
    }

    /// Until when the replica that this is for does nothing.
    fn stopped(&self, due: &Due) -> Option<u64> {
        match due {
            Due::Batch { replica, .. }
            | Due::Written { replica, .. }
            | Due::Wake { replica, .. }
            | Due::Tick { replica, .. }
            | Due::Probed { replica, .. }
            | Due::Resolved { replica, .. } => {
                Some(self.replicas[*replica].stalled_until_ms).filter(|until_ms| *until_ms > self.clock_ms)
            }
            _ => None,
        }
    }

    fn lives(&self, replica: usize, life: u32) -> bool {
        self.replicas[replica].life == life && self.replicas[replica].registry.is_some()
    }

    fn plan(&mut self, after_ms: u64, due: Due) {
        self.planned += 1;
        self.agenda.insert((self.clock_ms + after_ms, self.planned), due);
    }

    fn plan_client(&mut self, client: usize, after_ms: u64) {
        self.clients[client].turn += 1;
        let turn = self.clients[client].turn;
        self.plan(after_ms, Due::Client { client, turn });
    }

    // Clients.

    fn client_acts(&mut self, n: usize) {
        let (client, rng) = (&mut self.clients[n], &mut self.rng);
        let command = match (client.phase, rng.below(100)) {
            (Phase::Up, 0..3) => {
                // Dies without a word, with its service or not, and comes back some day.
                client.phase = Phase::Off;
                client.serves = rng.percent(50);
                let away_ms = rng.below(3 * client.ttl_ms());
                return self.plan_client(n, away_ms);
            }
            (Phase::Up, 3..6) | (Phase::Leaving, _) => {
                client.phase = Phase::Leaving;
                client.deregister(rng)
            }
            (Phase::Up, 6..9) => {
                client.endpoint = some_endpoint(rng);
                client.phase = Phase::Registering;
                client.register(rng)
            }
            (Phase::Up, _) => client.renew(rng),
            (Phase::Off, 0..30) => {
                // Comes back as somebody else.
                let id = rng.below(2 * CLIENTS as u64);
                client.id = rng.percent(60).then(|| InstanceId::parse(&format!("i{id}")).unwrap());
                client.endpoint = some_endpoint(rng);
                client.phase = Phase::Registering;
                client.register(rng)
            }
            (Phase::Off | Phase::Registering, _) => {
                client.phase = Phase::Registering;
                client.register(rng)
            }
        };
        self.send(n, command);
    }

    fn send(&mut self, client: usize, command: Command) {
        // If no answer comes, the next turn tries again.
        self.plan_client(client, ANSWER_TIMEOUT_MS + self.clock_ms % 1_000);
        if self.outage.cuts_off(client, self.clock_ms) {
            return;
        }
        let envelope = Envelope { client, turn: self.clients[client].turn, sent_ms: self.clock_ms, command };
        let delay_ms = match self.rng.below(100) {
            0..2 => return,
            2..5 => self.rng.below(4_000),
            _ => self.rng.below(50),
        };
        let replica = self.rng.below(self.replicas.len() as u64) as usize;
        self.plan(delay_ms, Due::Deliver { replica, envelope: Box::new(envelope) });
    }

    fn outage(&mut self) {
        self.outage = Outage::start(self.clock_ms, &mut self.rng);
        let next_ms = self.outage.until_ms - self.clock_ms + self.rng.between(10_000, 50_000);
        self.plan(next_ms, Due::Outage);
    }

    fn answered(&mut self, answer: &Answer) {
        let n = answer.envelope.client;
        if self.clients[n].turn != answer.envelope.turn {
            return;
        }
        self.oracle.acknowledged(&answer.envelope, &answer.reply, &answer.receipt);
        let (client, rng) = (&mut self.clients[n], &mut self.rng);
        let next_ms = match &answer.reply {
            Ok(Reply::Registered { .. } | Reply::Renewed(_)) => {
                client.phase = Phase::Up;
                client.serves = true;
                // Some are late, a few so late that they lapse.
                let late_ms = if rng.percent(5) { rng.below(2 * client.ttl_ms()) } else { 0 };
                client.ttl_ms() / 2 + late_ms
            }
            Err(Refused::NotRegistered) => {
                client.phase = Phase::Registering;
                rng.below(100)
            }
            Err(Refused::Full(_)) => rng.between(1_000, 10_000),
            Ok(_) | Err(Refused::Ambiguous { .. } | Refused::Address(_)) => {
                client.phase = Phase::Off;
                rng.below(3 * client.ttl_ms())
            }
        };
        self.plan_client(n, next_ms);
    }

    // Replicas.

    fn deliver(&mut self, n: usize, envelope: Envelope) {
        let replica = &mut self.replicas[n];
        if replica.registry.is_none() {
            return;
        }
        let life = replica.life;
        replica.inbox.push(envelope);
        if replica.inbox.len() == 1 {
            let after_ms = self.rng.below(5);
            self.plan(after_ms, Due::Batch { replica: n, life });
        }
    }

    fn batch(&mut self, n: usize) -> Result<(), String> {
        let mut batch = Batch::default();
        let mut at_once = Vec::new();
        let replica = &mut self.replicas[n];
        let now = replica.now(self.clock_ms);
        for envelope in std::mem::take(&mut replica.inbox) {
            let Some(registry) = &mut replica.registry else { return Ok(()) };
            let reply = registry.apply(envelope.command.clone(), now);
            let effects = registry.drain();
            self.rules.applied(&envelope.command, &reply, self.clock_ms)?;
            let receipt = self.oracle.applied(&envelope, &reply, self.clock_ms, registry);
            let answer = Answer { envelope, reply, receipt };
            // A slow store delays nobody's plain heartbeat. Everything else waits in line: even "already gone" must not
            // overtake the write that made it so.
            let waits = !matches!(answer.reply, Ok(Reply::Renewed(_))) || !effects.is_empty();
            if waits && self.fault != Some(Fault::EarlyAnswers) {
                batch.answers.push(answer)
            } else {
                at_once.push(answer)
            }
            batch.effects.extend(effects);
        }
        self.settle(n, batch);
        at_once.iter().for_each(|answer| self.answered(answer));
        Ok(())
    }

    fn tick(&mut self, n: usize, life: u32) -> Result<(), String> {
        let after_ms = TICK_MS - self.rng.below(100);
        self.plan(after_ms, Due::Tick { replica: n, life });
        self.wake(n)
    }

    fn wake(&mut self, n: usize) -> Result<(), String> {
        let replica = &mut self.replicas[n];
        let now = replica.now(self.clock_ms).mono;
        let Some(registry) = &mut replica.registry else { return Ok(()) };
        if self.fault == Some(Fault::TicksMadeUp) {
            let last_ms = self.rules.called_last_ms().unwrap_or(self.clock_ms);
            for missed_ms in (last_ms..self.clock_ms).step_by(TICK_MS as usize) {
                registry.expire(Moment::from_millis(missed_ms - replica.born_ms));
            }
        }
        registry.expire(now);
        self.rules.expired(self.clock_ms)?;
        if registry.next_deadline().is_some_and(|deadline| deadline <= now) {
            return Err("the next deadline is in the past right after expire".to_owned());
        }
        let effects = registry.drain();
        for effect in &effects {
            if let Effect::Probe(probe) = effect {
                self.rules.asked(probe, self.clock_ms)?;
            }
        }
        self.rules.check_probed(self.clock_ms)?;
        replica.wake_for = replica.wake_for.filter(|at| *at > now);
        self.settle(n, Batch { effects, answers: Vec::new() });
        Ok(())
    }

    /// The client's service is asked for its health.
    fn probed(&mut self, n: usize, probe: Probe) {
        let serves = |client: &Client| client.serves && client.is_known_as(&probe.service, &probe.instance);
        let is_well = self.clients.iter().any(serves);
        let passed = !self.outage.loses_probes(self.clock_ms) && is_well != self.rng.percent(3);
        self.rules.probed(probe.no, passed, self.clock_ms);
        let told = passed || self.fault == Some(Fault::KindProbes);
        let replica = &mut self.replicas[n];
        let now = replica.now(self.clock_ms);
        let Some(registry) = &mut replica.registry else { return };
        registry.apply(Command::Probed { no: probe.no, passed: told }, now).unwrap();
        let effects = registry.drain();
        self.settle(n, Batch { effects, answers: Vec::new() });
    }

    /// SIGSTOP: what comes meanwhile waits.
    fn stall(&mut self, n: usize, life: u32) {
        let lasts_ms = self.rng.between(2_000, 40_000);
        self.replicas[n].stalled_until_ms = self.clock_ms + lasts_ms;
        let next_ms = lasts_ms + self.rng.between(10_000, 100_000);
        self.plan(next_ms, Due::Stall { replica: n, life });
    }

    fn resolved(&mut self, n: usize, host: &Arc<str>) {
        self.rules.called(self.clock_ms);
        let replica = &mut self.replicas[n];
        let now = replica.now(self.clock_ms);
        let Some(registry) = &mut replica.registry else { return };
        let addresses = vec![IpAddr::from([10, 1, 0, self.hosts[host]])];
        registry.apply(Command::Resolved { host: host.clone(), addresses }, now).unwrap();
        let effects = registry.drain();
        self.settle(n, Batch { effects, answers: Vec::new() });
    }

    /// Publishes, hands the batch to the store, resolves names, and sets the timer.
    fn settle(&mut self, n: usize, batch: Batch) {
        self.replicas[n].publish();
        let (life, rng) = (self.replicas[n].life, &mut self.rng);
        let mut plans = Vec::new();
        for effect in &batch.effects {
            match effect {
                Effect::WantName(host) => {
                    self.replicas[n].wanted.insert(host.clone());
                    plans.push((rng.between(5, 200), Due::Resolved { replica: n, life, host: host.clone() }));
                }
                Effect::DropName(host) => {
                    self.replicas[n].wanted.remove(host);
                }
                Effect::Probe(probe) => {
                    plans.push((rng.between(1, 2_000), Due::Probed { replica: n, life, probe: probe.clone() }));
                }
                Effect::Persist(_) | Effect::Forget(_) | Effect::Tell(_) | Effect::Renewal { .. } | Effect::Fetch { .. } => {}
            }
        }
        let replica = &mut self.replicas[n];
        replica.news |= !batch.effects.is_empty();
        if !batch.effects.is_empty() || !batch.answers.is_empty() {
            let slow = if rng.percent(3) { 400 } else { 20 };
            replica.written_last_ms = replica.written_last_ms.max(self.clock_ms + rng.between(1, slow));
            plans.push((replica.written_last_ms - self.clock_ms, Due::Written { replica: n, life }));
            replica.unwritten.push_back(batch);
            // Often enough the process dies while the store is writing.
            if rng.percent(1) {
                plans.push((rng.below(10), Due::Kill { replica: n, life }));
            }
        }
        let deadline = replica.registry.as_ref().and_then(Registry::next_deadline);
        if deadline != replica.wake_for
            && let Some(deadline) = deadline
        {
            let late_ms = rng.below(if self.fault == Some(Fault::SleepyTimer) { 1_000 } else { 90 });
            let wait_ms = deadline.since(replica.now(self.clock_ms).mono).as_millis() as u64;
            plans.push((wait_ms + late_ms, Due::Wake { replica: n, life }));
        }
        replica.wake_for = deadline;
        plans.into_iter().for_each(|(after_ms, due)| self.plan(after_ms, due));
    }

    fn written(&mut self, n: usize) {
        let Some(batch) = self.replicas[n].unwritten.pop_front() else { return };
        self.store.write(&batch.effects, self.fault, &mut self.rng);
        batch.answers.iter().for_each(|answer| self.answered(answer));
    }

    fn name_moves(&mut self) {
        let host: Arc<str> = HOSTS[self.rng.below(2) as usize].into();
        let octet = self.rng.between(1, 4) as u8;
        self.hosts.insert(host.clone(), octet);
        for n in 0..self.replicas.len() {
            let (life, wanted) = (self.replicas[n].life, self.replicas[n].wanted.contains(&host));
            if wanted {
                self.plan(100, Due::Resolved { replica: n, life, host: host.clone() });
            }
        }
        self.plan(60_000, Due::NameMoves);
    }

    fn kill(&mut self, n: usize) {
        // What the store has not acknowledged is lost, and so is every answer that waited for it.
        self.replicas[n] = Replica { life: self.replicas[n].life, ..Replica::new() };
        let down_ms = if self.rng.percent(10) { self.rng.below(90_000) } else { self.rng.between(50, 3_000) };
        self.plan(down_ms, Due::Start { replica: n });
    }

    fn start(&mut self, n: usize) -> Result<(), String> {
        let replica = &mut self.replicas[n];
        replica.life += 1;
        replica.born_ms = self.clock_ms;
        let now = replica.now(self.clock_ms);
        let mut registry = Registry::new(LIMITS, DEFAULT_TTL).protected(Fault::protection(self.fault));
        let spare = (ServiceName::parse(SERVICES[0]).unwrap(), Endpoint::parse("http://10.2.0.1").unwrap());
        registry.apply(Command::SetFallbacks([spare].into()), now).unwrap();
        for facts in self.store.records.values() {
            let restored = registry.apply(Command::Restore(Box::new((**facts).clone())), now);
            restored.map_err(|why| format!("a record is not taken back: {why:?}"))?;
        }
        self.oracle.restarted(&self.store.records, self.clock_ms)?;
        self.rules.restarted(registry.facts(), self.clock_ms);
        let effects = registry.drain();
        replica.registry = Some(registry);
        self.settle(n, Batch { effects, answers: Vec::new() });
        let (lives_ms, stalls_ms) = (self.rng.between(10_000, 250_000), self.rng.between(5_000, 200_000));
        let life = self.replicas[n].life;
        self.plan(TICK_MS, Due::Tick { replica: n, life });
        self.plan(stalls_ms, Due::Stall { replica: n, life });
        self.plan(lives_ms, Due::Kill { replica: n, life });
        Ok(())
    }

    // Invariants.

    fn check(&mut self) -> Result<(), String> {
        for n in 0..self.replicas.len() {
            let news = std::mem::take(&mut self.replicas[n].news);
            let replica = &self.replicas[n];
            let Some(registry) = &replica.registry else { continue };
            if news {
                check_limits(registry)?;
                if registry.generation() < replica.generation_last {
                    return Err(format!("the generation went back from {}", replica.generation_last));
                }
                check_table(registry, &replica.snapshot)?;
                self.check_store(replica, registry)?;
            }
            let visible = |key: &Key| {
                let service = replica.snapshot.get(key.0.as_str())?;
                service.instances.iter().find(|upstream| upstream.facts.id == key.1).map(|upstream| upstream.facts.clone())
            };
            self.oracle.check_kept(self.clock_ms, visible)?;
            self.oracle.check_gone(registry.facts())?;
            self.rules.check(&replica.snapshot, replica.born_ms)?;
        }
        Ok(())
    }

    /// What the store has, with what is on its way to it, is what the registry holds.
    fn check_store(&self, replica: &Replica, registry: &Registry) -> Result<(), String> {
        if matches!(self.fault, Some(Fault::LeakyStore | Fault::DeafStore)) {
            return Ok(());
        }
        let mut store = self.store.clone();
        for batch in &replica.unwritten {
            store.write(&batch.effects, None, &mut Rng::new(0));
        }
        same("store and registry", store.records.values().collect::<Vec<_>>(), registry.facts().collect::<Vec<_>>())
    }

    // Telling.

    fn note(&mut self, due: &Due) {
        let Some(trail) = &mut self.trail else { return };
        if trail.len() == 30 {
            trail.pop_front();
        }
        trail.push_back(format!("{:>10.3} s  {due:?}", self.clock_ms as f64 / 1e3));
    }

    fn report(&self, what: &str) -> String {
        let trail: Vec<&str> = self.trail.iter().flatten().map(String::as_str).collect();
        format!("at step {}: {what}\nthe last steps:\n{}", self.steps, trail.join("\n"))
    }
}

/// Runs one seed; the steps it took and what happened in them, or what went wrong.
fn simulate(seed: u64, fault: Option<Fault>) -> Result<(u64, Seen), String> {
    let mut world = World::new(seed, fault);
    if world.run(SIMULATED).is_ok() {
        return Ok((world.steps, world.rules.seen));
    }
    // The same again, this time taking notes.
    let mut world = World { trail: Some(VecDeque::new()), ..World::new(seed, fault) };
    let what = world.run(SIMULATED).expect_err("the same seed takes the same steps");
    Err(format!("seed {seed} (replay with SIM_SEED={seed}) {what}"))
}

#[test]
fn leases_live_exactly_as_long_as_they_are_renewed_or_held() {
    let (seen, is_usual) = seeds::run(SEEDS, SIMULATED, Seen::plus, |seed| simulate(seed, None));
    assert!(!is_usual || seen.is_everything_at_least(5), "the simulation no longer meets what it is for: {seen:?}");
}

#[test]
fn the_same_seed_gives_the_same_steps() {
    let trail = |seed| {
        let mut world = World { trail: Some(VecDeque::new()), ..World::new(seed, None) };
        world.run(Duration::from_secs(300)).unwrap();
        (world.steps, world.trail)
    };
    assert_eq!(trail(5), trail(5));
    assert_ne!(trail(5), trail(6));
}

fn noticed(fault: Fault, as_what: &str) {
    seeds::noticed(&fault, 40, &[as_what], |seed| simulate(seed, Some(fault)));
}

#[test]
fn answers_before_the_write_are_noticed() {
    noticed(Fault::EarlyAnswers, "acknowledged");
}

#[test]
fn late_lapses_are_noticed() {
    noticed(Fault::SleepyTimer, "outlives its lease");
}

#[test]
fn lost_writes_are_noticed() {
    noticed(Fault::LeakyStore, "is not in the store");
}

#[test]
fn lost_removals_are_noticed() {
    noticed(Fault::DeafStore, "acknowledged as removed");
}

#[test]
fn lapses_in_a_mass_silence_are_noticed() {
    noticed(Fault::NoProtection, "must be held");
}

#[test]
fn a_hold_without_reason_or_end_is_noticed() {
    noticed(Fault::EndlessHold, "must be gone");
}

#[test]
fn an_eviction_after_one_failed_probe_is_noticed() {
    noticed(Fault::HastyProbes, "must be held");
}

#[test]
fn dead_instances_that_stay_held_are_noticed() {
    noticed(Fault::KindProbes, "must be gone");
}

#[test]
fn a_stall_that_ends_leases_is_noticed() {
    noticed(Fault::NoStalls, "stall");
    noticed(Fault::TicksMadeUp, "stall");
}
