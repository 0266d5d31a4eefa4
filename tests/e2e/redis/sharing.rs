//! What one replica is told holds on all of them.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Site, id_of, registration, routes};
use crate::harness::scripts::text;
use crate::harness::{Fleet, Gateway, Hearts, Redis, Upstream, delete, eventually, get, post};

/// Everybody who answers for `svc` in a number of requests.
fn answers(gateway: &Gateway) -> Vec<String> {
    let mut seen: Vec<String> = (0..20).map(|_| gateway.data(get("/v2/svc/x")).text()).collect();
    seen.sort();
    seen.dedup();
    seen
}

#[track_caller]
fn eventually_answers(gateways: &[Gateway], who: &[&str]) {
    eventually(&format!("{who:?} alone to answer"), || gateways.iter().all(|gateway| answers(gateway) == who));
}

/// What does not differ between replicas.
fn comparable(info: &Value) -> Value {
    let mut info = info.clone();
    let forget = |object: &mut Value| {
        for own in ["last_heartbeat", "ttl_remaining", "index", "breaker", "registered_at"] {
            object.as_object_mut().unwrap().remove(own);
        }
    };
    forget(&mut info);
    info["instances"].as_array_mut().unwrap().iter_mut().for_each(forget);
    info
}

#[test]
fn a_registration_holds_on_every_replica_with_everything_it_said() {
    let mut site = Site::start(3);
    let full = json!({
        "service_name": "whole", "endpoint": format!("{}/prefix", site.upstream.url()), "health_endpoint": "/h?x=1",
        "metadata": {"team": "réd", "quote": "it's \"so\"", "k": ""}, "instance_id": "kept:[::1]:80", "ttl": 1800,
        "weight": 7, "zone": "eu", "version": "2", "tags": ["a", "b"], "status": "degraded"
    });
    assert_eq!(site.gateway(0).api(post("/register", &full)).expect(201).json()["durable"], true);
    site.eventually_everywhere("whole");
    let here = site.gateway(0).service("whole");
    for other in &site.fleet.gateways[1..] {
        let there = other.service("whole");
        assert_eq!(comparable(&there), comparable(&here));
        for (time, slack) in [("registered_at", 3.0), ("last_heartbeat", 3.0), ("ttl_remaining", 5.0)] {
            let (a, b) = (here[time].as_f64().unwrap(), there[time].as_f64().unwrap());
            assert!((a - b).abs() < slack, "{time}: {a} and {b}");
        }
        assert_eq!(other.api(get("/services?tag=b")).json(), json!(["whole"]));
    }
    let pushed =
        |gateway: &Gateway| gateway.registry_metrics().sum("registry_propagation_seconds_count", &[("scope", "replica")]) > 0.0;
    assert!(pushed(site.gateway(1)) && pushed(site.gateway(2)));
    site.assert_sound();
}

