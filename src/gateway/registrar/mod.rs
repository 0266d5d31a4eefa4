//! The one writer: every change of the registry and of the routing table passes through here.
//!
//! **Invariant:** the registrar never waits for anything but its queue and its next deadline, which is at most a tick away: by
//! its ticks the registry notices that the process was stopped. It drains the queue, applies
//! everything, publishes once, and leaves what must be stored in the [`Outbox`](outbox::Outbox). So a registration is
//! routable before its 201, a storm costs one publish per batch, and a slow store delays nobody's heartbeat.

pub mod outbox;
mod publish;
mod retired;
#[cfg(test)]
mod tests;

use crate::clock;
use crate::noticeboard::NoticeBoard;
use crate::resolve::Resolver;
use crate::telemetry::{event, metrics::Metrics};
use crate::upstream::{Hung, Table};
use outbox::{Change, Outbox, Work};
use parking_lot::Mutex;
use retired::Retired;
use std::sync::Arc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use vertice_core::command::{Command, Effect, Probe, Refused, Reply};
use vertice_core::registry::{LeaseFigures, Protection, Registry, TICK};
use vertice_core::time::{Moment, Now};

/// So many commands are applied before the table is published.
const BATCH: usize = 1024;

/// Threads that may wait, for a place in the queue or an answer, look again after so long.
const GLANCE: std::time::Duration = std::time::Duration::from_millis(1);

/// A command on its way.
struct Envelope {
    command: Command,
    now: Now,
    reply: Option<oneshot::Sender<Result<Applied, Refused>>>,
}

/// A command that was carried out.
#[derive(Debug)]
pub struct Applied {
    /// What it came to. Whoever reads the table from now on sees it.
    pub reply: Reply,
    /// Becomes `true` when it, and all that came before, is in the store; `None` for what is not stored.
    pub stored: Option<oneshot::Receiver<bool>>,
}

/// Why a command was not carried out.
#[derive(Debug, PartialEq, Eq)]
pub enum AskError {
    /// The registry refused it.
    Refused(Refused),
    /// The queue is full, or the registrar is gone.
    Busy,
}

/// Asks the registrar. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    queue: mpsc::Sender<Envelope>,
    metrics: Arc<Metrics>,
    leases: Arc<Mutex<LeaseFigures>>,
}

impl Handle {
    /// Has a command carried out and waits for what came of it.
    ///
    /// # Errors
    /// [`AskError`]; then nothing has changed.
    pub async fn ask(&self, command: Command) -> Result<Applied, AskError> {
        let (reply, answer) = oneshot::channel();
        self.send(command, Some(reply))?;
        answer.await.map_err(|_| AskError::Busy)?.map_err(AskError::Refused)
    }

    /// Has a command carried out some time soon.
    ///
    /// # Errors
    /// [`AskError::Busy`].
    pub fn tell(&self, command: Command) -> Result<(), AskError> {
        self.send(command, None)
    }

    /// Has a command carried out some time soon, waiting for a place in the queue for as long as `wanted` says so. Not for
    /// async code. Tells whether it found one.
    pub fn deliver(&self, command: Command, wanted: impl Fn() -> bool) -> bool {
        self.queue_up(Envelope { command, now: clock::now(), reply: None }, &wanted)
    }

    fn queue_up(&self, mut envelope: Envelope, wanted: &impl Fn() -> bool) -> bool {
        loop {
            match self.queue.try_send(envelope) {
                Ok(()) => return true,
                Err(TrySendError::Full(back)) if wanted() => envelope = back,
                Err(_) => return false,
            }
            self.metrics.limit_hit("registrar_queue");
            std::thread::sleep(GLANCE);
        }
    }

    /// Like [`deliver`](Self::deliver), and waits until it is done and what the registry wants for it is in the outbox. Tells
    /// whether that was so.
    pub fn carry_out(&self, command: Command, wanted: impl Fn() -> bool) -> bool {
        let (reply, mut answer) = oneshot::channel();
        let envelope = Envelope { command, now: clock::now(), reply: Some(reply) };
        if !self.queue_up(envelope, &wanted) {
            return false;
        }
        while wanted() {
            match answer.try_recv() {
                Ok(result) => return result.is_ok(),
                Err(oneshot::error::TryRecvError::Closed) => return false,
                Err(oneshot::error::TryRecvError::Empty) => std::thread::sleep(GLANCE),
            }
        }
        false
    }

    /// How the leases are, without asking the registrar.
    #[must_use]
    pub fn leases(&self) -> LeaseFigures {
        *self.leases.lock()
    }

    fn send(&self, command: Command, reply: Option<oneshot::Sender<Result<Applied, Refused>>>) -> Result<(), AskError> {
        let envelope = Envelope { command, now: clock::now(), reply };
        self.queue.try_send(envelope).map_err(|_| {
            self.metrics.limit_hit("registrar_queue");
            AskError::Busy
        })
    }
}

/// The registrar before and while it runs.
pub struct Registrar {
    registry: Registry,
    table: Arc<Table>,
    hung: Hung,
    board: Arc<NoticeBoard>,
    outbox: Arc<Outbox>,
    resolver: Arc<Resolver>,
    queue: mpsc::Receiver<Envelope>,
    /// What [`Handle::leases`] reads.
    leases: Arc<Mutex<LeaseFigures>>,
    /// To whoever probes held instances.
    probes: Option<mpsc::Sender<Probe>>,
    retired: Retired,
}

