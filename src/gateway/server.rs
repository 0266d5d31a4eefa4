//! Wiring, and only wiring: who knows whom, in which order things start and end.

mod in_force;
mod reloader;

use crate::accept::{
    AcceptApp, AcceptSettings, BindError, Certificate, Drain, DrainSignal, Entrance, HeadLimits, Http2Limits, Protocol, Tls,
    Workers, service,
};
use crate::active_probes::ActiveProbes;
use crate::clock;
use crate::config::{AccessLog as AccessSetting, Config, FileWatch, Secret, Source, StoreKind, TlsSettings, Token};
use crate::control::{Access, Control, HealthCache, Quotas, Renderings, Role, Settings, TokenCheck, paths_on_gateway};
use crate::descriptors;
use crate::edge::{Edge, Observer};
use crate::express::Express;
use crate::held::HeldProbes;
use crate::lanes::Shared;
use crate::listeners::{Addresses, Doors, Listeners};
use crate::noticeboard::NoticeBoard;
use crate::outliers::Outliers;
use crate::persistence::Persistence;
use crate::probe::Prober;
use crate::proxy::admit::{OwnPaths, Routing};
use crate::proxy::overload::Process;
use crate::proxy::rules::{self, Rules};
use crate::proxy::watch::SWEEP;
use crate::random::random;
use crate::rates::{self, Rates};
use crate::registrar::outbox::Outbox;
use crate::registrar::{Handle, Registrar};
use crate::reloads::Reloads;
use crate::resolve::Resolver;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Hung, NamingKey, Table};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use in_force::{Health, Identity, InForce};
use parking_lot::Mutex;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownWatch};
use pingora::services::background::{BackgroundService, background_service};
use reloader::Reloader;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use vertice_core::command::{Command, Limits, Policies, Probe, Terms};
use vertice_core::endpoint::{Endpoint, Guard, Network};
use vertice_core::name::ServiceName;
use vertice_core::pace::PaceLimit;
use vertice_core::record::ReplicaId;
use vertice_core::registry::Registry;
use vertice_core::table::Snapshot;

/// No request waits longer for the store.
const STORE_WAIT: Duration = Duration::from_millis(250);
/// How often the host's own addresses are looked at again.
const OWN_ADDRESSES_EVERY: Duration = Duration::from_secs(5);

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The metrics are inconsistent: a defect.
    #[error("failed to set up metrics: {0}")]
    Metrics(#[from] crate::telemetry::metrics::MetricsError),
    /// The TLS library refuses its own defaults.
    #[error("failed to set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The operating system refused a thread or a file.
    #[error("failed to start: {0}")]
    Os(#[from] std::io::Error),
}

/// A gateway that is ready to run: listeners bound, state restored, table published.
pub struct Gateway {
    config: Arc<ArcSwap<Config>>,
    source: Option<Source>,
    watch: FileWatch,
    identity: Identity,
    listeners: Listeners,
    drain: Arc<Drain>,
    shared: Arc<Shared>,
    registrar: Registrar,
    handle: Handle,
    persistence: Persistence,
    guard: Arc<ArcSwap<Guard>>,
    probes: Receiver<Probe>,
    certificates: Certificates,
}

/// The certificates that the listeners show, for whoever replaces them.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    /// Of the data plane.
    pub gateway: Option<Arc<Certificate>>,
    /// Of the registry.
    pub registry: Option<Arc<Certificate>>,
}

impl Certificates {
    fn new(config: &Config) -> Self {
        let of = |tls: &TlsSettings| tls.identity.as_ref().map(|identity| Certificate::new(identity.certified_key()));
        Self { gateway: of(&config.gateway.tls), registry: of(&config.registry.tls) }
    }
}

