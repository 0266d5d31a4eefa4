//! What the operator decided about a service.

use crate::breaker::BreakerPolicy;
use crate::concurrency::Concurrency;
use crate::outlier::OutlierPolicy;
use crate::priority::Priority;
use crate::probing::ProbePolicy;
use crate::retry::Budget;
use std::sync::Arc;
use std::time::Duration;

/// How an instance is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// The better of two random instances by in-flight requests × average response time (Mitzenmacher, "The Power of Two
    /// Choices in Randomized Load Balancing", 2001).
    #[default]
    P2c,
    /// In turn, by weight.
    RoundRobin,
    /// Any, by weight.
    Random,
    /// The same key to the same instance, by weight (Ketama); requests without a key as by [`Algorithm::P2c`].
    ConsistentHash,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 4] = [Self::P2c, Self::RoundRobin, Self::Random, Self::ConsistentHash];

    /// What operators call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P2c => "p2c",
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::ConsistentHash => "consistent_hash",
        }
    }
}

/// What of a request is hashed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    #[default]
    Address,
    /// The value of this header field.
    Header(Arc<str>),
    /// The value of this cookie.
    Cookie(Arc<str>),
}

/// To which requests a browser adds a cookie (RFC 6265bis).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    /// Those that begin on the same site, and links to it.
    #[default]
    Lax,
    /// Those that begin on the same site.
    Strict,
    /// All; the cookie must be secure.
    None,
}

/// Whether a cookie keeps a client with its instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// Whether it does.
    pub enabled: bool,
    /// The cookie's name; `vx_` and the service's name when absent.
    pub cookie: Option<Arc<str>>,
    /// How long the client keeps it; until it is closed when absent.
    pub ttl: Option<Duration>,
    /// The paths below which the client sends it.
    pub path: Arc<str>,
    /// Whether the client sends it over TLS only.
    pub secure: bool,
    /// With which requests the client sends it.
    pub same_site: SameSite,
}

impl Default for Sticky {
    fn default() -> Self {
        Self { enabled: false, cookie: None, ttl: None, path: "/".into(), secure: false, same_site: SameSite::Lax }
    }
}

/// How long we wait for an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the first byte of an answer, once the request has been sent.
    pub first_byte: Duration,
    /// For the next bytes, in either direction.
    pub silence: Duration,
    /// For the whole request, if bounded.
    pub request: Option<Duration>,
    /// For the next bytes of an upgraded connection.
    pub tunnel_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            first_byte: Duration::from_secs(30),
            silence: Duration::from_secs(60),
            request: None,
            tunnel_idle: Duration::from_secs(3600),
        }
    }
}

/// When a failed attempt is followed by another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in total, the first one included.
    pub attempts: u32,
    /// The wait before the second attempt, before jitter; doubles after that.
    pub backoff: Duration,
    /// No wait is longer.
    pub backoff_max: Duration,
    /// How many retries the service as a whole may bear.
    pub budget: Budget,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Duration::from_millis(5),
            backoff_max: Duration::from_millis(25),
            budget: Budget::default(),
        }
    }
}

/// How requests are spread over a service's instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// How an instance is chosen.
    pub algorithm: Algorithm,
    /// What is hashed, if the algorithm hashes.
    pub hash_key: HashKey,
    /// Whether a client stays with its instance.
    pub sticky: Sticky,
    /// The zone whose instances come first: this process's own, if they shall.
    pub zone: Option<Arc<str>>,
    /// How long a new or recovered instance takes to get its whole share; zero gives it at once.
    pub slow_start: Duration,
    /// While less than this part of the usable instances is left, ejections and probes are ignored; per cent, 0 never.
    pub panic_percent: u32,
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            hash_key: HashKey::default(),
            sticky: Sticky::default(),
            zone: None,
            slow_start: Duration::ZERO,
            panic_percent: 50,
        }
    }
}

/// How connections to instances are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// How long an idle one is kept for the next request; zero keeps none. Below the keep-alive of common servers (uvicorn: 5 s),
    /// because a connection that the server closes first costs a retry.
    pub keepalive: Duration,
    /// How long an instance may refuse to take more of a request.
    pub write_stall: Duration,
}

impl Default for Connections {
    fn default() -> Self {
        Self { keepalive: Duration::from_secs(4), write_stall: Duration::from_secs(30) }
    }
}

/// Everything decided about a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// How requests are spread over the instances.
    pub balance: Balance,
    /// How long we wait.
    pub timeouts: Timeouts,
    /// How connections are kept.
    pub connections: Connections,
    /// When we try again.
    pub retry: RetryPolicy,
    /// When an instance is shed.
    pub breaker: BreakerPolicy,
    /// When an instance that does worse than the others is shed.
    pub outlier: OutlierPolicy,
    /// Whether instances are asked for their health.
    pub probes: ProbePolicy,
    /// How many requests at once.
    pub concurrency: Concurrency,
    /// How important its requests are, unless their route says otherwise.
    pub priority: Priority,
    /// Whether a client may close its sending side after its request and still wants the answer.
    pub allow_half_close: bool,
    /// Whether `Host` is passed on as the client sent it.
    pub preserve_host: bool,
    /// How large a request's body may be, in bytes; `None` is no limit.
    pub body_bytes: Option<u64>,
}
