//! Names of instances, resolved off the request path.
//!
//! Each name is looked up when it is first used, again at once when an instance under it refuses a connection (at most once
//! a second), and periodically. Look-ups are spread so that there are at most about 100 a second and never more than the
//! configured number at once. An answer is only ever replaced by another answer: a name that stops resolving keeps the last
//! good one.

use crate::clock;
use crate::registrar::Handle;
use crate::telemetry::metrics::Metrics;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};
use vertice_core::command::Command;
use vertice_core::time::Moment;

/// A name that no instance uses is forgotten after this.
const UNUSED_KEPT: Duration = Duration::from_secs(10);
/// More names than this are not looked up on behalf of registrations that have not succeeded yet.
const NAMES_MAX: usize = 100_000;
/// A name whose look-up is under way is due again when that has ended, or when it is nudged.
const NEVER: Moment = Moment::from_nanos(u64::MAX);

/// How look-ups are made.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Whom to ask; the system's resolvers when empty.
    pub servers: Vec<SocketAddr>,
    /// How often each name is looked up again.
    pub refresh: Duration,
    /// How long one look-up may take.
    pub timeout: Duration,
    /// How many look-ups may be under way.
    pub concurrency: usize,
}

/// What is known about one name.
#[derive(Clone, Debug)]
struct Known {
    addresses: Vec<IpAddr>,
    /// Why the last look-up failed.
    error: Option<String>,
    due: Moment,
    started: Option<Moment>,
    in_flight: bool,
    /// Look-ups that failed in a row.
    failures: u32,
    /// An instance uses it. A name that only a registration in progress asked for is dropped again soon.
    used: bool,
}

/// One name as status shows it.
#[derive(Clone, Debug)]
pub struct NameState {
    /// The name.
    pub host: Arc<str>,
    /// The last good answer.
    pub addresses: Vec<IpAddr>,
    /// Why the last look-up failed, if it did.
    pub error: Option<String>,
}

/// The names in use. Locked for moments only, and never by the data plane but after a failed connection.
pub struct Resolver {
    settings: Mutex<Settings>,
    names: Mutex<HashMap<Arc<str>, Known>>,
    /// Something is due earlier than the driver thinks.
    wake: Notify,
    /// Counts up with every answer, for those who wait for one.
    answers: watch::Sender<u64>,
    metrics: Arc<Metrics>,
}

impl Resolver {
    /// A resolver that knows no names.
    #[must_use]
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Arc<Self> {
        let settings = Mutex::new(settings);
        Arc::new(Self { settings, names: Mutex::default(), wake: Notify::new(), answers: watch::channel(0).0, metrics })
    }

    /// Makes look-ups this way from now on; those under way end as they began.
    pub fn configure(&self, settings: Settings) {
        *self.settings.lock() = settings;
        self.wake.notify_one();
    }

    fn settings(&self) -> Settings {
        self.settings.lock().clone()
    }

    /// Resolve this name from now on.
    pub fn want(&self, host: Arc<str>) {
        self.add(host, true);
    }

    fn add(&self, host: Arc<str>, used: bool) {
        let now = clock::mono();
        let mut names = self.names.lock();
        if !used && names.len() >= NAMES_MAX && !names.contains_key(&host) {
            return self.metrics.limit_hit("dns_names");
        }
        let fresh = Known { addresses: Vec::new(), error: None, due: now, started: None, in_flight: false, failures: 0, used };
        names.entry(host).or_insert(fresh).used |= used;
        drop(names);
        self.wake.notify_one();
    }

    /// Nobody needs this name any more.
    pub fn forget(&self, host: &str) {
        self.names.lock().remove(host);
    }

    /// An instance under this name could not be reached: look again, at most once a second.
    pub fn nudge(&self, host: &str) {
        let now = clock::mono();
        if let Some(known) = self.names.lock().get_mut(host) {
            let earliest = known.started.map_or(now, |started| started.plus(Duration::from_secs(1)));
            known.due = known.due.min(earliest.max(now));
        }
        self.wake.notify_one();
    }

    /// The addresses of `host`: at once when it is known, else as soon as it has resolved, else `None` after `wait`.
    pub async fn addresses(&self, host: &Arc<str>, wait: Duration) -> Option<Vec<IpAddr>> {
        let mut answers = self.answers.subscribe();
        let known = |resolver: &Self| {
            let names = resolver.names.lock();
            names.get(host).map(|known| known.addresses.clone()).filter(|addresses| !addresses.is_empty())
        };
        if let Some(addresses) = known(self) {
            return Some(addresses);
        }
        self.add(host.clone(), false);
        let resolved = async {
            loop {
                if let Some(addresses) = known(self) {
                    return Some(addresses);
                }
                answers.changed().await.ok()?;
            }
        };
        tokio::time::timeout(wait, resolved).await.ok().flatten()
    }

