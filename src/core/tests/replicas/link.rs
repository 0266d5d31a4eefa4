//! Between a replica and the store: one connection writes and asks, the other one reads what the others wrote.
//!
//! Each has one exchange under way at most. Every exchange takes its time, may be lost on its way there or back, and may be
//! carried out long after nobody waits for it any more.

use super::replica::{Write, key_of};
use super::store::{At, Event, Found, Renewals, Written};
use super::{Due, Key, World};
use crate::trouble::Fault;
use std::collections::BTreeSet;
use std::time::Duration;
use vertice_core::command::Command;
use vertice_core::follow::{Follower, Step};
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::record::{Gone, Record, ReplicaId, Standing, StoreNews, Stored, Why};
use vertice_core::time::Moment;

const TIMEOUT_MS: u64 = 250;
const BLOCK_MS: u64 = 1_000;
const BEAT_MS: u64 = 2_000;
const RENEW_MS: u64 = 1_000;
pub(crate) const RECONCILE_MS: u64 = 30_000;
/// Names compared in one exchange.
const NAMES_MAX: usize = 2;

/// Which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Writer,
    Reader,
}

/// The connection that writes and asks.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    stage: Stage,
    under_way: Option<(u64, Op)>,
    connection: u32,
    /// Numbers exchanges and looks.
    last: u64,
    next_look: u64,
    retry_ms: u64,
    next_beat_ms: u64,
    next_renew_ms: u64,
    next_reconcile_ms: u64,
    wants_reconcile: bool,
    names_left: BTreeSet<ServiceName>,
    has_names: bool,
    epoch: Option<u64>,
    others: bool,
    failures: u32,
    /// Whether it has loaded what there was when it started.
    has_loaded: bool,
}

/// How far the writer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Off,
    Replay,
    /// Waits for the reader to note where it will follow from.
    Note,
    Load,
    Compare,
    Up,
}

/// The connection that reads.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    follower: Follower,
    after: (u64, u64),
    under_way: Option<u64>,
    connection: u32,
    last: u64,
    is_positioned: bool,
    retry_ms: u64,
}

/// What is asked of the store.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Sent then, by the replica's own clock.
    Beat(Moment),
    Write(Vec<(Write, Option<Record>)>),
    Renew(Vec<(Stored, Duration)>),
    Fetch(Vec<Key>),
    Names,
    Standings(Vec<ServiceName>),
    Load,
    Note,
    Read {
        after: (u64, u64),
        is_over: bool,
    },
}

/// What it answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Beaten { store_ms: u64, epoch: u64, others: bool },
    Written(Vec<Written>),
    Fetched(Vec<(Key, Found)>),
    Names(BTreeSet<ServiceName>),
    Standings(Vec<(ServiceName, Vec<(InstanceId, Standing)>)>),
    Noted(u64, (u64, u64)),
    Read(Vec<Event>, Vec<Renewals>),
}

/// A question on its way.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) replica: usize,
    pub(crate) life: u32,
    lane: Lane,
    no: u64,
    /// Of which life of the store its connection is; a new one if none.
    connection: Option<u32>,
    op: Op,
}

/// The number of an exchange, or of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    lane: Lane,
    no: u64,
}

impl Writer {
    /// How long there is nothing to do.
    fn idle_ms(&self, clock_ms: u64, has_no_renewals: bool) -> u64 {
        let next_ms = match self.stage {
            Stage::Off => self.retry_ms,
            Stage::Up if has_no_renewals => self.next_beat_ms.min(self.next_reconcile_ms),
            Stage::Up => self.next_beat_ms.min(self.next_reconcile_ms).min(self.next_renew_ms),
            _ => clock_ms + 100,
        };
        next_ms.saturating_sub(clock_ms).clamp(1, 500)
    }

    /// The version of an instance that is being written just now.
    pub(crate) fn writing(&self, key: &Key) -> Option<u64> {
        let (_, Op::Write(writes)) = self.under_way.as_ref()? else { return None };
        writes.iter().map(|(write, _)| write).find(|write| write.key() == *key).map(Write::version_no)
    }
}

