//! The door: questions, blocking and as futures.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use vertice_api::Instance;
use vertice_core::endpoint::Endpoint;
use vertice_core::name::ServiceName;
use vertice_core::rule::BrokenRule;

use super::cache::Answer;
use super::follower::{Pace, State};
use super::service::{Known, Service};
use super::shared::Shared;
use super::subscription::Subscription;
use crate::registry::{RegistryClient, RegistryUrlError, RegistryUrls, Token};

/// Where to ask, and how.
#[derive(Clone)]
pub struct DiscoverySettings {
    /// The registries.
    pub registry: RegistryUrls,
    /// The token they want. Reading needs none as a rule.
    pub token: Option<Token>,
    /// How long a question waits for the first answer.
    pub patience: Duration,
    /// Numbers of the follower.
    pub pace: Pace,
    /// Where a service is that the registry does not know, or cannot be asked for.
    pub fallback: Option<Fallback>,
}

/// Gives the URL of a service by its name, for example from the environment, see [`variables`]. What is no URL of an endpoint
/// is ignored. It is asked again each time, and must not ask the [`Discovery`].
pub type Fallback = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

impl DiscoverySettings {
    /// Defaults for everything else: 5 s of patience, no fallback.
    #[must_use]
    pub fn new(registry: RegistryUrls) -> Self {
        Self { registry, token: None, patience: Duration::from_secs(5), pace: Pace::default(), fallback: None }
    }
}

impl std::fmt::Debug for DiscoverySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiscoverySettings").field("registry", &self.registry).field("pace", &self.pace).finish_non_exhaustive()
    }
}

/// Knows where services are. Clones share everything; the thread ends with the last of them and their subscriptions.
#[derive(Clone, Debug)]
pub struct Discovery(pub(crate) Arc<Handle>);

#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    settings: DiscoverySettings,
}

impl Discovery {
    /// Asks nobody yet and starts nothing: the first question does.
    #[must_use]
    pub fn new(settings: DiscoverySettings) -> Self {
        let addresses = u32::try_from(settings.registry.as_slice().len()).unwrap_or(u32::MAX).max(1);
        let timeout = (settings.patience / addresses).clamp(TIMEOUT_MIN, TIMEOUT_MAX);
        let client = RegistryClient::with_timeout(settings.registry.clone(), settings.token.clone(), timeout);
        Self(Arc::new(Handle { shared: Arc::new(Shared::new(client, timeout, settings.pace)), settings }))
    }

    /// The same with nothing but the registries, separated by commas.
    ///
    /// # Errors
    /// A sentence naming the first bad address and what is wrong with it.
    pub fn connect(urls: &str) -> Result<Self, RegistryUrlError> {
        Ok(Self::new(DiscoverySettings::new(RegistryUrls::parse(urls)?)))
    }

    /// What is known of a service. Known services are answered from memory at once, however old the knowledge is; a new one
    /// waits for its first answer, at most [`DiscoverySettings::patience`].
    ///
    /// # Errors
    /// [`DiscoveryError::NotRegistered`]: the registry says that there is none. [`DiscoveryError::Unreachable`]: it could not be
    /// asked, and never could. [`DiscoveryError::BadName`]: there can be no such service.
    pub fn service(&self, name: &str) -> Result<Service, DiscoveryError> {
        let name = parse(name)?;
        let shared = &self.0.shared;
        let mut answer = shared.ask(&name);
        if matches!(answer, Answer::Awaited) {
            let heard = shared.wait(self.0.settings.patience, |questions| {
                let known = questions.look(&name).0;
                let answer = if matches!(known, Answer::Unasked) { questions.ask(&name) } else { known };
                (!matches!(answer, Answer::Awaited)).then_some(answer)
            });
            answer = heard.unwrap_or(Answer::Awaited);
        }
        self.0.judge(&name, answer)
    }

    /// All instances of a service, whatever their status.
    ///
    /// # Errors
    /// As [`Discovery::service`].
    pub fn instances(&self, name: &str) -> Result<Vec<Instance>, DiscoveryError> {
        self.service(name).map(|service| service.instances().to_vec())
    }

    /// The next instance that takes traffic: they take turns by weight.
    ///
    /// # Errors
    /// As [`Discovery::service`], and [`DiscoveryError::NoInstance`] when none takes traffic.
    pub fn pick(&self, name: &str) -> Result<Instance, DiscoveryError> {
        self.picked(name, Instance::clone)
    }

    /// The URL of the next instance that takes traffic.
    ///
    /// # Errors
    /// As [`Discovery::pick`].
    pub fn endpoint(&self, name: &str) -> Result<String, DiscoveryError> {
        self.picked(name, |instance| instance.endpoint.clone())
    }

    /// [`Discovery::service`] as a future. It is ready once the question has been answered, or once one try at each registry
    /// has failed; it needs no timer of the runtime.
    ///
    /// # Errors
    /// As [`Discovery::service`].
    pub fn lookup(&self, name: &str) -> Lookup {
        Lookup { handle: Arc::clone(&self.0), name: parse(name), asked: false, waker: None }
    }

