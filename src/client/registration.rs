//! Keeps a service registered, in a thread of its own.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use vertice_api::register::DEFAULT_HEALTH_ENDPOINT;
use vertice_api::{HeartbeatRequest, RegisterRequest};
use vertice_core::name::ServiceName;
use vertice_core::status::Status;

use crate::authority;
use crate::clock::{self, Stopwatch};
use crate::lifecycle::{Action, Event, HealthGate, Lifecycle, Report, Settings, Step};
use crate::probe::Probe;
use crate::registry::{RegistryClient, RegistryError, RegistryUrls, Token};

/// What is registered, where, and how it is kept.
#[derive(Clone, Debug)]
pub struct RegistrationConfig {
    /// The service.
    pub service_name: ServiceName,
    /// The instance's URL: `http(s)://host[:port][/prefix]`.
    pub endpoint: String,
    /// Path of the health check that the registry is told.
    pub health_endpoint: String,
    /// Identity within the service: letters, digits and `. _ : [ ] -`. `host:port` of the endpoint by default.
    pub instance_id: String,
    /// Strings by name; `version` and `status` are added.
    pub metadata: BTreeMap<String, String>,
    /// Version until a health probe tells another one.
    pub version: Option<String>,
    /// Length of the lease in seconds (5 to 3600); the registry's default when `None`.
    pub ttl: Option<u64>,
    /// Share of the traffic (0 to 1000); the registry's default when `None`.
    pub weight: Option<u16>,
    /// Where the instance runs.
    pub zone: Option<String>,
    /// Words to select services by.
    pub tags: Vec<String>,
    /// The registries.
    pub registry: RegistryUrls,
    /// The token they want.
    pub token: Option<Token>,
    /// Time from one heartbeat to the next.
    pub heartbeat_interval: Duration,
    /// How long to wait for the first 200 of `health_url` before registering anyway.
    pub initial_wait: Duration,
    /// What an unhealthy service means.
    pub health_gate: HealthGate,
    /// A URL to ask for the service's health. `None`: the service counts as healthy until [`Registration::set_status`].
    pub health_url: Option<String>,
}

impl RegistrationConfig {
    /// Defaults for everything else: heartbeats every 30 s, no health probes.
    #[must_use]
    pub fn new(service_name: ServiceName, endpoint: impl Into<String>, registry: RegistryUrls) -> Self {
        let endpoint = endpoint.into();
        let usual = Settings::default();
        Self {
            service_name,
            instance_id: authority::of(&endpoint),
            endpoint,
            health_endpoint: DEFAULT_HEALTH_ENDPOINT.to_owned(),
            metadata: BTreeMap::new(),
            version: None,
            ttl: None,
            weight: None,
            zone: None,
            tags: Vec::new(),
            registry,
            token: None,
            heartbeat_interval: usual.heartbeat_interval,
            initial_wait: usual.initial_wait,
            health_gate: usual.health_gate,
            health_url: None,
        }
    }

    fn register_request(&self, report: &Report) -> RegisterRequest {
        RegisterRequest {
            service_name: self.service_name.as_str().to_owned(),
            endpoint: self.endpoint.clone(),
            health_endpoint: self.health_endpoint.clone(),
            metadata: self.metadata_with(report),
            instance_id: Some(self.instance_id.clone()),
            ttl: self.ttl,
            weight: self.weight,
            zone: self.zone.clone(),
            version: Some(report.version.clone()),
            tags: self.tags.clone(),
            status: Some(report.status.as_str().to_owned()),
        }
    }

    fn heartbeat_request(&self, status: Status, report: Option<&Report>) -> HeartbeatRequest {
        HeartbeatRequest {
            service_name: self.service_name.as_str().to_owned(),
            instance_id: Some(self.instance_id.clone()),
            status: Some(status.as_str().to_owned()),
            metadata: report.map(|report| self.metadata_with(report)),
        }
    }

    fn metadata_with(&self, report: &Report) -> BTreeMap<String, String> {
        let mut metadata = self.metadata.clone();
        metadata.insert("version".to_owned(), report.version.clone());
        metadata.insert("status".to_owned(), report.word.clone());
        metadata
    }
}

