//! Redis goes away and comes back: nothing that was acknowledged is lost, and nobody waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::json;

use super::{
    Site, eventually_breaker_is, eventually_redis_is, heartbeat, id_of, is_stored, key_of, knows, promptly, registration,
    routes,
};
use crate::harness::clock::wait_within;
use crate::harness::scripts::{text, with_health};
use crate::harness::{Fleet, Gateway, Hearts, Redis, Upstream, delete, eventually, post};

#[test]
fn a_killed_redis_costs_no_request_and_what_was_registered_meanwhile_is_written_when_it_is_back() {
    let mut site = Site::start(2);
    site.register_durably(1, "before");
    site.eventually_everywhere("before");
    let load = site.load(&["steady", "before"]);
    site.redis.kill();
    assert!(!site.register(0, "during"));
    load.goes_on();
    eventually_redis_is(site.gateway(0), "unhealthy");
    assert_eq!(site.gateway(0).health()["status"], "degraded");
    site.redis.start_again();
    site.eventually_stored(&["steady", "before", "during"]);
    site.eventually_everywhere("during");
    load.assert_nothing_failed();
    for gateway in &site.fleet.gateways {
        eventually_redis_is(gateway, "healthy");
        assert_eq!(gateway.health()["status"], "healthy");
    }
    site.register_durably(1, "after");
    site.assert_sound();
}

#[test]
fn a_frozen_redis_delays_nobody() {
    let mut site = Site::start(2);
    let load = site.load(&["steady"]);
    site.redis.freeze();
    let frozen = crate::harness::now();
    for number in 0..3 {
        assert!(!site.register(number % 2, &format!("frozen_{number}")));
    }
    promptly(|| site.gateway(1).api(heartbeat("steady", &id_of(&site.upstream)))).expect(200);
    promptly(|| site.gateway(0).health());
    promptly(|| site.gateway(0).status());
    promptly(|| site.deregister(0, "frozen_0"));
    wait_within(Duration::from_secs(30), "five seconds", || (frozen.elapsed() > Duration::from_secs(5)).then_some(()));
    site.redis.thaw();
    site.eventually_stored(&["steady", "frozen_1", "frozen_2"]);
    site.eventually_everywhere("frozen_1");
    site.eventually_everywhere("frozen_2");
    site.eventually_nowhere("frozen_0");
    assert!(!site.redis.has("services:frozen_0"));
    load.assert_nothing_failed();
    site.assert_sound();
}

#[test]
fn a_deregistration_during_an_outage_wins_over_the_record_that_redis_still_has() {
    let mut site = Site::start(2);
    site.register_durably(0, "leaving");
    site.eventually_everywhere("leaving");
    site.eventually_stored(&["leaving"]);
    site.redis.kill();
    promptly(|| site.deregister(0, "leaving"));
    assert!(!routes(site.gateway(0), "leaving") && routes(site.gateway(1), "leaving"));
    site.redis.start_again();
    assert!(is_stored(&site.redis, "leaving", &site.upstream), "nothing to win over");
    site.eventually_nowhere("leaving");
    eventually("the end of it in Redis", || !site.redis.has("services:leaving"));
    // A registration that comes later is a new one, on whichever replica.
    site.register_durably(1, "leaving");
    site.eventually_everywhere("leaving");
}

#[test]
fn of_several_changes_during_an_outage_the_last_one_holds() {
    let mut site = Site::start(2);
    site.register_durably(0, "undecided");
    site.redis.kill();
    let elsewhere = Upstream::start(text("elsewhere"));
    let mut moved = registration("moved", &site.upstream);
    promptly(|| site.gateway(0).api(post("/register", &moved))).expect(201);
    moved["endpoint"] = json!(elsewhere.url());
    promptly(|| site.gateway(0).api(post("/register", &moved))).expect(201);
    site.deregister(0, "undecided");
    site.register(0, "undecided");
    site.register(0, "brief");
    site.deregister(0, "brief");
    site.redis.start_again();
    site.eventually_stored(&["undecided"]);
    site.eventually_everywhere("undecided");
    eventually("the latest endpoint", || {
        knows(site.gateway(1), "moved") && site.gateway(1).service("moved")["endpoint"] == elsewhere.url()
    });
    let id = id_of(&site.upstream);
    assert!(site.redis.cmd(&["HGET", &key_of("moved", &id), "record"]).text().contains(&elsewhere.url()));
    assert!(!knows(site.gateway(1), "brief") && !site.redis.has("services:brief"));
}

#[test]
fn of_what_replicas_were_told_apart_from_each_other_the_latest_holds() {
    let mut site = Site::start(2);
    site.register_durably(0, "parted");
    site.eventually_everywhere("parted");
    site.redis.kill();
    // One of them has never seen this Redis and can only guess its time.
    site.fleet.gateways[1].process.kill();
    site.fleet.gateways[1].start_again();
    let say = |gateway: &Gateway, service: &str, word: &str| {
        let mut body = registration(service, &site.upstream);
        body["metadata"] = json!({"said": word});
        promptly(|| gateway.api(post("/register", &body))).expect(201);
    };
    say(site.gateway(0), "parted", "first");
    say(site.gateway(1), "other", "first");
    say(site.gateway(1), "ended", "first");
    // What is nearer to each other than an answer of Redis may take has no order that replicas could know.
    std::thread::sleep(Duration::from_millis(400));
    say(site.gateway(1), "parted", "second");
    say(site.gateway(0), "other", "second");
    say(site.gateway(0), "ended", "second");
    site.deregister(0, "ended");
    std::thread::sleep(Duration::from_millis(400));
    site.deregister(1, "other");
    site.redis.start_again();
    site.eventually_stored(&["parted"]);
    for gateway in &site.fleet.gateways {
        eventually("the second word", || knows(gateway, "parted") && gateway.service("parted")["metadata"]["said"] == "second");
    }
    site.eventually_nowhere("other");
    site.eventually_nowhere("ended");
    site.register_durably(1, "ended");
    site.eventually_everywhere("ended");
}

