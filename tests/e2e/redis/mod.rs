//! Several gateways and one Redis: real servers, killed, emptied, stopped and failed over under load (SPEC §8).

mod breaker;
mod chaos;
mod failover;
mod foreign;
mod losses;
mod outages;
mod predecessor;
mod rates;
mod refusals;
mod replicas;
mod rig;
mod sharing;
mod tls;

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::clock::wait_within;
use crate::harness::resp::Reply;
use crate::harness::scripts::text;
use crate::harness::{Fleet, Gateway, Redis, Request, SteadyLoad, Upstream, delete, eventually, get, now, post};

/// So that a test need not wait for half a minute until Redis and the gateways are compared.
const OFTEN: (&str, &str) = ("VERTICE_STORE__REDIS__RECONCILE", "2s");

/// Within what everything is back that Redis lost: one anti-entropy period, and what a busy machine needs on top.
const REPAIRED: Duration = Duration::from_secs(45);

/// Some gateways over one Redis, with a service that all of them route to.
struct Site {
    redis: Redis,
    fleet: Fleet,
    upstream: Upstream,
}

impl Site {
    fn start(gateways: usize) -> Self {
        Self::with(Redis::start(), gateways)
    }

    /// The service is called `steady`, and registered durably.
    fn with(redis: Redis, gateways: usize) -> Self {
        Self::with_settings(redis, gateways, &[])
    }

    /// With further variables for the gateways.
    fn with_settings(redis: Redis, gateways: usize, settings: &[(&str, &str)]) -> Self {
        let mut env = redis.env();
        env.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let fleet = Fleet::start(gateways, &env);
        let site = Self { redis, fleet, upstream: Upstream::start(text("here")) };
        site.register_durably(0, "steady");
        site.eventually_everywhere("steady");
        site
    }

    fn gateway(&self, number: usize) -> &Gateway {
        &self.fleet.gateways[number]
    }

    /// A steady load for these services on all gateways.
    fn load(&self, services: &[&str]) -> Load {
        let balancer = self.fleet.balancer();
        Load { load: SteadyLoad::start(balancer.addr, services), _balancer: balancer }
    }

    /// Registers the upstream under this name; whether that is in Redis.
    #[track_caller]
    fn register(&self, gateway: usize, service: &str) -> bool {
        is_durable(self.gateway(gateway), service, &self.upstream)
    }

    #[track_caller]
    fn register_durably(&self, gateway: usize, service: &str) {
        eventually_durable(self.gateway(gateway), service, &self.upstream);
    }

    #[track_caller]
    fn deregister(&self, gateway: usize, service: &str) {
        self.gateway(gateway).api(delete(&format!("/deregister/{service}?all=1"))).expect(200);
    }

    /// Waits until every gateway routes to it.
    #[track_caller]
    fn eventually_everywhere(&self, service: &str) {
        eventually(service, || self.fleet.gateways.iter().all(|gateway| routes(gateway, service)));
    }

    /// Waits until no gateway knows it.
    #[track_caller]
    fn eventually_nowhere(&self, service: &str) {
        eventually(service, || self.fleet.gateways.iter().all(|gateway| !knows(gateway, service)));
    }

    /// Waits until Redis has these services, in the predecessor's words and in ours.
    #[track_caller]
    fn eventually_stored(&self, services: &[&str]) {
        eventually_stored(&self.redis, services, &self.upstream);
    }

    /// Checks that every gateway lives and never panicked.
    #[track_caller]
    fn assert_sound(&mut self) {
        self.fleet.gateways.iter_mut().for_each(Gateway::assert_sound);
    }
}

/// A load, and the balancer that it goes through.
struct Load {
    load: SteadyLoad,
    _balancer: crate::harness::Balancer,
}

impl Load {
    #[track_caller]
    fn goes_on(&self) {
        self.load.goes_on();
    }

    #[track_caller]
    fn assert_nothing_failed(self) {
        self.load.assert_nothing_failed();
    }
}

/// The instance's id, as [`Gateway::register`] makes it.
fn id_of(upstream: &Upstream) -> String {
    upstream.addr.to_string()
}

/// A registration that needs no heartbeats for as long as a test takes.
fn registration(service: &str, upstream: &Upstream) -> Value {
    json!({"service_name": service, "endpoint": upstream.url(), "instance_id": id_of(upstream), "ttl": 600})
}

/// Registers, which must neither fail nor wait for Redis however that is; whether it is in Redis.
#[track_caller]
fn is_durable(gateway: &Gateway, service: &str, upstream: &Upstream) -> bool {
    let answer = promptly(|| gateway.api(post("/register", &registration(service, upstream)))).expect(201).json();
    assert!(routes(gateway, service), "{service} is acknowledged and not routable");
    answer["durable"].as_bool().unwrap()
}

/// Registers until it is in Redis: on a busy machine the bound of 250 ms may pass.
#[track_caller]
fn eventually_durable(gateway: &Gateway, service: &str, upstream: &Upstream) {
    eventually("a durable registration", || is_durable(gateway, service, upstream));
}

/// Checks that something takes no longer than it may while Redis is silent, with room for a busy machine.
#[track_caller]
fn promptly<T>(work: impl FnOnce() -> T) -> T {
    let start = now();
    let outcome = work();
    assert!(start.elapsed() < Duration::from_secs(3), "took {:?}", start.elapsed());
    outcome
}

#[track_caller]
fn routes(gateway: &Gateway, service: &str) -> bool {
    gateway.data(get(&format!("/v2/{service}/x"))).status == 200
}

#[track_caller]
fn knows(gateway: &Gateway, service: &str) -> bool {
    gateway.services().iter().any(|name| name == service)
}

/// Waits until Redis has this endpoint for each of the services, in the predecessor's words and in ours.
#[track_caller]
fn eventually_stored(redis: &Redis, services: &[&str], upstream: &Upstream) {
    wait_within(REPAIRED, &format!("{services:?} in Redis"), || {
        services.iter().all(|service| is_stored(redis, service, upstream)).then_some(())
    });
}

fn is_stored(redis: &Redis, service: &str, upstream: &Upstream) -> bool {
    let flat = redis.cmd(&["HGET", &format!("services:{service}"), "endpoint"]);
    let own = redis.cmd(&["HGET", &key_of(service, &id_of(upstream)), "record"]);
    let is_listed = redis.cmd(&["SISMEMBER", "services:index", service]) == Reply::Number(1);
    flat == Reply::Text(upstream.url()) && own != Reply::Nil && is_listed
}

/// Where Redis has an instance.
fn key_of(service: &str, id: &str) -> String {
    format!("services:{service}:i:{id}")
}

/// Waits until `/health` says this of Redis.
#[track_caller]
fn eventually_redis_is(gateway: &Gateway, status: &str) {
    wait_within(REPAIRED, &format!("Redis being {status}"), || (gateway.health()["redis"] == status).then_some(()));
}

/// Waits until the breaker over Redis is in this state.
#[track_caller]
fn eventually_breaker_is(gateway: &Gateway, state: &str) {
    let what = format!("the breaker being {state}");
    wait_within(REPAIRED, &what, || (gateway.health()["circuit_breaker"] == state).then_some(()));
}

fn heartbeat(service: &str, id: &str) -> Request {
    post("/heartbeat", &json!({"service_name": service, "instance_id": id}))
}
