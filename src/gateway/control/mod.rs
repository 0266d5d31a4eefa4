//! The control plane: the registry API, health, metrics and status, as functions from request to answer.
//!
//! **Invariant:** this room knows no Pingora and no socket; `edge.rs` translates. It changes nothing itself: it sends
//! commands to the registrar, and reads the snapshot.

mod access;
mod call;
mod drain;
mod error;
mod events;
mod fields;
mod health;
mod health_check;
mod host;
mod json;
mod lookup;
mod openapi;
mod query;
mod quota;
mod register;
mod reload;
mod renderings;
mod renew;
mod status;
mod watch;

use crate::aliases::Aliases;
use crate::clock;
use crate::listeners::Addresses;
use crate::noticeboard::NoticeBoard;
use crate::probe::Prober;
use crate::registrar::Handle;
use crate::reloads::Reloads;
use crate::request_id::RequestId;
use crate::resolve::Resolver;
use crate::store::StoreState;
use crate::telemetry::metrics::{Metrics, Scope};
use crate::upstream::Table;
pub use access::{Access, TOKEN_FIELDS, TokenCheck};
use arc_swap::ArcSwap;
use bytes::Bytes;
use call::{Call, Made};
pub use error::Error;
pub use events::EventStream;
pub use health_check::HealthCache;
pub use host::Host;
use http::{HeaderValue, Request, Response, StatusCode, header};
pub use quota::Quotas;
pub use register::parse as parse_registration;
pub use renderings::Renderings;
pub use renew::parse as parse_heartbeat;
use serde::Serialize;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use vertice_api::headers;
use vertice_core::endpoint::Guard;
use vertice_core::reason::Reason;
use vertice_core::record::ReplicaId;
use vertice_core::time::{Moment, Now};
pub use watch::{LongPoll, Outcome};

/// Bodies over this are refused.
pub const BODY_MAX: usize = 64 * 1024;

/// Which listener a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// :8000.
    Gateway,
    /// :8888.
    Registry,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The client's address, by trusted-proxy rules.
    pub address: IpAddr,
    /// Whether the peer is a trusted proxy.
    pub is_trusted_proxy: bool,
    /// The listener.
    pub role: Role,
    /// The request's id.
    pub request_id: RequestId,
}

/// What the control plane was configured with.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Registry paths exist on the gateway's listener too.
    pub registry_on_gateway: bool,
    /// Only one of the two listeners is on, so it shows all metrics.
    pub single_listener: bool,
    /// Default lease.
    pub lease_ttl: Duration,
    /// How long a registration waits for its name to resolve.
    pub register_wait: Duration,
    /// How long a registration waits for the store.
    pub store_wait: Duration,
    /// What people call this replica.
    pub replica_id: String,
    /// Who it is among the replicas.
    pub me: ReplicaId,
    /// Where it listens.
    pub listeners: Addresses,
    /// Where this replica runs.
    pub zone: Option<String>,
    /// How many services there may be.
    pub services_max: usize,
    /// Whether registry calls are limited.
    pub limits_calls: bool,
}

/// Everything the handlers need. A copy with other settings serves beside it: all that has a life of its own is shared.
#[derive(Clone)]
pub struct Control {
    /// Settings.
    pub settings: Settings,
    /// Who may write.
    pub access: Access,
    /// Which endpoints may be registered.
    pub guard: Arc<ArcSwap<Guard>>,
    /// The one writer.
    pub registrar: Handle,
    /// What is routable.
    pub table: Arc<Table>,
    /// Other names of what is routable.
    pub aliases: Arc<Aliases>,
    /// Names.
    pub resolver: Arc<Resolver>,
    /// The store's condition.
    pub store: Arc<StoreState>,
    /// Health checks on demand.
    pub health_cache: HealthCache,
    /// Makes them.
    pub prober: Arc<Prober>,
    /// How often registry calls may be made, where that is limited.
    pub quotas: Arc<Quotas>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Whether timers run late: the host has more to do than it can.
    pub host: Arc<Host>,
    /// What changed, and who is told.
    pub board: Arc<NoticeBoard>,
    /// What several watchers are sent.
    pub renderings: Arc<Renderings>,
    /// Turns true when the process is on its way out.
    pub draining: tokio::sync::watch::Receiver<bool>,
    /// The configuration: what is in force, and how to have it read again.
    pub reloads: Arc<Reloads>,
    /// When the process started.
    pub started: Now,
}

