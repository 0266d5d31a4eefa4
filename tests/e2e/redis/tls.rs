//! Redis behind TLS.

use super::{eventually_durable, eventually_redis_is, is_durable};
use crate::harness::gateway::Builder;
use crate::harness::scripts::text;
use crate::harness::{Gateway, Redis, Upstream};

fn server() -> (Redis, Builder) {
    let redis = Redis::builder().password("secret").tls().start();
    let url = format!("rediss://:secret@{}", redis.tls.as_ref().unwrap().addr);
    let gateway = Gateway::builder().env("REDIS_URL", &url);
    (redis, gateway)
}

#[test]
fn a_server_whose_authority_is_configured_is_trusted() {
    let (mut redis, gateway) = server();
    let authority = redis.tls.as_ref().unwrap().authority.to_str().unwrap().to_owned();
    let gateway = gateway.env("VERTICE_STORE__REDIS__CA_FILE", &authority).start();
    let upstream = Upstream::start(text("here"));
    eventually_durable(&gateway, "svc", &upstream);
    super::eventually_stored(&redis, &["svc"], &upstream);
    redis.kill();
    assert!(!is_durable(&gateway, "during", &upstream));
    redis.start_again();
    super::eventually_stored(&redis, &["svc", "during"], &upstream);
}

#[test]
fn a_server_that_nobody_vouches_for_is_told_nothing() {
    let (redis, gateway) = server();
    let gateway = gateway.start();
    let upstream = Upstream::start(text("here"));
    assert!(!is_durable(&gateway, "svc", &upstream));
    eventually_redis_is(&gateway, "unhealthy");
    let detail = gateway.health()["components"]["redis"]["detail"].to_string().to_lowercase();
    assert!(detail.contains("certificate") || detail.contains("issuer"), "{detail}");
    assert!(!redis.has("services:svc"));
    assert!(!gateway.process.stderr().contains("secret"));
}
