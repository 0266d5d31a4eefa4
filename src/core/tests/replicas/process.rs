//! What a process does: starts, carries out what clients ask, looks at its leases, probes, dies.

use super::fleet::Envelope;
use super::replica::{Clock, Outbox, Replica, Waiting, Write, key_of};
use super::{DEFAULT_TTL, DURABLE_MS, Due, Key, LIMITS, STALE_AFTER, TICK_MS, World};
use crate::trouble::Fault;
use std::collections::{BTreeSet, VecDeque};
use vertice_core::command::{Command, Probe, Refused, Reply};
use vertice_core::record::ReplicaId;
use vertice_core::registry::Registry;
use vertice_core::table::Facts;

impl World {
    pub(crate) fn start(&mut self, n: usize) {
        if self.replicas[n].registry.is_some() {
            return;
        }
        let id = ReplicaId::of(u64::from(self.rng.below(1 << 31) as u32) << 20 | u64::from(self.rng.below(1 << 20) as u32));
        let clock = Clock::start(self.clock_ms, &mut self.rng);
        let registry = Registry::new(LIMITS, DEFAULT_TTL).shared(id, STALE_AFTER);
        let life = self.replicas[n].life + 1;
        self.replicas[n] = Replica { registry: Some(registry), id, life, clock, ..Replica::new() };
        self.known[n].clear();
        self.plan(TICK_MS, Due::Tick { replica: n, life });
        self.look(n);
    }

    pub(crate) fn kill(&mut self, n: usize) {
        let replica = &mut self.replicas[n];
        let was_following = replica.following_since_ms.is_some_and(|since_ms| since_ms + 5_000 < self.clock_ms);
        let life = replica.life;
        *replica = Replica { life, ..Replica::new() };
        self.oracle.died((n, life), was_following, self.clock_ms);
        let lives = self.replicas.iter().enumerate().filter(|(_, replica)| replica.registry.is_some());
        let lives = lives.map(|(n, replica)| (n, replica.life)).collect();
        self.oracle.doubt_what_is_not_durable(&lives);
    }

    pub(crate) fn deliver(&mut self, n: usize, envelope: Envelope) -> Result<(), String> {
        let replica = &self.replicas[n];
        let by = (n, replica.life);
        let reply = self.apply_answered(n, envelope.command.clone());
        let key = envelope.key();
        let replica = &self.replicas[n];
        let version_no = replica.facts(&key).map_or(0, |facts| facts.version_no);
        // Nothing is promised for what was numbered by a guess, nor once another server has taken over whose clock is behind, for
        // what is numbered by one who may have heard no number from before.
        let is_following = replica.following_since_ms.is_some();
        let is_numbered = replica.clock.store_ms.is_some() && (is_following || self.seen.failovers == 0);
        let receipt = self.oracle.applied(&envelope.command, &reply, version_no, by, self.clock_ms);
        if !is_numbered {
            let is_guess = !matches!(envelope.command, Command::Renew(_));
            self.oracle.forget(&key, is_guess);
        }
        let is_change = matches!(envelope.command, Command::Register(_) | Command::Deregister(_));
        let write = replica.outbox.writes.get(&key).filter(|_| is_change).map(Write::version_no);
        let under_way = replica.under_way(&key).filter(|_| is_change);
        match write.or(under_way).filter(|_| replica.following_since_ms.is_some()) {
            Some(version_no) => {
                let until_ms = self.clock_ms + DURABLE_MS;
                let waiting = Waiting { key, version_no, until_ms, envelope, reply, receipt };
                self.replicas[n].waiting.push_back(waiting);
                self.plan(DURABLE_MS, Due::Impatient { replica: n, life: by.1 });
            }
            None => {
                let is_durable = replica.following_since_ms.is_some();
                self.seen.not_durable += u64::from(!is_durable && is_change);
                self.oracle.acknowledged(&receipt, is_durable && is_change);
                self.answered(&envelope, &reply);
            }
        }
        self.look(n);
        Ok(())
    }

    /// Answers those that waited for this.
    pub(crate) fn answer_waiting(&mut self, n: usize, which: impl Fn(&Waiting) -> bool, is_durable: bool) {
        let (those, rest): (VecDeque<Waiting>, _) = self.replicas[n].waiting.drain(..).partition(which);
        self.replicas[n].waiting = rest;
        for waiting in those {
            self.seen.durable += u64::from(is_durable);
            self.oracle.acknowledged(&waiting.receipt, is_durable);
            self.answered(&waiting.envelope, &waiting.reply);
        }
    }

