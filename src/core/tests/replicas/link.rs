//! Between a replica and the store: one connection writes and asks, the other one reads what the others wrote.
//!
//! Each has one exchange under way at most. Every exchange takes its time, may be lost on its way there or back, and may be
//! carried out long after nobody waits for it any more.

use super::replica::{Write, key_of};
use super::store::{At, Event, Found, Renewals, Written};
use super::writer::Stage;
use super::{Due, Key, World};
use std::collections::BTreeSet;
use std::time::Duration;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::record::{Record, ReplicaId, Standing, Stored};
use vertice_core::time::Moment;

pub(crate) const TIMEOUT_MS: u64 = 250;
const BLOCK_MS: u64 = 1_000;

/// Which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Writer,
    Reader,
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

impl World {
    pub(super) fn send(&mut self, n: usize, lane: Lane, op: Op) {
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
}
