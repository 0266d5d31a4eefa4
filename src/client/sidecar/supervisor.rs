//! When the service is started, restarted, told to end and killed, as a pure state machine.
//!
//! ```text
//! Fresh ─▶ Running ──stop, or unhealthy too long──▶ Leaving ─▶ (Draining) ─▶ Ending ──nobody is left──▶ Done
//!            ▲  │ it died                          deregisters   in-flight     │
//!            │  └──────────────────────────────────────────────────────────▶  │ start it again
//!            └───────────────────────────────── Resting ◀─────────────────────┘
//!                                               backs off
//! ```
//!
//! One [`Event`] and the time go in, [`Action`]s come out, to be done in their order. [`Supervisor::wake_at`] says when the
//! next [`Event::Tick`] is due, if nothing else happens before.
//!
//! **Why wait for the whole process group?** A shell dies of a SIGTERM at once, while the server it started is still
//! answering. And a worker that outlives its master keeps the port, so that the next start would fail.
//!
//! **Why act on a probe and not on a timer?** A restart for bad health wants fresh evidence. While the registry is away,
//! probes are rare, and a service that has long recovered must not be killed for the last thing that was heard of it.
//!
//! **Invariant:** no I/O, no clock, no randomness in this file: the time since the start and a seed are arguments.

use std::fmt;
use std::time::Duration;

use signal_hook::consts::{SIGKILL, SIGTERM};
use signal_hook::low_level::signal_name;
use vertice_core::backoff::Backoff;
use vertice_core::seed;
use vertice_core::status::Status;

use crate::span::Seconds;

/// How a service is looked after. Any value is fine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which ends are followed by a new start.
    pub restart: Restart,
    /// Restarts in a row before giving up; 0 is no limit.
    pub restarts_max: u32,
    /// How long a service may be unhealthy before it is restarted; `None` is forever.
    pub unhealthy_max: Option<Duration>,
    /// How long a service that has never been ready does not count as unhealthy.
    pub start_max: Duration,
    /// From the signal that asks the service to end to the one that does not ask.
    pub stop_grace: Duration,
    /// From deregistration to the signal, for the requests that are already on their way.
    pub drain_wait: Duration,
}

/// Which ends of a service are followed by a new start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// All.
    Always,
    /// All but exit code 0.
    #[default]
    OnFailure,
    /// None.
    Never,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(u8),
    /// It died of this signal.
    Signal(i32),
}

impl Exit {
    /// What a shell makes of it: 128 is added to a signal.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "was ended by {name}"),
                None => write!(f, "was ended by signal {signal}"),
            },
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The start, or time has passed.
    Tick,
    /// [`Action::Start`] worked: the number of the process.
    Started(u32),
    /// [`Action::Start`] failed, and why.
    StartFailed(String),
    /// The process that was started has ended.
    Exited(Exit),
    /// It has ended, and nobody of its group is left either.
    Vacated,
    /// A health probe found the service so.
    Health(Status),
    /// [`Action::Deregister`] is done, or was given up.
    Deregistered,
    /// The end is wanted; the signal goes to the service.
    Stop(i32),
    /// A signal that only concerns the service.
    Forward(i32),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write a line.
    Log(Step),
    /// Start the service.
    Start,
    /// Register it once it is ready, and keep it registered.
    Register,
    /// Take the registration back, if there is one.
    Deregister,
    /// Send a signal to the service's process group, if anybody is left there.
    Signal(i32),
    /// End with this exit code. Nothing comes after it.
    Exit(u8),
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The service runs, as this process.
    Started(u32),
    /// It could not be started.
    StartFailed(String),
    /// It ended, and so does the sidecar.
    Ended(Exit),
    /// It ended as it was asked to, and so does the sidecar.
    Stopped(Exit),
    /// It ended and is started again after this pause.
    Restarting(Exit, Duration),
    /// It ended once too often.
    GivingUp(Exit, u32),
    /// There is no such command, or it is no program.
    NotRunnable(Exit),
    /// It has not been well for so long.
    Unhealthy(Duration),
    /// The end is wanted.
    Stopping,
    /// It did not end when asked to.
    Killing(Duration),
    /// It did not end when killed.
    Stuck,
}

