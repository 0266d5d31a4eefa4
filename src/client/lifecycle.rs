//! The life of one registration, as a pure state machine: it drives both the sidecar and the library.
//!
//! ```text
//! Waiting ──200, or the wait is over──▶ Registering ──ok──▶ Registered ──stop──▶ Stopping ──▶ Done
//!                                        ▲   │ failed: back off   │
//!                                        └───┘                    │ lease unknown or run out, new version
//!                                        ▲────────────────────────┘
//! ```
//!
//! One [`Event`] and the time go in, [`Action`]s come out: any number of [`Action::Log`] and then exactly one thing to do.
//! Its result is the next event. So there is never more than one request under way, and a driver is a loop of ten lines.
//!
//! **Why probe between heartbeats?** A service that turns unhealthy would keep its traffic for up to a whole interval. A
//! probe every few seconds costs nothing, and a changed verdict is reported at once.
//!
//! **Why two silences?** A service that answers "I am not well" is believed at once. One that does not answer in time may
//! just be busy, and taking all its traffic away on a single lost probe hurts more than a second probe half a second later.
//!
//! **Invariant:** no I/O, no clock, no randomness in this file: the time since the start and a seed are arguments.

use std::fmt;
use std::time::Duration;

use vertice_core::backoff::Backoff;
use vertice_core::seed;
use vertice_core::status::Status;

use crate::span::Seconds;

/// What a life is like. Any value is fine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time from one heartbeat to the next.
    pub heartbeat_interval: Duration,
    /// How long to wait for the service before registering it anyway.
    pub initial_wait: Duration,
    /// What an unhealthy service means.
    pub health_gate: HealthGate,
    /// Whether there is a health endpoint to ask. Without one the service counts as ready from the start.
    pub probes: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(30),
            initial_wait: Duration::from_secs(60),
            health_gate: HealthGate::Report,
            probes: true,
        }
    }
}

/// What happens to the registration of an unhealthy service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthGate {
    /// The heartbeat says so, and the data plane stops sending.
    #[default]
    Report,
    /// Heartbeats stop, and the lease lapses.
    Strict,
}

/// What is told to the registry about the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether it may be sent traffic.
    pub status: Status,
    /// Its version; `unknown` until it names one.
    pub version: String,
    /// Its own word for its health, for display.
    pub word: String,
}

/// What one health probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answered 200.
    Ready {
        /// What it makes of itself.
        status: Status,
        /// Its own word for that, if it used one.
        word: Option<String>,
        /// Its version, if it names one.
        version: Option<String>,
    },
    /// It answered something else.
    NotReady(u16),
    /// It did not answer, and why.
    Silent(String),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The start, or the time of an [`Action::WakeAt`] has come (or the driver woke up too early).
    Tick,
    /// Result of [`Action::ProbeHealth`].
    Health(Health),
    /// [`Action::Register`] worked; the registry may say how long the lease is.
    Registered(Option<Duration>),
    /// [`Action::Register`] failed, and why.
    RegisterFailed(String),
    /// [`Action::Heartbeat`] worked.
    Renewed,
    /// [`Action::Heartbeat`] was answered "no such lease".
    LeaseUnknown,
    /// [`Action::Heartbeat`] failed, and why.
    HeartbeatFailed(String),
    /// [`Action::Deregister`] worked.
    Deregistered,
    /// [`Action::Deregister`] failed, and why.
    DeregisterFailed(String),
    /// The service itself says how it is (where there is no health endpoint).
    StatusSet(Status),
    /// The end is wanted. May come instead of any result.
    Stop,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write a line; goes before the one other action.
    Log(Step),
    /// Ask the service's health endpoint.
    ProbeHealth,
    /// Register with this report.
    Register(Report),
    /// Renew the lease.
    Heartbeat {
        /// How the service is.
        status: Status,
        /// What the metadata of the registration shall become, if it has changed.
        report: Option<Report>,
    },
    /// Take the registration back.
    Deregister,
    /// Nothing until this time since the start.
    WakeAt(Duration),
    /// Nothing ever again.
    Done,
}