impl Gateway {
    /// Binds, opens the store, restores what it holds, and publishes it. Nothing accepts yet. `config` can be read again from
    /// `source`, if it came from there.
    ///
    /// # Errors
    /// [`StartError`]. A store that cannot be had is none: the gateway starts empty and says so.
    pub fn prepare(config: Config, source: Option<Source>) -> Result<Self, StartError> {
        let started = clock::now();
        let watch = FileWatch::new(config.files());
        let config = affordable(config);
        let listeners = Listeners::bind(&config)?;
        let addresses = listeners.addresses();
        let metrics = Arc::new(Metrics::new()?);
        count_panics(&metrics);
        let access = match config.log.access {
            AccessSetting::Json => AccessLog::start(metrics.clone())?,
            AccessSetting::Off => AccessLog::off(metrics.clone()),
        };
        let outbox = Arc::<Outbox>::default();
        let identity = Identity { me: ReplicaId::of(random()), replica_id: replica_id(&config), addresses };
        let mut persistence = Persistence::open(&config, identity.me, &identity.replica_id, outbox.clone(), metrics.clone());
        let InForce {
            policies,
            terms,
            fallbacks,
            guard,
            lane,
            routes,
            aliases,
            rate_limits,
            requests_max,
            control,
            access: writers,
            names,
            health,
            times,
            ..
        } = InForce::of(&config, &identity);
        let Health { timeout, cache_ttl, cache_max } = health;
        let resolver = Resolver::new(names, metrics.clone());
        // Indexes of another process, a former life of this one included, are never mistaken for ours: they begin at the time.
        let first = started.wall_ms * 1000;
        let table = Arc::new(Table::from_pointee(Snapshot::empty(random()).with(first, Vec::new())));
        let (history, watchers_max) = (config.limits.watch_history, config.limits.watchers);
        let board = Arc::new(NoticeBoard::new(table.clone(), history, watchers_max, metrics.clone()));
        let naming = NamingKey::new(config.server.secret.as_ref().map(Secret::expose));
        let hung = Hung { metrics: metrics.clone(), naming };
        let registry = persistence.share(Registry::new(terms.limits, terms.ttl).starting_at(first));
        let queue = config.limits.registry_queue;
        let (mut registrar, handle) =
            Registrar::new(registry, table.clone(), hung, board.clone(), outbox, resolver.clone(), queue);
        let probes = registrar.probes();
        let decisions = [Command::SetGuard(guard.clone()), Command::SetPolicies(policies), Command::SetFallbacks(fallbacks)];
        registrar.restore(decisions.into_iter().chain(persistence.take_restored()));
        let guard = Arc::new(ArcSwap::from_pointee(guard));
        let drain = Arc::<Drain>::default();
        drain.set_times(times);
        let aliases = Arc::new(aliases);
        let reloads = Arc::new(Reloads::new(config.file.clone()));
        metrics.config_read(true, started.wall_ms);
        let control = Control {
            settings: control,
            access: writers,
            guard: guard.clone(),
            registrar: handle.clone(),
            table: table.clone(),
            aliases: aliases.clone(),
            resolver: resolver.clone(),
            store: persistence.state.clone(),
            health_cache: HealthCache::new(cache_ttl, cache_max),
            prober: Arc::new(Prober::new(timeout)),
            quotas: Arc::new(Quotas::new(metrics.clone())),
            metrics: metrics.clone(),
            host: Arc::default(),
            board,
            renderings: Arc::<Renderings>::default(),
            draining: drain.draining_watch(),
            reloads,
            started,
        };
        let own = OwnPaths(paths_on_gateway(control.settings.registry_on_gateway));
        let rates = Arc::new(Rates::new(metrics.clone()));
        let rules = Rules {
            settings: lane,
            routing: Routing::new(routes, aliases, own, random()),
            rates: rates.adopt(&rate_limits, started.mono),
            process: Process { max: requests_max, ..Process::default() },
        };
        let shared = Arc::new(Shared {
            rules: ArcSwap::from_pointee(rules),
            rates,
            control: ArcSwap::from_pointee(control),
            table,
            resolver,
            watchdog: Arc::default(),
            drain: drain.clone(),
            metrics,
            access,
        });
        let certificates = Certificates::new(&config);
        let config = Arc::new(ArcSwap::from_pointee(config));
        Ok(Self {
            config,
            source,
            watch,
            identity,
            listeners,
            drain,
            shared,
            registrar,
            handle,
            persistence,
            guard,
            probes,
            certificates,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addresses(&self) -> &Addresses {
        &self.identity.addresses
    }

    /// Ends it in good order, from anywhere.
    #[must_use]
    pub fn drain(&self) -> Arc<Drain> {
        self.drain.clone()
    }

    /// Serves until a signal or the drain ends it.
    ///
    /// # Errors
    /// When a thread cannot be started, or the port file not written.
    pub fn run(self) -> Result<(), StartError> {
        let Self {
            config: running,
            source,
            watch,
            identity,
            listeners,
            drain,
            shared,
            registrar,
            handle,
            persistence,
            guard,
            probes,
            certificates,
        } = self;
        let (config, addresses) = (running.load_full(), identity.addresses.clone());
        let mut server = Server::new_with_opt_and_conf(None, server_conf(&config));
        server.bootstrap();

        let keeping = persistence.start(handle.clone(), shared.table.clone(), shared.rates.clone())?;
        server.add_service(background_service("registrar", RegistrarService(Mutex::new(Some(registrar)))));
        let doors = [
            (Role::Gateway, listeners.gateway, &certificates.gateway),
            (Role::Registry, listeners.registry, &certificates.registry),
        ];
        let (mut accept, mut crews) = (Vec::new(), Vec::new());
        for (role, doors, certificate) in doors {
            if !doors.is_empty() {
                let (name, threads) = match role {
                    Role::Gateway => ("gateway", workers(&config)),
                    Role::Registry => ("registry", 1),
                };
                let workers = Workers::start(name, threads)?;
                let apps = accept_apps(workers.count(), &server.configuration, &config, &shared, &drain, role);
                accept.extend(apps.first().map(|app| (role, app.replaceable_settings().clone())));
                let entrances = entrances(&apps, doors, certificate.clone())?;
                server.add_service(service(name, &workers, entrances, drain.clone()));
                crews.push(workers);
            }
        }
        let reloads = shared.control.load().reloads.clone();
        let reloader = Reloader {
            source,
            watch,
            identity,
            running,
            reloads: reloads.clone(),
            shared: shared.clone(),
            registrar: handle.clone(),
            guard: guard.clone(),
            accept,
            certificates,
            drain: drain.clone(),
        };
        let housekeeper = Housekeeper { shared, handle, guard, probes: Mutex::new(Some(probes)), reloader };
        server.add_service(background_service("housekeeper", housekeeper));
        let port_file = config.server.port_file.clone();
        let signal = DrainSignal::new(drain)
            .on_hangup(move || {
                reloads.ask();
            })
            .on_ready(move || announce(&addresses, port_file.as_deref()));
        server.run(RunArgs { shutdown_signal: Box::new(signal) });

        drop(crews);
        // The runtimes are gone, and with them whoever could still change something.
        keeping.end();
        tracing::info!("stopped");
        Ok(())
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("addresses", &self.identity.addresses).finish_non_exhaustive()
    }
}

/// The registrar as a Pingora service, because threads started before its server are lost to a fork.
struct RegistrarService(Mutex<Option<Registrar>>);

#[async_trait]
impl BackgroundService for RegistrarService {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let registrar = self.0.lock().take();
        if let Some(registrar) = registrar {
            // It serves until its runtime ends: requests in flight during a drain still register and deregister.
            registrar.run(std::future::pending()).await;
        }
    }
}

/// Names, silent, held, probed and compared instances, the host's own addresses, news for watchers, and reloads.
struct Housekeeper {
    shared: Arc<Shared>,
    handle: Handle,
    guard: Arc<ArcSwap<Guard>>,
    probes: Mutex<Option<Receiver<Probe>>>,
    reloader: Reloader,
}

#[async_trait]
impl BackgroundService for Housekeeper {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let resolver = self.shared.control.load().resolver.clone();
        let board = self.shared.control.load().board.clone();
        tokio::join!(
            resolver.run(self.handle.clone()),
            self.sweep(),
            self.sweep_limits(),
            self.watch_own_addresses(),
            self.probe_held(),
            self.probe_actively(),
            Outliers { table: self.shared.table.clone() }.run(),
            board.run(),
            self.reloader.run()
        );
    }
}

impl Housekeeper {
    async fn sweep(&self) {
        let mut tick = tokio::time::interval(SWEEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = tick.tick().await;
            self.shared.control.load().host.note(due.elapsed(), clock::mono());
            self.shared.watchdog.sweep(clock::mono());
        }
    }

