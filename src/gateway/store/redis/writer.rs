//! The thread that writes: what waits in the outbox, that this replica lives, and everything again now and then.
//!
//! It connects, says that this replica lives, writes what waited, and only then has everything compared: what was decided
//! while the store was away comes before what the store still says.

use super::connect::Dialler;
use super::contents::READ_MAX;
use super::failure::Failure;
use super::predecessor;
use super::pulse::{Description, Pulse};
use super::reconcile::Reconcile;
use super::record::Kept;
use super::script::PIPELINE_MAX;
use super::shared::Shared;
use super::shelf::{Answer, Shelf};
use crate::clock;
use crate::registrar::outbox::{Batch, Change, Key, Outbox};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use vertice_core::command::Command;
use vertice_core::name::ServiceName;
use vertice_core::record::{ReplicaId, StoreNews, Stored};
use vertice_core::time::Moment;

/// How often this replica says that it lives.
const BEAT: Duration = Duration::from_secs(2);
/// How often a server is asked whether it is still the master, and the Sentinels who is.
const ROLE: Duration = Duration::from_secs(5);
/// How often the server is tried while the breaker is open.
const PROBE: Duration = Duration::from_secs(1);
/// The wait after a failure while the breaker is closed, doubling up to [`PROBE`].
const AGAIN: Duration = Duration::from_millis(100);
/// At most so long nobody looks whether the reader wants something: while it starts, and once it follows.
const GLANCE: Duration = Duration::from_millis(10);
const GLANCE_FOLLOWING: Duration = Duration::from_millis(200);
/// How long the last writes may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Writer {
    pub(super) shared: Shared,
    pub(super) outbox: Arc<Outbox>,
    pub(super) dialler: Dialler,
    description: Description,
    /// What the store called itself last.
    epoch: Option<String>,
    /// Something is written in between.
    is_passing: bool,
    /// When to give up, once it was noticed that this process ends.
    end: Option<Moment>,
}

/// What is under way on one connection.
struct Session {
    shelf: Shelf,
    beaten: Moment,
    asked_role: Moment,
    reconcile: Option<Reconcile>,
    reconciled: Moment,
}

impl Writer {
    pub(super) fn new(shared: Shared, outbox: Arc<Outbox>, dialler: Dialler) -> Self {
        let settings = &shared.settings;
        let description = Description {
            replica_id: settings.replica_id.clone(),
            zone: settings.zone.clone(),
            version: env!("CARGO_PKG_VERSION"),
        };
        Self { shared, outbox, dialler, description, epoch: None, is_passing: false, end: None }
    }

    /// Runs until it is told to stop; then writes what waits, if that is possible at once, and takes its leave.
    pub(super) fn run(mut self) {
        let mut again = AGAIN;
        while !self.shared.is_stopping() {
            self.shared.state.outbox_is(self.outbox.len(), &self.shared.metrics);
            let was_open = !self.shared.state.admits();
            let served = self.connect(was_open).and_then(|(shelf, pulse)| {
                again = AGAIN;
                self.serve(shelf, pulse)
            });
            if let Err(failure) = served {
                if self.is_time_up() {
                    break;
                }
                self.lost(&failure);
                self.shared.pause(if self.shared.state.admits() { again } else { PROBE });
                again = (again * 2).min(PROBE);
            }
        }
        match self.outbox.len() {
            0 => {}
            left => tracing::warn!(left, "changes could not be written to Redis before the end"),
        }
    }

    /// A connection on which something has been written: a first beat. While the breaker is open this is its probe.
    fn connect(&mut self, was_open: bool) -> Result<(Shelf, Pulse), Failure> {
        let mut shelf = self.shared.dial(&mut self.dialler)?;
        let pulse = shelf.beat(Some(&self.description))?;
        if was_open {
            self.shared.state.try_now();
            self.shared.state.admits();
        }
        self.shared.state.succeeded(&self.shared.metrics);
        Ok((shelf, pulse))
    }

    fn lost(&mut self, failure: &Failure) {
        let Shared { state, metrics, settings, .. } = &self.shared;
        state.failed(failure, metrics);
        metrics.store_errors.inc();
        self.outbox.refuse(true);
        let others = state.has_others(settings.me);
        if state.disconnected() {
            tracing::warn!(error = %failure, "Redis is away; changes are kept and written when it is back");
            self.shared.deliver(Command::Store(StoreNews::Away { others }));
        } else {
            tracing::debug!(error = %failure, "Redis is not available");
        }
    }

