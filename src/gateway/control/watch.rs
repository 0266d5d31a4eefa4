//! `GET /services` and `GET /services/{name}` that wait: `?watch=<index>&wait=30s`, or a stream of events.

use super::error::Error;
use super::events::EventStream;
use super::lookup::{self, Filter};
use super::renderings::What;
use super::{Answer, Call, Caller, Control, Made, query};
use crate::clock;
use crate::noticeboard::{Kind, Watcher};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header, request::Parts};
use std::sync::Arc;
use std::time::Duration;
use vertice_api::{FieldError, headers, paths};
use vertice_core::changelog::Since;
use vertice_core::name::ServiceName;
use vertice_core::reason::Reason;

/// How long a watch waits that does not say.
const WAIT: Duration = Duration::from_secs(30);
/// How long a watch may wait.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// How watches are called in `registry_operations_total`.
pub(super) const OPERATION: &str = "watch";

/// What becomes of a request.
#[derive(Debug)]
pub enum Outcome {
    /// It is answered.
    Answer(Response<Bytes>),
    /// It is answered later.
    LongPoll(Box<LongPoll>),
    /// It is answered bit by bit. The response has no body yet.
    Stream(Response<()>, Box<EventStream>),
}

/// What is watched.
#[derive(Clone, Debug)]
pub(super) enum Subject {
    /// The services that the filter accepts.
    All {
        /// Objects instead of names.
        detail: bool,
        /// Which.
        filter: Filter,
    },
    /// One service, there or not.
    One(ServiceName),
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Not at all.
    Now,
    LongPoll {
        index: u64,
        wait: Duration,
    },
    /// Follow the changes after that index, or from now on.
    Stream {
        index: Option<u64>,
    },
}

/// Whether a request asks for a watch, right or wrong.
pub(super) fn is_watch(made: Made<'_>, parts: &Parts) -> bool {
    let query = parts.uri.query().unwrap_or_default();
    matches!(made.entry.call, Call::Services | Call::Service)
        && made.entry.allows(&parts.method)
        && (query::value(query, paths::query::WATCH).is_some() || prefers_events(&parts.headers))
}

/// Starts a watch; `None` when the request is none.
pub(super) fn begin(control: &Arc<Control>, made: Made<'_>, parts: &Parts, caller: &Caller) -> Result<Option<Outcome>, Error> {
    let Made { entry, name } = made;
    let (Call::Services | Call::Service) = entry.call else { return Ok(None) };
    if !entry.allows(&parts.method) {
        return Ok(None);
    }
    let params = parts.uri.query().unwrap_or_default();
    let mut errors = Vec::new();
    let mode = Mode::read(params, &parts.headers, &mut errors);
    let filter = if entry.call == Call::Services { Filter::read(params, &mut errors) } else { Filter::default() };
    if !errors.is_empty() {
        return Err(Error::fields(errors));
    }
    let Some(kind) = mode.kind() else { return Ok(None) };
    let (subject, service) = match entry.call {
        Call::Service => {
            let index = control.table.load().generation();
            // What is no name will never be there.
            let name = ServiceName::parse(name).map_err(|_| Error::not_found(name, index))?;
            (Subject::One(name.clone()), Some(name))
        }
        _ => (Subject::All { detail: query::is_on(params, paths::query::DETAIL), filter }, None),
    };
    if kind == Kind::Stream && control.is_draining() {
        return Err(Error::new(Reason::Draining, "The gateway is shutting down."));
    }
    let watcher = control.board.watch(service, kind);
    let watcher = watcher.ok_or_else(|| Error::new(Reason::Overloaded, "Too many clients watch the registry; try again."))?;
    let control = control.clone();
    Ok(match mode {
        Mode::Now => None,
        Mode::LongPoll { index, wait } => {
            let caller = caller.clone();
            Some(Outcome::LongPoll(Box::new(LongPoll { control, watcher, subject, index, wait, caller })))
        }
        Mode::Stream { index } => {
            let (index, is_known) = match index {
                None => (control.board.head(), true),
                Some(index) if control.board.is_ours(index) => (index, true),
                Some(_) => (control.board.first(), false),
            };
            let events = EventStream::new(control, watcher, subject, index, is_known);
            Some(Outcome::Stream(stream_head(index), Box::new(events)))
        }
    })
}