impl World {
    fn send(&mut self, n: usize, lane: Lane, op: Op) {
        let replica = &mut self.replicas[n];
        let connection = match lane {
            Lane::Writer if replica.writer.stage == Stage::Off => None,
            Lane::Writer => Some(replica.writer.connection),
            Lane::Reader if matches!(op, Op::Note) => None,
            Lane::Reader => Some(replica.reader.connection),
        };
        let no = match lane {
            Lane::Writer => {
                replica.writer.last += 1;
                replica.writer.under_way = Some((replica.writer.last, op.clone()));
                replica.writer.last
            }
            Lane::Reader => {
                replica.reader.last += 1;
                replica.reader.under_way = Some(replica.reader.last);
                replica.reader.last
            }
        };
        let life = replica.life;
        let timeout_ms = TIMEOUT_MS + if matches!(op, Op::Read { .. }) { BLOCK_MS + TIMEOUT_MS } else { 0 };
        let exchange = Exchange { replica: n, life, lane, no, connection, op };
        let after_ms = self.on_the_way_ms();
        self.plan(after_ms, Due::Execute(Box::new(exchange)));
        self.plan(timeout_ms, Due::Timeout { replica: n, life, ticket: Ticket { lane, no } });
    }

    fn on_the_way_ms(&mut self) -> u64 {
        if self.rng.percent(2) && !self.is_calm { self.rng.below(400) } else { self.rng.between(1, 4) }
    }

    fn can_talk(&self, n: usize) -> bool {
        !self.trouble.is_down && self.trouble.cut_until_ms[n] <= self.clock_ms
    }

    /// The store gets to it.
    pub(crate) fn execute(&mut self, exchange: Exchange) {
        if self.trouble.stalled_until_ms > self.clock_ms {
            self.plan(self.trouble.stalled_until_ms - self.clock_ms, Due::Execute(Box::new(exchange)));
            return;
        }
        let Exchange { replica: n, life, lane, no, connection, op } = exchange;
        let is_cut = connection.is_some_and(|connection| connection != self.trouble.store_life);
        if is_cut || !self.can_talk(n) {
            return;
        }
        if let Op::Read { after, is_over: false } = op
            && self.store.read(after).0.is_empty()
            && self.store.read(after).1.is_empty()
        {
            // Blocks; answered when something is written, or when the time is over.
            let over = Exchange { replica: n, life, lane, no, connection, op: Op::Read { after, is_over: true } };
            self.blocked.push(over.clone());
            self.plan(BLOCK_MS, Due::Execute(Box::new(over)));
            return;
        }
        let by = self.replicas[n].id;
        let ends = self.store.ends;
        let asked = self.trail.is_some().then(|| op.clone());
        let answer = self.carry_out(op, by);
        if let Some(op) = asked {
            self.note_exchange(n, &op, &answer);
        }
        if self.store.ends != ends {
            for reader in std::mem::take(&mut self.blocked) {
                self.plan(0, Due::Execute(Box::new(reader)));
            }
        }
        let after_ms = self.on_the_way_ms();
        self.plan(after_ms, Due::Back { replica: n, life, ticket: Ticket { lane, no }, answer: Box::new(answer) });
    }

    fn note_exchange(&mut self, n: usize, op: &Op, answer: &Answer) {
        match (op, answer) {
            (Op::Write(writes), Answer::Written(answers)) => {
                for ((write, record), written) in writes.iter().zip(answers) {
                    self.note(|world| format!("replica {n} -> {}", world.brief_write(write, record.as_ref(), *written)));
                }
            }
            (Op::Renew(renewals), Answer::Written(answers)) => {
                for ((stored, left), written) in renewals.iter().zip(answers) {
                    let (key, version_no) = (key_of(&stored.facts), stored.facts.version_no);
                    self.note(|world| format!("replica {n} -> {}", world.brief_renewal(&key, version_no, *left, *written)));
                }
            }
            (_, Answer::Fetched(found)) => {
                for (key, found) in found {
                    self.note(|world| format!("replica {n} -> store: {}", world.brief_found(key, found)));
                }
            }
            _ => {}
        }
    }