/// So many large answers are made at once.
const OFF_WORKER_MAX: usize = 4;

/// A handler's answer.
type Answer = Result<Response<Bytes>, Error>;

impl Control {
    fn exists(&self, made: Made<'_>, role: Role) -> bool {
        made.entry.exists(role, self.settings.registry_on_gateway)
    }

    /// Whether the process is on its way out.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Answers a request, or says how it will be answered.
    pub async fn handle(self: &Arc<Self>, request: Request<Bytes>, caller: &Caller) -> Outcome {
        let started = clock::mono();
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        let Some(made) = call::find(path).filter(|made| self.exists(*made, caller.role)) else {
            return Outcome::Answer(self.refuse(Error::new(Reason::NotFound, "There is nothing at this path."), caller));
        };
        let counted = match self.settings.limits_calls {
            true => self.quotas.call(made.entry.call, caller.address),
            false => Ok(()),
        };
        let answer = match counted.and_then(|()| watch::begin(self, made, &parts, caller)) {
            Ok(Some(begun)) => return begun,
            Ok(None) => self.dispatch(made, &parts, &body, caller).await,
            Err(error) => Err(error),
        };
        let operation = if watch::is_watch(made, &parts) { Some(watch::OPERATION) } else { made.entry.operation };
        Outcome::Answer(match operation {
            Some(operation) => self.conclude(operation, answer, started, caller),
            None => answer.unwrap_or_else(|error| self.refuse(error, caller)),
        })
    }

    /// Counts a registry operation that began at `started`, and turns its result into what is sent.
    fn conclude(&self, operation: &str, answer: Answer, started: Moment, caller: &Caller) -> Response<Bytes> {
        let outcome = match &answer {
            Ok(_) => "success",
            Err(error) if error.reason.status() < 500 => "refused",
            Err(_) => "error",
        };
        self.metrics.operations.with_label_values(&[operation, outcome]).inc();
        let seconds = clock::mono().since(started).as_secs_f64();
        self.metrics.operation_duration.with_label_values(&[operation]).observe(seconds);
        answer.unwrap_or_else(|error| self.refuse(error, caller))
    }