fn stream_head(index: u64) -> Response<()> {
    let mut response = Response::new(());
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(headers::EVENT_STREAM));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would hold events back until its buffer is full.
    fields.insert("x-accel-buffering", HeaderValue::from_static("no"));
    fields.insert(lookup::INDEX, HeaderValue::from(index));
    response
}

impl Mode {
    const fn kind(self) -> Option<Kind> {
        match self {
            Self::Now => None,
            Self::LongPoll { .. } => Some(Kind::LongPoll),
            Self::Stream { .. } => Some(Kind::Stream),
        }
    }

    fn read(params: &str, fields: &HeaderMap, errors: &mut Vec<FieldError>) -> Self {
        let index = query::read(params, paths::query::WATCH, errors, index);
        let wait = query::read(params, paths::query::WAIT, errors, |text| query::duration(text, WAIT_MAX));
        if !prefers_events(fields) {
            let wait = wait.unwrap_or(WAIT);
            return index.map_or(Self::Now, |index| Self::LongPoll { index, wait });
        }
        if index.is_some() {
            let rule = "is for answers that wait; a stream of events goes on after Last-Event-ID";
            errors.push(FieldError::new(paths::query::WATCH, rule));
        }
        Self::Stream { index: last_event_id(params, fields, errors) }
    }
}

/// The header wins: a browser that reconnects sends it beside the parameter it first came with.
fn last_event_id(params: &str, fields: &HeaderMap, errors: &mut Vec<FieldError>) -> Option<u64> {
    let Some(value) = fields.get(headers::LAST_EVENT_ID) else {
        return query::read(params, paths::query::LAST_EVENT_ID, errors, index);
    };
    let read = value.to_str().map_err(|_| INDEX_RULE).and_then(index);
    read.map_err(|rule| errors.push(FieldError::new(headers::LAST_EVENT_ID, rule))).ok()
}

const INDEX_RULE: &str = "must be an index: a whole number, as in X-Vertice-Index";

fn index(text: &str) -> Result<u64, &'static str> {
    let is_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // One that is too large for us was not issued by us, and is answered like any other that was not.
    if is_digits { Ok(text.parse().unwrap_or(u64::MAX)) } else { Err(INDEX_RULE) }
}

/// Whether the client would rather have events than JSON.
fn prefers_events(fields: &HeaderMap) -> bool {
    let (mut events, mut other) = (0.0_f32, 0.0_f32);
    for value in fields.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            let quality = quality.map_or(1.0, |text| text.parse().unwrap_or(0.0));
            match media.as_str() {
                headers::EVENT_STREAM => events = events.max(quality),
                headers::JSON | "application/*" | "*/*" => other = other.max(quality),
                _ => {}
            }
        }
    }
    events > 0.0 && events >= other
}

/// An answer that waits for a change.
#[derive(Debug)]
pub struct LongPoll {
    control: Arc<Control>,
    watcher: Watcher,
    subject: Subject,
    index: u64,
    wait: Duration,
    caller: Caller,
}

impl LongPoll {
    /// Waits for a change, the end of the wait, or of the process; then answers with the state as it is.
    pub async fn answer(mut self: Box<Self>) -> Response<Bytes> {
        self.wait().await;
        let started = clock::mono();
        let answer = match &self.subject {
            Subject::All { detail, filter } => list(&self.control, *detail, filter).await,
            Subject::One(name) => service(&self.control, name).await,
        };
        self.control.conclude(OPERATION, answer, started, &self.caller)
    }

    async fn wait(&mut self) {
        let mut draining = self.control.draining.clone();
        let end = clock::timer(clock::mono().plus(self.wait));
        loop {
            self.watcher.look();
            if !self.is_unchanged() {
                return;
            }
            tokio::select! {
                () = self.watcher.news() => {}
                _ = draining.wait_for(|is_draining| *is_draining) => return,
                () = tokio::time::sleep_until(end) => return,
            }
        }
    }

    fn is_unchanged(&self) -> bool {
        let board = &self.control.board;
        let Subject::One(name) = &self.subject else { return board.since(self.index, 1) == Since::Nothing };
        let table = self.control.table.load();
        match lookup::listed(&table, name.as_str()) {
            Some(service) => board.is_ours(self.index) && service.changed_at <= self.index,
            None => board.is_unchanged_since(name, self.index),
        }
    }
}