/// A service that is being kept registered. Dropping it is [`Registration::stop`].
#[derive(Debug)]
pub struct Registration {
    shared: Arc<Shared>,
    config: Arc<RegistrationConfig>,
}

impl Registration {
    /// Starts to register the service and to keep it registered, and returns at once. `log` hears of every step; it is
    /// called from the thread that does the work.
    ///
    /// # Errors
    /// The thread could not be started. A registry that is away is no error: it is tried again forever.
    pub fn start(config: RegistrationConfig, log: impl FnMut(&Step) + Send + 'static) -> io::Result<Self> {
        Self::start_observed(config, log, |_| {})
    }

    /// The same; `observer` hears after each health probe how the service is, whatever the registry makes of it.
    pub(crate) fn start_observed(
        config: RegistrationConfig,
        log: impl FnMut(&Step) + Send + 'static,
        observer: impl FnMut(Status) + Send + 'static,
    ) -> io::Result<Self> {
        let config = Arc::new(config);
        let shared = Arc::new(Shared {
            client: RegistryClient::new(config.registry.clone(), config.token.clone()),
            probe: config.health_url.clone().map(Probe::new),
            mailbox: Mutex::default(),
            changed: Condvar::new(),
        });
        let worker = Worker { shared: Arc::clone(&shared), config: Arc::clone(&config), log, observer };
        thread::Builder::new().name("registration".to_owned()).stack_size(STACK).spawn(move || worker.run())?;
        Ok(Self { shared, config })
    }

    /// What is kept registered.
    #[must_use]
    pub fn config(&self) -> &RegistrationConfig {
        &self.config
    }

    /// Says how the service is; the registry hears of it at once. Without effect where a health URL is asked instead.
    pub fn set_status(&self, status: Status) {
        if self.shared.probe.is_none() {
            self.shared.change(|mailbox| mailbox.status = Some(status));
        }
    }

    /// Whether the registry knows the service, as far as we have heard.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.shared.lock().registered
    }

    /// Waits until the registry knows the service, at most this long. False when it does not by then.
    #[must_use]
    pub fn wait_registered(&self, at_most: Duration) -> bool {
        drop(self.shared.wait(at_most, |mailbox| mailbox.registered || mailbox.finished));
        self.is_registered()
    }

    /// Whether the work has ended; before [`Registration::stop`] that can only be a defect.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.shared.lock().finished
    }

    /// Takes the registration back. Returns when that is done, or given up: after 2 s at the latest.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shared.change(|mailbox| mailbox.stop = true);
        // Whatever is under way has no use any more; the farewell goes over a connection of its own.
        self.shared.client.interrupt();
        if let Some(probe) = &self.shared.probe {
            probe.interrupt();
        }
        drop(self.shared.wait(STOP_MAX, |mailbox| mailbox.finished));
    }
}

/// What the handle and the worker both see.
#[derive(Debug)]
struct Shared {
    client: RegistryClient,
    probe: Option<Probe>,
    mailbox: Mutex<Mailbox>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Mailbox {
    /// To the worker: come to an end.
    stop: bool,
    /// To the worker: what the service says of itself.
    status: Option<Status>,
    /// From the worker.
    registered: bool,
    /// From the worker.
    finished: bool,
}

impl Shared {
    /// The flags stay meaningful whoever panicked while holding them.
    fn lock(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Mailbox)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn wait(&self, at_most: Duration, mut until: impl FnMut(&Mailbox) -> bool) -> MutexGuard<'_, Mailbox> {
        let waited = self.changed.wait_timeout_while(self.lock(), at_most, |mailbox| !until(mailbox));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

struct Worker<L, O> {
    shared: Arc<Shared>,
    config: Arc<RegistrationConfig>,
    log: L,
    observer: O,
}

impl<L: FnMut(&Step), O: FnMut(Status)> Worker<L, O> {
    fn run(mut self) {
        let watch = Stopwatch::start();
        let mut life = self.life();
        let mut event = Event::Tick;
        loop {
            let mut command = Action::Done;
            let probed = matches!(event, Event::Health(_));
            for action in life.handle(watch.elapsed(), event) {
                match action {
                    Action::Log(step) => (self.log)(&step),
                    other => command = other,
                }
            }
            if probed {
                (self.observer)(life.status());
            }
            let stopping = matches!(command, Action::Deregister | Action::Done);
            event = if !stopping && self.shared.lock().stop { Event::Stop } else { self.perform(command, watch) };
            if stopping && event == Event::Stop {
                return;
            }
        }
    }

