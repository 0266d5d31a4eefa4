//! The registry's changes as server-sent events.
//!
//! A stream holds no queue, only the index it has come to: whoever writes it to the client asks for the next piece when the
//! last one is gone. So a slow reader costs nothing, sees the latest state of what changed meanwhile, and starts over when it
//! has fallen further behind than the log remembers.
//!
//! A client may leave after any event and resume from its id. Each id is therefore the index up to which the client knows
//! everything: events come in the order of changes, a full listing included, and `reset` has the id before all others.

use super::Control;
use super::error::Error;
use super::lookup::{self, Filter};
use super::renderings::{Roll, What};
use super::watch::Subject;
use crate::noticeboard::Watcher;
use crate::upstream::Service;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;
use vertice_core::changelog::Since;
use vertice_core::name::ServiceName;

/// Idle streams say something this often, so that nobody on the way takes them for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events in one piece.
const EVENTS_MAX: usize = 64;
/// Services of a listing that are looked at in one go.
const SERVICES_MAX: usize = 1024;
/// Once a piece has so many bytes, nothing is added to it.
const BYTES_MAX: usize = 64 * 1024;

/// A stream of events, for one client.
pub struct EventStream {
    control: Arc<Control>,
    watcher: Watcher,
    subject: Arc<Subject>,
    /// The client knows everything up to this index.
    cursor: u64,
    /// The last id it was sent.
    told: u64,
    step: Step,
}

/// What comes next.
enum Step {
    /// Where the stream begins; then, unless that is known, everything anew.
    Open { is_known: bool },
    /// The client shall forget what it knows.
    Reset,
    /// All services, from this one on, as they are; `upto` is the generation of the list.
    Listing { roll: Roll, at: usize, upto: u64 },
    /// Changes.
    Follow,
}

impl EventStream {
    /// A stream from `index` on; where what the client knows does not reach that far, it is told everything anew.
    pub(super) fn new(control: Arc<Control>, watcher: Watcher, subject: Subject, index: u64, is_known: bool) -> Self {
        Self { control, watcher, subject: Arc::new(subject), cursor: index, told: index, step: Step::Open { is_known } }
    }