    fn carry_out(&mut self, op: Op, by: ReplicaId) -> Answer {
        let at = At { store_ms: self.trouble.store_ms(self.clock_ms), true_ms: self.clock_ms };
        let (store, fault) = (&mut self.store, self.fault);
        match op {
            Op::Beat(_) => {
                let fresh = u64::from(self.rng.below(1 << 30) as u32) + 1;
                let (epoch, others) = store.beat(by, fresh, at);
                Answer::Beaten { store_ms: at.store_ms, epoch, others }
            }
            Op::Write(writes) => {
                let write = |(write, record): (Write, Option<Record>)| match (write, record) {
                    (Write::Put(_), Some(record)) => store.put(record, by, at, fault),
                    (Write::Gone(gone), _) => store.gone(gone, at, fault),
                    (Write::Put(_), None) => Written::Absent,
                };
                Answer::Written(writes.into_iter().map(write).collect())
            }
            Op::Renew(renewals) => {
                let those: Vec<_> =
                    renewals.iter().map(|(stored, left)| (key_of(&stored.facts), stored.facts.version_no, *left)).collect();
                Answer::Written(store.renew(&those, by, at))
            }
            Op::Fetch(keys) => Answer::Fetched(keys.into_iter().map(|key| (key.clone(), store.fetch(&key, at))).collect()),
            Op::Names => Answer::Names(store.names()),
            Op::Standings(names) => {
                let standings = |name: ServiceName| (name.clone(), store.standings(&name, at));
                Answer::Standings(names.into_iter().map(standings).collect())
            }
            Op::Load => {
                let keys: Vec<Key> = store.slots().keys().cloned().collect();
                Answer::Fetched(keys.into_iter().map(|key| (key.clone(), store.fetch(&key, at))).collect())
            }
            Op::Note => {
                let (number, ends) = store.note();
                Answer::Noted(number, ends)
            }
            Op::Read { after, .. } => {
                let (events, renewals) = store.read(after);
                Answer::Read(events, renewals)
            }
        }
    }

    /// An answer arrives.
    pub(crate) fn back(&mut self, n: usize, ticket: Ticket, answer: Answer) -> Result<(), String> {
        if !self.can_talk(n) {
            return Ok(());
        }
        let store_life = self.trouble.store_life;
        match ticket.lane {
            Lane::Writer => {
                let writer = &mut self.replicas[n].writer;
                let Some((_, op)) = writer.under_way.take_if(|(no, _)| *no == ticket.no) else { return Ok(()) };
                if writer.stage == Stage::Off {
                    writer.connection = store_life;
                }
                self.writer_heard(n, op, answer)?;
                self.look(n);
            }
            Lane::Reader => {
                if self.replicas[n].reader.under_way.take_if(|no| *no == ticket.no).is_some() {
                    self.reader_heard(n, answer);
                }
            }
        }
        Ok(())
    }

    /// No answer came.
    pub(crate) fn timed_out(&mut self, n: usize, ticket: Ticket) -> Result<(), String> {
        match ticket.lane {
            Lane::Writer => {
                let Some((_, op)) = self.replicas[n].writer.under_way.take_if(|(no, _)| *no == ticket.no) else {
                    return Ok(());
                };
                self.writer_lost(n, op)?;
                self.look(n);
            }
            Lane::Reader => {
                let reader = &mut self.replicas[n].reader;
                if reader.under_way.take_if(|no| *no == ticket.no).is_some() {
                    reader.is_positioned = false;
                    reader.retry_ms = self.clock_ms + 300;
                    self.read_on(n);
                }
            }
        }
        Ok(())
    }

    fn writer_lost(&mut self, n: usize, op: Op) -> Result<(), String> {
        let (clock_ms, replica) = (self.clock_ms, &mut self.replicas[n]);
        match op {
            Op::Write(writes) => writes.into_iter().for_each(|(write, _)| replica.outbox.write_back(write)),
            Op::Renew(renewals) => renewals.into_iter().for_each(|(stored, _)| {
                replica.outbox.renewals.entry(key_of(&stored.facts)).or_insert(stored);
            }),
            Op::Fetch(keys) => replica.outbox.fetches.extend(keys),
            _ => {}
        }
        let writer = &mut replica.writer;
        (writer.stage, writer.has_names, writer.retry_ms) = (Stage::Off, false, clock_ms + 1_000);
        writer.names_left.clear();
        writer.failures += 1;
        // Whoever starts while the store is away lets clients in all the same.
        replica.serves |= writer.failures >= 2;
        replica.following_since_ms = None;
        replica.reader.is_positioned = false;
        let others = replica.writer.others;
        self.seen.away += 1;
        self.apply(n, Command::Store(StoreNews::Away { others }))?;
        self.answer_waiting(n, |_| true, false);
        Ok(())
    }

