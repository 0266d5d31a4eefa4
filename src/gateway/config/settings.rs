//! The whole configuration, validated and complete: what the rest of the program sees.
//!
//! Each struct is a section of `conf/vertice.toml` and is read where it is defined, default and allowed range beside each
//! key; the file tells operators what the keys mean.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use vertice_core::endpoint::Endpoint;
use vertice_core::limiter::RateLimit;
use vertice_core::name::ServiceName;
use vertice_core::policy::{Connections, Policy};
use vertice_core::route::StaticRoute;

use super::policy::read_policy;
use super::rates;
use super::raw::Value;
use super::reader::Reader;
use super::routes;
use super::routing::{self, RoutingSettings, ServiceSettings};
use super::secret::{Secret, Token};
use super::source;
use super::store::StoreSettings;
use super::tls::TlsSettings;
use super::value;

/// Everything an operator can decide. Any value of this type that [`source::load`] or [`source::parse`] returns is valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// The files that it names and that were read: secrets, certificates.
    pub named_files: Vec<PathBuf>,
    /// This process.
    pub server: ServerSettings,
    /// The listener of the data plane.
    pub gateway: GatewaySettings,
    /// The listener of the registry and who may write to it.
    pub registry: RegistrySettings,
    /// How long registrations live.
    pub lease: LeaseSettings,
    /// What is bounded, and where.
    pub limits: LimitSettings,
    /// Balancing, timeouts, retries and breaker of every service without a policy of its own: the sections `balance`,
    /// `timeouts`, `retry` and `breaker`. See [`Config::policy_of`].
    pub policy: Policy,
    /// How names are resolved.
    pub dns: DnsSettings,
    /// Health checks.
    pub health: HealthSettings,
    /// Where the registry is persisted.
    pub store: StoreSettings,
    /// How names lead to services.
    pub routing: RoutingSettings,
    /// The static routes, in the order of the file; no two have the same name, and none can be in another's way.
    pub routes: Vec<StaticRoute>,
    /// The rate limits, in the order of the file; no two have the same name.
    pub rate_limits: Vec<RateLimit>,
    /// What was configured for single services.
    pub services: BTreeMap<ServiceName, ServiceSettings>,
    /// Where services are according to `{NAME}_URL`, `{NAME}_SERVICE_URL` and `{NAME}_ENDPOINT`; empty when
    /// `routing.env_fallback` is off. Names have underscores only: look a service up with its hyphens replaced.
    pub env_services: BTreeMap<ServiceName, Endpoint>,
    /// How the process ends.
    pub shutdown: ShutdownSettings,
    /// What is written to stdout and stderr.
    pub log: LogSettings,
    /// Where the predecessor sent its traces (`JAEGER_ENDPOINT`).
    pub trace_endpoint: Option<String>,
    /// What the operator should know at the start, one sentence each; free of secrets.
    pub warnings: Vec<String>,
}

impl Config {
    /// Every file that was read.
    pub fn files(&self) -> Vec<PathBuf> {
        self.file.iter().chain(&self.named_files).cloned().collect()
    }

    /// What was decided about `service`.
    pub fn policy_of(&self, service: &ServiceName) -> &Policy {
        self.services.get(service).map_or(&self.policy, |settings| &settings.policy)
    }