    /// An error as an answer, counted.
    #[must_use]
    pub fn refuse(&self, error: Error, caller: &Caller) -> Response<Bytes> {
        self.metrics.answered(error.reason);
        let mut response = crate::problem::response(
            error.reason,
            &error.detail,
            error.retry_after_s.or(error.reason.retry_after_s()),
            &caller.request_id,
            error.errors,
        );
        if let Some(allow) = error.allow {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(index) = error.index {
            response.headers_mut().insert(lookup::INDEX, HeaderValue::from(index));
        }
        response
    }

    /// The answer to a body over [`BODY_MAX`].
    #[must_use]
    pub fn body_too_large(&self, caller: &Caller) -> Response<Bytes> {
        self.metrics.limit_hit("local_body");
        self.refuse(Error::new(Reason::BodyTooLarge, "The body is larger than 64 KiB."), caller)
    }

    /// The answer to a body that did not arrive.
    #[must_use]
    pub fn body_too_slow(&self, caller: &Caller) -> Response<Bytes> {
        self.refuse(Error::new(Reason::RequestTimeout, "The body did not arrive in time."), caller)
    }

    async fn dispatch(self: &Arc<Self>, made: Made<'_>, parts: &http::request::Parts, body: &Bytes, caller: &Caller) -> Answer {
        let Made { entry, name } = made;
        if !entry.allows(&parts.method) {
            return Err(Error::method_not_allowed(entry.allowed()));
        }
        if entry.is_write {
            self.access.check(caller, &parts.headers)?;
        }
        let query = parts.uri.query().unwrap_or_default();
        let (this, role) = (self.clone(), caller.role);
        match entry.call {
            Call::Register => register::register(self, &parts.headers, body, caller).await,
            Call::Heartbeat => renew::heartbeat(self, &parts.headers, body, caller).await,
            Call::Deregister => renew::deregister(self, name, query, caller).await,
            Call::Services => {
                let query = query.to_owned();
                off_worker(move || lookup::list(&this, &query)).await
            }
            Call::Service => lookup::service(self, name),
            Call::Health => health::health(self),
            Call::Livez => Ok(text("ok\n")),
            Call::Readyz => health::readyz(self),
            Call::Metrics => off_worker(move || Ok(this.metrics_text(role))).await,
            Call::Status => off_worker(move || status::status(&this)).await,
            Call::HealthCheck => health_check::check(self, name).await,
            Call::Drain => drain::drain(self, name, query).await,
            Call::Reload => reload::reload(self).await,
            Call::OpenApi => off_worker(move || Ok(openapi::answer(&this, role))).await,
        }
    }

    fn metrics_text(&self, role: Role) -> Response<Bytes> {
        let scope = match role {
            _ if self.settings.single_listener => Scope::All,
            Role::Gateway => Scope::DataPlane,
            Role::Registry => Scope::ControlPlane,
        };
        let mut response = Response::new(Bytes::from(self.metrics.render(scope)));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(headers::METRICS_TEXT));
        response
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Which paths on the gateway's listener are the control plane's. What lies below `/gateway/` is, whether it exists there or not:
/// an administrator's call that comes to the wrong listener, with its token, shall not end up at a service.
#[must_use]
pub fn paths_on_gateway(with_registry: bool) -> fn(&str) -> bool {
    fn owns(path: &str, with_registry: bool) -> bool {
        let exists = |made: Made<'_>| made.entry.exists(Role::Gateway, with_registry);
        path.starts_with("/gateway/") || call::find(path).is_some_and(exists)
    }
    if with_registry { |path| owns(path, true) } else { |path| owns(path, false) }
}

/// Whether that path is one that load balancers, orchestrators and monitoring ask for every few seconds.
#[must_use]
pub fn is_probe(path: &str) -> bool {
    call::find(path).is_some_and(|made| matches!(made.entry.call, Call::Health | Call::Livez | Call::Readyz | Call::Metrics))
}

/// Answers whose size grows with the number of services are made on a thread of their own: on a worker they would delay the
/// requests of others by tens of milliseconds. Few at a time: each takes several times the memory of its answer, anybody may
/// ask, and what has begun is finished even when whoever asked has left, and when the process wants to end.
async fn off_worker<T: Send + 'static>(answer: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    static PLACES: Semaphore = Semaphore::const_new(OFF_WORKER_MAX);
    let place = PLACES.acquire().await;
    let make = move || {
        let _place = place;
        answer()
    };
    let made = tokio::task::spawn_blocking(make).await;
    made.unwrap_or_else(|error| Err(Error::new(Reason::Internal, format!("The answer could not be made: {error}."))))
}

/// A JSON answer.
fn json<T: Serialize>(status: StatusCode, body: &T) -> Answer {
    let mut response = json_response(json_bytes(body)?);
    *response.status_mut() = status;
    Ok(response)
}

fn json_bytes<T: Serialize>(body: &T) -> Result<Bytes, Error> {
    let body = serde_json::to_vec(body).map_err(|error| Error::new(Reason::Internal, error.to_string()))?;
    Ok(Bytes::from(body))
}

/// A 200 with a body that is JSON already.
fn json_response(body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(headers::JSON));
    response
}

fn text(body: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(body.as_bytes()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A figure for people: three digits after the point.
fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

/// Milliseconds since the epoch as the wire wants them: seconds with a fraction.
fn epoch_s(wall_ms: u64) -> f64 {
    wall_ms as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn few_large_answers_are_made_at_once_and_all_in_the_end() {
        let (now, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let asked: Vec<_> = (0..64)
            .map(|_| {
                let (now, most) = (now.clone(), most.clone());
                tokio::spawn(off_worker(move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    now.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                }))
            })
            .collect();
        for answer in asked {
            assert!(answer.await.unwrap().is_ok());
        }
        assert!((1..=OFF_WORKER_MAX).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    }
}