impl Step {
    /// Whether somebody should look at it.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        match self {
            Self::Started(_) | Self::Stopping | Self::Stopped(_) | Self::Ended(Exit::Code(0)) => false,
            Self::StartFailed(_)
            | Self::Ended(_)
            | Self::Restarting(..)
            | Self::GivingUp(..)
            | Self::NotRunnable(_)
            | Self::Unhealthy(_)
            | Self::Killing(_)
            | Self::Stuck => true,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(process) => write!(f, "Service started (process {process})"),
            Self::StartFailed(cause) => write!(f, "Service could not be started: {cause}"),
            Self::Ended(exit) | Self::Stopped(exit) => write!(f, "Service {exit}"),
            Self::Restarting(exit, wait) => {
                write!(f, "Service {exit}, restarting in {} seconds", wait.as_secs_f64().ceil())
            }
            Self::GivingUp(exit, restarts) => write!(f, "Service {exit}, giving up after {restarts} restarts in a row"),
            Self::NotRunnable(exit) => write!(f, "Service {exit}: its command was not found or cannot be executed"),
            Self::Unhealthy(time) => write!(f, "Service has not been healthy for {}, restarting it", Seconds(*time)),
            Self::Stopping => f.write_str("Shutting down"),
            Self::Killing(grace) => write!(f, "Service did not end within {}, killing it", Seconds(*grace)),
            Self::Stuck => f.write_str("Service does not even end when killed, going on without it"),
        }
    }
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Supervisor {
    policy: Policy,
    seed: u64,
    phase: Phase,
    /// Ends in a row that a restart followed.
    failures: u32,
    /// Whether the command has ever been more than "not found".
    runnable: bool,
    /// How the service ended the last time.
    last: Exit,
}

#[derive(Clone, Debug)]
enum Phase {
    Fresh,
    Running(Run),
    /// The registration is being taken back.
    Leaving(Purpose),
    /// The last requests are on their way.
    Draining {
        until: Duration,
        signal: i32,
    },
    /// The group was asked to end.
    Ending {
        next: Next,
        patience: Patience,
    },
    Resting {
        start_at: Duration,
    },
    Done,
}

/// A service that runs.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Since when it has been well, if it is.
    well_since: Option<Duration>,
    /// When it began, or will begin, to count as unhealthy.
    ill_since: Duration,
}

/// Why a service is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// We were; with this signal.
    Stop(i32),
    /// It is unhealthy.
    Renew,
}

/// What comes when nobody of the group is left.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// Depends on how the service ends.
    Open(Purpose),
    Start(Duration),
    Exit(u8),
}

/// How long nobody is forced.
#[derive(Clone, Copy, Debug)]
enum Patience {
    AskedUntil(Duration),
    KilledUntil(Duration),
}

impl Supervisor {
    /// A service that has not been started; the first event is [`Event::Tick`]. The seed only spreads restarts.
    #[must_use]
    pub const fn new(policy: Policy, seed: u64) -> Self {
        Self { policy, seed, phase: Phase::Fresh, failures: 0, runnable: false, last: Exit::Code(0) }
    }