    /// Reads every section.
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let limits = r.within("limits", LimitSettings::read);
        let connections = Connections { write_stall: limits.write_stall, ..Connections::default() };
        let policy = read_policy(r, &Policy { connections, body_bytes: limits.body_bytes, ..Policy::default() });
        let services = routing::read_services(r, &policy);
        let routes = routes::read_routes(r, &policy, &services);
        let config = Self {
            file: None,
            named_files: Vec::new(),
            server: r.within("server", ServerSettings::read),
            gateway: r.within("gateway", GatewaySettings::read),
            registry: r.within("registry", RegistrySettings::read),
            lease: r.within("lease", LeaseSettings::read),
            limits,
            dns: r.within("dns", DnsSettings::read),
            health: r.within("health", HealthSettings::read),
            store: r.within("store", StoreSettings::read),
            routing: r.within("routing", RoutingSettings::read),
            rate_limits: rates::read_rate_limits(r, &routes),
            routes,
            policy,
            services,
            env_services: BTreeMap::new(),
            shutdown: r.within("shutdown", ShutdownSettings::read),
            log: r.within("log", LogSettings::read),
            trace_endpoint: None,
            warnings: Vec::new(),
        };
        config.check_listeners(r);
        config
    }

    /// Asks for every key once, those below operator-chosen names with `*` for the name.
    pub(super) fn read_samples(r: &mut Reader<'_>) {
        let config = Self::read(r);
        routing::read_samples(r, &config.policy);
    }

    fn check_listeners(&self, r: &mut Reader<'_>) {
        let lists: [(&[&str], &[SocketAddr]); 5] = [
            (&["gateway", "listen"], &self.gateway.listen),
            (&["gateway", "h2c_listen"], &self.gateway.h2c_listen),
            (&["gateway", "tls", "listen"], &self.gateway.tls.listen),
            (&["registry", "listen"], &self.registry.listen),
            (&["registry", "tls", "listen"], &self.registry.tls.listen),
        ];
        if lists.iter().all(|(_, addresses)| addresses.is_empty()) {
            r.within("gateway", |r| r.refuse("listen", "nothing to listen on: registry.listen is empty too".to_owned()));
        }
        for (at, (key, addresses)) in lists.iter().enumerate() {
            for (other, earlier) in &lists[..at] {
                for address in addresses.iter().filter(|address| address.port() != 0 && earlier.contains(address)) {
                    r.refuse_at(key, format!("{address} is also in {}", other.join(".")));
                }
            }
        }
        let writable = self.registry.is_on() || self.gateway.registry_api;
        if writable && self.registry.token.is_empty() {
            let who = "everyone whose address is in registry.allow_from may register services";
            r.warn(format!("no registry token is set: {who}"));
        }
    }
}

impl Default for Config {
    /// The configuration without a file and without variables.
    fn default() -> Self {
        source::parse("", "built-in defaults", &BTreeMap::new()).expect("invariant: the built-in defaults are valid")
    }
}

/// Section `server`: this process.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSettings {
    /// The name of this process among its replicas; the caller chooses one when it is absent.
    pub replica_id: Option<String>,
    /// The zone this process is in.
    pub zone: Option<String>,
    /// What all replicas know and nobody else: keys the names that clients' cookies have for instances.
    pub secret: Option<Secret>,
    /// Peers that may name another client in `X-Forwarded-For` or `Forwarded`.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether the configuration is reloaded when its file changes.
    pub watch_config: bool,
    /// Where the bound addresses are written, as JSON, once all listeners accept.
    pub port_file: Option<PathBuf>,
}

impl ServerSettings {
    fn read(r: &mut Reader<'_>) -> Self {
        Self {
            replica_id: r.label("replica_id"),
            zone: r.label("zone"),
            secret: r.secret("secret", long_enough),
            trusted_proxies: r.networks("trusted_proxies", &[]),
            watch_config: r.boolean("watch_config", false),
            port_file: r.text("port_file").map(PathBuf::from),
        }
    }
}

fn long_enough(secret: &str) -> Result<(), String> {
    if secret.len() >= 16 { Ok(()) } else { Err("the secret is too short; give at least 16 characters".to_owned()) }
}

/// Section `gateway`: the listener of the data plane.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewaySettings {
    /// Where it listens; empty switches it off. Port 0 takes any free one.
    pub listen: Vec<SocketAddr>,
    /// Where it listens for HTTP/2 without TLS and without negotiation (prior knowledge).
    pub h2c_listen: Vec<SocketAddr>,
    /// Where it listens for TLS, and what it shows.
    pub tls: TlsSettings,
    /// Whether it also answers the registry's paths.
    pub registry_api: bool,
    /// Whether plain requests take the express lane.
    pub express: bool,
    /// Worker threads; 0 means one for each core.
    pub workers: usize,
}