/// A line of the log. The wording of the first five and of the retry is a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The first probe comes next.
    Waiting(Duration),
    /// The service answered 200 after that many attempts.
    Ready(u32),
    /// Registration comes next.
    Registering,
    /// The registry knows the service.
    Registered,
    /// Heartbeats come next, at the configured interval.
    HeartbeatLoop(Duration),
    /// A registration failed.
    RegisterFailed(String),
    /// The pause before the next registration.
    RetryingRegistration(Duration),
    /// The service did not become ready in time.
    NotReady {
        /// The whole wait.
        waited: Duration,
        /// What the last probe found.
        found: String,
    },
    /// The lease is too short for the configured interval.
    LeaseShort {
        /// The lease.
        lease: Duration,
        /// The interval used instead.
        interval: Duration,
    },
    /// A heartbeat failed.
    HeartbeatFailed {
        /// Why.
        cause: String,
        /// The pause before the next one.
        retry: Duration,
    },
    /// Heartbeats work again.
    HeartbeatRecovered,
    /// The registry has no such lease.
    LeaseUnknown,
    /// No heartbeat got through for longer than the lease.
    LeaseRunOut,
    /// The service is of another version now.
    VersionChanged(String),
    /// The service's health is another one now.
    StatusChanged {
        /// What was reported before.
        from: Status,
        /// What is reported now.
        to: Status,
    },
    /// No heartbeats from now on.
    GateClosed(Status),
    /// Heartbeats again.
    GateOpened,
    /// The end is wanted.
    Stopping,
    /// The registration was taken back.
    Deregistered,
    /// The registration could not be taken back.
    DeregisterFailed(String),
}

impl Step {
    /// Whether somebody should look at it.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::RegisterFailed(_)
                | Self::RetryingRegistration(_)
                | Self::NotReady { .. }
                | Self::LeaseShort { .. }
                | Self::HeartbeatFailed { .. }
                | Self::LeaseUnknown
                | Self::LeaseRunOut
                | Self::GateClosed(_)
                | Self::DeregisterFailed(_)
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting(max) => write!(f, "Waiting for service to be ready (max {})", Seconds(*max)),
            Self::Ready(attempts) => write!(f, "Service is READY (responded with 200 OK after {attempts} attempts)"),
            Self::Registering => f.write_str("Starting registration process"),
            Self::Registered => f.write_str("Service registered successfully"),
            Self::HeartbeatLoop(interval) => write!(f, "Starting heartbeat loop (interval: {})", Seconds(*interval)),
            Self::RegisterFailed(cause) => write!(f, "Registration failed: {cause}"),
            Self::RetryingRegistration(wait) => {
                write!(f, "Retrying registration in {} seconds", wait.as_secs_f64().ceil())
            }
            Self::NotReady { waited, found } => write!(
                f,
                "Service is not ready after {} ({found}); registering it anyway, it gets traffic once it answers 200",
                Seconds(*waited)
            ),
            Self::LeaseShort { lease, interval } => {
                write!(f, "The registry's lease is only {}, sending a heartbeat every {}", Seconds(*lease), Seconds(*interval))
            }
            Self::HeartbeatFailed { cause, retry } => {
                write!(f, "Heartbeat failed, next one in {:.1}s: {cause}", retry.as_secs_f64())
            }
            Self::HeartbeatRecovered => f.write_str("Heartbeats work again"),
            Self::LeaseUnknown => f.write_str("The registry does not know this instance (any more), registering again"),
            Self::LeaseRunOut => f.write_str("No heartbeat got through for longer than the lease, registering again"),
            Self::VersionChanged(version) => write!(f, "Service is version {version} now, registering again"),
            Self::StatusChanged { from, to } => write!(f, "Service status changed from {from} to {to}"),
            Self::GateClosed(status) => {
                write!(f, "Service is {status}: no heartbeats until it recovers (SIDECAR_HEALTH_GATE=strict)")
            }
            Self::GateOpened => f.write_str("Service recovered, sending heartbeats again"),
            Self::Stopping => f.write_str("Shutting down"),
            Self::Deregistered => f.write_str("Service deregistered"),
            Self::DeregisterFailed(cause) => {
                write!(f, "Deregistration failed, the lease will lapse by itself: {cause}")
            }
        }
    }
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    settings: Settings,
    seed: u64,
    phase: Phase,
    /// How the service is, as far as we know.
    report: Report,
    /// Whether it ever answered 200: before that it is `starting`, not `unhealthy`.
    seen_ready: bool,
    /// Probes in a row without any answer.
    silences: u32,
    /// Whether the heartbeat loop has been announced.
    announced: bool,
    /// Whether the registry may hold a lease of ours.
    may_be_registered: bool,
}