    /// Hears of every change of a service, of its coming and going too.
    ///
    /// # Errors
    /// [`DiscoveryError::BadName`].
    pub fn subscribe(&self, name: &str) -> Result<Subscription, DiscoveryError> {
        Ok(Subscription::new(Arc::clone(&self.0), parse(name)?))
    }

    /// How things are between us and the registry.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.shared.state()
    }

    fn picked<T>(&self, name: &str, of: impl FnOnce(&Instance) -> T) -> Result<T, DiscoveryError> {
        let service = self.service(name)?;
        service.pick().map(of).ok_or_else(|| DiscoveryError::NoInstance { service: service.name().clone() })
    }
}

impl Handle {
    /// What an answer means to who asked; here the fallback comes in.
    pub(crate) fn judge(&self, name: &ServiceName, answer: Answer) -> Result<Service, DiscoveryError> {
        let service = || name.clone();
        let error = match answer {
            Answer::Present(service) => return Ok(service),
            Answer::Absent => DiscoveryError::NotRegistered { service: service() },
            Answer::Failed(cause) => DiscoveryError::Unreachable { service: service(), cause },
            Answer::Awaited | Answer::Unasked => {
                let cause = format!("no answer within {} s", self.settings.patience.as_secs_f64());
                DiscoveryError::Unreachable { service: service(), cause: cause.into() }
            }
        };
        self.fallback(name).ok_or(error)
    }

    fn fallback(&self, name: &ServiceName) -> Option<Service> {
        let url = (self.settings.fallback.as_ref()?)(name.as_str())?;
        let endpoint = Endpoint::parse(url.trim()).ok()?.to_string();
        let known = Arc::new(Known::of_fallback(&endpoint, name.clone(), Arc::default()));
        Some(Service::new(known, Duration::ZERO, self.settings.pace.stale_after))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// A question on its way. See [`Discovery::lookup`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Lookup {
    handle: Arc<Handle>,
    name: Result<ServiceName, DiscoveryError>,
    asked: bool,
    waker: Option<u64>,
}

impl Future for Lookup {
    type Output = Result<Service, DiscoveryError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let name = match &this.name {
            Ok(name) => name,
            Err(error) => return Poll::Ready(Err(error.clone())),
        };
        let first = !std::mem::replace(&mut this.asked, true);
        let answer = this.handle.shared.poll(&mut this.waker, context, |questions| {
            let known = if first { Answer::Unasked } else { questions.look(name).0 };
            // A failure of before the question is not its answer, and what was forgotten is asked for again.
            let answer = if matches!(known, Answer::Unasked) { questions.ask(name) } else { known };
            (!matches!(answer, Answer::Awaited)).then_some(answer)
        });
        answer.map(|answer| this.handle.judge(name, answer))
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.handle.shared.forget(self.waker.take());
    }
}

/// The environment variables that tell where a service is, the first that is set counts: `NMAP_SERVICE_URL`,
/// `NMAP_SERVICE_SERVICE_URL`, `NMAP_SERVICE_ENDPOINT` for `nmap_service`. For [`DiscoverySettings::fallback`]:
///
/// ```
/// use std::sync::Arc;
/// use vertice_client::discovery::{DiscoverySettings, variables};
/// # let registry = vertice_client::RegistryUrls::parse("http://127.0.0.1:8888")?;
/// let mut settings = DiscoverySettings::new(registry);
/// settings.fallback = Some(Arc::new(|name| variables(name).into_iter().find_map(|variable| std::env::var(variable).ok())));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn variables(name: &str) -> [String; 3] {
    let name = name.to_ascii_uppercase().replace('-', "_");
    ["_URL", "_SERVICE_URL", "_ENDPOINT"].map(|suffix| format!("{name}{suffix}"))
}

/// Why there is no service to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// No service can be called that.
    #[error("failed to look up {name:?}: a service's name {cause}")]
    BadName {
        /// What was asked for.
        name: String,
        /// The rule it breaks.
        cause: BrokenRule,
    },
    /// The registry was asked, and there is none.
    #[error("no service {service} is registered")]
    NotRegistered {
        /// The service.
        service: ServiceName,
    },
    /// There are instances, but each says that it takes no traffic now.
    #[error("no instance of {service} takes traffic")]
    NoInstance {
        /// The service.
        service: ServiceName,
    },
    /// No registry could be asked, and none ever said anything of this service: it may well exist.
    #[error("failed to learn where {service} is: {cause}")]
    Unreachable {
        /// The service.
        service: ServiceName,
        /// Why.
        cause: Arc<str>,
    },
}

fn parse(name: &str) -> Result<ServiceName, DiscoveryError> {
    let bad = |cause| DiscoveryError::BadName { name: name.chars().take(NAME_SHOWN).collect(), cause };
    ServiceName::parse(name).map_err(bad)
}

const TIMEOUT_MIN: Duration = Duration::from_millis(300);
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// Characters of a bad name that an error repeats.
const NAME_SHOWN: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_those_of_the_gateway() {
        assert_eq!(variables("nmap-scan"), ["NMAP_SCAN_URL", "NMAP_SCAN_SERVICE_URL", "NMAP_SCAN_ENDPOINT"]);
    }
}
