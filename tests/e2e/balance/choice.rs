//! Algorithms, zones and slow start.

use std::collections::BTreeMap;

use serde_json::json;

use super::{instance, numbered, register};
use crate::harness::scripts::{script, status, text};
use crate::harness::{After, Conn, Gateway, Upstream, eventually, get};

fn gateway(config: &str) -> Gateway {
    Gateway::builder().config(config).start()
}

/// How many of `count` requests each instance takes, by what it answers.
fn shares(gateway: &Gateway, service: &str, count: usize) -> BTreeMap<String, usize> {
    let (mut conn, mut shares) = (Conn::open(gateway.gateway), BTreeMap::new());
    for _ in 0..count {
        *shares.entry(conn.ask(&get(&format!("/v2/{service}/x"))).expect(200).text()).or_insert(0) += 1;
    }
    shares
}

#[test]
fn chance_follows_the_weights() {
    let gateway = gateway("[balance]\nalgorithm = \"random\"\n");
    let upstreams = numbered(2);
    register(&gateway, "weighed", &upstreams[0], &json!({"weight": 300}));
    register(&gateway, "weighed", &upstreams[1], &json!({"weight": 100}));
    let shares = shares(&gateway, "weighed", 400);
    assert!((60..140).contains(&shares["1"]), "a quarter of 400: {shares:?}");
}

#[test]
fn one_that_fails_at_once_does_not_get_the_others_requests() {
    let gateway = gateway("");
    let slow = Upstream::start(script(|exchange| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        exchange.answer("200 OK", &[], b"well")?;
        Ok(After::KeepAlive)
    }));
    let broken = Upstream::start(status("500 Oops", "broken"));
    [&slow, &broken].iter().for_each(|upstream| gateway.register("mixed", upstream));
    let mut conn = Conn::open(gateway.gateway);
    (0..200).for_each(|_| drop(conn.ask(&get("/v2/mixed/x"))));
    assert!(broken.count() <= 140, "half of 200: {}", broken.count());
}

#[test]
fn a_key_stays_with_its_instance_and_only_those_of_one_that_goes_move() {
    let gateway = gateway("[services.keyed.balance]\nalgorithm = \"consistent_hash\"\nhash_key = \"header:X-User\"\n");
    let upstreams = numbered(4);
    upstreams.iter().for_each(|upstream| gateway.register("keyed", upstream));
    let mut conn = Conn::open(gateway.gateway);
    let mut owner = |user: usize| conn.ask(&get("/v2/keyed/x").header("X-User", &format!("user-{user}"))).expect(200).text();
    let before: Vec<String> = (0..60).map(&mut owner).collect();
    assert_eq!((0..60).map(&mut owner).collect::<Vec<_>>(), before);
    assert!((0..4).all(|n| before.contains(&n.to_string())), "each of four has some of 60 keys: {before:?}");
    let id = upstreams[2].addr;
    gateway.api(crate::harness::delete(&format!("/deregister/keyed?instance_id={id}"))).expect(200);
    for (user, was) in before.iter().enumerate() {
        let is = owner(user);
        assert!(is == *was || was == "2", "user-{user} went from {was} to {is}");
        assert_ne!(is, "2");
    }
}

#[test]
fn a_key_whose_instance_is_dead_goes_to_one_other_and_no_request_fails() {
    let gateway = gateway("[balance]\nalgorithm = \"consistent_hash\"\nhash_key = \"cookie:user\"\n");
    let mut upstreams = numbered(3);
    upstreams.iter().for_each(|upstream| gateway.register("keyed", upstream));
    let owner = |user: usize| gateway.data(get("/v2/keyed/x").header("Cookie", &format!("user={user}"))).expect(200).text();
    let before: Vec<String> = (0..40).map(owner).collect();
    upstreams[1].stop();
    let after: Vec<String> = (0..40).map(owner).collect();
    for (was, is) in before.iter().zip(&after) {
        assert!(is == was || was == "1");
    }
    assert!(before.contains(&"1".to_owned()) && !after.contains(&"1".to_owned()));
}

#[test]
fn a_client_s_address_is_a_key_too() {
    let gateway = gateway("[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[balance]\nalgorithm = \"consistent_hash\"\n");
    let upstreams = numbered(4);
    upstreams.iter().for_each(|upstream| gateway.register("keyed", upstream));
    let owner =
        |n: usize| gateway.data(get("/v2/keyed/x").header("X-Forwarded-For", &format!("192.0.2.{n}"))).expect(200).text();
    let first: Vec<String> = (0..20).map(owner).collect();
    assert_eq!((0..20).map(owner).collect::<Vec<_>>(), first);
    assert!(first.iter().any(|owner| *owner != first[0]));
}

#[test]
fn our_own_zone_comes_first_and_the_others_take_what_it_cannot() {
    let gateway = gateway("[server]\nzone = \"here\"\n[balance]\nzone = \"prefer\"\n");
    let (near, far) = (Upstream::start(text("near")), Upstream::start(text("far")));
    register(&gateway, "zoned", &near, &json!({"zone": "here"}));
    register(&gateway, "zoned", &far, &json!({"zone": "there"}));
    assert_eq!(shares(&gateway, "zoned", 50), BTreeMap::from([("near".to_owned(), 50)]));
    // One zone's share of three is a third; with one of two more instances there, ours is half of that.
    let more = Upstream::start(text("far"));
    register(&gateway, "zoned", &more, &json!({"zone": "there"}));
    let mixed = shares(&gateway, "zoned", 300);
    assert!((140..260).contains(&mixed["near"]), "two thirds of 300: {mixed:?}");
    drop(near);
    assert_eq!(shares(&gateway, "zoned", 20), BTreeMap::from([("far".to_owned(), 20)]));
}

#[test]
fn a_new_instance_gets_its_share_slowly() {
    let gateway = gateway("[balance]\nalgorithm = \"random\"\nslow_start = \"2s\"\n");
    let upstreams = numbered(2);
    gateway.register("slow", &upstreams[0]);
    assert_eq!(instance(&gateway, "slow", &upstreams[0])["share"], 1.0, "the whole service is new");
    gateway.register("slow", &upstreams[1]);
    assert_eq!(instance(&gateway, "slow", &upstreams[1])["share"], 1.0, "the whole service is new");
    eventually("the first to be old", || {
        gateway.register("slow", &upstreams[1]);
        instance(&gateway, "slow", &upstreams[1])["share"].as_f64().unwrap() < 0.2
    });
    eventually("the second to have its share", || instance(&gateway, "slow", &upstreams[1])["share"] == 1.0);
    let shares = shares(&gateway, "slow", 200);
    assert!((60..140).contains(&shares["1"]), "{shares:?}");
}