    /// Has the writer look what there is to do, as soon as may be.
    pub(crate) fn look(&mut self, n: usize) {
        let replica = &mut self.replicas[n];
        if replica.writer.under_way.is_some() || replica.registry.is_none() {
            return;
        }
        replica.writer.next_look += 1;
        let (life, no) = (replica.life, replica.writer.next_look);
        let after_ms = match self.next_op(n) {
            Some(op) => return self.send(n, Lane::Writer, op),
            None => self.replicas[n].writer.idle_ms(self.clock_ms, self.replicas[n].outbox.renewals.is_empty()),
        };
        self.plan(after_ms, Due::Look { replica: n, life, no });
    }

    pub(crate) fn looks(&mut self, n: usize, no: u64) {
        if self.replicas[n].writer.next_look == no {
            self.look(n);
        }
        self.read_on(n);
    }

    fn next_op(&mut self, n: usize) -> Option<Op> {
        let clock_ms = self.clock_ms;
        let replica = &mut self.replicas[n];
        let now = replica.now(clock_ms).mono;
        let (me, writer, outbox) = (replica.id, &mut replica.writer, &mut replica.outbox);
        if writer.stage == Stage::Off {
            return (writer.retry_ms <= clock_ms).then_some(Op::Beat(now));
        }
        if !outbox.writes.is_empty() && writer.stage != Stage::Load {
            let record = |write: &Write| match write {
                Write::Put(stored) => Some(stored.record(now, me)),
                Write::Gone(_) => None,
            };
            return Some(Op::Write(outbox.take_writes().into_iter().map(|write| (write.clone(), record(&write))).collect()));
        }
        if writer.stage == Stage::Replay {
            writer.stage = Stage::Note;
        }
        let is_positioned = replica.reader.is_positioned || self.fault == Some(Fault::LatePosition);
        if writer.stage == Stage::Note && is_positioned {
            writer.stage = if writer.has_loaded { Stage::Compare } else { Stage::Load };
            writer.wants_reconcile = writer.has_loaded;
        }
        match writer.stage {
            Stage::Note => return None,
            Stage::Load => return Some(Op::Load),
            _ => {}
        }
        if outbox.is_urgent || (!outbox.renewals.is_empty() && writer.next_renew_ms <= clock_ms) {
            outbox.is_urgent = false;
            writer.next_renew_ms = clock_ms + RENEW_MS;
            let renewals = std::mem::take(&mut outbox.renewals).into_values();
            let left = |stored: Stored| (stored.clone(), stored.record(now, me).left);
            let renewals: Vec<_> = renewals.map(left).collect();
            if !renewals.is_empty() {
                return Some(Op::Renew(renewals));
            }
        }
        if !outbox.fetches.is_empty() {
            return Some(Op::Fetch(std::mem::take(&mut outbox.fetches).into_iter().collect()));
        }
        if writer.next_beat_ms <= clock_ms {
            return Some(Op::Beat(now));
        }
        if writer.wants_reconcile || writer.next_reconcile_ms <= clock_ms {
            (writer.wants_reconcile, writer.has_names) = (false, true);
            writer.next_reconcile_ms = clock_ms + RECONCILE_MS;
            return Some(Op::Names);
        }
        let names: Vec<_> = std::iter::from_fn(|| writer.names_left.pop_first()).take(NAMES_MAX).collect();
        if !names.is_empty() {
            return Some(Op::Standings(names));
        }
        if writer.stage == Stage::Compare && writer.has_names {
            writer.stage = Stage::Up;
            replica.following_since_ms = Some(clock_ms);
            self.apply(n, Command::Store(StoreNews::Following)).ok();
        }
        None
    }