    fn life(&self) -> Lifecycle {
        let settings = Settings {
            heartbeat_interval: self.config.heartbeat_interval,
            initial_wait: self.config.initial_wait,
            health_gate: self.config.health_gate,
            probes: self.shared.probe.is_some(),
        };
        let life = Lifecycle::new(settings, clock::seed());
        match &self.config.version {
            Some(version) => life.with_version(version),
            None => life,
        }
    }

    /// Does what is asked and says what came of it; after [`Action::Done`] that is [`Event::Stop`].
    fn perform(&mut self, command: Action, watch: Stopwatch) -> Event {
        match command {
            Action::ProbeHealth => self.probe(),
            Action::Register(report) => self.register(&report),
            Action::Heartbeat { status, report } => self.heartbeat(status, report.as_ref()),
            Action::Deregister => self.deregister(),
            Action::WakeAt(time) => self.wait(time.saturating_sub(watch.elapsed())),
            // The log has been taken out.
            Action::Done | Action::Log(_) => Event::Stop,
        }
    }

    fn probe(&self) -> Event {
        match &self.shared.probe {
            Some(probe) => Event::Health(probe.ask()),
            None => Event::Tick,
        }
    }

    fn register(&self, report: &Report) -> Event {
        match self.shared.client.register(&self.config.register_request(report)) {
            Ok(answer) => {
                self.shared.change(|mailbox| mailbox.registered = true);
                Event::Registered((answer.ttl > 0).then(|| Duration::from_secs(answer.ttl)))
            }
            Err(error) => {
                self.shared.change(|mailbox| mailbox.registered = false);
                Event::RegisterFailed(error.to_string())
            }
        }
    }

    fn heartbeat(&self, status: Status, report: Option<&Report>) -> Event {
        match self.shared.client.heartbeat(&self.config.heartbeat_request(status, report)) {
            Ok(_) => Event::Renewed,
            Err(error) if error.is_not_found() => {
                self.shared.change(|mailbox| mailbox.registered = false);
                Event::LeaseUnknown
            }
            Err(error) => Event::HeartbeatFailed(error.to_string()),
        }
    }

    fn deregister(&self) -> Event {
        let addresses = u32::try_from(self.config.registry.as_slice().len()).unwrap_or(u32::MAX);
        let client = self.shared.client.again_within((FAREWELL_MAX / addresses.max(1)).max(FAREWELL_MIN));
        let result = client.deregister(self.config.service_name.as_str(), Some(&self.config.instance_id));
        self.shared.change(|mailbox| mailbox.registered = false);
        result.map_or_else(|error: RegistryError| Event::DeregisterFailed(error.to_string()), |_| Event::Deregistered)
    }

    fn wait(&self, at_most: Duration) -> Event {
        let mut mailbox = self.shared.wait(at_most, |mailbox| mailbox.stop || mailbox.status.is_some());
        if mailbox.stop {
            return Event::Stop;
        }
        mailbox.status.take().map_or(Event::Tick, Event::StatusSet)
    }
}

impl<L, O> Drop for Worker<L, O> {
    /// Also when a defect ends the thread: whoever waits must hear of it.
    fn drop(&mut self) {
        self.shared.change(|mailbox| mailbox.finished = true);
    }
}

/// The deepest thing on it is ureq reading an answer.
const STACK: usize = 256 * 1024;
/// How long stopping may take.
const STOP_MAX: Duration = Duration::from_secs(2);
/// How long the farewell may take, all registries together.
const FAREWELL_MAX: Duration = Duration::from_millis(1200);
/// What one registry gets of it at least.
const FAREWELL_MIN: Duration = Duration::from_millis(300);
