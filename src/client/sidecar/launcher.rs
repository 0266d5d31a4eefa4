//! Does what the supervisor decides: starts the service, registers it, signals it, and ends when it says so.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::time::Duration;

use signal_hook::consts::SIGTSTP;
use signal_hook::low_level::emulate_default_handler;

use super::child::{self, Group};
use super::log::{self, Level};
use super::supervisor::{Action, Event, Policy, Supervisor};
use super::wake::{self, Wake};
use crate::clock::{self, Stopwatch};
use crate::lifecycle::Step;
use crate::registration::{Registration, RegistrationConfig};

/// What is started, how it is looked after, and how it is registered.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The service's registration.
    pub registration: RegistrationConfig,
    /// Its port, which it is told as `SERVICE_PORT`.
    pub port: u16,
    /// When it is restarted and how it is ended.
    pub policy: Policy,
}

/// Runs the command until it is not to be started again, or until SIGTERM or SIGINT. Returns the exit code.
///
/// # Errors
/// Signals cannot be listened to. A registry that is away or a service that fails is none.
pub(super) fn run(command: &[OsString], launch: Launch, wake: Wake) -> io::Result<u8> {
    child::adopt_orphans();
    let supervisor = Supervisor::new(launch.policy, clock::seed());
    Launcher { command, launch, wake, supervisor, to_register: false, registration: None, group: None, dead: false }.run()
}

struct Launcher<'a> {
    command: &'a [OsString],
    launch: Launch,
    wake: Wake,
    supervisor: Supervisor,
    /// Whether the service is to be registered.
    to_register: bool,
    registration: Option<Registration>,
    /// The group that was started last, until it is empty.
    group: Option<Group>,
    /// Whether its leader has ended.
    dead: bool,
}

impl Launcher<'_> {
    fn run(mut self) -> io::Result<u8> {
        let watch = Stopwatch::start();
        let mut events = VecDeque::from([Event::Tick]);
        loop {
            while let Some(event) = events.pop_front() {
                for action in self.supervisor.handle(watch.elapsed(), event) {
                    if let Action::Exit(code) = action {
                        return Ok(code);
                    }
                    events.extend(self.perform(action)?);
                }
            }
            let due = self.supervisor.wake_at().map(|time| time.saturating_sub(watch.elapsed()));
            self.wake.sleep(due.unwrap_or(LOOK_AFTER_REGISTRATION).min(LOOK_AFTER_REGISTRATION))?;
            self.look_after_registration();
            self.gather(&mut events);
        }
    }

    /// Does one thing and says what came of it.
    fn perform(&mut self, action: Action) -> io::Result<Option<Event>> {
        match action {
            Action::Log(step) => log::line(if step.is_warning() { Level::Warn } else { Level::Info }, &step),
            Action::Start => return Ok(Some(self.start())),
            Action::Register => {
                self.to_register = true;
                self.look_after_registration();
            }
            Action::Deregister => {
                self.to_register = false;
                // Waits for it, 2 s at the most.
                self.registration = None;
                return Ok(Some(Event::Deregistered));
            }
            Action::Signal(signal) => {
                if let Some(group) = &self.group {
                    group.signal(signal);
                }
                if signal == SIGTSTP {
                    // A service that stands still needs no heartbeats.
                    emulate_default_handler(SIGTSTP)?;
                }
            }
            Action::Exit(_) => {}
        }
        Ok(None)
    }

    fn start(&mut self) -> Event {
        match Group::start(self.command, ("SERVICE_PORT", &self.launch.port.to_string())) {
            Ok(group) => {
                let process = group.leader().as_raw_pid().unsigned_abs();
                (self.group, self.dead) = (Some(group), false);
                Event::Started(process)
            }
            Err(error) => Event::StartFailed(error.to_string()),
        }
    }

    /// Only a defect ends the thread that keeps the service registered, and only a machine at its limits cannot start it.
    /// The service shall not suffer from either.
    fn look_after_registration(&mut self) {
        if self.registration.as_ref().is_some_and(Registration::is_finished) {
            log::line(Level::Error, &"failed to keep the service registered: the worker ended by itself, starting another");
            self.registration = None;
        }
        if self.to_register && self.registration.is_none() {
            match self.register() {
                Ok(registration) => self.registration = Some(registration),
                Err(error) => log::line(Level::Error, &format_args!("failed to register the service, trying again: {error}")),
            }
        }
    }

    fn register(&mut self) -> io::Result<Registration> {
        let hearer = self.wake.health_hearer()?;
        let log = |step: &Step| {
            // Taking the registration back does not mean that the sidecar ends; the supervisor says so when it does.
            if *step != Step::Stopping {
                log::line(if step.is_warning() { Level::Warn } else { Level::Info }, step);
            }
        };
        Registration::start_observed(self.launch.registration.clone(), log, hearer)
    }

    /// What happened while we slept.
    fn gather(&mut self, events: &mut VecDeque<Event>) {
        let signals = self.wake.take_signals();
        events.extend(signals.iter().filter(|signal| wake::STOP.contains(signal)).map(|&signal| Event::Stop(signal)));
        events.extend(signals.iter().filter(|signal| wake::FORWARD.contains(signal)).map(|&signal| Event::Forward(signal)));
        events.extend(self.wake.take_health().map(Event::Health));
        events.extend(self.deaths());
        events.push_back(Event::Tick);
    }

    fn deaths(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let dead = child::reap();
        let Some(group) = &self.group else { return events };
        if let Some((_, exit)) = dead.into_iter().find(|(pid, _)| *pid == group.leader()) {
            self.dead = true;
            events.push(Event::Exited(exit));
        }
        if self.dead && group.is_empty() {
            self.group = None;
            events.push(Event::Vacated);
        }
        events
    }
}

const LOOK_AFTER_REGISTRATION: Duration = Duration::from_secs(5);
