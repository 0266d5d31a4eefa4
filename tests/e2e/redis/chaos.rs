//! Faults one after another and into each other, as the seed has it, while services come and go under a steady load. What
//! was acknowledged last holds in the end: on every gateway, and in Redis.
//!
//! `CHAOS_SEED=s` replays a seed, `CHAOS_SEEDS=n` runs n of them, one after another.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::{OFTEN, REPAIRED, Site, id_of, key_of, promptly, registration};
use crate::harness::clock::wait_within;
use crate::harness::random::Random;
use crate::harness::resp::Reply;
use crate::harness::{Balancer, Gateway, Redis, SteadyLoad, delete, post};

/// Faults of one run.
const FAULTS: usize = 12;
const GATEWAYS: usize = 3;
const SERVICES: usize = 9;

#[test]
fn whatever_goes_wrong_after_what_the_last_acknowledged_word_holds() {
    let (seed, count) = (number("CHAOS_SEED"), number("CHAOS_SEEDS"));
    let first = seed.unwrap_or(1);
    for seed in first..first + count.unwrap_or(1) {
        eprintln!("seed {seed}");
        Chaos::start(seed).run();
    }
}

#[expect(clippy::disallowed_methods, reason = "a knob of the test itself")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

struct Chaos {
    random: Random,
    site: Site,
    balancer: Balancer,
    /// Which gateway a service speaks to until all agree again: the others may not have heard of it.
    owners: Vec<usize>,
    /// What each service was told last, when it is there: its metadata.
    expected: BTreeMap<String, String>,
    killed: usize,
    words: u64,
}

impl Chaos {
    fn start(seed: u64) -> Self {
        let site = Site::with_settings(Redis::start(), GATEWAYS, &[OFTEN]);
        let balancer = site.fleet.balancer();
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // The first numbers of neighbouring seeds resemble each other.
        for _ in 0..20 {
            random.next();
        }
        let owners = (0..SERVICES).map(|service| service % GATEWAYS).collect();
        Self { random, site, balancer, owners, expected: BTreeMap::new(), killed: 0, words: 0 }
    }

    fn run(mut self) {
        let load = SteadyLoad::start(self.balancer.addr, &["steady"]);
        for _ in 0..FAULTS {
            self.some_changes();
            self.fault();
            self.some_changes();
            if self.random.below(3) == 0 {
                self.settle();
            }
        }
        self.settle();
        let report = load.stop();
        assert!(report.failed == report.lost && report.lost <= self.killed * SteadyLoad::CLIENTS, "{report}");
        self.site.assert_sound();
    }

    fn some_changes(&mut self) {
        for _ in 0..self.random.below(5) {
            let service = self.random.below(SERVICES);
            let name = format!("svc_{service}");
            let gateway = self.site.gateway(self.owners[service]);
            if self.random.below(4) == 0 {
                promptly(|| gateway.api(delete(&format!("/deregister/{name}?all=1")))).expect(200);
                self.expected.remove(&name);
            } else {
                self.words += 1;
                let word = format!("word-{:04}", self.words);
                let mut body = registration(&name, &self.site.upstream);
                body["metadata"] = json!({"word": word});
                promptly(|| gateway.api(post("/register", &body))).expect(201);
                self.expected.insert(name, word);
            }
        }
    }

    fn fault(&mut self) {
        let fault = self.random.below(9);
        eprintln!("fault {fault} with {:?}", self.expected);
        match fault {
            0 => {
                self.site.redis.kill();
                self.some_changes();
                self.site.redis.start_again();
            }
            1 => {
                self.site.redis.kill();
                self.some_changes();
                self.site.redis.start_again_empty();
            }
            2 => {
                self.site.redis.freeze();
                self.some_changes();
                std::thread::sleep(Duration::from_millis(self.random.below(2000) as u64));
                self.site.redis.thaw();
            }
            3 => {
                self.site.redis.config("maxmemory", "1");
                self.some_changes();
                self.site.redis.config("maxmemory", "0");
            }
            4 => self.command(&["FLUSHALL"]),
            5 => self.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]),
            6 => self.command(&["DEL", "vx:events", "vx:renewals"]),
            7 => self.command(&["XTRIM", "vx:events", "MAXLEN", "0"]),
            _ => self.kill_a_gateway(),
        }
    }

    fn command(&self, command: &[&str]) {
        let answer = self.site.redis.cmd(command);
        assert!(!matches!(answer, Reply::Error(_)), "{command:?}: {answer:?}");
    }

    /// Only what is in Redis, or known to others, outlives a gateway.
    fn kill_a_gateway(&mut self) {
        self.settle();
        let victim = self.random.below(GATEWAYS);
        self.killed += 1;
        self.site.fleet.gateways[victim].process.kill();
        let owner = (victim + 1) % GATEWAYS;
        self.owners.iter_mut().filter(|other| **other == victim).for_each(|other| *other = owner);
        self.some_changes();
        self.site.fleet.gateways[victim].start_again();
    }

    /// Waits until all gateways and Redis agree with what was acknowledged; then anybody may speak to any gateway.
    #[track_caller]
    fn settle(&mut self) {
        let mut told = None;
        wait_within(REPAIRED, "agreement", || {
            let differences = self.differences();
            if differences.is_empty() {
                return Some(());
            }
            if told.as_ref() != Some(&differences) {
                eprintln!("{differences:#?}");
            }
            told = Some(differences);
            None
        });
        for owner in &mut self.owners {
            *owner = self.random.below(GATEWAYS);
        }
    }

    /// Who has something else than what was acknowledged.
    fn differences(&self) -> Vec<String> {
        let mut differences = Vec::new();
        for (number, gateway) in self.site.fleet.gateways.iter().enumerate() {
            let words = words(gateway);
            if words != self.expected {
                differences.push(format!("gateway {number}: {words:?} instead of {:?}", self.expected));
            }
        }
        let id = id_of(&self.site.upstream);
        for name in (0..SERVICES).map(|service| format!("svc_{service}")) {
            let (key, flat) = (key_of(&name, &id), format!("services:{name}"));
            let words = [self.site.redis.cmd(&["HGET", &key, "record"]), self.site.redis.cmd(&["HGET", &flat, "metadata"])];
            let is_right = |found: &Reply| match (self.expected.get(&name), found) {
                (Some(word), Reply::Text(text)) => text.contains(word),
                (word, found) => word.is_none() && *found == Reply::Nil,
            };
            if !words.iter().all(is_right) {
                differences.push(format!("{name}: {words:?} instead of {:?}", self.expected.get(&name)));
            }
        }
        differences
    }
}

/// What a gateway knows, but for the service that stays.
fn words(gateway: &Gateway) -> BTreeMap<String, String> {
    let all = gateway.api(crate::harness::get("/services?detail=1")).expect(200).json();
    let entry = |service: &serde_json::Value| {
        let name = service["service_name"].as_str().unwrap().to_owned();
        let word = service["metadata"]["word"].as_str().unwrap_or_default().to_owned();
        (name != "steady").then_some((name, word))
    };
    all.as_array().unwrap().iter().filter_map(entry).collect()
}