    /// A command that nobody waits for.
    pub(crate) fn apply(&mut self, n: usize, command: Command) -> Result<(), String> {
        match self.apply_answered(n, command) {
            Err(Refused::Full(what)) => Err(format!("replica {n} is full: {what}")),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    pub(crate) fn apply_answered(&mut self, n: usize, command: Command) -> Result<Reply, Refused> {
        let replica = &mut self.replicas[n];
        let now = replica.now(self.clock_ms);
        let Some(registry) = &mut replica.registry else { return Ok(Reply::Done) };
        let told = self.trail.is_some().then(|| command.clone());
        let reply = registry.apply(command, now);
        if let Some(command) = told {
            let reply = format!("{reply:?}").chars().take(30).collect::<String>();
            self.note(|world| format!("replica {n}: {} -> {reply}", world.brief(&command)));
        }
        self.settle(n);
        reply
    }

    pub(crate) fn wake(&mut self, n: usize) {
        let replica = &mut self.replicas[n];
        let now = replica.now(self.clock_ms).mono;
        let Some(registry) = &mut replica.registry else { return };
        self.seen.lapsed += registry.expire(now) as u64;
        replica.wake_for = replica.wake_for.filter(|at| *at > now);
        self.settle(n);
    }

    /// Takes over what is to be done, and sets the timer.
    fn settle(&mut self, n: usize) {
        let replica = &mut self.replicas[n];
        let (life, asked) = (replica.life, replica.outbox.fetches.len());
        for probe in replica.take_effects(self.fault) {
            let after_ms = self.rng.between(1, 2_000);
            self.seen.probes += 1;
            self.plan(after_ms, Due::Probed { replica: n, life, probe });
        }
        let replica = &mut self.replicas[n];
        self.seen.asked += u64::from(replica.outbox.fetches.len() > asked);
        if self.fault == Some(Fault::HastyLapses) {
            let (known, unknown) =
                std::mem::take(&mut replica.outbox.fetches).into_iter().partition(|key| replica.facts(key).is_some());
            let known: BTreeSet<Key> = known;
            replica.outbox.fetches = unknown;
            for (service, id) in known {
                let command = Command::Fetched { service, id, record: None, is_holder_alive: false };
                self.plan(0, Due::Heard { replica: n, life, command: Box::new(command) });
            }
        }
        let replica = &mut self.replicas[n];
        let deadline = replica.registry.as_ref().and_then(Registry::next_deadline);
        if let Some(deadline) = deadline.filter(|deadline| Some(*deadline) != replica.wake_for) {
            let wait_ms = deadline.since(replica.now(self.clock_ms).mono).as_millis() as u64;
            replica.wake_for = Some(deadline);
            let late_ms = self.rng.below(50);
            self.plan(wait_ms + 1 + late_ms, Due::Wake { replica: n, life });
        }
        let replica = &self.replicas[n];
        if !replica.outbox.is_idle() {
            self.look(n);
        }
    }

    pub(crate) fn probed(&mut self, n: usize, probe: &Probe) -> Result<(), String> {
        let key = (probe.service.clone(), probe.instance.clone());
        let endpoint = self.replicas[n].facts(&key).map(|facts| facts.endpoint.clone());
        let passed = self.is_well(&key, endpoint.as_ref());
        self.seen.probes_passed += u64::from(passed);
        self.apply(n, Command::Probed { no: probe.no, passed })
    }
}

impl Replica {
    /// What it knows of an instance.
    fn facts(&self, key: &Key) -> Option<&Facts> {
        let mut facts = self.registry.iter().flat_map(Registry::facts);
        facts.find(|facts| key_of(facts) == *key).map(|facts| &**facts)
    }

    /// The version of an instance that is being written just now.
    fn under_way(&self, key: &Key) -> Option<u64> {
        self.writer.writing(key)
    }

    pub(crate) fn graves(&self) -> usize {
        self.registry.as_ref().map_or(0, |registry| registry.lease_figures().graves)
    }
}

impl Outbox {
    fn is_idle(&self) -> bool {
        self.writes.is_empty() && self.fetches.is_empty() && !self.is_urgent
    }
}