#[derive(Clone, Debug)]
enum Phase {
    Fresh,
    Waiting { deadline: Duration, next_probe: Duration, attempts: u32 },
    Registering { failures: u32, retry_at: Duration },
    Registered(Lease),
    Stopping,
    Done,
}

#[derive(Clone, Debug)]
struct Lease {
    /// What the registry was told last.
    told: Report,
    renewed_at: Duration,
    length: Duration,
    interval: Duration,
    next_heartbeat: Duration,
    next_probe: Duration,
    failures: u32,
    withheld: bool,
}

impl Lifecycle {
    /// A life that has not begun; the first event is [`Event::Tick`]. The seed only spreads retries.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            seed,
            phase: Phase::Fresh,
            report: Report {
                status: if settings.probes { Status::Starting } else { Status::Healthy },
                version: UNKNOWN.to_owned(),
                word: if settings.probes { Status::Starting } else { Status::Healthy }.as_str().to_owned(),
            },
            seen_ready: !settings.probes,
            silences: 0,
            announced: false,
            may_be_registered: false,
        }
    }

    /// The same life of a service whose version is known beforehand.
    #[must_use]
    pub fn with_version(mut self, version: impl Into<String>) -> Self {
        self.report.version = version.into();
        self
    }

    /// How the service is, as far as we know.
    #[must_use]
    pub const fn status(&self) -> Status {
        self.report.status
    }

    /// Takes what happened at `now` (time since the start) and says what to do.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        let command = match event {
            Event::Stop => self.stop(&mut out),
            Event::Tick => self.tick(now, &mut out),
            Event::Health(health) => self.health(now, health, &mut out),
            Event::Registered(length) => self.registered(now, length, &mut out),
            Event::RegisterFailed(cause) => self.register_failed(now, cause, &mut out),
            Event::Renewed => self.renewed(now, &mut out),
            Event::LeaseUnknown => self.lease_unknown(now, &mut out),
            Event::HeartbeatFailed(cause) => self.heartbeat_failed(now, cause, &mut out),
            Event::Deregistered => self.finish(Step::Deregistered, &mut out),
            Event::DeregisterFailed(cause) => self.finish(Step::DeregisterFailed(cause), &mut out),
            Event::StatusSet(status) => self.status_set(now, status, &mut out),
        };
        out.push(command);
        out
    }

    fn tick(&mut self, now: Duration, out: &mut Vec<Action>) -> Action {
        match &self.phase {
            Phase::Fresh if self.settings.probes => {
                out.push(Action::Log(Step::Waiting(self.settings.initial_wait)));
                let deadline = now.saturating_add(self.settings.initial_wait);
                self.phase = Phase::Waiting { deadline, next_probe: now, attempts: 0 };
                Action::ProbeHealth
            }
            Phase::Fresh => self.start_registering(out),
            Phase::Waiting { next_probe, .. } if now < *next_probe => Action::WakeAt(*next_probe),
            Phase::Registering { retry_at, .. } if now < *retry_at => Action::WakeAt(*retry_at),
            Phase::Registered(lease) if now < lease.next_wake(self.settings.probes) => {
                Action::WakeAt(lease.next_wake(self.settings.probes))
            }
            Phase::Waiting { .. } => Action::ProbeHealth,
            // The report may be a minute old by now.
            Phase::Registering { .. } | Phase::Registered(_) if self.settings.probes => Action::ProbeHealth,
            Phase::Registering { .. } => self.register(),
            Phase::Registered(_) => self.renew_if_needed(now, out),
            Phase::Stopping | Phase::Done => self.end(),
        }
    }

    fn health(&mut self, now: Duration, health: Health, out: &mut Vec<Action>) -> Action {
        match &self.phase {
            Phase::Waiting { .. } => self.health_while_waiting(now, health, out),
            Phase::Registering { .. } => {
                self.believe(health);
                self.register()
            }
            Phase::Registered(_) => self.health_while_registered(now, health, out),
            Phase::Fresh | Phase::Stopping | Phase::Done => self.tick(now, out),
        }
    }

    fn health_while_waiting(&mut self, now: Duration, health: Health, out: &mut Vec<Action>) -> Action {
        let Phase::Waiting { deadline, next_probe, attempts } = &mut self.phase else {
            return self.tick(now, out);
        };
        *attempts = attempts.saturating_add(1);
        let found = match &health {
            Health::Ready { .. } => {
                out.push(Action::Log(Step::Ready(*attempts)));
                self.believe(health);
                return self.start_registering(out);
            }
            Health::NotReady(status) => format!("its health endpoint answers {status}"),
            Health::Silent(cause) => cause.clone(),
        };
        if now < *deadline {
            *next_probe = now.saturating_add(WAITING_PROBE).min(*deadline);
            return Action::WakeAt(*next_probe);
        }
        out.push(Action::Log(Step::NotReady { waited: self.settings.initial_wait, found }));
        self.start_registering(out)
    }

    fn health_while_registered(&mut self, now: Duration, health: Health, out: &mut Vec<Action>) -> Action {
        let sure = self.believe(health);
        let probe_every = if sure { self.probe_every() } else { SECOND_OPINION };
        if let Phase::Registered(lease) = &mut self.phase {
            lease.next_probe = now.saturating_add(probe_every);
        }
        self.renew_if_needed(now, out)
    }

    /// Takes a probe's result into the report. False when it asks for a second opinion.
    fn believe(&mut self, health: Health) -> bool {
        let silent = matches!(health, Health::Silent(_));
        self.silences = if silent { self.silences.saturating_add(1) } else { 0 };
        match health {
            Health::Ready { status, word, version } => {
                self.seen_ready = true;
                self.report.status = status;
                self.report.word = word.unwrap_or_else(|| status.as_str().to_owned());
                // One answer without a version does not make it another version.
                if let Some(version) = version {
                    self.report.version = version;
                }
                true
            }
            Health::Silent(_) if self.silences < SILENCES && self.seen_ready => false,
            Health::NotReady(_) | Health::Silent(_) => {
                self.report.status = if self.seen_ready { Status::Unhealthy } else { Status::Starting };
                self.report.word = self.report.status.as_str().to_owned();
                true
            }
        }
    }

    /// The one place that decides on heartbeats.
    fn renew_if_needed(&mut self, now: Duration, out: &mut Vec<Action>) -> Action {
        let gate = self.settings.health_gate;
        let probes = self.settings.probes;
        let report = self.report.clone();
        let Phase::Registered(lease) = &mut self.phase else {
            return self.tick(now, out);
        };
        if gate == HealthGate::Strict && matches!(report.status, Status::Unhealthy | Status::Starting) {
            lease.withhold(now, report.status, out);
            return Action::WakeAt(lease.next_wake(probes));
        }
        if lease.withheld {
            lease.withheld = false;
            lease.next_heartbeat = now;
            out.push(Action::Log(Step::GateOpened));
        }
        if report.version != lease.told.version {
            out.push(Action::Log(Step::VersionChanged(report.version)));
            return self.start_registering(out);
        }
        let changed = report.status != lease.told.status;
        // After a failure the news waits for the retry, or a dead registry would be asked at every probe.
        if now < lease.next_heartbeat && !(changed && lease.failures == 0) {
            return Action::WakeAt(lease.next_wake(probes));
        }
        if now >= lease.renewed_at.saturating_add(lease.length) {
            out.push(Action::Log(Step::LeaseRunOut));
            return self.start_registering(out);
        }
        if changed && lease.failures == 0 {
            out.push(Action::Log(Step::StatusChanged { from: lease.told.status, to: report.status }));
        }
        lease.schedule_heartbeat(now);
        Action::Heartbeat { status: report.status, report: (report != lease.told).then_some(report) }
    }

    fn start_registering(&mut self, out: &mut Vec<Action>) -> Action {
        out.push(Action::Log(Step::Registering));
        self.phase = Phase::Registering { failures: 0, retry_at: Duration::ZERO };
        self.register()
    }

    fn register(&mut self) -> Action {
        self.may_be_registered = true;
        Action::Register(self.report.clone())
    }

    fn registered(&mut self, now: Duration, length: Option<Duration>, out: &mut Vec<Action>) -> Action {
        if !matches!(self.phase, Phase::Registering { .. }) {
            return self.tick(now, out);
        }
        out.push(Action::Log(Step::Registered));
        let wanted = self.settings.heartbeat_interval;
        // A lease must outlive one lost heartbeat.
        let interval = length.map_or(wanted, |length| wanted.min(length / 2)).max(SHORTEST_INTERVAL.min(wanted));
        if let Some(lease) = length.filter(|_| interval < wanted) {
            out.push(Action::Log(Step::LeaseShort { lease, interval }));
        }
        if !self.announced {
            self.announced = true;
            out.push(Action::Log(Step::HeartbeatLoop(wanted)));
        }
        let lease = Lease {
            told: self.report.clone(),
            renewed_at: now,
            length: length.unwrap_or(USUAL_LEASE),
            interval,
            next_heartbeat: now.saturating_add(interval),
            next_probe: now.saturating_add(self.probe_every()),
            failures: 0,
            withheld: false,
        };
        let wake = lease.next_wake(self.settings.probes);
        self.phase = Phase::Registered(lease);
        Action::WakeAt(wake)
    }

    fn register_failed(&mut self, now: Duration, cause: String, out: &mut Vec<Action>) -> Action {
        let seed = self.next_seed();
        let Phase::Registering { failures, retry_at } = &mut self.phase else {
            return self.tick(now, out);
        };
        *failures = failures.saturating_add(1);
        let wait = REGISTER_BACKOFF.wait(*failures, seed);
        *retry_at = now.saturating_add(wait);
        out.push(Action::Log(Step::RegisterFailed(cause)));
        out.push(Action::Log(Step::RetryingRegistration(wait)));
        Action::WakeAt(*retry_at)
    }

    fn renewed(&mut self, now: Duration, out: &mut Vec<Action>) -> Action {
        let probes = self.settings.probes;
        let Phase::Registered(lease) = &mut self.phase else {
            return self.tick(now, out);
        };
        if lease.failures > 0 {
            out.push(Action::Log(Step::HeartbeatRecovered));
        }
        lease.failures = 0;
        lease.renewed_at = now;
        // A registry that is slower than our rhythm gets time to breathe.
        lease.next_heartbeat = lease.next_heartbeat.max(now.saturating_add(lease.interval / 2));
        lease.told = self.report.clone();
        Action::WakeAt(lease.next_wake(probes))
    }

    fn lease_unknown(&mut self, now: Duration, out: &mut Vec<Action>) -> Action {
        if !matches!(self.phase, Phase::Registered(_)) {
            return self.tick(now, out);
        }
        out.push(Action::Log(Step::LeaseUnknown));
        self.start_registering(out)
    }

    fn heartbeat_failed(&mut self, now: Duration, cause: String, out: &mut Vec<Action>) -> Action {
        let seed = self.next_seed();
        let probes = self.settings.probes;
        let Phase::Registered(lease) = &mut self.phase else {
            return self.tick(now, out);
        };
        lease.failures = lease.failures.saturating_add(1);
        let backoff = Backoff { first: REGISTER_BACKOFF.first.min(lease.interval), max: lease.interval };
        let retry = backoff.wait(lease.failures, seed);
        lease.next_heartbeat = now.saturating_add(retry);
        out.push(Action::Log(Step::HeartbeatFailed { cause, retry }));
        Action::WakeAt(lease.next_wake(probes))
    }

    fn status_set(&mut self, now: Duration, status: Status, out: &mut Vec<Action>) -> Action {
        self.report.status = status;
        self.report.word = status.as_str().to_owned();
        match &self.phase {
            Phase::Registered(_) => self.renew_if_needed(now, out),
            _ => self.tick(now, out),
        }
    }

    fn stop(&mut self, out: &mut Vec<Action>) -> Action {
        if matches!(self.phase, Phase::Stopping | Phase::Done) {
            return self.end();
        }
        out.push(Action::Log(Step::Stopping));
        if !self.may_be_registered {
            return self.end();
        }
        self.phase = Phase::Stopping;
        Action::Deregister
    }

    fn finish(&mut self, step: Step, out: &mut Vec<Action>) -> Action {
        out.push(Action::Log(step));
        self.end()
    }

    fn end(&mut self) -> Action {
        self.phase = Phase::Done;
        Action::Done
    }

    /// A service that was registered before it was ready is watched closely: its traffic waits for the first 200.
    fn probe_every(&self) -> Duration {
        let usual = if self.seen_ready { PROBE_EVERY } else { STARTING_PROBE };
        usual.min(self.settings.heartbeat_interval)
    }

    fn next_seed(&mut self) -> u64 {
        self.seed = seed::mix(self.seed);
        self.seed
    }
}