#[test]
fn statuses_drains_and_deregistrations_take_effect_on_every_replica() {
    let redis = Redis::start();
    let fleet = Fleet::start(2, &redis.env());
    let gateways = &fleet.gateways;
    let [a, b] = ["a", "b"].map(|name| Upstream::start(text(name)));
    gateways[0].register("svc", &a);
    gateways[1].register("svc", &b);
    eventually_answers(gateways, &["a", "b"]);
    let report = |gateway: &Gateway, status: &str| {
        let beat = json!({"service_name": "svc", "instance_id": id_of(&a), "status": status, "metadata": {"said": status}});
        gateway.api(post("/heartbeat", &beat)).expect(200);
    };
    report(&gateways[1], "unhealthy");
    eventually_answers(gateways, &["b"]);
    let said = |gateway: &Gateway| gateway.service("svc")["instances"].to_string().contains(r#""said":"unhealthy""#);
    assert!(gateways.iter().all(said));
    report(&gateways[0], "healthy");
    eventually_answers(gateways, &["a", "b"]);
    let drain = |gateway: &Gateway, time: &str| {
        let call = format!("/gateway/drain/svc?instance_id={}&for={time}", id_of(&b));
        gateway.api(post(&call, &json!({}))).expect(200);
    };
    drain(&gateways[0], "5m");
    eventually_answers(gateways, &["a"]);
    drain(&gateways[1], "0");
    eventually_answers(gateways, &["a", "b"]);
    gateways[1].api(delete(&format!("/deregister/svc?instance_id={}&drain=5m", id_of(&a)))).expect(200);
    eventually_answers(gateways, &["b"]);
    gateways[0].api(delete(&format!("/deregister/svc?instance_id={}", id_of(&b)))).expect(200);
    eventually("nobody to answer", || gateways.iter().all(|gateway| !routes(gateway, "svc")));
}

#[test]
fn a_heartbeat_to_another_replica_keeps_an_instance_alive_on_all_and_silence_ends_it_on_all() {
    let site = Site::start(2);
    let mut brief = registration("brief", &site.upstream);
    brief["ttl"] = json!(5);
    site.gateway(0).api(post("/register", &brief)).expect(201);
    site.eventually_everywhere("brief");
    let load = site.load(&["brief", "steady"]);
    let id = id_of(&site.upstream);
    let hearts = Hearts::start(site.gateway(1).registry, &[("brief", &id)], Duration::from_secs(1));
    hearts.beat(11);
    hearts.assert_all_known();
    load.assert_nothing_failed();
    drop(hearts);
    site.eventually_nowhere("brief");
    eventually("the end of it in Redis", || !site.redis.has("services:brief"));
    assert!(site.redis.cmd(&["SISMEMBER", "services:index", "brief"]).number() == 0);
}

#[test]
fn behind_a_load_balancer_each_registrant_has_its_own_instance_whichever_replica_it_meets() {
    let redis = Redis::start();
    let trusting = |builder: crate::harness::gateway::Builder| builder.env("VERTICE_SERVER__TRUSTED_PROXIES", "127.0.0.1/32");
    let fleet = Fleet::start_with(3, &redis.env(), trusting);
    let balancer = fleet.registry_balancer();
    let upstreams = ["first", "second"].map(|name| Upstream::start(text(name)));
    let hosts = [[127, 0, 0, 21], [127, 0, 0, 22]];
    for (upstream, host) in upstreams.iter().zip(hosts) {
        let body = json!({"service_name": "svc", "endpoint": upstream.url()});
        post("/register", &body).from(host).send(balancer.addr).expect(201);
    }
    eventually_answers(&fleet.gateways, &["first", "second"]);
    // As many as there are replicas, so that each host meets each of them.
    for _ in 0..3 {
        for host in hosts {
            post("/heartbeat", &json!({"service_name": "svc"})).from(host).send(balancer.addr).expect(200);
        }
    }
    delete("/deregister/svc").from(hosts[0]).send(balancer.addr).expect(200);
    eventually_answers(&fleet.gateways, &["second"]);
}

#[test]
fn a_replica_that_comes_later_routes_everything_with_its_first_request() {
    let mut site = Site::start(2);
    let names: Vec<String> = (0..40).map(|number| format!("svc_{number:02}")).collect();
    names.iter().enumerate().for_each(|(number, name)| site.register_durably(number % 2, name));
    let late = Fleet::start(1, &site.redis.env());
    let unroutable: Vec<_> = names.iter().filter(|name| !routes(&late.gateways[0], name)).collect();
    assert!(unroutable.is_empty(), "{unroutable:?}");
    // What was deregistered while a replica was off stays so, although that replica had it.
    site.fleet.gateways[1].process.kill();
    site.deregister(0, "svc_07");
    site.fleet.gateways[1].start_again();
    site.eventually_everywhere("svc_39");
    site.eventually_nowhere("svc_07");
    assert!(!routes(&late.gateways[0], "svc_07"));
    site.assert_sound();
}

#[test]
fn a_health_check_of_one_replica_answers_for_all() {
    let site = Site::with_settings(Redis::start(), 2, &[("VERTICE_HEALTH__CACHE_TTL", "500ms")]);
    let check = |gateway: &Gateway| gateway.data(get("/gateway/health-check/steady")).expect(200).json();
    assert_eq!(check(site.gateway(0))["cached"], false);
    // A result is shared if that is possible at once, and so not always with the first one.
    eventually("a result in Redis", || check(site.gateway(0))["healthy"] == true && site.redis.has("health:steady"));
    let left = site.redis.cmd(&["TTL", "health:steady"]).number();
    assert!((1..=30).contains(&left), "{left}");
    // It is waited for a moment only: whoever is too late asks the service itself, and Redis again when its own result is old.
    eventually("an answer from Redis", || {
        let before = site.upstream.count();
        let there = check(site.gateway(1));
        let is_shared =
            (&there["cached"], &there["cache_layer"], &there["healthy"]) == (&json!(true), &json!("redis"), &json!(true));
        assert!(!is_shared || site.upstream.count() == before, "nobody asked the service again");
        is_shared
    });
}

#[test]
fn replicas_agree_about_an_instance_that_registers_with_all_of_them_at_once() {
    let site = Site::start(3);
    std::thread::scope(|scope| {
        for (number, gateway) in site.fleet.gateways.iter().enumerate() {
            let mut body = registration("svc", &site.upstream);
            scope.spawn(move || {
                for round in 0..20 {
                    body["metadata"] = json!({"said": format!("{number}.{round}")});
                    gateway.api(post("/register", &body)).expect(201);
                }
            });
        }
    });
    let said = |gateway: &Gateway| gateway.service("svc")["instances"].to_string();
    let words = |gateway: &Gateway| gateway.service("svc")["metadata"]["said"].as_str().unwrap_or_default().to_owned();
    let [a, b, c] = [0, 1, 2].map(|number| site.gateway(number));
    eventually("agreement", || words(a) == words(b) && words(b) == words(c) && words(a).ends_with(".19"));
    assert!([a, b, c].iter().all(|gateway| gateway.service("svc")["instances"].as_array().unwrap().len() == 1), "{}", said(a));
    let record = site.redis.cmd(&["HGET", &super::key_of("svc", &id_of(&site.upstream)), "record"]);
    assert!(record.text().contains(&words(a)), "{record:?}");
}

#[test]
fn who_deregisters_with_a_drain_is_out_of_redis_at_once_and_stays_out() {
    let site = Site::with_settings(Redis::start(), 2, &[super::OFTEN]);
    site.register_durably(0, "leaving");
    site.eventually_everywhere("leaving");
    site.gateway(0).api(delete("/deregister/leaving?all=1&drain=1h")).expect(200);
    let is_gone = || {
        let is_listed = site.redis.cmd(&["SISMEMBER", "services:index", "leaving"]).number() == 1;
        !site.redis.has("services:leaving") && !is_listed
    };
    eventually("it to be out of Redis", is_gone);
    eventually("it to finish on both", || site.fleet.gateways.iter().all(|gateway| !routes(gateway, "leaving")));
    // Whatever else happens to the service's keys, it is not shown again.
    let compared = |gateway: &Gateway| gateway.status()["store"]["redis"]["compared_seconds_ago"].as_f64().unwrap();
    let late = Fleet::start(1, &site.redis.env());
    for gateway in &site.fleet.gateways {
        let before = compared(gateway);
        eventually("a comparison", || compared(gateway) < before || compared(gateway) < 0.5);
    }
    assert!(is_gone() && !super::knows(&late.gateways[0], "leaving"));
}