    fn serve(&mut self, shelf: Shelf, pulse: Pulse) -> Result<(), Failure> {
        // First the time, which the reader needs.
        self.felt(pulse);
        self.shared.state.connected(&shelf.link.address);
        tracing::info!(address = shelf.link.address, "Redis connected");
        // Versions given by a guessed time are put right before any of them is written.
        self.shared.settle();
        self.outbox.refuse(false);
        let now = clock::mono();
        let mut session = Session { shelf, beaten: now, asked_role: now, reconcile: None, reconciled: now };
        while !self.shared.is_stopping() {
            let wait = match session.reconcile {
                Some(_) => Duration::ZERO,
                None if self.shared.state.is_following() => GLANCE_FOLLOWING,
                None => GLANCE,
            };
            if let Some(batch) = self.outbox.take(wait) {
                self.work(&mut session, batch)?;
            }
            self.shared.state.outbox_is(self.outbox.len(), &self.shared.metrics);
            self.beat(&mut session)?;
            self.check_role(&mut session)?;
            self.compare(&mut session)?;
        }
        self.farewell(session);
        Ok(())
    }

    /// Whether this process ends, and has waited long enough for the last writes.
    fn is_time_up(&mut self) -> bool {
        self.shared.is_stopping() && clock::mono() >= *self.end.get_or_insert_with(|| clock::mono().plus(FAREWELL))
    }

    /// Runs an operation that the breaker hears of. However much there is to do, it is the last one when the time is up.
    fn guarded<T>(&mut self, operation: impl FnOnce(&mut Self) -> Result<T, Failure>) -> Result<T, Failure> {
        if self.is_time_up() {
            return Err(Failure::new("timeout", "this process ends"));
        }
        self.shared.state.admits();
        let result = operation(self)?;
        self.shared.state.succeeded(&self.shared.metrics);
        Ok(result)
    }

    fn beat(&mut self, session: &mut Session) -> Result<(), Failure> {
        if clock::mono().since(session.beaten) < BEAT {
            return Ok(());
        }
        session.beaten = clock::mono();
        let pulse = self.guarded(|writer| session.shelf.beat(Some(&writer.description)))?;
        let is_lost = self.felt(pulse);
        if is_lost {
            // The reader must note anew where the streams end.
            self.shared.state.connected(&session.shelf.link.address);
        }
        if self.outbox.take_dropped() > 0 {
            self.shared.metrics.limit_hit("store_outbox");
        }
        Ok(())
    }

    /// Tells everybody what a beat told. Whether the store is not the one it was.
    fn felt(&mut self, pulse: Pulse) -> bool {
        let Shared { state, .. } = &self.shared;
        state.replicas_are(pulse.replicas);
        if state.measured(pulse.micros, pulse.sent, pulse.received)
            && let Some(micros) = state.store_micros(clock::mono())
        {
            self.shared.deliver(Command::Store(StoreNews::Time { micros }));
        }
        let before = self.epoch.replace(pulse.epoch.clone());
        let is_lost = before.is_some_and(|before| before != pulse.epoch);
        if is_lost {
            tracing::warn!("Redis lost what it had; everything is written again");
            self.shared.deliver(Command::Store(StoreNews::Lost));
            state.want_reconcile("lost");
        }
        is_lost
    }

    fn check_role(&mut self, session: &mut Session) -> Result<(), Failure> {
        self.dialler.check_answer(&session.shelf.link)?;
        if clock::mono().since(session.asked_role) < ROLE {
            return Ok(());
        }
        session.asked_role = clock::mono();
        self.dialler.ask_sentinels();
        self.guarded(|_| session.shelf.link.check_role())
    }

    /// Starts or continues the comparison of everything.
    fn compare(&mut self, session: &mut Session) -> Result<(), Failure> {
        let Shared { state, settings, .. } = &self.shared;
        if session.reconcile.is_none() {
            // Before the reader knows where to start, something could fall between.
            let why = state.is_positioned().then(|| state.take_wanted()).flatten();
            let is_due = clock::mono().since(session.reconciled) >= settings.redis.reconcile && state.is_following();
            let Some(why) = why.or(is_due.then_some("interval")) else { return Ok(()) };
            session.reconcile = Some(self.guarded(|writer| Reconcile::start(&writer.shared, &mut session.shelf, why))?);
        }
        let Some(mut reconcile) = session.reconcile.take() else { return Ok(()) };
        let is_done = self.guarded(|writer| reconcile.step(&writer.shared, &writer.outbox, &mut session.shelf))?;
        if !is_done {
            session.reconcile = Some(reconcile);
            return Ok(());
        }
        session.reconciled = clock::mono();
        let unshown = reconcile.finished(&self.shared);
        self.follow(session)?;
        // Only now it is known here what other replicas removed.
        self.shared.settle();
        self.mirror(session, &unshown)
    }

