//! The connection that reads: notes where it is, then follows both streams.

use super::link::{Answer, Lane, Op};
use super::replica::Write;
use super::store::{Event, Renewals};
use super::writer::Stage;
use super::{Due, World};
use crate::trouble::Fault;
use std::sync::Arc;
use vertice_core::command::Command;
use vertice_core::follow::{Follower, Step};
use vertice_core::record::Stored;

/// The connection that reads.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(super) follower: Follower,
    pub(super) after: (u64, u64),
    pub(super) under_way: Option<u64>,
    pub(super) connection: u32,
    pub(super) last: u64,
    pub(super) is_positioned: bool,
    pub(super) retry_ms: u64,
}

impl World {
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

    pub(super) fn reader_heard(&mut self, n: usize, answer: Answer) {
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
            if let (Some(Fault::Echo), Command::Merge(record)) = (self.fault, &command) {
                let echo = Stored { facts: record.facts.clone(), cells: Arc::default() };
                self.replicas[n].outbox.write_back(Write::Put(echo));
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
}
