//! Follows a registry, as a pure state machine.
//!
//! ```text
//!            ┌──────── nobody asks: Sleep ────────┐
//! Connecting ──watch opened──▶ Watching           │  Read a frame, Lookup what is new or may have been missed
//!     ▲   └───no watch here──▶ Polling            │  Lookup each service now and then, try the watch again later
//!     │                           │               │
//!     └──── the pause is over ── Away ◀── failed ─┘  Sleep 1→2→4…→30 s; a new question is one try
//! ```
//!
//! One [`Event`] and the time go in, one [`Action`] comes out; its result is the next event.
//!
//! **What keeps the cache right?** A lookup and the watch's events are believed in the order in which they arrive. Both come
//! over the same wire from the same writer, so what arrives later is at least as new. The watch is opened where the last one
//! ended; where that cannot be ([`Frame::Event`] `reset`: another process, or too long ago) every service is looked up again
//! *after* the watch has been opened, so nothing falls between the two. Indices are never compared: behind a load balancer
//! the lookup and the watch may be answered by two processes whose indices have nothing to do with each other. What even
//! that misses, a lookup of each service every five minutes finds.
//!
//! **Invariant:** no I/O, no clock, no randomness in this file: the time since the start and a seed are arguments.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use vertice_api::ServiceInfo;
use vertice_core::backoff::Backoff;
use vertice_core::name::ServiceName;
use vertice_core::seed;

use super::cache::{Answer, Cache};
use super::frames::Frame;

/// What following is like. Any value is fine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How many services are kept in mind (at least 1).
    pub services_max: usize,
    /// Time from one lookup of a service to the next where the registry cannot be watched.
    pub poll_interval: Duration,
    /// Knowledge that was confirmed longer ago counts as stale.
    pub stale_after: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { services_max: 1000, poll_interval: Duration::from_secs(10), stale_after: Duration::from_secs(45) }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The start, the time of [`Action::Sleep`] has come, or somebody asked something.
    Tick,
    /// [`Action::Lookup`] was answered; `None`: no such service.
    LookedUp(ServiceName, Option<Box<ServiceInfo>>),
    /// [`Action::Lookup`] was answered with a refusal, or with something unreadable.
    LookupRefused(ServiceName, String),
    /// [`Action::Lookup`]: no registry could be reached.
    Unreachable(String),
    /// [`Action::Open`] worked.
    Opened,
    /// [`Action::Open`] was answered with something that is no watch.
    NoWatch {
        /// Whether that may be different soon.
        overloaded: bool,
    },
    /// [`Action::Open`]: no registry could be reached.
    OpenFailed(String),
    /// [`Action::Read`] found a frame.
    Read(Frame),
    /// [`Action::Read`] found an event that is too long to be read.
    Unreadable(String),
    /// [`Action::Read`] found the end of the watch.
    Ended(String),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look this service up; an open watch stays open.
    Lookup(ServiceName),
    /// Open a watch that tells all changes after this index, or from now on.
    Open(Option<u64>),
    /// Wait for the next frame of the watch.
    Read,
    /// Nothing until this time since the start, or until somebody asks something.
    Sleep(Option<Duration>),
}

/// How things are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing was asked yet, or the first answer is under way.
    #[default]
    Connecting,
    /// Changes are heard of at once.
    Watching,
    /// The registry cannot be watched; it is asked every few seconds.
    Polling,
    /// No registry can be reached, and why.
    Away(Arc<str>),
}

/// The state machine, and the cache it keeps right.
#[derive(Debug)]
pub struct Follower {
    pace: Pace,
    seed: u64,
    cache: Cache,
    phase: Phase,
    /// Where the watch has to go on.
    position: Option<u64>,
    /// Failures in a row.
    failures: u32,
    last_failure: Option<(Duration, Arc<str>)>,
    last_reset: Option<Duration>,
    /// The watch was ended by ourselves, because there is something to look up.
    interrupted: bool,
}

#[derive(Clone, Debug)]
enum Phase {
    Connecting,
    Watching {
        since: Duration,
        /// Whether anything has come through.
        heard: bool,
    },
    Polling {
        until: Duration,
    },
    Away {
        until: Duration,
    },
}

impl Follower {
    /// A follower that knows nothing yet; the first event is [`Event::Tick`]. The seed only spreads retries.
    #[must_use]
    pub fn new(pace: Pace, seed: u64) -> Self {
        Self {
            pace,
            seed,
            cache: Cache::new(pace.services_max, pace.stale_after),
            phase: Phase::Connecting,
            position: None,
            failures: 0,
            last_failure: None,
            last_reset: None,
            interrupted: false,
        }
    }