impl GatewaySettings {
    /// Whether it listens anywhere.
    #[must_use]
    pub fn is_on(&self) -> bool {
        [&self.listen, &self.h2c_listen, &self.tls.listen].into_iter().any(|addresses| !addresses.is_empty())
    }

    fn read(r: &mut Reader<'_>) -> Self {
        Self {
            listen: r.addresses("listen", &[everywhere(8000)]),
            h2c_listen: r.addresses("h2c_listen", &[]),
            tls: r.within("tls", TlsSettings::read),
            registry_api: r.boolean("registry_api", true),
            express: r.boolean("express", true),
            workers: r.integer("workers", 0u32, 0..=1024) as usize,
        }
    }
}

/// Section `registry`: its own listener, and who may write to it.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistrySettings {
    /// Where it listens; empty switches it off. Port 0 takes any free one.
    pub listen: Vec<SocketAddr>,
    /// Where it listens for TLS, and what it shows.
    pub tls: TlsSettings,
    /// The tokens of which a writer must present one; empty asks for none.
    pub token: Vec<Token>,
    /// Networks from which writes are accepted.
    pub allow_from: Vec<IpNet>,
    /// Networks that registered endpoints must be in; empty allows every address that is not refused anyway.
    pub endpoint_allow: Vec<IpNet>,
}

impl RegistrySettings {
    /// Whether it listens anywhere.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !(self.listen.is_empty() && self.tls.listen.is_empty())
    }

    fn read(r: &mut Reader<'_>) -> Self {
        Self {
            listen: r.addresses("listen", &[everywhere(8888)]),
            tls: r.within("tls", TlsSettings::read),
            token: r.secret_list("token", Token::parse),
            allow_from: r.networks("allow_from", &own_networks()),
            endpoint_allow: r.networks("endpoint_allow", &[]),
        }
    }
}

/// Section `lease`: how long registrations live.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseSettings {
    /// For how long a heartbeat counts, unless the registration says otherwise.
    pub ttl: Duration,
    /// How long after its last heartbeat an instance that another replica renewed counts as stale, while the store is away.
    pub stale_after: Duration,
}

impl LeaseSettings {
    fn read(r: &mut Reader<'_>) -> Self {
        Self {
            ttl: r.duration("ttl", secs(60), secs(1)..=HOUR),
            stale_after: r.duration("stale_after", secs(60), secs(1)..=HOUR),
        }
    }
}

/// Section `limits`: what is bounded, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitSettings {
    /// How long a request's head may take to arrive.
    pub head_deadline: Duration,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Fields in a request's head.
    pub head_fields: usize,
    /// Bytes of a request's target.
    pub uri_bytes: usize,
    /// Bytes of a request's body, if bounded.
    pub body_bytes: Option<u64>,
    /// How long a request's body may stall.
    pub body_stall: Duration,
    /// How long a client may not take what is sent to it.
    pub write_stall: Duration,
    /// How long a client's connection may be idle between requests.
    pub idle_keepalive: Duration,
    /// How many bytes of a request's body must come each second, if any.
    pub body_rate: Option<u64>,
    /// Over how much waiting [`Self::body_rate`] is the average.
    pub body_rate_window: Duration,
    /// How long a TLS handshake may take.
    pub tls_handshake: Duration,
    /// Requests under way at once on one HTTP/2 connection.
    pub h2_streams: u32,
    /// Requests that a client may take back on one HTTP/2 connection within a second.
    pub h2_resets: u32,
    /// Client connections at once.
    pub connections: usize,
    /// Of them, those from one address or one /64 of IPv6, if bounded.
    pub connections_per_client: Option<usize>,
    /// Requests on one connection, if bounded.
    pub requests_per_connection: Option<u32>,
    /// How old a client's connection may become, if bounded.
    pub connection_age: Option<Duration>,
    /// Requests to services at once, if bounded.
    pub requests: Option<u32>,
    /// Whether registry calls are limited, by address and instance.
    pub registry: bool,
    /// Commands waiting for the registrar.
    pub registry_queue: usize,
    /// Registered services.
    pub services: usize,
    /// Registered instances.
    pub instances: usize,
    /// Registered instances of one service.
    pub instances_per_service: usize,
    /// Results kept by the health-check cache.
    pub health_cache: usize,
    /// Clients that watch the registry at once.
    pub watchers: usize,
    /// Services whose last change is remembered for watchers.
    pub watch_history: usize,
}

