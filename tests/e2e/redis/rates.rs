//! Rate limits that replicas count together (SPEC §5, §8).

use crate::harness::scripts::text;
use crate::harness::{Fleet, Gateway, Redis, Upstream, eventually, get};

/// A quota that nobody gets back while a test runs.
const CONFIG: &str = "[[rate_limits]]\nname = \"ours\"\nrate = \"1/h\"\nburst = 20\nby = \"service\"\nshared = true\n";

fn start(redis: &Redis) -> (Fleet, Upstream) {
    let fleet = Fleet::start_with(2, &redis.env(), |builder| builder.config(CONFIG));
    let upstream = Upstream::start(text("here"));
    for service in ["one_service", "two_service", "three_service"] {
        fleet.gateways[0].register(service, &upstream);
        eventually(service, || fleet.gateways.iter().all(|gateway| gateway.services().contains(&service.to_owned())));
    }
    (fleet, upstream)
}

/// What is left of the quota after one more request, if that was let through.
#[track_caller]
fn ask(gateway: &Gateway, service: &str) -> Option<u32> {
    let answer = gateway.data(get(&format!("/v2/{service}/x")));
    let left =
        answer.header("ratelimit").unwrap().split(';').find_map(|part| part.strip_prefix("r=")).unwrap().parse().unwrap();
    match answer.status {
        200 => Some(left),
        _ => {
            answer.problem(429, "rate_limited");
            None
        }
    }
}

/// Requests that Redis knows of, each of which owes an hour.
fn told(redis: &Redis, service: &str) -> i64 {
    redis.cmd(&["PTTL", &format!("vx:rate:ours:{service}")]).number().max(0).saturating_add(1_800_000) / 3_600_000
}

#[test]
fn two_replicas_grant_one_quota() {
    let redis = Redis::start();
    let (mut fleet, _upstream) = start(&redis);
    let [a, b] = [&fleet.gateways[0], &fleet.gateways[1]];
    for _ in 0..15 {
        ask(a, "one_service").unwrap();
    }
    eventually("Redis to know of fifteen", || told(&redis, "one_service") == 15);
    ask(b, "one_service").unwrap();
    eventually("Redis to know of sixteen", || told(&redis, "one_service") == 16);
    let mut more = 0;
    eventually("the other replica to know of them", || {
        let left = ask(b, "one_service");
        more += usize::from(left.is_some());
        left.is_none_or(|left| left <= 3)
    });
    assert!(more < 19, "alone it would have granted nineteen more");
    // What both of them have left by now is what one would have.
    let rest = (0..100).take_while(|_| ask(b, "one_service").is_some()).count();
    assert!(rest <= 3, "{rest}");
    fleet.gateways.iter_mut().for_each(Gateway::assert_sound);
}

#[test]
fn limits_hold_while_redis_is_away_and_are_shared_again_after() {
    let mut redis = Redis::start();
    let (mut fleet, _upstream) = start(&redis);
    for _ in 0..20 {
        ask(&fleet.gateways[0], "one_service").unwrap();
    }
    eventually("Redis to know of twenty", || told(&redis, "one_service") == 20);
    redis.kill();
    assert!(ask(&fleet.gateways[0], "one_service").is_none(), "nothing is forgotten");
    for gateway in &fleet.gateways {
        let alone = (0..100).take_while(|_| ask(gateway, "two_service").is_some()).count();
        assert_eq!(alone, 20, "each grants the whole of it");
    }
    redis.start_again();
    eventually("Redis to know what is owed of the time without it", || told(&redis, "two_service") == 40);
    ask(&fleet.gateways[0], "three_service").unwrap();
    ask(&fleet.gateways[1], "three_service").unwrap();
    eventually("counting together", || told(&redis, "three_service") == 2);
    fleet.gateways.iter_mut().for_each(Gateway::assert_sound);
}