    /// Somebody asks. True with [`Answer::Awaited`] when that is news: a sleeping driver is to be woken by [`Event::Tick`], and
    /// one that waits for a frame to be interrupted after [`Follower::interrupt`].
    pub fn ask(&mut self, name: &ServiceName, now: Duration) -> (Answer, bool) {
        let (answer, _) = self.cache.look(name, now);
        let again = match &answer {
            Answer::Unasked => true,
            Answer::Failed(_) => self.cache.failed_at(name).is_none_or(|at| now >= at.saturating_add(RETRY_WHEN_ASKED)),
            _ => false,
        };
        if !again {
            return (answer, false);
        }
        if !self.cache.want(name, now) {
            return (Answer::Failed(Arc::from("too many services are being looked up at the same time")), false);
        }
        if let Some(cause) = self.failed_just_now(now) {
            // It is kept in mind, and looked up when the registry is back.
            self.cache.failed(name, &cause, now);
            return (Answer::Failed(cause), false);
        }
        (Answer::Awaited, true)
    }

    /// What is known, and the revision of that. Asks nobody.
    pub fn look(&mut self, name: &ServiceName, now: Duration) -> (Answer, u64) {
        self.cache.look(name, now)
    }

    /// The watch will be ended by the driver itself.
    pub const fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// There will be no [`Action`] any more, or not for now: whoever waits for a first answer gets none.
    pub fn give_up(&mut self, cause: &str, now: Duration) {
        self.cache.all_failed(&cause.into(), now);
        (self.phase, self.interrupted) = (Phase::Connecting, false);
    }

    /// Whether anybody could want to hear of what happened since the last call.
    pub fn take_news(&mut self) -> bool {
        self.cache.take_news()
    }

    /// How things are.
    #[must_use]
    pub fn state(&self) -> State {
        match (&self.phase, &self.last_failure) {
            (Phase::Watching { .. }, _) => State::Watching,
            (Phase::Polling { .. }, _) => State::Polling,
            (_, Some((_, cause))) if self.failures > 0 => State::Away(Arc::clone(cause)),
            _ => State::Connecting,
        }
    }

    /// Takes what happened at `now` (time since the start) and says what to do.
    pub fn handle(&mut self, now: Duration, event: Event) -> Action {
        match event {
            Event::Tick => {}
            Event::LookedUp(name, info) => self.looked_up(&name, info, now),
            Event::LookupRefused(name, cause) => {
                self.cache.failed(&name, &cause.into(), now);
                self.cache.next_lookup(&name, now.saturating_add(REFUSED_PAUSE));
            }
            Event::Unreachable(cause) => self.unreachable(cause, now),
            Event::Opened => self.opened(now),
            Event::NoWatch { overloaded } => self.no_watch(overloaded, now),
            Event::OpenFailed(cause) => self.away(cause, now),
            Event::Read(frame) => self.read(frame, now),
            Event::Unreadable(cause) => {
                self.position = None;
                self.away(cause, now);
            }
            Event::Ended(cause) => self.ended(cause, now),
        }
        self.next(now)
    }

    fn looked_up(&mut self, name: &ServiceName, info: Option<Box<ServiceInfo>>, now: Duration) {
        let watching = matches!(self.phase, Phase::Watching { .. });
        let polling = matches!(self.phase, Phase::Polling { .. });
        if !watching && !polling {
            let index = info.as_ref().map(|info| info.index).filter(|&index| index > 0);
            if let (None, Some(index)) = (self.position, index) {
                // The watch can go on from here, but only for this service: what is known of others may be older. A wrong
                // guess (another process answers) makes it say `reset`.
                self.cache.unproven();
                self.position = Some(index);
            }
            self.phase = Phase::Connecting;
        }
        let live = watching || (!polling && self.position.is_some());
        self.cache.told(name, info.map(|info| *info), live, now);
        let pause = if polling { self.pace.poll_interval.max(POLL_MIN) } else { REFRESH };
        self.cache.next_lookup(name, now.saturating_add(pause));
    }

    fn unreachable(&mut self, cause: String, now: Duration) {
        let cause: Arc<str> = cause.into();
        self.cache.all_failed(&cause, now);
        match self.phase {
            // The watch is what tells whether the registry is there.
            Phase::Watching { .. } => {
                while let Some(name) = self.cache.due(now).cloned() {
                    self.cache.next_lookup(&name, now.saturating_add(REFUSED_PAUSE));
                }
            }
            // A try that somebody's question was worth: the pause goes on.
            Phase::Away { .. } => self.last_failure = Some((now, cause)),
            Phase::Connecting | Phase::Polling { .. } => self.away(cause, now),
        }
    }

    fn opened(&mut self, now: Duration) {
        self.phase = Phase::Watching { since: now, heard: false };
        self.interrupted = false;
        if self.position.is_none() {
            self.cache.unproven();
        }
    }

    fn no_watch(&mut self, overloaded: bool, now: Duration) {
        let pause = if overloaded { WATCH_AGAIN_SOON } else { WATCH_AGAIN };
        self.phase = Phase::Polling { until: now.saturating_add(pause) };
        (self.position, self.failures, self.interrupted) = (None, 0, false);
        self.cache.unproven();
    }