/// As [`lookup::list`], rendered once for all who ask for the same.
async fn list(control: &Control, detail: bool, filter: &Filter) -> Answer {
    let table = control.table.load_full();
    let index = table.generation();
    let (what, size) = (What::List { detail, filter: filter.clone() }, table.len());
    let filter = filter.clone();
    let make = move || lookup::list_body(&table, detail, &filter);
    let body = control.renderings.get(what, index, size, make).await?;
    Ok(lookup::with_index(body, index))
}

/// As [`lookup::service`], rendered once for all who ask for the same.
async fn service(control: &Control, name: &ServiceName) -> Answer {
    let table = control.table.load_full();
    let index = table.generation();
    let service = lookup::listed(&table, name.as_str()).ok_or_else(|| Error::not_found(name.as_str(), index))?.clone();
    let size = service.instances.len();
    let make = move || lookup::service_body(&service, index, &Filter::default());
    let body = control.renderings.get(What::Service(name.clone()), index, size, make).await?;
    Ok(lookup::with_index(body, index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: &'static str, value: &'static str) -> HeaderMap {
        [(http::HeaderName::from_static(name), HeaderValue::from_static(value))].into_iter().collect()
    }

    #[test]
    fn events_are_for_those_who_prefer_them() {
        for accept in
            ["text/event-stream", "Text/Event-Stream", "text/event-stream, */*", "application/json;q=0.5, text/event-stream"]
        {
            assert!(prefers_events(&fields("accept", accept)), "{accept}");
        }
        for accept in
            ["", "*/*", "text/*", "application/json", "text/event-stream;q=0", "application/json, text/event-stream; q=0.9"]
        {
            assert!(!prefers_events(&fields("accept", accept)), "{accept}");
        }
        assert!(!prefers_events(&HeaderMap::new()));
    }

    #[test]
    fn modes_and_mistakes() {
        let read = |params: &str, fields: &HeaderMap| {
            let mut errors = Vec::new();
            let mode = Mode::read(params, fields, &mut errors);
            let wrong: Vec<String> = errors.into_iter().map(|error| error.field).collect();
            if wrong.is_empty() { Ok(mode) } else { Err(wrong.join(" ")) }
        };
        let none = HeaderMap::new();
        let poll = |index, wait| Ok(Mode::LongPoll { index, wait: Duration::from_secs(wait) });
        assert_eq!(read("", &none), Ok(Mode::Now));
        assert_eq!(read("wait=5s", &none), Ok(Mode::Now));
        assert_eq!(read("watch=7", &none), poll(7, 30));
        assert_eq!(read("watch=7&wait=10m", &none), poll(7, 600));
        assert_eq!(read("watch=99999999999999999999999", &none), poll(u64::MAX, 30));
        for (params, wrong) in [
            ("watch=", "watch"),
            ("watch=-1", "watch"),
            ("watch=%2B1", "watch"),
            ("watch=1.5", "watch"),
            ("watch=1&wait=11m", "wait"),
            ("wait=-1s", "wait"),
            ("watch=x&wait=y", "watch wait"),
        ] {
            assert_eq!(read(params, &none), Err(wrong.to_owned()), "{params}");
        }
        let events = fields("accept", "text/event-stream");
        let stream = |index| Ok(Mode::Stream { index });
        assert_eq!(read("", &events), stream(None));
        assert_eq!(read("last_event_id=7", &events), stream(Some(7)));
        assert_eq!(read("last_event_id=x", &events), Err("last_event_id".to_owned()));
        assert_eq!(read("watch=7", &events), Err("watch".to_owned()));
        let resumed = |id: &'static str| {
            events.clone().into_iter().chain(fields("last-event-id", id)).filter_map(|(n, v)| Some((n?, v))).collect()
        };
        assert_eq!(read("last_event_id=7", &resumed("8")), stream(Some(8)));
        for garbage in ["", "x", "-1", "0x10", "1 2"] {
            assert_eq!(read("", &resumed(garbage)), Err("Last-Event-ID".to_owned()), "{garbage:?}");
        }
    }
}
