//! The rig itself: servers that keep, lose, stop and fail over as the other tests want them to, and a balancer and a load
//! that notice what they are there to notice.

use crate::harness::resp::Reply;
use crate::harness::scripts::text;
use crate::harness::{Balancer, Fleet, Redis, Sentinels, SteadyLoad, Upstream, eventually, get, net};

#[test]
fn a_server_keeps_its_keys_through_a_crash_or_loses_them_as_asked() {
    let mut redis = Redis::builder().password("p w").start();
    redis.cmd(&["SET", "key", "kept"]);
    redis.kill();
    assert!(redis.try_cmd(&["PING"]).is_err());
    redis.start_again();
    assert_eq!(redis.cmd(&["GET", "key"]).text(), "kept");
    redis.kill();
    redis.start_again_empty();
    assert_eq!(redis.cmd(&["GET", "key"]), Reply::Nil);
}

#[test]
fn a_failover_makes_the_replica_the_master() {
    let mut all = Sentinels::start();
    all.servers[0].cmd(&["SET", "key", "copied"]);
    eventually("the copy", || all.servers[1].has("key"));
    all.fail_over();
    assert_eq!(all.servers[1].cmd(&["GET", "key"]).text(), "copied");
    all.servers[1].cmd(&["SET", "key", "later"]);
}

#[test]
fn a_load_sees_what_fails_and_a_balancer_what_a_gateway_took_with_it() {
    let mut fleet = Fleet::start(2, &[]);
    let upstream = Upstream::start(text("here"));
    fleet.gateways.iter().for_each(|gateway| gateway.register("svc", &upstream));
    let balancer = fleet.balancer();
    SteadyLoad::start(balancer.addr, &["svc"]).assert_nothing_failed();
    let load = SteadyLoad::start(balancer.addr, &["svc"]);
    fleet.gateways[0].process.kill();
    load.goes_on();
    let report = load.stop();
    assert!(report.failed == report.lost && report.lost <= SteadyLoad::CLIENTS, "{report}");
    let broken = SteadyLoad::start(balancer.addr, &["svc", "nowhere"]);
    let report = broken.stop();
    assert!(report.failed.abs_diff(report.sent / 2) <= SteadyLoad::CLIENTS && report.lost == 0, "{report}");
    get("/").send(Balancer::start(vec![net::closed()]).addr).expect(502);
}
