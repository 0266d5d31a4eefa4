//! Replicas with a Redis between them: registrars, the store's threads, and faults.

use super::server::{Server, eventually};
use crate::noticeboard::NoticeBoard;
use crate::registrar::outbox::{Change, Outbox, Work};
use crate::registrar::{Handle, Registrar};
use crate::resolve::{self, Resolver};
use crate::store::redis::{Loaded, RedisState, Settings, Threads, load, start};
use crate::store::suite::there;
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Hung, NamingKey, Table};
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use vertice_api::gateway::HealthCheck;
use vertice_core::breaker::Phase;
use vertice_core::command::{Command, Deregistration, Draining, Limits, Registration, Renewal, Reply};
use vertice_core::endpoint::Endpoint;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::record::{Record, ReplicaId, StoreNews};
use vertice_core::registry::Registry;
use vertice_core::status::Status;
use vertice_core::table::{Facts, Snapshot};

/// A gateway without its listeners.
struct Replica {
    handle: Handle,
    table: Arc<Table>,
    outbox: Arc<Outbox>,
    state: Arc<RedisState>,
    metrics: Arc<Metrics>,
    threads: Option<Threads>,
    runtime: tokio::runtime::Runtime,
}

fn limits() -> Limits {
    Limits { services: 1_000, instances: 10_000, per_service: 1_000 }
}

fn name(service: &str) -> ServiceName {
    ServiceName::parse(service).unwrap()
}

fn id(id: &str) -> InstanceId {
    InstanceId::parse(id).unwrap()
}

impl Replica {
    fn start(settings: Settings) -> Self {
        let metrics = super::server::metrics();
        let loaded = load(&settings, Duration::from_secs(5), &metrics).ok();
        Self::with(settings, loaded, metrics)
    }