impl Lease {
    fn next_wake(&self, probes: bool) -> Duration {
        if probes { self.next_heartbeat.min(self.next_probe) } else { self.next_heartbeat }
    }

    /// Counts from when the heartbeat was due, so that slow answers do not add up.
    fn schedule_heartbeat(&mut self, now: Duration) {
        let due = self.next_heartbeat.min(now).saturating_add(self.interval);
        self.next_heartbeat = if due > now { due } else { now.saturating_add(self.interval) };
    }

    fn withhold(&mut self, now: Duration, status: Status, out: &mut Vec<Action>) {
        if !self.withheld {
            self.withheld = true;
            out.push(Action::Log(Step::GateClosed(status)));
        }
        if now >= self.next_heartbeat {
            self.schedule_heartbeat(now);
        }
    }
}

/// The version of a service that names none.
pub const UNKNOWN: &str = "unknown";

/// Between probes of a service that is not ready yet: four chances within the second in which it must be registered.
const WAITING_PROBE: Duration = Duration::from_millis(250);
/// Between probes of a service that was registered before it was ready.
const STARTING_PROBE: Duration = Duration::from_secs(1);
/// Between probes of a registered service.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// From a probe without an answer to the next.
const SECOND_OPINION: Duration = Duration::from_millis(500);
/// Probes in a row without an answer that make a service unhealthy.
const SILENCES: u32 = 2;
/// The lease of a registry that does not name it.
const USUAL_LEASE: Duration = Duration::from_secs(60);
/// However short a lease is, heartbeats come no faster than this, unless configured so.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(500);
const REGISTER_BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
