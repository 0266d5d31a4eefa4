//! The registry's changes, followed without a gap.
//!
//! When a connection breaks, the stream goes on after the last event that was read; where the registry cannot do that (another
//! process, or too long ago), the whole list is read instead.

use super::changes::Change;
use super::events::Events;
use super::failure::Failure;
use super::reply::Reply;
use crate::random::random;
use serde_json::value::RawValue;
use std::sync::mpsc::{SendError, SyncSender};
use std::time::Duration;
use vertice_api::paths;
use vertice_client::{ByteStream, RegistryClient, RegistryError};
use vertice_core::backoff::Backoff;

/// What is followed, and where.
pub(super) struct Scope {
    /// The registries.
    pub(super) client: RegistryClient,
    /// Only this service.
    pub(super) service: Option<String>,
}

/// All services in scope at one time.
pub(super) struct List {
    /// The services.
    pub(super) services: Vec<Listed>,
    /// The time, as the registry counts it.
    pub(super) index: u64,
}

/// A service as it stands in a list.
pub(super) struct Listed {
    /// Its JSON.
    pub(super) text: String,
    /// Its meaning.
    pub(super) change: Change,
}

/// What the stream has to say.
pub(super) enum Notice {
    /// A service has changed: its JSON.
    Change(String),
    /// Changes may have been missed; this is the present state.
    List(Vec<Listed>),
    /// The stream of this registry is open.
    Connected(String),
    /// It is not; a new attempt follows.
    Lost(String),
    /// It cannot be had.
    End(Failure),
    /// Nobody reads our output any more.
    ReaderGone,
}

impl Scope {
    /// What there is now.
    pub(super) fn list(&self) -> Result<List, Failure> {
        let answer = match &self.service {
            Some(service) => self.client.get(&paths::service(service)),
            None => self.client.get(&paths::services_detailed(&[])),
        };
        let (url, index) = match &answer {
            Ok(answer) => (answer.url.clone(), answer.index),
            Err(_) => (String::new(), None),
        };
        // A service may be watched before it exists.
        let is_absent = self.service.is_some() && answer.as_ref().is_ok_and(|answer| answer.status == 404);
        let services = if is_absent { Vec::new() } else { self.read(&Reply::new(DOING, answer)?)? };
        let no_index = || format!("the registry at {url} tells no index; it is too old to be watched");
        let index = index.ok_or_else(|| Failure::Call { doing: DOING.to_owned(), cause: no_index() })?;
        Ok(List { services, index })
    }

    fn read(&self, reply: &Reply) -> Result<Vec<Listed>, Failure> {
        let texts: Vec<&RawValue> = if self.service.is_some() { vec![reply.read()?] } else { reply.read()? };
        let listed = |text: &RawValue| Ok(Listed { text: text.get().to_owned(), change: Change::read(text.get())? });
        texts.into_iter().map(listed).collect::<serde_json::Result<_>>().map_err(|error| reply.unreadable(&error.to_string()))
    }

    fn path(&self) -> String {
        self.service.as_deref().map_or_else(|| paths::SERVICES.to_owned(), paths::service)
    }
}

/// Follows the changes after `index` until nobody wants to know them any more, or the registry refuses.
pub(super) fn follow(scope: &Scope, index: u64, notices: &SyncSender<Notice>) {
    let mut position = Position { index, failures: 0 };
    let mut was_open = false;
    loop {
        let ended = match scope.client.listen(&scope.path(), Some(position.index)) {
            Ok(stream) => {
                was_open = true;
                position.pump(scope, stream, notices)
            }
            Err(error) if !was_open || is_refusal(&error) => {
                // A listener that is gone needs no answer.
                let _ = notices.send(Notice::End(Failure::call(DOING, &error)));
                return;
            }
            Err(error) => Ok(End::Lost(error.to_string())),
        };
        let told = ended.and_then(|end| match end {
            End::Lost(cause) => notices.send(Notice::Lost(cause)),
            End::Renewed => Ok(()),
        });
        if told.is_err() {
            return;
        }
        position.failures = position.failures.saturating_add(1);
        std::thread::sleep(BACKOFF.wait(position.failures, random()));
    }
}

const DOING: &str = "watch";
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(5) };
const CHANGE: &str = "change";
const RESET: &str = "reset";

fn is_refusal(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Refused { status: 400..=499, .. })
}

/// Why a stream has no more events.
enum End {
    /// This happened.
    Lost(String),
    /// It could not go on from where we were; the list was read, and the next stream goes on from there.
    Renewed,
}

/// The listener is gone.
type Gone = SendError<Notice>;

struct Position {
    /// Everything up to here is known.
    index: u64,
    /// Attempts in a row that told nothing.
    failures: u32,
}

impl Position {
    /// Passes the events on, and says why there are no more.
    fn pump(&mut self, scope: &Scope, stream: ByteStream, notices: &SyncSender<Notice>) -> Result<End, Gone> {
        let url = stream.url.clone();
        notices.send(Notice::Connected(url.clone()))?;
        let mut events = Events::new(stream);
        loop {
            let event = match events.next() {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(End::Lost(format!("{url} has ended the stream"))),
                Err(error) => return Ok(End::Lost(format!("the stream from {url} broke: {error}"))),
            };
            self.failures = 0;
            if event.name == RESET {
                return self.renew(scope, notices);
            }
            self.index = event.id.unwrap_or(self.index);
            if event.name == CHANGE {
                notices.send(Notice::Change(event.data))?;
            }
        }
    }
    /// Everything would follow once more on the stream, but without telling where it ends. The list has an end.
    fn renew(&mut self, scope: &Scope, notices: &SyncSender<Notice>) -> Result<End, Gone> {
        match scope.list() {
            Ok(list) => {
                self.index = list.index;
                notices.send(Notice::List(list.services))?;
                Ok(End::Renewed)
            }
            Err(Failure::Call { cause, .. }) => Ok(End::Lost(cause)),
            Err(failure) => Ok(End::Lost(failure.to_string())),
        }
    }
}