    /// Takes what happened at `now` (time since the start) and says what to do.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::Tick => self.tick(now, &mut out),
            Event::Started(process) => self.started(process, &mut out),
            Event::StartFailed(cause) => self.start_failed(now, cause, &mut out),
            Event::Exited(exit) => self.exited(now, exit, &mut out),
            Event::Vacated => self.vacated(now, &mut out),
            Event::Health(status) => self.health(now, status, &mut out),
            Event::Deregistered => self.deregistered(now, &mut out),
            Event::Stop(signal) => self.stop(now, signal, &mut out),
            Event::Forward(signal) if self.is_alive() => out.push(Action::Signal(signal)),
            Event::Forward(_) => {}
        }
        out
    }

    /// When the next [`Event::Tick`] is due at the latest; `None` when only an event can change anything.
    #[must_use]
    pub const fn wake_at(&self) -> Option<Duration> {
        match self.phase {
            Phase::Fresh => Some(Duration::ZERO),
            Phase::Draining { until, .. } => Some(until),
            Phase::Ending { patience: Patience::AskedUntil(until) | Patience::KilledUntil(until), .. } => Some(until),
            Phase::Resting { start_at } => Some(start_at),
            Phase::Running(_) | Phase::Leaving(_) | Phase::Done => None,
        }
    }

    const fn is_alive(&self) -> bool {
        matches!(
            self.phase,
            Phase::Running(_) | Phase::Leaving(_) | Phase::Draining { .. } | Phase::Ending { next: Next::Open(_), .. }
        )
    }

    fn tick(&mut self, now: Duration, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Fresh => self.start(now, out),
            Phase::Resting { start_at } if now >= start_at => self.start(now, out),
            Phase::Draining { until, signal } if now >= until => self.ask(now, Purpose::Stop(signal), out),
            Phase::Ending { next, patience: Patience::AskedUntil(until) } if now >= until => {
                out.push(Action::Log(Step::Killing(self.policy.stop_grace)));
                out.push(Action::Signal(SIGKILL));
                self.phase = Phase::Ending { next, patience: Patience::KilledUntil(now.saturating_add(KILL_MAX)) };
            }
            Phase::Ending { next, patience: Patience::KilledUntil(until) } if now >= until => {
                out.push(Action::Log(Step::Stuck));
                if matches!(next, Next::Open(_)) {
                    self.exited(now, Exit::Signal(SIGKILL), out);
                }
                self.vacated(now, out);
            }
            _ => {}
        }
    }

    fn start(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.phase = Phase::Running(Run { well_since: None, ill_since: now.saturating_add(self.policy.start_max) });
        out.push(Action::Start);
    }

    fn started(&self, process: u32, out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Running(_)) {
            out.push(Action::Log(Step::Started(process)));
            out.push(Action::Register);
        }
    }

    fn start_failed(&mut self, now: Duration, cause: String, out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Running(_)) {
            out.push(Action::Log(Step::StartFailed(cause)));
            let next = self.verdict(now, Exit::Code(NOT_EXECUTABLE), None, out);
            self.advance(now, next, out);
        }
    }

    fn exited(&mut self, now: Duration, exit: Exit, out: &mut Vec<Action>) {
        let purpose = match self.phase {
            Phase::Running(run) => {
                self.forgive(now, run);
                None
            }
            Phase::Leaving(purpose) | Phase::Ending { next: Next::Open(purpose), .. } => Some(purpose),
            Phase::Draining { signal, .. } => Some(Purpose::Stop(signal)),
            _ => return,
        };
        let next = self.verdict(now, exit, purpose, out);
        let patience = match self.phase {
            Phase::Ending { patience, .. } => patience,
            // Nobody has asked the others of its group yet.
            _ => {
                out.push(Action::Deregister);
                out.push(Action::Signal(SIGTERM));
                Patience::AskedUntil(now.saturating_add(self.policy.stop_grace))
            }
        };
        self.phase = Phase::Ending { next, patience };
    }

    /// The one place that decides what follows an end.
    fn verdict(&mut self, now: Duration, exit: Exit, purpose: Option<Purpose>, out: &mut Vec<Action>) -> Next {
        self.last = exit;
        let renewed = purpose == Some(Purpose::Renew);
        let wanted = match self.policy.restart {
            Restart::Always => true,
            Restart::OnFailure => renewed || exit != Exit::Code(0),
            Restart::Never => false,
        };
        if matches!(purpose, Some(Purpose::Stop(_))) {
            out.push(Action::Log(Step::Stopped(exit)));
            return Next::Exit(exit.code());
        }
        if !wanted {
            out.push(Action::Log(Step::Ended(exit)));
            return Next::Exit(exit.code());
        }
        let not_runnable = matches!(exit, Exit::Code(NOT_EXECUTABLE | NOT_FOUND));
        // What is not there will not appear; but what once was there may be in the middle of an update.
        if not_runnable && !self.runnable {
            out.push(Action::Log(Step::NotRunnable(exit)));
            return Next::Exit(exit.code());
        }
        self.runnable = true;
        if self.policy.restarts_max > 0 && self.failures >= self.policy.restarts_max {
            out.push(Action::Log(Step::GivingUp(exit, self.failures)));
            // An unhealthy service may end well when asked to, and yet this is no success.
            return Next::Exit(if renewed { exit.code().max(1) } else { exit.code() });
        }
        self.failures = self.failures.saturating_add(1);
        self.seed = seed::mix(self.seed);
        let wait = BACKOFF.wait(self.failures, self.seed);
        out.push(Action::Log(Step::Restarting(exit, wait)));
        Next::Start(now.saturating_add(wait))
    }

    fn vacated(&mut self, now: Duration, out: &mut Vec<Action>) {
        if let Phase::Ending { next, .. } = self.phase {
            self.advance(now, next, out);
        }
    }

    fn advance(&mut self, now: Duration, next: Next, out: &mut Vec<Action>) {
        match next {
            // It says that all are gone, and we have not heard of the first: that comes next.
            Next::Open(_) => {}
            Next::Start(start_at) => {
                self.phase = Phase::Resting { start_at };
                self.tick(now, out);
            }
            Next::Exit(code) => self.exit(code, out),
        }
    }

    fn exit(&mut self, code: u8, out: &mut Vec<Action>) {
        self.phase = Phase::Done;
        out.push(Action::Exit(code));
    }

    fn health(&mut self, now: Duration, status: Status, out: &mut Vec<Action>) {
        let Phase::Running(run) = self.phase else { return };
        self.forgive(now, run);
        // A service that drains does so on purpose.
        if !matches!(status, Status::Unhealthy | Status::Starting) {
            self.runnable = true;
            self.phase = Phase::Running(Run { well_since: run.well_since.or(Some(now)), ill_since: now });
            return;
        }
        self.phase = Phase::Running(Run { well_since: None, ..run });
        let ill_for = now.saturating_sub(run.ill_since);
        if self.policy.unhealthy_max.is_some_and(|most| now > run.ill_since && ill_for >= most) {
            out.push(Action::Log(Step::Unhealthy(Duration::from_secs(ill_for.as_secs()))));
            self.leave(Purpose::Renew, out);
        }
    }

    /// A service that has been well for a while has a clean record.
    fn forgive(&mut self, now: Duration, run: Run) {
        if run.well_since.is_some_and(|since| now.saturating_sub(since) >= RUN_WELL) {
            self.failures = 0;
        }
    }

    fn leave(&mut self, purpose: Purpose, out: &mut Vec<Action>) {
        self.phase = Phase::Leaving(purpose);
        out.push(Action::Deregister);
    }

    fn deregistered(&mut self, now: Duration, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Leaving(Purpose::Stop(signal)) if !self.policy.drain_wait.is_zero() => {
                self.phase = Phase::Draining { until: now.saturating_add(self.policy.drain_wait), signal };
            }
            Phase::Leaving(purpose) => self.ask(now, purpose, out),
            _ => {}
        }
    }

    fn ask(&mut self, now: Duration, purpose: Purpose, out: &mut Vec<Action>) {
        let signal = match purpose {
            Purpose::Stop(signal) => signal,
            Purpose::Renew => SIGTERM,
        };
        out.push(Action::Signal(signal));
        let patience = Patience::AskedUntil(now.saturating_add(self.policy.stop_grace));
        self.phase = Phase::Ending { next: Next::Open(purpose), patience };
    }

    fn stop(&mut self, now: Duration, signal: i32, out: &mut Vec<Action>) {
        let first = !matches!(
            self.phase,
            Phase::Done
                | Phase::Leaving(Purpose::Stop(_))
                | Phase::Draining { .. }
                | Phase::Ending { next: Next::Exit(_) | Next::Open(Purpose::Stop(_)), .. }
        );
        if first {
            out.push(Action::Log(Step::Stopping));
        }
        match self.phase {
            Phase::Running(_) => self.leave(Purpose::Stop(signal), out),
            Phase::Leaving(Purpose::Renew) => self.phase = Phase::Leaving(Purpose::Stop(signal)),
            // Whoever asks twice does not want to wait.
            Phase::Draining { .. } => self.ask(now, Purpose::Stop(signal), out),
            Phase::Ending { next: Next::Open(_), patience } => {
                out.push(Action::Signal(signal));
                self.phase = Phase::Ending { next: Next::Open(Purpose::Stop(signal)), patience };
            }
            Phase::Ending { next: Next::Start(_), patience } => {
                self.phase = Phase::Ending { next: Next::Exit(self.last.code()), patience };
            }
            // Those that outlive their leader.
            Phase::Ending { next: Next::Exit(_), .. } => out.push(Action::Signal(signal)),
            Phase::Fresh | Phase::Resting { .. } => self.exit(self.last.code(), out),
            Phase::Leaving(Purpose::Stop(_)) | Phase::Done => {}
        }
    }
}

/// What a shell says of a command that is no program, and of one that is not there.
pub const NOT_EXECUTABLE: u8 = 126;
/// See [`NOT_EXECUTABLE`].
pub const NOT_FOUND: u8 = 127;

const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };
/// After being well for so long, earlier failures do not count any more.
const RUN_WELL: Duration = Duration::from_secs(60);
/// How long to wait for the effect of SIGKILL; a process that hangs in the kernel may take forever.
const KILL_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