    /// The next piece, as soon as there is one; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        let mut is_idle = false;
        loop {
            self.watcher.look();
            if self.control.is_draining() {
                return None;
            }
            let piece = match self.advance().await {
                Ok(piece) => piece,
                Err(error) => {
                    tracing::error!(error = error.detail, "a stream of events ends: an event could not be made");
                    return None;
                }
            };
            match piece {
                Piece::Ready(bytes) => return Some(bytes),
                // Much may have been looked at in vain.
                Piece::Again => tokio::task::yield_now().await,
                // Looked at once more first, so that the index is the present one.
                Piece::Wait if is_idle => return Some(self.keep_alive()),
                Piece::Wait => is_idle = self.idle().await,
            }
        }
    }

    async fn advance(&mut self) -> Result<Piece, Error> {
        match std::mem::replace(&mut self.step, Step::Follow) {
            Step::Open { is_known } => {
                self.step = if is_known { Step::Follow } else { Step::Reset };
                Ok(Piece::Ready(format!("id: {}\n\n", self.cursor).into()))
            }
            Step::Reset => self.reset().await,
            Step::Listing { roll, at, upto } => self.list(roll, at, upto).await,
            Step::Follow => self.follow().await,
        }
    }

    /// Waits for news; `true` when there was none for a while.
    async fn idle(&mut self) -> bool {
        let mut draining = self.control.draining.clone();
        tokio::select! {
            () = self.watcher.news() => false,
            _ = draining.wait_for(|is_draining| *is_draining) => false,
            () = tokio::time::sleep(KEEP_ALIVE) => true,
        }
    }

    /// With the index, if the client does not have it yet: what it would resume from would get too old otherwise.
    fn keep_alive(&mut self) -> Bytes {
        if self.told == self.cursor {
            return Bytes::from_static(b": keep-alive\n\n");
        }
        self.told = self.cursor;
        format!(": keep-alive\nid: {}\n\n", self.cursor).into()
    }

    async fn reset(&mut self) -> Result<Piece, Error> {
        let first = self.control.board.first();
        self.told = first;
        let mut batch = Batch::default();
        batch.add(format!("event: reset\nid: {first}\ndata: {{}}\n\n").into());
        self.count("reset");
        let head = self.control.board.head();
        let table = self.control.table.load_full();
        match &*self.subject.clone() {
            Subject::All { .. } => {
                let roll = self.control.renderings.roll(&table).await?;
                self.step = Step::Listing { roll, at: 0, upto: table.generation() };
            }
            Subject::One(name) => {
                self.cursor = head;
                if let Some(service) = lookup::listed(&table, name.as_str()) {
                    batch.add(self.change(service, &Filter::default()).await?);
                    self.told = service.changed_at;
                    self.cursor = head.max(self.told);
                }
            }
        }
        Ok(batch.into_piece())
    }

    async fn list(&mut self, roll: Roll, at: usize, upto: u64) -> Result<Piece, Error> {
        let subject = self.subject.clone();
        let Subject::All { filter, .. } = &*subject else { return Ok(Piece::Again) };
        let table = self.control.table.load_full();
        let mut batch = Batch::default();
        let mut next = at;
        while let Some((changed_at, name)) = roll.get(next).filter(|_| !batch.is_full() && next < at + SERVICES_MAX) {
            // What has changed since the list was made comes in its turn, when the list is through.
            let service = lookup::listed(&table, name.as_str()).filter(|service| service.changed_at == *changed_at);
            if let Some(service) = service.filter(|service| filter.accepts_any(service)) {
                batch.add(self.change(service, filter).await?);
                self.told = *changed_at;
            }
            next += 1;
        }
        if next < roll.len() {
            self.step = Step::Listing { roll, at: next, upto };
        } else {
            self.cursor = upto;
        }
        Ok(batch.into_piece())
    }

    async fn follow(&mut self) -> Result<Piece, Error> {
        match &*self.subject.clone() {
            Subject::All { filter, .. } => self.follow_all(filter).await,
            Subject::One(name) => self.follow_one(name).await,
        }
    }

    async fn follow_all(&mut self, filter: &Filter) -> Result<Piece, Error> {
        // Asked first: whatever changes from here on is found by the next look.
        let head = self.control.board.head();
        let changes = match self.control.board.since(self.cursor, EVENTS_MAX) {
            Since::Unknown => {
                self.step = Step::Reset;
                return Ok(Piece::Again);
            }
            Since::Nothing => {
                self.cursor = self.cursor.max(head);
                return Ok(Piece::Wait);
            }
            Since::Changes(changes) => changes,
        };
        let table = self.control.table.load_full();
        let mut batch = Batch::default();
        for (generation, name) in changes {
            if batch.is_full() {
                break;
            }
            match lookup::listed(&table, name.as_str()) {
                // It has changed again already, and is told of then.
                Some(service) if service.changed_at > generation => {}
                Some(service) if filter.accepts_any(service) => {
                    batch.add(self.change(service, filter).await?);
                    self.told = generation;
                }
                _ => {
                    batch.add(self.deleted(&name, generation));
                    self.told = generation;
                }
            }
            self.cursor = generation;
        }
        Ok(batch.into_piece())
    }

    async fn follow_one(&mut self, name: &ServiceName) -> Result<Piece, Error> {
        let head = self.control.board.head();
        let table = self.control.table.load_full();
        let piece = match lookup::listed(&table, name.as_str()) {
            Some(service) if service.changed_at > self.cursor => {
                self.cursor = service.changed_at;
                self.change(service, &Filter::default()).await?
            }
            Some(_) => return Ok(self.wait_from(head)),
            None => match self.control.board.changed_at(name).filter(|generation| *generation > self.cursor) {
                Some(generation) => {
                    self.cursor = generation;
                    self.deleted(name, generation)
                }
                None if self.control.board.is_unchanged_since(name, self.cursor) => return Ok(self.wait_from(head)),
                // Too long ago to tell whether it was ever there.
                None => {
                    self.step = Step::Reset;
                    return Ok(Piece::Again);
                }
            },
        };
        self.told = self.cursor;
        Ok(Piece::Ready(piece))
    }

    fn wait_from(&mut self, head: u64) -> Piece {
        self.cursor = self.cursor.max(head);
        Piece::Wait
    }

    async fn change(&self, service: &Arc<Service>, filter: &Filter) -> Result<Bytes, Error> {
        let (generation, size) = (service.changed_at, service.instances.len());
        let what = What::Event(service.name.clone(), filter.clone());
        let (service, filter) = (service.clone(), filter.clone());
        let make = move || lookup::service_body(&service, generation, &filter).map(|data| event(generation, &data));
        let bytes = self.control.renderings.get(what, generation, size, make).await?;
        self.count("change");
        Ok(bytes)
    }

    fn deleted(&self, name: &ServiceName, generation: u64) -> Bytes {
        self.count("deleted");
        let data = serde_json::json!({"service_name": name.as_str(), "deleted": true}).to_string();
        event(generation, data.as_bytes())
    }

    fn count(&self, event: &str) {
        self.control.metrics.watch_events.with_label_values(&[event]).inc();
    }
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").field("subject", &self.subject).field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

/// What a step comes to.
enum Piece {
    /// This is to be written.
    Ready(Bytes),
    /// Nothing to write; there is another step.
    Again,
    /// Nothing to write until something changes.
    Wait,
}

/// Events on their way into one piece.
#[derive(Default)]
struct Batch {
    events: Vec<Bytes>,
    len: usize,
}

impl Batch {
    fn add(&mut self, event: Bytes) {
        self.len += event.len();
        self.events.push(event);
    }

    fn is_full(&self) -> bool {
        self.len >= BYTES_MAX || self.events.len() >= EVENTS_MAX
    }

    /// A single event is passed on as it is, shared with whoever else gets it.
    fn into_piece(mut self) -> Piece {
        match self.events.len() {
            0 => Piece::Again,
            1 => self.events.pop().map_or(Piece::Again, Piece::Ready),
            _ => {
                let mut bytes = BytesMut::with_capacity(self.len);
                self.events.iter().for_each(|event| bytes.extend_from_slice(event));
                Piece::Ready(bytes.freeze())
            }
        }
    }
}

fn event(generation: u64, data: &[u8]) -> Bytes {
    let head = format!("event: change\nid: {generation}\ndata: ");
    [head.as_bytes(), data, b"\n\n"].concat().into()
}
