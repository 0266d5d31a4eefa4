//! The master dies, and Sentinels make its replica the master.

use super::{eventually_redis_is, eventually_stored, is_durable, routes};
use crate::harness::scripts::text;
use crate::harness::{Fleet, Sentinels, SteadyLoad, Upstream, eventually};

#[test]
fn a_failover_costs_no_request_and_no_registration() {
    let mut servers = Sentinels::start();
    let mut fleet = Fleet::start(2, &servers.env());
    let upstream = Upstream::start(text("here"));
    let gateways = &fleet.gateways;
    for (number, name) in ["steady", "before_1", "before_2"].iter().enumerate() {
        super::eventually_durable(&gateways[number % 2], name, &upstream);
        eventually(name, || gateways.iter().all(|gateway| routes(gateway, name)));
    }
    let balancer = fleet.balancer();
    let load = SteadyLoad::start(balancer.addr, &["steady", "before_1", "before_2"]);
    servers.servers[0].kill();
    is_durable(&gateways[0], "during", &upstream);
    servers.wait_for_master(1);
    is_durable(&gateways[1], "after", &upstream);
    let all = ["steady", "before_1", "before_2", "during", "after"];
    eventually_stored(&servers.servers[1], &all, &upstream);
    gateways.iter().for_each(|gateway| eventually_redis_is(gateway, "healthy"));
    eventually("news to travel", || gateways.iter().all(|gateway| routes(gateway, "during") && routes(gateway, "after")));
    // The old master comes back as what it was: nothing may be written to it.
    servers.servers[0].start_again();
    super::eventually_durable(&gateways[0], "later", &upstream);
    eventually_stored(&servers.servers[1], &["later"], &upstream);
    eventually("news to travel", || routes(&gateways[1], "later"));
    load.assert_nothing_failed();
    fleet.gateways.iter_mut().for_each(crate::harness::Gateway::assert_sound);
}

#[test]
fn without_any_sentinel_the_gateways_serve_and_name_the_master_they_look_for() {
    let nobody = crate::harness::net::closed().to_string();
    let env = [("REDIS_SENTINELS", nobody.as_str()), ("REDIS_SENTINEL_MASTER", "unheard_of")];
    let fleet = Fleet::start(1, &env.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let upstream = Upstream::start(text("here"));
    assert!(!is_durable(&fleet.gateways[0], "svc", &upstream));
    eventually_redis_is(&fleet.gateways[0], "unhealthy");
    let detail = fleet.gateways[0].health()["components"]["redis"]["detail"].to_string();
    assert!(detail.to_lowercase().contains("sentinel"), "{detail}");
}