impl LimitSettings {
    fn read(r: &mut Reader<'_>) -> Self {
        let head_bytes = r.bytes("head_bytes", 64 * KIB, KIB..=1023 * KIB);
        let limits = Self {
            head_deadline: r.duration("head_deadline", secs(10), ms(10)..=secs(300)),
            head_bytes: head_bytes as usize,
            head_fields: r.integer("head_fields", 128u32, 8..=256) as usize,
            uri_bytes: r.bytes("uri_bytes", head_bytes.min(16 * KIB), 256..=1023 * KIB) as usize,
            body_bytes: r.optional_bytes("body_bytes").flatten(),
            body_stall: r.duration("body_stall", secs(20), ms(10)..=HOUR),
            write_stall: r.duration("write_stall", secs(30), ms(10)..=HOUR),
            idle_keepalive: r.duration("idle_keepalive", secs(75), ms(10)..=HOUR),
            body_rate: Some(r.bytes("body_rate", 100, 0..=KIB * KIB)).filter(|rate| *rate > 0),
            body_rate_window: r.duration("body_rate_window", secs(30), ms(10)..=HOUR),
            tls_handshake: r.duration("tls_handshake", secs(10), ms(10)..=secs(300)),
            h2_streams: r.integer("h2_streams", 100u32, 1..=10_000),
            h2_resets: r.integer("h2_resets", 200u32, 1..=1_000_000),
            connections: r.integer("connections", 20_000u32, 1..=1_000_000) as usize,
            connections_per_client: unless_zero(r.integer("connections_per_client", 0u32, 0..=1_000_000)).map(|n| n as usize),
            requests_per_connection: unless_zero(r.integer("requests_per_connection", 0u32, 0..=1_000_000_000)),
            connection_age: r.optional_duration("connection_age", None, ms(10)..=DAY),
            requests: r.optional_integer("requests", None, 1..=10_000_000),
            registry: r.boolean("registry", false),
            registry_queue: r.integer("registry_queue", 65_536u32, 16..=1_000_000) as usize,
            services: r.integer("services", 20_000u32, 1..=1_000_000) as usize,
            instances: r.integer("instances", 200_000u32, 1..=10_000_000) as usize,
            instances_per_service: r.integer("instances_per_service", 10_000u32, 1..=1_000_000) as usize,
            health_cache: r.integer("health_cache", 10_000u32, 1..=1_000_000) as usize,
            watchers: r.integer("watchers", 10_000u32, 1..=1_000_000) as usize,
            watch_history: r.integer("watch_history", 65_536u32, 1..=10_000_000) as usize,
        };
        if limits.uri_bytes > limits.head_bytes {
            r.refuse_pair("uri_bytes", "head_bytes", "uri_bytes is more than head_bytes".to_owned());
        }
        limits
    }
}

/// Section `dns`: how names of instances are resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsSettings {
    /// Whom to ask; empty means what the system is configured for.
    pub servers: Vec<SocketAddr>,
    /// How often names are resolved again.
    pub refresh: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Questions under way at once.
    pub concurrency: usize,
    /// How long a registration waits for its name to resolve before it says `"resolved":false`.
    pub register_wait: Duration,
}