    async fn sweep_limits(&self) {
        let mut tick = tokio::time::interval(rates::SWEEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let (rates, quotas) = (self.shared.rates.clone(), self.shared.control.load().quotas.clone());
            // There may be millions of keys, and the watch over silent instances runs in this task.
            let swept = tokio::task::spawn_blocking(move || {
                rates.sweep(clock::mono());
                quotas.sweep();
            });
            if swept.await.is_err() {
                tracing::error!("forgetting who owes nothing to a rate limit failed");
            }
            for service in self.shared.table.load_full().iter() {
                let policy = &service.policy.concurrency;
                if policy.is_bounded() {
                    let cell = &service.cells.concurrency;
                    service.x.set_concurrency(cell.in_flight(policy), cell.limit(policy));
                }
            }
        }
    }

    async fn probe_held(&self) {
        let Some(probes) = self.probes.lock().take() else { return };
        let Shared { table, metrics, control, .. } = &*self.shared;
        let (table, metrics, prober) = (table.clone(), metrics.clone(), control.load().prober.clone());
        HeldProbes { table, prober, metrics, registrar: self.handle.clone() }.run(probes).await;
    }

    async fn probe_actively(&self) {
        let Shared { table, metrics, control, .. } = &*self.shared;
        let (table, metrics, prober) = (table.clone(), metrics.clone(), control.load().prober.clone());
        ActiveProbes { table, prober, metrics }.run().await;
    }

