//! Gateways die: one, two, four of five, all.

use super::{Site, eventually_stored, id_of, routes};
use crate::harness::scripts::text;
use crate::harness::{Fleet, Hearts, Redis, SteadyLoad, Upstream, eventually};
use std::time::Duration;

#[test]
fn four_of_five_gateways_die_and_only_what_they_were_answering_is_lost() {
    let mut site = Site::start(5);
    let names: Vec<String> = (0..10).map(|number| format!("svc_{number}")).collect();
    names.iter().enumerate().for_each(|(number, name)| site.register_durably(number % 5, name));
    names.iter().for_each(|name| site.eventually_everywhere(name));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let balancer = site.fleet.balancer();
    let load = SteadyLoad::start(balancer.addr, &names);
    let mut killed = 0;
    for wave in [0..1, 1..3, 3..4] {
        killed += wave.len();
        site.fleet.gateways[wave].iter_mut().for_each(|gateway| gateway.process.kill());
        load.goes_on();
        // The registry goes on as well.
        site.register_durably(4, "steady");
    }
    site.fleet.gateways[0].start_again();
    site.fleet.gateways[1].start_again();
    load.goes_on();
    assert!(names.iter().all(|name| routes(site.gateway(0), name) && routes(site.gateway(1), name)));
    site.register_durably(0, "news");
    eventually("news to travel", || routes(site.gateway(4), "news"));
    let report = load.stop();
    assert!(report.failed == report.lost && report.lost <= killed * SteadyLoad::CLIENTS, "{report}");
    for number in [0, 1, 4] {
        site.fleet.gateways[number].assert_sound();
    }
}

#[test]
fn all_gateways_die_and_the_first_one_back_routes_everything() {
    let mut site = Site::start(5);
    let names: Vec<String> = (0..20).map(|number| format!("svc_{number:02}")).collect();
    names.iter().enumerate().for_each(|(number, name)| site.register_durably(number % 5, name));
    site.fleet.gateways.iter_mut().for_each(|gateway| gateway.process.kill());
    site.fleet.gateways[3].start_again();
    let unroutable: Vec<_> = names.iter().filter(|name| !routes(site.gateway(3), name)).collect();
    assert!(unroutable.is_empty(), "{unroutable:?}");
    site.register_durably(3, "news");
}

#[test]
fn an_instance_whose_replica_died_lives_on_with_heartbeats_to_another_and_lapses_without() {
    let redis = Redis::start();
    let mut fleet = Fleet::start(2, &redis.env());
    let upstream = Upstream::start(text("here"));
    for name in ["kept", "silent"] {
        let mut body = super::registration(name, &upstream);
        body["ttl"] = serde_json::json!(5);
        fleet.gateways[0].api(crate::harness::post("/register", &body)).expect(201);
    }
    eventually("both", || routes(&fleet.gateways[1], "kept") && routes(&fleet.gateways[1], "silent"));
    fleet.gateways[0].process.kill();
    let id = id_of(&upstream);
    let hearts = Hearts::start(fleet.gateways[1].registry, &[("kept", &id)], Duration::from_secs(1));
    eventually("the silent one to lapse", || !routes(&fleet.gateways[1], "silent"));
    hearts.beat(3);
    hearts.assert_all_known();
    assert!(routes(&fleet.gateways[1], "kept"));
    eventually("its end in Redis", || !redis.has("services:silent"));
    eventually_stored(&redis, &["kept"], &upstream);
    assert_eq!(fleet.gateways[1].services(), ["kept"]);
}