    /// Every name, for status.
    #[must_use]
    pub fn states(&self) -> Vec<NameState> {
        let names = self.names.lock();
        let mut states: Vec<_> = names
            .iter()
            .map(|(host, known)| NameState {
                host: host.clone(),
                addresses: known.addresses.clone(),
                error: known.error.clone(),
            })
            .collect();
        states.sort_by(|a, b| a.host.cmp(&b.host));
        states
    }

    /// Looks names up until the future is dropped, and tells the registrar each answer.
    pub async fn run(self: Arc<Self>, registrar: Handle) {
        loop {
            let settings = self.settings();
            match client(&settings) {
                Ok(client) => self.look_up_by(&settings, &Arc::new(client), &registrar).await,
                Err(error) => {
                    tracing::error!(%error, "failed to set up name resolution: names will not resolve");
                    while self.settings() == settings {
                        self.wake.notified().await;
                    }
                }
            }
        }
    }

    /// Looks names up until `settings` are not in force any more.
    async fn look_up_by(self: &Arc<Self>, settings: &Settings, client: &Arc<TokioResolver>, registrar: &Handle) {
        let slots = Arc::new(Semaphore::new(settings.concurrency.max(1)));
        while self.settings() == *settings {
            let next = self.start_due(client, &slots, registrar);
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(clock::timer(next)) => {}
            }
        }
    }

    /// Starts the look-ups that are due and have a slot; tells when the next one is due. Whoever gives a slot back wakes us.
    fn start_due(self: &Arc<Self>, client: &Arc<TokioResolver>, slots: &Arc<Semaphore>, registrar: &Handle) -> Moment {
        for host in self.take_due(slots.available_permits()) {
            let Ok(slot) = slots.clone().try_acquire_owned() else { break };
            let (resolver, client, registrar) = (self.clone(), client.clone(), registrar.clone());
            tokio::spawn(async move {
                resolver.look_up(&host, &client, &registrar).await;
                drop(slot);
                resolver.wake.notify_one();
            });
        }
        let (now, names) = (clock::mono(), self.names.lock());
        let next = names.values().filter(|known| !known.in_flight && known.due > now).map(|known| known.due).min();
        next.unwrap_or_else(|| now.plus(Duration::from_secs(3600)))
    }

    /// At most `free` names that are due, those that never failed first. Names that do fail get at most half of all slots, so
    /// that however many of them there are, a good name's look-up starts at once.
    fn take_due(&self, free: usize) -> Vec<Arc<str>> {
        let now = clock::mono();
        let mut names = self.names.lock();
        let is_stale = |known: &Known| !known.used && known.started.is_some_and(|started| now.since(started) > UNUSED_KEPT);
        names.retain(|_, known| !is_stale(known));
        self.show(&names);
        let mut due: Vec<(u32, Moment, Arc<str>)> = names
            .iter()
            .filter(|(_, known)| known.due <= now && !known.in_flight)
            .map(|(host, known)| (known.failures, known.due, host.clone()))
            .collect();
        due.sort();
        if due.len() > free {
            self.metrics.limit_hit("dns_concurrency");
        }
        let failing = names.values().filter(|known| known.in_flight && known.failures > 0).count();
        let mut failing_left = (self.settings.lock().concurrency / 2).max(1).saturating_sub(failing);
        due.retain(|(failures, ..)| {
            let fits = *failures == 0 || failing_left > 0;
            failing_left = failing_left.saturating_sub(usize::from(*failures > 0));
            fits
        });
        due.truncate(free);
        for (_, _, host) in &due {
            if let Some(known) = names.get_mut(host) {
                known.in_flight = true;
                known.started = Some(now);
                known.due = NEVER;
            }
        }
        due.into_iter().map(|(_, _, host)| host).collect()
    }

    fn show(&self, names: &HashMap<Arc<str>, Known>) {
        let show = |state: &str, count: usize| {
            let gauge = self.metrics.dns_names.with_label_values(&[state]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        show("used", names.len());
        show("unresolved", names.values().filter(|known| known.addresses.is_empty()).count());
    }

    async fn look_up(&self, host: &Arc<str>, client: &TokioResolver, registrar: &Handle) {
        self.metrics.dns_in_flight.inc();
        let timeout = self.settings.lock().timeout;
        let result = tokio::time::timeout(timeout, lookup(client, host)).await;
        self.metrics.dns_in_flight.dec();
        let result = result.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")));
        self.metrics.dns_lookups.with_label_values(&[if result.is_ok() { "ok" } else { "failed" }]).inc();
        if let Ok(addresses) = &result {
            let command = Command::Resolved { host: host.clone(), addresses: addresses.clone() };
            // When the registrar is busy the next look-up tells it again: answers are compared there.
            let _ = registrar.tell(command);
        }
        self.note(host, result);
        self.answers.send_modify(|count| *count += 1);
    }

    fn note(&self, host: &str, result: Result<Vec<IpAddr>, String>) {
        let refresh = self.settings.lock().refresh;
        let mut names = self.names.lock();
        let count = names.len();
        let Some(known) = names.get_mut(host) else { return };
        known.in_flight = false;
        known.failures = if result.is_ok() { 0 } else { known.failures.saturating_add(1) };
        // Sooner when it was nudged meanwhile: this answer is to a question from before the connection failed.
        known.due = known.due.min(clock::mono().plus(pause(refresh, count, known.failures)));
        match result {
            Ok(addresses) => {
                known.addresses = addresses;
                known.error = None;
            }
            Err(error) => {
                if known.error.is_none() {
                    tracing::warn!(host, %error, "name does not resolve");
                }
                known.error = Some(error);
            }
        }
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The pause before the next look-up of a name: `refresh`, stretched so that `names` names make at most 100 look-ups a second.
/// A name that fails is somebody's who waits: tried again after 1, 2, 4 … s, but no more often than the stretched pause allows
/// once there are many.
fn pause(refresh: Duration, names: usize, failures: u32) -> Duration {
    let spread = Duration::from_millis(10) * u32::try_from(names).unwrap_or(u32::MAX);
    let backoff = Duration::from_secs(1 << failures.saturating_sub(1).min(6));
    let wanted = if failures > 0 { backoff.min(refresh) } else { refresh };
    wanted.max(spread)
}

fn client(settings: &Settings) -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let mut builder = if settings.servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = settings.servers.iter().map(|server| {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            config.connections.iter_mut().for_each(|connection| connection.port = server.port());
            config
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    // A changed address must be seen at the next look-up, whatever its time to live says.
    options.cache_size = 0;
    options.timeout = settings.timeout / 2;
    options.attempts = 2;
    builder.build()
}

async fn lookup(client: &TokioResolver, host: &str) -> Result<Vec<IpAddr>, String> {
    // Relaxed: container names have underscores, which host names proper do not.
    let name = Name::from_str_relaxed(host).map_err(|error| error.to_string())?;
    let answer = client.lookup_ip(name).await.map_err(|error| error.to_string())?;
    let mut addresses: Vec<IpAddr> = answer.iter().collect();
    // Servers rotate their answers; order decides nothing here, and the same set must look the same.
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() { Err("the answer has no address".into()) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_ups_are_spread_beyond_five_hundred_names_and_failures_wait_ever_longer() {
        let refresh = Duration::from_secs(5);
        assert_eq!(pause(refresh, 1, 0), refresh);
        assert_eq!(pause(refresh, 500, 0), refresh);
        assert_eq!(pause(refresh, 10_000, 0), Duration::from_secs(100));
        assert_eq!([1, 2, 3, 4, 99].map(|failures| pause(refresh, 1, failures).as_secs()), [1, 2, 4, 5, 5]);
        assert_eq!(pause(refresh, 2000, 1), Duration::from_secs(20));
    }

    fn resolver(concurrency: usize) -> Arc<Resolver> {
        let (refresh, timeout) = (Duration::from_secs(5), Duration::from_secs(2));
        let settings = Settings { servers: Vec::new(), refresh, timeout, concurrency };
        Resolver::new(settings, Arc::new(Metrics::new().unwrap()))
    }

    #[test]
    fn names_that_fail_leave_room_for_those_that_do_not() {
        let resolver = resolver(4);
        for n in 0..100 {
            resolver.want(format!("dead-{n}").into());
        }
        resolver.names.lock().values_mut().for_each(|known| known.failures = 3);
        assert_eq!(resolver.take_due(4).len(), 2);
        resolver.want("good".into());
        assert_eq!(resolver.take_due(2), [Arc::<str>::from("good")]);
    }

    #[test]
    fn a_nudge_during_a_look_up_is_not_lost_with_its_answer() {
        let resolver = resolver(4);
        let wait_after = |nudge: bool| {
            let host: Arc<str> = format!("nudged-{nudge}").into();
            resolver.want(host.clone());
            assert_eq!(resolver.take_due(4), std::slice::from_ref(&host));
            if nudge {
                resolver.nudge(&host);
            }
            resolver.note(&host, Ok(vec![IpAddr::from([10, 0, 0, 1])]));
            let known = resolver.names.lock()[&host].clone();
            known.due.since(known.started.unwrap())
        };
        assert!(wait_after(false) >= Duration::from_secs(5));
        assert!(wait_after(true) < Duration::from_secs(5), "its question was asked before the connection failed");
    }
}