    fn writer_heard(&mut self, n: usize, op: Op, answer: Answer) -> Result<(), String> {
        let clock_ms = self.clock_ms;
        match (op, answer) {
            (Op::Beat(sent), Answer::Beaten { store_ms, epoch, others }) => self.beaten(n, sent, store_ms, epoch, others)?,
            (Op::Write(writes), Answer::Written(answers)) => {
                for ((write, _), written) in writes.into_iter().zip(answers) {
                    let (key, version_no) = (write.key(), write.version_no());
                    if written != Written::Done {
                        self.replicas[n].outbox.fetches.insert(key.clone());
                        self.seen.writes_refused += 1;
                    }
                    self.answer_waiting(n, |waiting| waiting.key == key && waiting.version_no <= version_no, true);
                }
            }
            (Op::Renew(renewals), Answer::Written(answers)) => {
                let outbox = &mut self.replicas[n].outbox;
                for ((stored, _), written) in renewals.into_iter().zip(answers) {
                    match written {
                        Written::Done => {}
                        Written::Absent => outbox.write_back(Write::Put(stored)),
                        Written::Newer | Written::Alive => {
                            outbox.fetches.insert(key_of(&stored.facts));
                            self.seen.renewals_refused += 1;
                        }
                    }
                }
            }
            (op, Answer::Fetched(found)) => {
                let is_load = matches!(op, Op::Load);
                for (key, found) in found {
                    let command = if is_load { loaded(found) } else { Some(fetched(key, found)) };
                    if let Some(command) = command {
                        self.apply(n, command)?;
                    }
                }
                if is_load {
                    let writer = &mut self.replicas[n].writer;
                    (writer.has_loaded, writer.stage, writer.wants_reconcile) = (true, Stage::Compare, true);
                    self.replicas[n].serves = true;
                    self.loaded(n)?;
                }
            }
            (_, Answer::Names(mut names)) => {
                names.extend(
                    self.replicas[n].registry.iter().flat_map(|registry| registry.facts().map(|it| it.service.clone())),
                );
                self.replicas[n].writer.names_left = names;
                self.replicas[n].writer.next_reconcile_ms = clock_ms + RECONCILE_MS;
            }
            (_, Answer::Standings(standings)) => {
                for (service, stored) in standings {
                    if self.fault == Some(Fault::AbsenceDeletes) {
                        self.delete_absent(n, &service, &stored)?;
                    }
                    self.apply(n, Command::Compare { service, stored })?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn beaten(&mut self, n: usize, sent: Moment, store_ms: u64, epoch: u64, others: bool) -> Result<(), String> {
        let clock_ms = self.clock_ms;
        let replica = &mut self.replicas[n];
        let now = replica.now(clock_ms).mono;
        // Whoever was stopped meanwhile has learnt nothing.
        let tells_time = now.since(sent) <= Duration::from_millis(2 * TIMEOUT_MS) || replica.clock.store_ms.is_none();
        if tells_time {
            replica.clock.learn(store_ms, now);
        }
        let writer = &mut replica.writer;
        (writer.next_beat_ms, writer.others) = (clock_ms + BEAT_MS, others);
        let was_off = writer.stage == Stage::Off;
        if was_off {
            (writer.stage, writer.failures) = (Stage::Replay, 0);
        }
        let is_lost = writer.epoch.replace(epoch).is_some_and(|before| before != epoch);
        if is_lost {
            replica.reader.is_positioned = false;
            self.seen.epochs_changed += 1;
        }
        if tells_time && self.fault != Some(Fault::WallVersions) {
            self.apply(n, Command::Store(StoreNews::Time { micros: store_ms * 1_000 }))?;
        }
        if is_lost {
            self.apply(n, Command::Store(StoreNews::Lost))?;
        }
        self.read_on(n);
        Ok(())
    }

    /// The reader goes on, or notes anew where it is.
    pub(crate) fn read_on(&mut self, n: usize) {
        let clock_ms = self.clock_ms;
        let replica = &mut self.replicas[n];
        let reader = &replica.reader;
        if reader.under_way.is_some() || replica.writer.stage == Stage::Off || reader.retry_ms > clock_ms {
            return;
        }
        let op = if reader.is_positioned { Op::Read { after: reader.after, is_over: false } } else { Op::Note };
        self.send(n, Lane::Reader, op);
    }

    fn reader_heard(&mut self, n: usize, answer: Answer) {
        match answer {
            Answer::Noted(number, ends) => {
                let store_life = self.trouble.store_life;
                let replica = &mut self.replicas[n];
                replica.reader.connection = store_life;
                replica.reader.follower.positioned(number);
                // Renewals are read on from where it was: they can be repeated, and no comparison makes up for them.
                let renewals = replica.reader.after.1;
                let renewals = if renewals == 0 { ends.1 } else { renewals.min(ends.1) };
                (replica.reader.after, replica.reader.is_positioned) = ((ends.0, renewals), true);
                replica.writer.wants_reconcile |= self.fault != Some(Fault::LatePosition);
                self.look(n);
            }
            Answer::Read(mut events, renewals) => {
                let percent = if self.fault == Some(Fault::GapsIgnored) { 50 } else { 2 };
                if events.len() > 1 && !self.is_calm && self.rng.percent(percent) {
                    let lost = self.rng.below(events.len() as u64 - 1) as usize;
                    events.remove(lost);
                    self.seen.events_lost += 1;
                }
                self.events_heard(n, events);
                self.renewals_heard(n, renewals);
            }
            _ => {}
        }
        self.read_on(n);
    }

    fn events_heard(&mut self, n: usize, events: Vec<Event>) {
        for event in events {
            let replica = &mut self.replicas[n];
            replica.reader.after.0 = event.id;
            if replica.reader.follower.entry(event.number) == Step::Resync && self.fault != Some(Fault::GapsIgnored) {
                replica.reader.is_positioned = false;
                self.seen.resyncs += 1;
            }
            let replica = &self.replicas[n];
            if event.by == replica.id {
                continue;
            }
            let age = replica.clock.age(event.at_ms, replica.now(self.clock_ms).mono);
            let command = replica.heard(event.change, age);
            if self.fault == Some(Fault::Echo)
                && let Command::Merge(record) = &command
                && let Some(cells) = Some(std::sync::Arc::default())
            {
                let echo = Write::Put(Stored { facts: record.facts.clone(), cells });
                self.replicas[n].outbox.write_back(echo);
            }
            self.hear(n, command);
        }
    }

    fn renewals_heard(&mut self, n: usize, renewals: Vec<Renewals>) {
        for line in renewals {
            let replica = &mut self.replicas[n];
            replica.reader.after.1 = line.id;
            if line.by == replica.id {
                continue;
            }
            let age = replica.clock.age(line.at_ms, replica.now(self.clock_ms).mono);
            for ((service, id), version_no, left) in line.renewed {
                let left = left.saturating_sub(age);
                self.hear(n, Command::Renewed { service, id, version_no, left, holder: line.by });
            }
        }
    }

    /// A command on its way through the registrar's queue: sometimes late, out of order, or twice.
    fn hear(&mut self, n: usize, command: Command) {
        let life = self.replicas[n].life;
        let times = 1 + u64::from(!self.is_calm && self.rng.percent(3));
        self.seen.heard_twice += times - 1;
        for _ in 0..times {
            let after_ms = if !self.is_calm && self.rng.percent(3) { self.rng.below(1_500) } else { self.rng.below(3) };
            self.plan(after_ms, Due::Heard { replica: n, life, command: Box::new(command.clone()) });
        }
    }

    /// Broken on purpose: what the store lacks is taken for deleted.
    fn delete_absent(&mut self, n: usize, service: &ServiceName, stored: &[(InstanceId, Standing)]) -> Result<(), String> {
        let by = self.replicas[n].id;
        let Some(registry) = &self.replicas[n].registry else { return Ok(()) };
        let here = registry.facts().filter(|facts| facts.service == *service && !stored.iter().any(|(id, _)| *id == facts.id));
        let gone = here.map(|facts| Gone {
            service: service.clone(),
            id: facts.id.clone(),
            version_no: facts.version_no,
            why: Why::Removed,
            by,
            kept: facts.ttl,
            finishing: None,
        });
        gone.collect::<Vec<_>>().into_iter().try_for_each(|gone| self.apply(n, Command::MergeGone(gone)))
    }
}

/// What was there when the process started: who holds a lease may be dead, then it gets a fresh one.
fn loaded(found: Found) -> Option<Command> {
    match found {
        Found::Record(record, true) => Some(Command::Merge(Box::new(record))),
        Found::Record(record, false) => Some(Command::Merge(Box::new(Record { left: record.facts.ttl, ..record }))),
        Found::Grave(gone) => Some(Command::MergeGone(gone)),
        Found::Nothing => None,
    }
}

fn fetched((service, id): Key, found: Found) -> Command {
    match found {
        Found::Record(record, is_holder_alive) => {
            Command::Fetched { service, id, record: Some(Box::new(record)), is_holder_alive }
        }
        Found::Grave(gone) => Command::MergeGone(gone),
        Found::Nothing => Command::Fetched { service, id, record: None, is_holder_alive: false },
    }
}