    fn with(settings: Settings, loaded: Option<Loaded>, metrics: Arc<Metrics>) -> Self {
        let table = Arc::new(Table::from_pointee(Snapshot::empty(42)));
        let (outbox, state) = (Arc::<Outbox>::default(), Arc::<RedisState>::default());
        let hung = Hung { metrics: metrics.clone(), naming: NamingKey::new(None) };
        let board = Arc::new(NoticeBoard::new(table.clone(), 100, 100, metrics.clone()));
        let (refresh, timeout) = (Duration::from_secs(5), Duration::from_secs(2));
        let resolver =
            Resolver::new(resolve::Settings { servers: Vec::new(), refresh, timeout, concurrency: 1 }, metrics.clone());
        let registry = Registry::new(limits(), Duration::from_secs(60)).shared(settings.me, Duration::from_secs(60));
        let (mut registrar, handle) = Registrar::new(registry, table.clone(), hung, board, outbox.clone(), resolver, 1_000);
        if let Some(loaded) = loaded {
            let micros = loaded.store_micros(crate::clock::mono());
            registrar.restore(std::iter::once(Command::Store(StoreNews::Time { micros })));
            registrar.restore(loaded.graves.into_iter().map(Command::MergeGone));
            registrar.restore(loaded.records.into_iter().map(|record| Command::Merge(Box::new(record))));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(registrar.run(std::future::pending()));
        let rates = Arc::new(crate::rates::Rates::new(metrics.clone()));
        let threads =
            start(settings, outbox.clone(), handle.clone(), table.clone(), state.clone(), rates, metrics.clone()).unwrap();
        Self { handle, table, outbox, state, metrics, threads: Some(threads), runtime }
    }

    fn in_step(settings: Settings) -> Self {
        let replica = Self::start(settings);
        eventually("in step", || replica.state.is_following());
        replica
    }

    fn ask(&self, command: Command) -> (Reply, Option<oneshot::Receiver<bool>>) {
        let applied = self.runtime.block_on(self.handle.ask(command)).unwrap();
        (applied.reply, applied.stored)
    }

    /// Registers, and tells whether it is durable.
    fn register(&self, service: &str, instance: &str, endpoint: &str) -> bool {
        let registration = Registration {
            service: name(service),
            id: Some(id(instance)),
            registrant: std::net::Ipv4Addr::LOCALHOST.into(),
            endpoint: Endpoint::parse(endpoint).unwrap(),
            resolved: None,
            health_endpoint: "/health".into(),
            metadata: [("version".to_owned(), "1".to_owned())].into(),
            ttl: None,
            weight: 100,
            zone: None,
            version: None,
            tags: Vec::new(),
            status: Status::Healthy,
        };
        let (_, stored) = self.ask(Command::Register(Box::new(registration)));
        self.runtime.block_on(stored.unwrap()).unwrap()
    }

    fn deregister(&self, service: &str, instance: &str) -> bool {
        let (service, id, registrant) = (name(service), Some(id(instance)), std::net::Ipv4Addr::LOCALHOST.into());
        let (_, stored) = self.ask(Command::Deregister(Deregistration { service, id, all: false, registrant, drain: None }));
        self.runtime.block_on(stored.unwrap()).unwrap()
    }

    fn renew(&self, service: &str, instance: &str, status: Option<Status>) {
        let (service, id, registrant) = (name(service), Some(id(instance)), std::net::Ipv4Addr::LOCALHOST.into());
        self.ask(Command::Renew(Renewal { service, id, registrant, status, metadata: None }));
    }

    fn knows(&self, service: &str, instance: &str) -> bool {
        let table = self.table.load();
        table.get(service).is_some_and(|service| service.instances.iter().any(|i| i.facts.id.as_str() == instance))
    }

    fn holder(&self, service: &str) -> Option<ReplicaId> {
        self.table.load().get(service)?.instances[0].cells.lease.holder()
    }

    fn end(&mut self) {
        self.threads.take().into_iter().for_each(Threads::stop);
    }
}

#[test]
fn what_happens_on_one_replica_is_in_force_on_the_other() {
    let server = Server::start();
    let (a, b) = (Replica::in_step(server.settings(5)), Replica::in_step(server.settings(6)));
    assert!(a.register("svc", "one", "http://10.0.0.1:1"), "durable");
    eventually("known to b", || b.knows("svc", "one"));
    assert_eq!(b.holder("svc"), Some(ReplicaId::of(5)));
    a.renew("svc", "one", Some(Status::Unhealthy));
    eventually("its status", || b.table.load().get("svc").unwrap().usable.is_empty());
    a.renew("svc", "one", Some(Status::Healthy));
    eventually("its status", || !b.table.load().get("svc").unwrap().usable.is_empty());
    a.ask(Command::Drain(Draining { service: name("svc"), id: Some(id("one")), span: Some(Duration::from_secs(600)) }));
    eventually("its drain", || b.table.load().get("svc").unwrap().instances[0].is_draining);
    a.ask(Command::Drain(Draining { service: name("svc"), id: Some(id("one")), span: None }));
    eventually("the end of its drain", || !b.table.load().get("svc").unwrap().instances[0].is_draining);
    b.renew("svc", "one", None);
    eventually("b holds it now", || a.holder("svc") == Some(ReplicaId::of(6)));
    assert!(b.deregister("svc", "one"));
    eventually("gone from a", || !a.knows("svc", "one"));
    assert!(!server.run::<bool>(&["EXISTS", "services:svc"]), "and what the predecessor is shown");
    assert!(b.metrics.propagation_replica.get_sample_count() > 0);
    eventually("both are listed", || a.state.replicas().len() == 2 && b.state.replicas().len() == 2);
}

#[test]
fn changes_made_while_redis_is_away_are_written_when_it_is_back_and_nothing_comes_back_that_was_removed() {
    let mut server = Server::start();
    let (a, b) = (Replica::in_step(server.settings(5)), Replica::in_step(server.settings(6)));
    a.register("svc", "before", "http://10.0.0.1:1");
    a.register("svc", "removed", "http://10.0.0.2:1");
    eventually("known to b", || b.knows("svc", "before") && b.knows("svc", "removed"));
    server.kill();
    eventually("noticed", || a.state.phase() != Phase::Closed && !a.state.is_connected());
    assert!(!a.register("svc", "during", "http://10.0.0.3:1"), "not durable, and said so at once");
    assert!(!a.deregister("svc", "removed"));
    assert!(a.knows("svc", "before") && a.knows("svc", "during"), "it serves on");
    eventually("what waits is shown", || a.state.outbox() == 2 && a.metrics.store_pending.get() == 2);
    assert!(a.state.last_error().is_some() && a.state.opened_wall_ms().is_some());
    server.restart();
    eventually("closed again", || a.state.phase() == Phase::Closed && a.state.is_following() && b.state.is_following());
    eventually("b has heard of it", || b.knows("svc", "during") && b.knows("svc", "before") && !b.knows("svc", "removed"));
    eventually("in Redis again", || {
        server.field("services:svc:i:before", "record").is_some() && server.field("services:svc:i:during", "record").is_some()
    });
    assert!(a.outbox.is_empty() && a.state.last_error().is_none() && a.state.opened_wall_ms().is_none());
    assert_eq!(a.metrics.redis_breaker.get(), 0);
    assert!(a.register("svc", "after", "http://10.0.0.4:1"), "durable again");
}

#[test]
fn keys_of_others_under_our_names_are_left_alone_and_end_nothing() {
    let server = Server::start();
    let ours = ["vx:replicas", "vx:epoch", "vx:seq", "vx:events", "vx:renewals", "vx:names", "vx:mirrors", "services:index"];
    for key in ours {
        let _: i64 = server.run(&["ZADD", key, "1", "x"]);
    }
    let a = Replica::start(server.settings(5));
    eventually("connected", || a.state.is_connected());
    assert!(!a.register("svc", "one", "http://10.0.0.1:1"), "it cannot be written, and that is said");
    a.renew("svc", "one", None);
    eventually("told of", || a.metrics.store_skipped.with_label_values(&["foreign"]).get() > 0);
    assert_eq!(a.state.phase(), Phase::Closed, "Redis itself is well");
    for key in ours {
        assert_eq!(server.run::<String>(&["TYPE", key]), "zset", "{key}");
    }
    let _: i64 = server.run(&[&["DEL"], &ours[..]].concat());
    eventually("in step without them", || a.state.is_following());
    assert!(a.register("svc", "one", "http://10.0.0.1:1"));
}

#[test]
fn a_flushed_redis_is_written_anew() {
    let server = Server::start();
    let (a, b) = (Replica::in_step(server.settings(5)), Replica::in_step(server.settings(6)));
    for n in 0..120 {
        a.register(&format!("svc-{}", n / 2), &format!("i{n}"), &format!("http://10.0.1.{n}:1"));
    }
    eventually("known to b", || b.knows("svc-59", "i119"));
    let _: () = server.run(&["FLUSHALL"]);
    eventually("written anew", || server.run::<i64>(&["SCARD", "vx:names"]) == 60);
    eventually("all of it", || (0..120).all(|n| server.field(&format!("services:svc-{}:i:i{n}", n / 2), "v").is_some()));
    assert!(a.knows("svc-0", "i0") && b.knows("svc-59", "i119"));
    a.register("svc-new", "new", "http://10.0.2.1:1");
    eventually("b follows on", || b.knows("svc-new", "new"));
}

#[test]
fn a_replica_that_was_killed_and_started_again_at_once_gives_its_instances_a_whole_lease() {
    let server = Server::start();
    let a = Replica::in_step(server.settings(5));
    a.register("svc", "one", "http://10.0.0.1:1");
    eventually("in Redis", || server.field("services:svc:i:one", "until").is_some());
    let (seconds, _): (u64, u64) = server.run(&["TIME"]);
    let _: i64 = server.run(&["HSET", "services:svc:i:one", "until", &(seconds * 1_000 + 20_000).to_string()]);
    let left = |settings| load(settings, Duration::from_secs(5), &super::server::metrics()).unwrap().records[0].left;
    let another = server.settings(6);
    assert!(left(&another) <= Duration::from_secs(20), "its holder lives");
    let again = Settings { replica_id: server.settings(5).replica_id, ..server.settings(7) };
    assert_eq!(left(&again), Duration::from_secs(60), "its holder was the same process, as it still seemed to live");
}

#[test]
fn a_new_replica_finds_everything_even_when_all_others_are_gone() {
    let server = Server::start();
    let mut a = Replica::in_step(server.settings(5));
    a.register("svc", "one", "http://10.0.0.1:1");
    a.register("svc", "two", "http://10.0.0.2:1");
    a.deregister("svc", "two");
    a.end();
    assert_eq!(server.run::<i64>(&["HLEN", "vx:replicas"]), 0, "it took its leave");
    let metrics = super::server::metrics();
    let loaded = load(&server.settings(6), Duration::from_secs(5), &metrics).unwrap();
    assert_eq!((loaded.records.len(), loaded.graves.len(), loaded.is_partial), (1, 1, false));
    assert_eq!(loaded.records[0].left, Duration::from_secs(60), "nobody was there to renew it: a whole lease");
    let b = Replica::with(server.settings(6), Some(loaded), metrics);
    assert!(b.knows("svc", "one") && !b.knows("svc", "two"), "before anything runs");
    eventually("in step", || b.state.is_following());
    assert!(b.knows("svc", "one") && !b.knows("svc", "two"));
}

#[test]
fn a_predecessor_s_registration_is_taken_up_and_its_heartbeats_count() {
    let server = Server::start();
    let mut settings = server.settings(5);
    settings.redis.reconcile = Duration::from_millis(100);
    let a = Replica::in_step(settings);
    let (seconds, _): (u64, u64) = server.run(&["TIME"]);
    let key = "services:old_service";
    let metadata = "{'version': '2', 'ok': True}";
    let registered = format!("{seconds}.5");
    let words = ["HSET", key, "endpoint", "http://10.0.0.9:8047", "health_endpoint", "/health", "metadata", metadata];
    let _: i64 = server.run(&words);
    let _: i64 = server.run(&["HSET", key, "registered_at", &registered, "last_heartbeat", &registered]);
    let _: i64 = server.run(&["EXPIRE", key, "40"]);
    let _: i64 = server.run(&["SADD", "services:index", "old_service"]);
    eventually("taken up", || a.knows("old_service", "10.0.0.9:8047"));
    let table = a.table.load_full();
    let facts = &table.get("old_service").unwrap().instances[0].facts;
    assert_eq!((facts.metadata["version"].as_str(), facts.metadata["ok"].as_str()), ("2", "true"));
    assert_eq!(a.holder("old_service"), Some(ReplicaId::PREDECESSOR));
    let left = || a.table.load().get("old_service").unwrap().instances[0].cells.lease.deadline().since(crate::clock::mono());
    assert!(left() <= Duration::from_secs(40));
    let _: i64 = server.run(&["EXPIRE", key, "60"]);
    eventually("renewed", || left() > Duration::from_secs(45));
    assert_eq!(server.field(key, "metadata").as_deref(), Some(metadata), "its record is left alone");
    // Ours, which the predecessor renews.
    a.register("our_service", "ours", "http://10.0.0.8:1");
    eventually("shown", || server.field("services:our_service", "last_heartbeat").is_some());
    assert_eq!(server.field("services:our_service", "metadata").as_deref(), Some(r#"{"version":"1"}"#));
    assert_eq!(a.table.load().get("our_service").unwrap().instances.len(), 1, "not taken for another one");
    eventually("its heartbeat counts for ours, too", || {
        let (seconds, _): (u64, u64) = server.run(&["TIME"]);
        let _: i64 = server.run(&["HSET", "services:our_service", "last_heartbeat", &format!("{}.0", seconds + 2)]);
        let _: i64 = server.run(&["EXPIRE", "services:our_service", "60"]);
        a.holder("our_service") == Some(ReplicaId::PREDECESSOR)
    });
    let holder = super::super::record::hex(ReplicaId::PREDECESSOR);
    eventually("in the store", || server.field("services:our_service:i:ours", "holder").as_deref() == Some(&holder));
}

#[test]
fn health_checks_are_shared_while_redis_is_there() {
    let mut server = Server::start();
    let (a, b) = (Replica::in_step(server.settings(5)), Replica::in_step(server.settings(6)));
    let good = HealthCheck {
        service_name: "svc".to_owned(),
        service_url: "http://10.0.0.1:1".to_owned(),
        healthy: true,
        status_code: 200,
        response_time_ms: 1.5,
        cached: false,
        cache_layer: None,
        timestamp: 1_700_000_000.25,
    };
    let get = |replica: &Replica, name: &str| replica.runtime.block_on(replica.state.health().get(name));
    eventually("shared", || {
        a.state.health().put(&good);
        get(&b, "svc").as_ref() == Some(&good)
    });
    assert!((1..=30).contains(&server.run::<i64>(&["TTL", "health:svc"])));
    let bad = HealthCheck { service_name: "bad".to_owned(), healthy: false, ..good.clone() };
    a.state.health().put(&bad);
    assert_eq!(get(&b, "bad"), None);
    let _: () = server.run(&["SET", "health:foreign", "x"]);
    assert_eq!(get(&b, "foreign"), None);
    server.kill();
    eventually("nobody waits for it", || get(&a, "svc").is_none());
}

#[test]
fn a_heartbeat_just_before_the_end_reaches_the_store() {
    let server = Server::start();
    let mut a = Replica::in_step(server.settings(5));
    a.register("svc", "one", "http://10.0.0.1:1");
    let _: i64 = server.run(&["HSET", "services:svc:i:one", "until", "5"]);
    a.renew("svc", "one", None);
    a.end();
    assert_ne!(server.field("services:svc:i:one", "until").as_deref(), Some("5"));
}

#[test]
fn a_registration_does_not_wait_for_thousands_of_renewals() {
    let server = Server::start();
    let settings = server.settings(5);
    let mut slow = settings.clone();
    slow.redis.port = server.slow(Duration::from_millis(50));
    let mut a = Replica::in_step(slow);
    let stored = |n: u64| match there(&format!("i{n}"), n + 1) {
        Change::Put(stored) => (stored, true),
        Change::Gone(_) => unreachable!(),
    };
    a.outbox.put(Work { renewals: (0..20_000).map(stored).collect(), ..Work::default() });
    eventually("begun", || server.run::<i64>(&["HLEN", "vx:i:service-a"]) > 0);
    assert!(a.register("svc", "one", "http://10.0.0.1:1"), "durable");
    assert!(server.run::<i64>(&["HLEN", "vx:i:service-a"]) < 20_000, "they are still under way");
    a.end();
}

#[test]
fn the_end_does_not_wait_for_all_that_is_left_to_write() {
    let server = Server::start();
    let settings = server.settings(5);
    let mut slow = settings.clone();
    slow.redis.port = server.slow(Duration::from_millis(100));
    let mut a = Replica::with(slow, None, super::server::metrics());
    eventually("connected", || a.state.is_connected());
    // A hundred pipelines, each of which takes a while.
    let changes = (0..20_000).map(|n| there(&format!("i{n}"), n + 1)).collect();
    a.outbox.put(Work { changes, ..Work::default() });
    eventually("begun", || server.run::<i64>(&["HLEN", "vx:i:service-a"]) > 0);
    a.end();
    assert!(server.run::<i64>(&["HLEN", "vx:i:service-a"]) < 20_000, "the rest is left to whoever knows it");
    assert!(!a.outbox.is_empty(), "and not forgotten");
}

#[test]
fn a_server_whose_answer_never_ends_does_not_keep_the_process() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut settings = Server::start().settings(5);
    settings.redis.port = listener.local_addr().unwrap().port();
    let (answering, is_answering) = std::sync::mpsc::sync_channel(16);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let answering = answering.clone();
            std::thread::spawn(move || {
                // Handshake and role, then a text of a gigabyte, one byte at a time.
                let mut reader = stream.try_clone().unwrap();
                let mut asked = String::new();
                while !asked.contains("EVALSHA") {
                    let mut bytes = [0; 4096];
                    let count = reader.read(&mut bytes).unwrap_or(0);
                    if count == 0 {
                        return;
                    }
                    let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                    let setup = text.matches("SETINFO").count();
                    let _ = stream.write_all("+OK\r\n".repeat(setup).as_bytes());
                    if text.contains("ROLE") {
                        let _ = stream.write_all(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
                    }
                    asked += &text;
                }
                let _ = stream.write_all(b"$1000000000\r\n");
                let _ = answering.send(());
                while stream.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
    });
    let mut a = Replica::with(settings, None, super::server::metrics());
    is_answering.recv_timeout(Duration::from_secs(60)).unwrap();
    a.end();
}

#[test]
fn who_cannot_read_events_says_so_and_does_not_compare_everything_all_the_time() {
    let server = Server::start();
    let (a, b) = (Replica::in_step(server.settings(5)), Replica::in_step(server.settings(6)));
    let state = crate::store::StoreState::shared(b.state.clone());
    eventually("it hears", || state.is_healthy());
    let _: () = server.run(&["SET", "vx:renewals", "x"]);
    a.register("svc", "one", "http://10.0.0.1:1");
    eventually("told", || state.detail().is_some_and(|detail| detail.contains("comparing")) && !state.is_healthy());
    eventually("found by comparing", || b.knows("svc", "one"));
    let starts = || b.metrics.store_resyncs.with_label_values(&["connected"]).get();
    let begun = starts();
    std::thread::sleep(Duration::from_secs(3));
    assert!(starts() - begun < 6, "each time later than before");
    let _: i64 = server.run(&["DEL", "vx:renewals"]);
    eventually("it hears again", || state.is_healthy() && state.detail().is_none());
}

#[test]
fn what_gateways_show_is_no_registration_of_the_predecessor_even_when_it_is_forgotten_who_wrote_it() {
    let server = Server::start();
    let mut settings = server.settings(5);
    settings.redis.reconcile = Duration::from_millis(100);
    let a = Replica::in_step(settings);
    // Registered where the clock is ahead of Redis': its version lies before the time of its registration.
    let (seconds, _): (u64, u64) = server.run(&["TIME"]);
    let facts = crate::store::suite::facts("service-a", "x", (seconds * 1_000_000) << 10);
    let facts = Arc::new(Facts { registered_wall_ms: (seconds + 60) * 1_000, ..facts });
    let (left, holder) = (Duration::from_secs(60), ReplicaId::of(6));
    a.ask(Command::Merge(Box::new(Record { facts: facts.clone(), left, holder, drain: None })));
    let compared = || a.metrics.store_resyncs.with_label_values(&["interval"]).get();
    for _ in 0..2 {
        eventually("shown", || server.run::<bool>(&["HEXISTS", "vx:mirrors", "service-a"]));
        let _: i64 = server.run(&["DEL", "vx:mirrors"]);
        let begun = compared();
        eventually("compared twice", || compared() >= begun + 2);
        let ids: Vec<String> =
            a.table.load().get("service-a").unwrap().instances.iter().map(|i| i.facts.id.to_string()).collect();
        assert_eq!(ids, ["x"]);
        let _: i64 = server.run(&["DEL", "services:service-a"]);
    }
    eventually("shown", || server.run::<bool>(&["EXISTS", "services:service-a"]));
    let _: i64 = server.run(&["DEL", "vx:mirrors"]);
    let loaded = load(&server.settings(7), Duration::from_secs(5), &super::server::metrics()).unwrap();
    assert_eq!(loaded.records.len(), 1, "a gateway that starts takes it for one, too");
}

#[test]
fn what_cannot_be_kept_is_in_force_on_the_other_replica_all_the_same() {
    let server = Server::start();
    let (a, b) = (Replica::in_step(server.settings(5)), Replica::in_step(server.settings(6)));
    let _: i64 = server.run(&["ZADD", "services:svc:i:one", "1", "x"]);
    let _: i64 = server.run(&["HSET", "services:svc:i:two", "v", "99999999999999999999"]);
    for (id, endpoint) in [("one", "http://10.0.0.1:1"), ("two", "http://10.0.0.2:1")] {
        assert!(!a.register("svc", id, endpoint), "not durable");
        eventually("known to b", || b.knows("svc", id));
        b.renew("svc", id, None);
        let holder = || {
            a.table.load().get("svc").and_then(|s| s.instances.iter().find(|i| i.facts.id.as_str() == id)?.cells.lease.holder())
        };
        eventually("b holds it now", || holder() == Some(ReplicaId::of(6)));
        assert!(!b.deregister("svc", id));
        eventually("gone from a", || !a.knows("svc", id));
    }
    assert_eq!(server.run::<String>(&["TYPE", "services:svc:i:one"]), "zset");
    assert_eq!(server.field("services:svc:i:two", "v").as_deref(), Some("99999999999999999999"));
}
