//! A Redis that is there and refuses: full, read-only, or asking for another password.

use std::fs;

use super::{REPAIRED, Site, eventually_redis_is, eventually_stored, is_durable, routes};
use crate::harness::clock::wait_within;
use crate::harness::resp::Reply;
use crate::harness::scripts::text;
use crate::harness::{Fleet, Gateway, Redis, Upstream, eventually, get};

/// What the components of `/health` say of Redis.
#[track_caller]
fn complaint(gateway: &Gateway) -> String {
    wait_within(REPAIRED, "a complaint about Redis", || {
        let health = gateway.api(get("/health")).expect(200).json();
        let detail = health["components"]["redis"]["detail"].as_str().unwrap_or_default().to_lowercase();
        (health["status"] == "degraded" && !detail.is_empty()).then_some(detail)
    })
}

/// Registers while Redis refuses, then lets it accept again; checks that everything was served and is written later.
#[track_caller]
fn assert_survives(mut site: Site, refuse: impl FnOnce(&Redis), accept: impl FnOnce(&Redis), word: &str) {
    let load = site.load(&["steady"]);
    refuse(&site.redis);
    assert!(!site.register(0, "refused"));
    let complaint = complaint(site.gateway(0));
    assert!(complaint.contains(word), "{complaint}");
    let failures = site.gateway(0).registry_metrics().sum("redis_failures_total", &[]);
    assert!(failures > 0.0);
    load.goes_on();
    accept(&site.redis);
    site.eventually_stored(&["steady", "refused"]);
    site.eventually_everywhere("refused");
    load.assert_nothing_failed();
    site.fleet.gateways.iter().for_each(|gateway| eventually_redis_is(gateway, "healthy"));
    site.assert_sound();
}

#[test]
fn a_redis_without_memory_is_survived() {
    let refuse = |redis: &Redis| {
        redis.config("maxmemory", "1");
        assert!(matches!(redis.cmd(&["SET", "x", "y"]), Reply::Error(text) if text.starts_with("OOM")));
    };
    assert_survives(Site::start(2), refuse, |redis| redis.config("maxmemory", "0"), "oom");
}

#[test]
fn a_gateway_that_starts_beside_a_redis_without_memory_routes_what_that_holds() {
    let mut site = Site::start(1);
    site.register_durably(0, "held");
    site.redis.config("maxmemory", "1");
    site.fleet.gateways[0].process.kill();
    site.fleet.gateways[0].start_again();
    assert!(routes(site.gateway(0), "held"));
    site.redis.config("maxmemory", "0");
    site.register_durably(0, "news");
}

#[test]
fn a_redis_whose_disk_fails_is_survived() {
    let redis = Redis::builder().arg("--enable-protected-configs", "yes").start();
    let refuse = |redis: &Redis| {
        let gone = redis.dir().join("gone");
        fs::create_dir(&gone).unwrap();
        redis.config("dir", gone.to_str().unwrap());
        fs::remove_dir(&gone).unwrap();
        redis.config("save", "3600 1");
        redis.cmd(&["BGSAVE"]);
        eventually(
            "writes to be refused",
            || matches!(redis.cmd(&["SET", "x", "y"]), Reply::Error(text) if text.starts_with("MISCONF")),
        );
    };
    let accept = |redis: &Redis| redis.config("stop-writes-on-bgsave-error", "no");
    assert_survives(Site::with(redis, 2), refuse, accept, "misconf");
}

#[test]
fn a_redis_that_became_read_only_is_survived() {
    let nobody = crate::harness::net::closed();
    let refuse = move |redis: &Redis| {
        redis.cmd(&["REPLICAOF", &nobody.ip().to_string(), &nobody.port().to_string()]);
    };
    let accept = |redis: &Redis| {
        redis.cmd(&["REPLICAOF", "NO", "ONE"]);
    };
    assert_survives(Site::start(2), refuse, accept, "replica");
}

#[test]
fn a_replica_as_the_configured_server_is_refused_and_used_once_it_is_a_master() {
    let master = Redis::start();
    let replica = Redis::builder().replica_of(&master).start();
    let fleet = Fleet::start(1, &replica.env());
    let upstream = Upstream::start(text("here"));
    assert!(!is_durable(&fleet.gateways[0], "early", &upstream));
    let complaint = complaint(&fleet.gateways[0]);
    assert!(complaint.contains("not the master"), "{complaint}");
    replica.cmd(&["REPLICAOF", "NO", "ONE"]);
    eventually_stored(&replica, &["early"], &upstream);
    assert!(!master.has("services:early"));
}

#[test]
fn a_wrong_password_is_named_without_being_told_and_mended_without_a_restart() {
    let redis = Redis::builder().password("the-right-one").start();
    let mut env = redis.env();
    env.retain(|(name, _)| name != "REDIS_PASSWORD");
    env.push(("REDIS_PASSWORD".to_owned(), "the-wrong-one".to_owned()));
    let fleet = Fleet::start(1, &env);
    let gateway = &fleet.gateways[0];
    let upstream = Upstream::start(text("here"));
    assert!(!is_durable(gateway, "unkept", &upstream));
    let complaint = complaint(gateway);
    assert!(complaint.contains("password"), "{complaint}");
    gateway.api(get("/readyz")).expect(200);
    let everything = [gateway.health().to_string(), gateway.status().to_string(), gateway.process.stderr(), complaint];
    assert!(everything.iter().all(|text| !text.contains("the-wrong-one")), "{everything:?}");
    assert!(everything[2].to_lowercase().contains("password"), "{}", everything[2]);
    redis.cmd(&["CONFIG", "SET", "requirepass", "the-wrong-one"]);
    eventually_redis_is(gateway, "healthy");
    wait_within(REPAIRED, "a durable registration", || is_durable(gateway, "kept", &upstream).then_some(()));
    assert!(routes(gateway, "unkept"));
}

#[test]
fn a_url_with_a_password_and_a_database_is_honoured() {
    let redis = Redis::builder().password("p@ss/word").start();
    let url = format!("redis://:p%40ss%2Fword@{}/3", redis.addr);
    let fleet = Fleet::start(1, &[("REDIS_URL".to_owned(), url)]);
    let upstream = Upstream::start(text("here"));
    super::eventually_durable(&fleet.gateways[0], "svc", &upstream);
    assert!(!redis.has("services:svc"));
    let keyspace = redis.info("db3").unwrap();
    assert!(keyspace.starts_with("keys="), "{keyspace}");
    let everything = [fleet.gateways[0].status().to_string(), fleet.gateways[0].process.stderr()];
    assert!(everything.iter().all(|text| !text.contains("p@ss") && !text.contains("p%40ss")), "{everything:?}");
}