#[test]
fn an_instance_that_heartbeats_to_another_replica_outlives_its_lease_while_redis_is_away() {
    let mut site = Site::start(2);
    let mut brief = registration("brief", &site.upstream);
    brief["ttl"] = json!(5);
    site.gateway(0).api(post("/register", &brief)).expect(201);
    site.eventually_everywhere("brief");
    let load = site.load(&["brief"]);
    let id = id_of(&site.upstream);
    let hearts = Hearts::start(site.gateway(0).registry, &[("brief", &id)], Duration::from_secs(1));
    hearts.beat(2);
    site.redis.kill();
    hearts.beat(9);
    site.redis.start_again();
    site.eventually_stored(&["brief"]);
    hearts.beat(7);
    hearts.assert_all_known();
    load.assert_nothing_failed();
}

#[test]
fn a_gateway_that_starts_without_redis_serves_and_writes_everything_later() {
    let mut redis = Redis::start();
    redis.kill();
    let mut fleet = Fleet::start(2, &redis.env());
    let upstream = Upstream::start(text("here"));
    assert!(!super::is_durable(&fleet.gateways[0], "early", &upstream));
    assert!(!super::is_durable(&fleet.gateways[1], "other", &upstream));
    promptly(|| fleet.gateways[0].api(crate::harness::get("/readyz"))).expect(200);
    eventually_breaker_is(&fleet.gateways[0], "open");
    redis.start_again();
    super::eventually_stored(&redis, &["early", "other"], &upstream);
    for gateway in &fleet.gateways {
        eventually("both everywhere", || routes(gateway, "early") && routes(gateway, "other"));
    }
    promptly(|| fleet.gateways[1].api(delete("/deregister/early?all=1"))).expect(200);
    eventually("the end of it", || !knows(&fleet.gateways[0], "early"));
    fleet.gateways.iter_mut().for_each(crate::harness::Gateway::assert_sound);
}

#[test]
fn connections_that_are_cut_again_and_again_cost_nothing() {
    let mut site = Site::start(2);
    let load = site.load(&["steady"]);
    let names: Vec<String> = (0..20).map(|number| format!("svc_{number:02}")).collect();
    for (number, name) in names.iter().enumerate() {
        site.redis.cmd(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        site.register(number % 2, name);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    site.eventually_stored(&names);
    names.iter().for_each(|name| site.eventually_everywhere(name));
    load.assert_nothing_failed();
    site.assert_sound();
}

#[test]
fn whatever_many_register_during_an_outage_is_written_after_it() {
    let mut site = Site::start(2);
    site.redis.kill();
    eventually_breaker_is(site.gateway(0), "open");
    for number in 0..400 {
        let mut body = registration("crowd", &site.upstream);
        body["instance_id"] = json!(format!("crowd:{number}"));
        body["endpoint"] = json!(format!("{}/{number}", site.upstream.url()));
        let answer = site.gateway(number % 2).api(post("/register", &body)).expect(201).json();
        assert_eq!(answer["durable"], false);
    }
    site.redis.start_again();
    eventually("all of them everywhere", || {
        let count = |gateway: &Gateway| gateway.service("crowd")["instances"].as_array().unwrap().len();
        site.fleet.gateways.iter().all(|gateway| count(gateway) == 400)
    });
    eventually("all of them in Redis", || site.redis.cmd(&["KEYS", &key_of("crowd", "*")]).texts().len() == 400);
    site.assert_sound();
}

#[test]
fn an_instance_of_which_nothing_is_heard_is_probed_while_redis_is_away_and_removed_once_it_is_dead() {
    let mut site = Site::with_settings(Redis::start(), 2, &[("VERTICE_LEASE__STALE_AFTER", "6s")]);
    let healths = [200, 200].map(|status| Arc::new(AtomicU16::new(status)));
    let upstreams = [&healths[0], &healths[1]].map(|health| Upstream::start(with_health(health)));
    for (name, upstream) in ["living", "dying"].iter().zip(&upstreams) {
        let mut body = registration(name, upstream);
        body["ttl"] = json!(5);
        site.gateway(0).api(post("/register", &body)).expect(201);
        site.eventually_everywhere(name);
    }
    site.redis.kill();
    let stale = || site.gateway(1).status()["leases"]["stale"].as_u64();
    eventually("both to be stale", || stale() == Some(2));
    assert!(routes(site.gateway(1), "living") && routes(site.gateway(1), "dying"));
    healths[1].store(503, Ordering::SeqCst);
    eventually("the dead one to be removed", || !knows(site.gateway(1), "dying"));
    assert!(routes(site.gateway(1), "living"));
}