impl DnsSettings {
    fn read(r: &mut Reader<'_>) -> Self {
        Self {
            servers: r.list("servers", value::dns_server).unwrap_or_default(),
            refresh: r.duration("refresh", secs(5), ms(50)..=HOUR),
            timeout: r.duration("timeout", secs(2), ms(10)..=secs(60)),
            concurrency: r.integer("concurrency", 32u32, 1..=1024) as usize,
            register_wait: r.duration("register_wait", ms(250), ZERO..=secs(10)),
        }
    }
}

/// Section `health`: checks on request.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthSettings {
    /// For how long a result is answered from memory; zero asks the instance each time.
    pub cache_ttl: Duration,
    /// How long a check may take.
    pub timeout: Duration,
}

impl HealthSettings {
    fn read(r: &mut Reader<'_>) -> Self {
        Self {
            cache_ttl: r.duration("cache_ttl", secs(5), ZERO..=HOUR),
            timeout: r.duration("timeout", secs(2), ms(10)..=secs(60)),
        }
    }
}

/// Section `shutdown`: how the process ends after SIGTERM.
#[derive(Clone, Debug, PartialEq)]
pub struct ShutdownSettings {
    /// How long listeners still accept while readiness already says no.
    pub delay: Duration,
    /// How long requests under way may take to finish.
    pub grace: Duration,
}

impl ShutdownSettings {
    fn read(r: &mut Reader<'_>) -> Self {
        Self { delay: r.duration("delay", ZERO, ZERO..=secs(600)), grace: r.duration("grace", secs(8), ZERO..=HOUR) }
    }
}

/// Section `log`: what is written.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    /// The least important lines that are written (to stderr).
    pub level: LogLevel,
    /// The form of those lines.
    pub format: LogFormat,
    /// A line for each request (to stdout).
    pub access: AccessLog,
    /// Whether probes of the gateway itself that succeeded have one, too.
    pub access_probes: bool,
}

impl LogSettings {
    fn read(r: &mut Reader<'_>) -> Self {
        let formats = [("auto", LogFormat::Auto), ("json", LogFormat::Json), ("text", LogFormat::Text)];
        Self {
            level: LogLevel::read(r),
            format: r.choice("format", LogFormat::Auto, &formats),
            access: read_access(r),
            access_probes: r.boolean("access_probes", false),
        }
    }
}

/// How important a line must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Someone must act.
    Error,
    /// Someone should look.
    Warn,
    /// What happens.
    Info,
    /// Why it happens.
    Debug,
    /// Every step.
    Trace,
}

impl LogLevel {
    /// The level in the words of the `log` and `tracing` crates.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// Python's names are understood too: the predecessor's `LOG_LEVEL` has them.
    fn read(r: &mut Reader<'_>) -> Self {
        let levels = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace].map(|level| (level.as_str(), level));
        let python = [("warning", Self::Warn), ("critical", Self::Error), ("fatal", Self::Error)];
        r.choice_or("level", Self::Info, &levels, &python)
    }
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For reading.
    Text,
}

/// The form of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// One JSON object a line.
    Json,
    /// None.
    Off,
}

/// A truth value is understood as well: `access = false` is what many would write first.
fn read_access(r: &mut Reader<'_>) -> AccessLog {
    let parse = |value: &Value| match value {
        Value::Text(text) if text.trim().eq_ignore_ascii_case("json") => Ok(AccessLog::Json),
        other => match value::boolean(other) {
            Ok(true) => Ok(AccessLog::Json),
            Ok(false) => Ok(AccessLog::Off),
            Err(_) => Err(format!("{} is not one of json, off", value::given(other))),
        },
    };
    r.value("access", parse).unwrap_or(AccessLog::Json)
}

/// Loopback and the private ranges of RFC 1918 and RFC 4193.
fn own_networks() -> Vec<IpNet> {
    let networks = ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];
    networks.iter().filter_map(|network| network.parse().ok()).collect()
}

fn unless_zero(number: u32) -> Option<u32> {
    Some(number).filter(|number| *number > 0)
}

fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const ZERO: Duration = Duration::ZERO;
const HOUR: Duration = secs(3600);
const DAY: Duration = secs(24 * 3600);
const KIB: u64 = 1024;
