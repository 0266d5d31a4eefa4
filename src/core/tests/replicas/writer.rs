//! The connection that writes and asks: connect, replay what waited, load or compare everything, then keep in step.

use super::link::{Answer, Lane, Op, TIMEOUT_MS};
use super::replica::{Write, key_of};
use super::store::{Found, Written};
use super::{Due, Key, World};
use crate::trouble::Fault;
use std::collections::BTreeSet;
use std::time::Duration;
use vertice_core::command::Command;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::record::{Gone, Record, Standing, StoreNews, Stored, Why};
use vertice_core::time::Moment;

const BEAT_MS: u64 = 2_000;
const RENEW_MS: u64 = 1_000;
pub(crate) const RECONCILE_MS: u64 = 30_000;
/// Names compared in one exchange.
const NAMES_MAX: usize = 2;

/// The connection that writes and asks.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(super) stage: Stage,
    pub(super) under_way: Option<(u64, Op)>,
    pub(super) connection: u32,
    /// Numbers exchanges and looks.
    pub(super) last: u64,
    pub(super) next_look: u64,
    pub(super) retry_ms: u64,
    pub(super) next_beat_ms: u64,
    pub(super) next_renew_ms: u64,
    pub(super) next_reconcile_ms: u64,
    pub(super) wants_reconcile: bool,
    pub(super) names_left: BTreeSet<ServiceName>,
    pub(super) has_names: bool,
    pub(super) epoch: Option<u64>,
    pub(super) others: bool,
    pub(super) failures: u32,
    /// Whether it has loaded what there was when it started.
    pub(super) has_loaded: bool,
}

/// How far the writer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Off,
    Replay,
    /// Waits for the reader to note where it will follow from.
    Note,
    Load,
    Compare,
    Up,
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
    pub(super) fn writer_lost(&mut self, n: usize, op: Op) -> Result<(), String> {
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

    pub(super) fn writer_heard(&mut self, n: usize, op: Op, answer: Answer) -> Result<(), String> {
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