    /// What the comparison has the registry ask for is done, and from now on it is in step.
    fn follow(&mut self, session: &mut Session) -> Result<(), Failure> {
        self.shared.settle();
        if let Some(batch) = self.outbox.take(Duration::ZERO) {
            self.work(session, batch)?;
        }
        if !self.shared.state.is_following() && self.shared.state.is_positioned() {
            self.shared.state.follow();
            tracing::info!("in step with Redis");
            self.shared.deliver(Command::Store(StoreNews::Following));
        }
        Ok(())
    }

    /// Does at once what came meanwhile and somebody waits for. Not while changes are written: whoever waits is told that all
    /// changes before are stored, too.
    fn let_pass(&mut self, session: &mut Session) -> Result<(), Failure> {
        let Some(batch) = (!self.is_passing).then(|| self.outbox.take_changes()).flatten() else { return Ok(()) };
        self.is_passing = true;
        let done = self.work(session, batch);
        self.is_passing = false;
        done
    }

    /// Does what the registry wants. What could not be written goes back.
    fn work(&mut self, session: &mut Session, mut batch: Batch) -> Result<(), Failure> {
        let started = clock::mono();
        let fetches = std::mem::take(&mut batch.fetches);
        let renewals = std::mem::take(&mut batch.renewals);
        let changes = std::mem::take(&mut batch.changes);
        let has_changes = !changes.is_empty();
        let mut changes: Vec<(Key, Change)> = changes.into_iter().collect();
        // Whoever takes another's place is there before that one goes: a reader between the two finds both, not neither.
        changes.sort_by_key(|(_, change)| matches!(change, Change::Gone(_)));
        let written = self.write(session, changes, batch.since);
        batch.answer(written.as_ref().is_ok_and(|done| !done.has_foreign));
        if has_changes {
            self.shared.metrics.store_write_duration.observe(clock::mono().since(started).as_secs_f64());
        }
        let mut done = match written {
            Ok(done) => done,
            Err(failure) => {
                self.outbox.put_back(Batch { renewals, ..Batch::default() });
                return Err(failure);
            }
        };
        self.renew(session, renewals.into_iter().collect(), &mut done)?;
        self.mirror(session, &done.services)?;
        let outdone: Vec<Key> = done.outdone.into_iter().filter(|key| !fetches.contains(key)).collect();
        self.fetch(session, &outdone, false)?;
        self.fetch(session, &fetches.into_iter().collect::<Vec<_>>(), true)
    }

    fn write(&mut self, session: &mut Session, changes: Vec<(Key, Change)>, since: Option<Moment>) -> Result<Done, Failure> {
        let at = self.shared.state.store_micros(since.unwrap_or_else(clock::mono)).unwrap_or_default();
        let mut done = Done::default();
        let mut rest = changes.as_slice();
        while !rest.is_empty() {
            match self.guarded(|_| session.shelf.write_some(rest, at)) {
                Ok(answers) => {
                    for (answer, (key, _)) in answers.iter().zip(rest) {
                        done.note(key, *answer);
                    }
                    rest = &rest[answers.len()..];
                }
                Err(failure) => {
                    let changes = rest.iter().cloned().collect();
                    self.outbox.put_back(Batch { changes, since, ..Batch::default() });
                    return Err(failure);
                }
            }
            if !rest.is_empty() {
                // A long replay must not look like a death.
                if let Err(failure) = self.beat(session) {
                    let changes = rest.iter().cloned().collect();
                    self.outbox.put_back(Batch { changes, since, ..Batch::default() });
                    return Err(failure);
                }
            }
        }
        Ok(done)
    }

