//! Redis loses what it had: it is there again within one anti-entropy period, written from the gateways' memory.

use serde_json::json;

use super::{OFTEN, Site, eventually_redis_is, eventually_stored, id_of, key_of, registration, routes};
use crate::harness::scripts::text;
use crate::harness::{Fleet, Redis, Upstream, eventually, post};

/// Services registered on both gateways in turn.
const NAMES: [&str; 5] = ["steady", "svc_1", "svc_2", "svc_3", "svc_4"];

fn site() -> Site {
    filled(Site::start(2))
}

fn filled(site: Site) -> Site {
    NAMES.iter().enumerate().for_each(|(number, name)| site.register_durably(number % 2, name));
    NAMES.iter().for_each(|name| site.eventually_everywhere(name));
    site
}

/// What must hold afterwards, whatever happened: all are in Redis, a newcomer finds them, and news still travels.
#[track_caller]
fn assert_repaired(site: &mut Site) {
    site.eventually_stored(&NAMES);
    let late = Fleet::start(1, &site.redis.env());
    assert!(NAMES.iter().all(|name| routes(&late.gateways[0], name)));
    site.gateways_hear_each_other();
    site.assert_sound();
}

impl Site {
    #[track_caller]
    fn gateways_hear_each_other(&self) {
        for number in 0..self.fleet.gateways.len() {
            let name = format!("news_{number}");
            self.register_durably(number, &name);
            self.eventually_everywhere(&name);
        }
    }
}

#[test]
fn a_redis_that_starts_again_empty_is_filled_again() {
    let mut site = site();
    let load = site.load(&NAMES);
    site.redis.kill();
    assert!(!site.register(1, "during"));
    site.redis.start_again_empty();
    site.eventually_stored(&["during"]);
    assert_repaired(&mut site);
    load.assert_nothing_failed();
    eventually_redis_is(site.gateway(0), "healthy");
}

#[test]
fn a_flushed_redis_is_filled_again() {
    let mut site = site();
    let load = site.load(&NAMES);
    site.redis.cmd(&["FLUSHALL"]);
    site.register_durably(1, "after");
    site.eventually_stored(&["after"]);
    assert_repaired(&mut site);
    load.assert_nothing_failed();
}

#[test]
fn what_was_deregistered_before_a_flush_stays_so_and_what_was_changed_stays_changed() {
    let site = site();
    site.deregister(0, "svc_2");
    let elsewhere = Upstream::start(text("elsewhere"));
    let mut moved = registration("svc_3", &site.upstream);
    moved["endpoint"] = json!(elsewhere.url());
    site.gateway(0).api(post("/register", &moved)).expect(201);
    eventually("the move", || site.gateway(1).service("svc_3")["endpoint"] == elsewhere.url());
    site.eventually_nowhere("svc_2");
    site.redis.cmd(&["FLUSHALL"]);
    site.eventually_stored(&["steady", "svc_1", "svc_4"]);
    let key = key_of("svc_3", &id_of(&site.upstream));
    eventually("the move in Redis", || site.redis.has(&key));
    assert!(site.redis.cmd(&["HGET", &key, "record"]).text().contains(&elsewhere.url()));
    assert!(site.fleet.gateways.iter().all(|gateway| !routes(gateway, "svc_2")) && !site.redis.has("services:svc_2"));
}

#[test]
fn a_redis_that_comes_back_as_it_was_some_time_ago_learns_what_happened_since() {
    let redis = Redis::builder().arg("--appendonly", "no").start();
    let mut site = Site::with(redis, 2);
    site.register_durably(0, "svc_1");
    site.register_durably(1, "gone");
    site.eventually_everywhere("gone");
    site.eventually_stored(&["steady", "svc_1", "gone"]);
    assert_eq!(site.redis.cmd(&["SAVE"]).text(), "OK");
    NAMES[2..].iter().enumerate().for_each(|(number, name)| site.register_durably(number % 2, name));
    NAMES.iter().for_each(|name| site.eventually_everywhere(name));
    site.deregister(0, "gone");
    site.eventually_nowhere("gone");
    let load = site.load(&NAMES);
    site.redis.kill();
    site.redis.start_again();
    assert!(site.redis.has("services:gone") && !site.redis.has("services:svc_4"), "not what it was some time ago");
    assert_repaired(&mut site);
    eventually("the end of what had ended", || !site.redis.has("services:gone"));
    assert!(site.fleet.gateways.iter().all(|gateway| !routes(gateway, "gone")));
    load.assert_nothing_failed();
}

#[test]
fn keys_that_vanish_one_by_one_are_written_again() {
    let mut site = filled(Site::with_settings(Redis::start(), 2, &[OFTEN]));
    let load = site.load(&NAMES);
    let id = id_of(&site.upstream);
    site.redis.cmd(&["DEL", &key_of("svc_1", &id), "services:svc_2", "vx:i:svc_3"]);
    site.redis.cmd(&["SREM", "services:index", "svc_4"]);
    site.redis.cmd(&["HSET", "services:steady", "metadata", r#"{"as":"it was"}"#]);
    eventually_stored(&site.redis, &NAMES, &site.upstream);
    eventually("what the predecessor sees", || site.redis.cmd(&["HGET", "services:steady", "metadata"]).text() == "{}");
    assert_repaired(&mut site);
    load.assert_nothing_failed();
}

#[test]
fn a_trimmed_or_deleted_stream_loses_no_news() {
    let mut site = site();
    site.redis.cmd(&["XTRIM", "vx:events", "MAXLEN", "0"]);
    site.gateways_hear_each_other();
    site.redis.cmd(&["DEL", "vx:events", "vx:renewals"]);
    site.gateways_hear_each_other();
    site.assert_sound();
}