impl Registrar {
    /// A registrar over `registry`, and the handle to ask it. `queue` is how many commands may wait.
    #[must_use]
    pub fn new(
        registry: Registry,
        table: Arc<Table>,
        hung: Hung,
        board: Arc<NoticeBoard>,
        outbox: Arc<Outbox>,
        resolver: Arc<Resolver>,
        queue: usize,
    ) -> (Self, Handle) {
        let (sender, receiver) = mpsc::channel(queue.max(1));
        let leases = Arc::<Mutex<LeaseFigures>>::default();
        let handle = Handle { queue: sender, metrics: hung.metrics.clone(), leases: leases.clone() };
        let (probes, retired) = (None, Retired::default());
        (Self { registry, table, hung, board, outbox, resolver, queue: receiver, leases, probes, retired }, handle)
    }

    /// The probes that the registry asks for, from now on. It never has more of them under way than fit.
    #[must_use]
    pub fn probes(&mut self) -> mpsc::Receiver<Probe> {
        let (sender, receiver) = mpsc::channel(Protection::default().probes_max);
        self.probes = Some(sender);
        receiver
    }

    /// Carries out commands at once, before anything else runs: how the state is restored at start-up.
    pub fn restore(&mut self, commands: impl Iterator<Item = Command>) {
        for command in commands {
            if let Err(refused) = self.registry.apply(command, clock::now()) {
                tracing::warn!(?refused, "a stored registration was refused");
            }
        }
        self.settle(Vec::new());
    }

    /// Runs until the last handle is gone, or `stop` completes.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let tick = clock::mono().plus(TICK);
            let deadline = self.registry.next_deadline().map_or(tick, |deadline| deadline.min(tick));
            tokio::select! {
                biased;
                () = &mut stop => break,
                count = self.queue.recv_many(&mut batch, BATCH) => if count == 0 { break },
                () = tokio::time::sleep_until(clock::timer(deadline)) => {}
            }
            self.hung.metrics.registrar_queue.set(i64::try_from(self.queue.len()).unwrap_or(i64::MAX));
            self.work(&mut batch);
        }
    }

    /// Shows how the leases are, when that has changed.
    fn show_leases(&self) {
        let figures = self.registry.lease_figures();
        let mut shown = self.leases.lock();
        if *shown != figures {
            (shown.graves_dropped..figures.graves_dropped).for_each(|_| self.hung.metrics.limit_hit("graves"));
            *shown = figures;
            self.hung.metrics.leases_stale.set(i64::try_from(figures.stale).unwrap_or(i64::MAX));
            self.hung.metrics.leases_held.set(i64::try_from(figures.held).unwrap_or(i64::MAX));
            self.hung.metrics.instances_silent.set(i64::try_from(figures.silent).unwrap_or(i64::MAX));
        }
    }

    fn ask(&self, probe: Probe) {
        // Probes are asked for again when no answer comes.
        if let Some(Err(_)) = self.probes.as_ref().map(|probes| probes.try_send(probe)) {
            self.hung.metrics.limit_hit("held_probes");
        }
    }

    fn work(&mut self, batch: &mut Vec<Envelope>) {
        let mut open = Vec::with_capacity(batch.len());
        let mut until = clock::mono();
        let last = batch.last().map(|envelope| envelope.now.mono);
        for Envelope { command, now, reply } in batch.drain(..) {
            // Leases are judged by when a heartbeat arrived, not by when its turn came.
            let result = self.registry.apply(command, now);
            open.push(Open { reply, result, since: now.mono });
        }
        // A heartbeat that still waits for its turn may have arrived in time: lapse only what was due before it.
        if let (Some(last), false) = (last, self.queue.is_empty()) {
            until = last;
        }
        self.registry.expire(until);
        self.settle(open);
    }

    /// Publishes what changed, then passes on effects and replies.
    fn settle(&mut self, open: Vec<Open>) {
        let is_news = publish::publish(&self.table, &mut self.registry, &self.hung, &self.board, &mut self.retired);
        self.show_leases();
        let visible = clock::mono();
        let mut work = Work::default();
        for effect in self.registry.drain() {
            match effect {
                Effect::Tell(news) => event::tell(&self.hung.metrics, &news),
                Effect::WantName(host) => self.resolver.want(host),
                Effect::DropName(host) => self.resolver.forget(&host),
                Effect::Probe(probe) => self.ask(probe),
                Effect::Persist(stored) => work.changes.push(Change::Put(stored)),
                Effect::Forget(gone) => work.changes.push(Change::Gone(gone)),
                Effect::Renewal { stored, is_urgent } => work.renewals.push((stored, is_urgent)),
                Effect::Fetch { service, id } => work.fetches.push((service, id)),
            }
        }
        let mut answers = Vec::with_capacity(open.len());
        for Open { reply, result, since } in open {
            if is_news && matches!(result, Ok(Reply::Registered { .. } | Reply::Deregistered(_))) {
                self.hung.metrics.propagation_local.observe(visible.since(since).as_secs_f64());
            }
            let Some(reply) = reply else {
                if let Err(Refused::Full(what)) = &result {
                    self.hung.metrics.limit_hit("merge");
                    tracing::warn!(what, "a registration at another replica is not taken in: a limit is reached here");
                }
                continue;
            };
            let answer = result.map(|result| {
                // Whoever removes what is removed already waits, too: the removal may still be on its way to the store.
                let stored = matches!(result, Reply::Registered { .. } | Reply::Deregistered(_)).then(oneshot::channel);
                let stored = stored.map(|(sender, receiver)| {
                    work.waiting.push(sender);
                    receiver
                });
                Applied { reply: result, stored }
            });
            answers.push((reply, answer));
        }
        self.outbox.put(work);
        for (reply, answer) in answers {
            // A client that no longer waits has still been served.
            let _ = reply.send(answer);
        }
        self.retired.free();
    }
}

/// A command that was carried out and waits for its reply.
struct Open {
    reply: Option<oneshot::Sender<Result<Applied, Refused>>>,
    result: Result<Reply, Refused>,
    since: Moment,
}