    fn renew(&mut self, session: &mut Session, renewals: Vec<(Key, Stored)>, done: &mut Done) -> Result<(), Failure> {
        let mut rest = renewals.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(PIPELINE_MAX));
            let renewed = self.renew_some(session, now, done).and_then(|()| self.beat(session));
            if let Err(failure) = renewed.and_then(|()| self.let_pass(session)) {
                let renewals = rest.iter().cloned().collect();
                self.outbox.put_back(Batch { renewals, ..Batch::default() });
                return Err(failure);
            }
            rest = later;
        }
        Ok(())
    }

    /// Renews; what the store lacks is written instead.
    fn renew_some(&mut self, session: &mut Session, renewals: &[(Key, Stored)], done: &mut Done) -> Result<(), Failure> {
        let answers = self.guarded(|_| session.shelf.renew(renewals))?;
        let mut absent = Vec::new();
        for (answer, (key, stored)) in answers.into_iter().zip(renewals) {
            done.note(key, answer);
            // What nobody is known to hold may have been removed: core asks first.
            if answer == Answer::Absent && stored.cells.lease.holder() != Some(ReplicaId::NOBODY) {
                absent.push((key.clone(), Change::Put(stored.clone())));
            }
        }
        let written = self.write(session, absent, None)?;
        done.services.extend(written.services);
        done.outdone.extend(written.outdone);
        Ok(())
    }

    /// Shows the predecessor what these services are like now.
    fn mirror(&mut self, session: &mut Session, services: &BTreeSet<ServiceName>) -> Result<(), Failure> {
        let (now, table) = (clock::mono(), self.shared.table.load_full());
        let shown = |name: &ServiceName| {
            let service = table.get(name.as_str()).filter(|service| !service.is_fallback)?;
            predecessor::shown(service.best().filter(|best| !best.is_leaving)?, now)
        };
        let shown: Vec<_> = services.iter().filter_map(shown).collect();
        for shown in shown.chunks(PIPELINE_MAX) {
            self.guarded(|_| session.shelf.mirror(shown))?;
            self.let_pass(session)?;
        }
        Ok(())
    }

    /// Reads instances and tells the registry: as an answer to its question, or as news.
    fn fetch(&mut self, session: &mut Session, keys: &[Key], is_asked: bool) -> Result<(), Failure> {
        for keys in keys.chunks(READ_MAX) {
            let found = self.guarded(|_| session.shelf.fetch(keys))?;
            for ((service, id), kept) in keys.iter().zip(found) {
                let (service, id) = (service.clone(), id.clone());
                let command = match kept {
                    Some(Kept::Gone(gone)) => Command::MergeGone(gone),
                    Some(Kept::Record(record)) if is_asked => {
                        let is_holder_alive = self.is_holder_alive(record.holder, record.left);
                        Command::Fetched { service, id, record: Some(Box::new(record)), is_holder_alive }
                    }
                    Some(Kept::Record(record)) => Command::Merge(Box::new(record)),
                    None if is_asked => Command::Fetched { service, id, record: None, is_holder_alive: false },
                    None => continue,
                };
                self.shared.deliver(command);
            }
            self.beat(session)?;
            self.let_pass(session)?;
        }
        Ok(())
    }

    /// A predecessor says nothing of itself: it lives as long as what it shows.
    fn is_holder_alive(&self, holder: ReplicaId, left: Duration) -> bool {
        match holder {
            ReplicaId::PREDECESSOR => !left.is_zero(),
            holder if holder == self.shared.settings.me => true,
            holder => self.shared.state.is_alive(holder, clock::mono()),
        }
    }

    /// Writes what still waits, and takes this replica out of the list.
    fn farewell(&mut self, mut session: Session) {
        // Whoever was renewed here a moment ago turns to another replica next, which must not think that it is late.
        self.outbox.hurry();
        while let Some(mut batch) = self.outbox.take(Duration::ZERO) {
            let renewals = std::mem::take(&mut batch.renewals).into_iter().collect();
            let written = self.write(&mut session, std::mem::take(&mut batch.changes).into_iter().collect(), batch.since);
            batch.answer(written.as_ref().is_ok_and(|done| !done.has_foreign));
            if written.and_then(|mut done| self.renew(&mut session, renewals, &mut done)).is_err() {
                break;
            }
        }
        if let Err(failure) = session.shelf.beat(None) {
            tracing::debug!(error = %failure, "failed to take leave of Redis");
        }
        self.shared.state.disconnected();
    }
}

/// What came of writes.
#[derive(Default)]
struct Done {
    /// Services whose best instance may look different now.
    services: BTreeSet<ServiceName>,
    /// Instances of which the store knows better.
    outdone: BTreeSet<Key>,
    /// Something could not be written, because its place is taken by something else.
    has_foreign: bool,
}

impl Done {
    fn note(&mut self, key: &Key, answer: Answer) {
        match answer {
            Answer::Done => drop(self.services.insert(key.0.clone())),
            Answer::Outdone => drop(self.outdone.insert(key.clone())),
            Answer::Foreign => self.has_foreign = true,
            Answer::Absent => {}
        }
    }
}