    fn read(&mut self, frame: Frame, now: Duration) {
        if let Phase::Watching { heard, .. } = &mut self.phase {
            *heard = true;
        }
        if let Frame::Event { kind, id, data } = frame {
            // An id that is no index cannot be gone on from; then the next watch starts afresh.
            let position = id.map(|id| id.parse().ok());
            match kind.as_str() {
                CHANGE if self.change(&data, now).is_some() => {}
                CHANGE | RESET => {
                    let again = self.last_reset.replace(now).is_some_and(|last| now < last.saturating_add(RESET_PAUSE));
                    self.cache.unproven();
                    if again {
                        self.position = None;
                        self.away("the watch was reset twice in a row", now);
                        return;
                    }
                }
                _ => {}
            }
            self.position = position.unwrap_or(self.position);
        }
        self.cache.proven(now);
    }

    /// `None` when the data is not what it should be.
    fn change(&mut self, data: &[u8], now: Duration) -> Option<()> {
        let data: Value = serde_json::from_slice(data).ok()?;
        let (name, deleted) = subject(&data)?;
        if self.cache.has(&name) {
            let info = if deleted { None } else { Some(serde_json::from_value(data).ok()?) };
            self.cache.told(&name, info, true, now);
            self.cache.next_lookup(&name, now.saturating_add(REFRESH));
        }
        Some(())
    }

    fn ended(&mut self, cause: String, now: Duration) {
        if std::mem::take(&mut self.interrupted) {
            self.phase = Phase::Connecting;
            return;
        }
        if let Phase::Watching { since, heard } = self.phase
            && now >= since.saturating_add(STEADY)
        {
            if !heard {
                // Somebody on the way keeps the events back.
                self.no_watch(false, now);
                return;
            }
            self.failures = 0;
        }
        self.away(cause, now);
    }

    fn away(&mut self, cause: impl Into<Arc<str>>, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        let wait = BACKOFF.wait(self.failures, self.seed ^ u64::from(self.failures));
        self.phase = Phase::Away { until: now.saturating_add(wait) };
        self.last_failure = Some((now, cause.into()));
        self.interrupted = false;
        self.seed = seed::mix(self.seed);
    }

    fn next(&mut self, now: Duration) -> Action {
        if self.cache.is_empty() {
            return Action::Sleep(None);
        }
        if matches!(self.phase, Phase::Away { until } if now >= until)
            || matches!(self.phase, Phase::Polling { until } if now >= until)
        {
            self.phase = Phase::Connecting;
        }
        let due = match self.phase {
            Phase::Connecting | Phase::Away { .. } => self.cache.wanted(),
            Phase::Watching { .. } | Phase::Polling { .. } => self.cache.due(now),
        };
        if let Some(name) = due {
            return Action::Lookup(name.clone());
        }
        match self.phase {
            Phase::Connecting => Action::Open(self.position),
            Phase::Watching { .. } => Action::Read,
            Phase::Polling { until } => Action::Sleep(Some(self.cache.next_due().unwrap_or(until).min(until))),
            Phase::Away { until } => Action::Sleep(Some(until)),
        }
    }

    /// The cause of a failure that is so fresh that another try would be the same.
    fn failed_just_now(&self, now: Duration) -> Option<Arc<str>> {
        let (at, cause) = self.last_failure.as_ref()?;
        let away = matches!(self.phase, Phase::Away { .. });
        (away && now < at.saturating_add(RETRY_WHEN_ASKED)).then(|| Arc::clone(cause))
    }
}

/// Whom an event is about, and whether it is gone.
fn subject(data: &Value) -> Option<(ServiceName, bool)> {
    let name = ServiceName::parse(data.get("service_name")?.as_str()?).ok()?;
    Some((name, data.get("deleted").and_then(Value::as_bool).unwrap_or(false)))
}

const CHANGE: &str = "change";
const RESET: &str = "reset";
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(30) };
/// While the registry is away, questions are worth one try in this time.
const RETRY_WHEN_ASKED: Duration = Duration::from_secs(1);
/// A registry that refuses one lookup is asked for the same no sooner.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// Each service is looked up this often even while it is watched.
const REFRESH: Duration = Duration::from_secs(300);
/// A watch that lasted this long counts as a success.
const STEADY: Duration = Duration::from_secs(10);
/// A second reset within this time means that something is wrong.
const RESET_PAUSE: Duration = Duration::from_secs(2);
const WATCH_AGAIN: Duration = Duration::from_secs(300);
const WATCH_AGAIN_SOON: Duration = Duration::from_secs(30);
const POLL_MIN: Duration = Duration::from_millis(10);

#[cfg(test)]
#[path = "follower_tests.rs"]
mod tests;
