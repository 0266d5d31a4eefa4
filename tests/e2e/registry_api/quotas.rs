//! Limits on how often registry calls may be made (SPEC §10).

use serde_json::json;

use crate::harness::scripts::text;
use crate::harness::{Conn, Gateway, Request, Upstream, delete, get, post};

/// How many of these are answered before one is refused, and what the refusal is.
#[track_caller]
fn until_refused(gateway: &Gateway, request: &Request, status: u16) -> usize {
    for count in 0..5_000 {
        let answer = gateway.api(request.clone());
        if answer.status == 429 {
            answer.problem(429, "rate_limited");
            let retry: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=3).contains(&retry), "{retry}");
            return count;
        }
        answer.expect(status);
    }
    panic!("never refused: {request:?}");
}

#[test]
fn a_runaway_sidecar_is_slowed_down_and_the_others_are_not() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__REGISTRY", "true").start();
    let upstream = Upstream::start(text("here"));
    gateway.register("one_service", &upstream);
    gateway.register("two_service", &upstream);
    let id = upstream.addr.to_string();
    let beat = |service: &str| post("/heartbeat", &json!({"service_name": service, "instance_id": id}));
    let admitted = until_refused(&gateway, &beat("one_service"), 200);
    assert!((20..30).contains(&admitted), "{admitted}");
    gateway.api(beat("two_service")).expect(200);
    gateway.data(get("/v2/one_service/x")).expect(200);
    // At once, so that a busy machine does not give back what it takes.
    let (mut conn, deregister) = (Conn::open(gateway.registry), delete("/deregister/nobody_service"));
    (0..40).for_each(|_| conn.start(&deregister));
    let refused = (0..40).filter(|_| conn.response("DELETE").status == 429).count();
    assert!((1..=30).contains(&refused), "{refused}");
    gateway.api(get("/services")).expect(200);
    assert_eq!(
        gateway.registry_metrics().only("vertice_limit_hits_total", &[("limit", "registry_calls")]),
        1.0 + refused as f64
    );
}

#[test]
fn calls_are_not_limited_unless_that_is_wanted() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(text("here"));
    gateway.register("one_service", &upstream);
    let beat = post("/heartbeat", &json!({"service_name": "one_service", "instance_id": upstream.addr.to_string()}));
    for _ in 0..50 {
        gateway.api(beat.clone()).expect(200);
        gateway.api(delete("/deregister/nobody_service")).expect(200);
    }
}