    async fn watch_own_addresses(&self) {
        let mut tick = tokio::time::interval(OWN_ADDRESSES_EVERY);
        loop {
            tick.tick().await;
            let now = guard(&self.reloader.running.load(), &self.reloader.identity.addresses);
            if **self.guard.load() != now && self.handle.tell(Command::SetGuard(now.clone())).is_ok() {
                self.guard.store(Arc::new(now));
            }
        }
    }
}

/// What each worker serves connections with.
type App = AcceptApp<HttpProxy<Edge>, Express>;

/// One for each worker, with connections to instances of its own.
fn accept_apps(
    workers: usize,
    conf: &Arc<ServerConf>,
    config: &Config,
    shared: &Arc<Shared>,
    drain: &Arc<Drain>,
    role: Role,
) -> Vec<App> {
    let proxy = || Arc::new(http_proxy(conf, Edge::new(shared.clone(), role)));
    let observer = Observer { metrics: shared.metrics.clone(), access: shared.access.clone() };
    let app = AcceptApp::new(proxy(), accept_settings(config, role), drain.clone(), Arc::new(observer));
    let app = app.with_express(Arc::new(Express::new(shared.clone(), role == Role::Gateway)));
    (1..workers).map(|_| app.in_front_of(proxy())).chain([app.clone()]).collect()
}

/// All listeners of a role share threads and connections to instances, whatever they speak.
fn entrances(apps: &[App], doors: Doors, certificate: Option<Arc<Certificate>>) -> Result<Vec<Entrance<App>>, StartError> {
    let entrance = |listeners, protocol: Protocol| Entrance {
        listeners,
        apps: apps.iter().map(|app| Arc::new(app.speaking(protocol.clone()))).collect(),
    };
    let mut entrances = vec![entrance(doors.plain, Protocol::Plain), entrance(doors.h2c, Protocol::H2c)];
    if let Some(certificate) = certificate {
        entrances.push(entrance(doors.tls, Protocol::Tls(Tls::new(certificate)?)));
    }
    Ok(entrances)
}

/// With no more clients than there are descriptors for.
fn affordable(mut config: Config) -> Config {
    config.limits.connections = descriptors::clients_max(config.limits.connections);
    config
}

fn accept_settings(config: &Config, role: Role) -> AcceptSettings {
    let limits = &config.limits;
    // A crowd of clients must not keep heartbeats out: the rest is for the registry's own listener.
    let connections_max = match role {
        Role::Gateway if config.registry.is_on() => limits.connections - limits.connections / 16,
        _ => limits.connections,
    };
    AcceptSettings {
        limits: HeadLimits { head_bytes: limits.head_bytes, fields: limits.head_fields, uri_bytes: limits.uri_bytes },
        head_deadline: limits.head_deadline,
        idle_keepalive: limits.idle_keepalive,
        connections_max,
        connections_per_client: limits.connections_per_client,
        proxies: config.server.trusted_proxies.clone().into(),
        requests_per_connection: limits.requests_per_connection,
        connection_age: limits.connection_age,
        tls_handshake: limits.tls_handshake,
        h2: Http2Limits { streams_max: limits.h2_streams, resets_max: limits.h2_resets },
        body_pace: limits.body_rate.map(|bytes_per_second| PaceLimit { bytes_per_second, window: limits.body_rate_window }),
    }
}

/// How many threads serve the data plane.
fn workers(config: &Config) -> usize {
    match config.gateway.workers {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        workers => workers,
    }
}

fn server_conf(config: &Config) -> ServerConf {
    ServerConf {
        // Each of Pingora's own runtimes has one thread, and nobody to steal from: connections are the workers'.
        work_stealing: false,
        // Attempts are counted by the retry policy; Pingora's own limit must not be lower.
        max_retries: vertice_core::balance::Tried::MAX * 2,
        // Of each worker's proxy.
        upstream_keepalive_pool_size: 4096_usize.div_ceil(workers(config)),
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}

fn policies(config: &Config) -> Policies {
    Policies {
        default: Arc::new(config.policy.clone()),
        services: config.services.iter().map(|(name, service)| (name.clone(), Arc::new(service.policy.clone()))).collect(),
    }
}

/// The environment comes before the configuration, as the predecessor had it.
fn fallbacks(config: &Config) -> BTreeMap<ServiceName, Endpoint> {
    let configured = config.services.iter().filter_map(|(name, service)| Some((name.clone(), service.url.clone()?)));
    configured.chain(config.env_services.clone()).collect()
}

fn guard(config: &Config, addresses: &Addresses) -> Guard {
    let allow = config.registry.endpoint_allow.iter();
    Guard {
        own: addresses.concrete(),
        allow: allow.map(|network| Network { address: network.addr(), prefix_len: network.prefix_len() }).collect(),
    }
}

fn terms(config: &Config) -> Terms {
    let limits = Limits {
        services: config.limits.services,
        instances: config.limits.instances,
        per_service: config.limits.instances_per_service,
    };
    Terms { limits, ttl: config.lease.ttl, stale_after: config.lease.stale_after }
}

/// What people call this process.
fn replica_id(config: &Config) -> String {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).ok();
    let is_shared = config.store.kind == StoreKind::Redis;
    let named = config.server.replica_id.clone().or_else(|| host().filter(|name| is_shared && !name.is_empty()));
    named.unwrap_or_else(|| "local".to_owned())
}

fn control_settings(config: &Config, identity: &Identity) -> Settings {
    Settings {
        registry_on_gateway: config.gateway.registry_api,
        single_listener: !(config.gateway.is_on() && config.registry.is_on()),
        lease_ttl: config.lease.ttl,
        register_wait: config.dns.register_wait,
        store_wait: STORE_WAIT,
        replica_id: identity.replica_id.clone(),
        me: identity.me,
        listeners: identity.addresses.clone(),
        zone: config.server.zone.clone(),
        services_max: config.limits.services,
        limits_calls: config.limits.registry,
    }
}

fn access_rules(config: &Config) -> Access {
    let check = |token: &Token| match token {
        Token::Plain(secret) => TokenCheck::of_token(secret.expose()),
        Token::Sha256(hash) => TokenCheck::of_hash(*hash),
    };
    Access { allow_from: config.registry.allow_from.clone(), tokens: config.registry.token.iter().map(check).collect() }
}

fn edge_settings(config: &Config) -> rules::Settings {
    let limits = &config.limits;
    rules::Settings {
        trusted_proxies: config.server.trusted_proxies.clone(),
        body_stall: limits.body_stall,
        write_stall: limits.write_stall,
        idle_keepalive: limits.idle_keepalive,
        express: config.gateway.express,
        logs_probes: config.log.access_probes,
    }
}

fn announce(addresses: &Addresses, port_file: Option<&std::path::Path>) {
    if let Some(Err(error)) = port_file.map(|path| addresses.write(path)) {
        tracing::error!(%error, "failed to write the port file");
    }
    let Addresses { gateway, gateway_h2c, gateway_tls, registry, registry_tls } = addresses;
    tracing::info!(?gateway, ?gateway_h2c, ?gateway_tls, ?registry, ?registry_tls, "listening");
}

/// A panic in a request ends that request; here it is counted, so that somebody notices.
fn count_panics(metrics: &Arc<Metrics>) {
    let (metrics, before) = (metrics.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        metrics.panics.inc();
        tracing::error!(panic = %info, "panic caught: this is a defect");
        before(info);
    }));
}
