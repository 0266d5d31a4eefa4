//! The breaker of an instance: what opens it, what does not, and how it heals.

use std::sync::Arc;

use serde_json::json;

use crate::harness::scripts::{gated, raw_then_reset, script, status, text};
use crate::harness::{After, Conn, Gate, Gateway, Request, Upstream, eventually, get, net, post};

fn patient_gateway() -> Gateway {
    Gateway::builder().env("VERTICE_BREAKER__OPEN", "600ms").start()
}

/// Asks until the breaker of the service's only instance is open.
#[track_caller]
fn trip(gateway: &Gateway, service: &str, status: u16) {
    for _ in 0..3 {
        gateway.data(get(&format!("/v2/{service}/x"))).expect(status);
    }
    eventually(&format!("the breaker of {service} to open"), || gateway.breaker(service) != "closed");
}

/// Waits for the breaker: an outcome is noted when the answer has been sent, which the client may notice first.
#[track_caller]
fn await_breaker(gateway: &Gateway, service: &str, expected: &str) {
    eventually(&format!("the breaker of {service} to be {expected}"), || gateway.breaker(service) == expected);
}

#[test]
fn three_failures_open_it_and_then_the_answer_is_fast() {
    let gateway = Gateway::start();
    gateway.register_at("dead", &format!("http://{}", net::closed()));
    for _ in 0..3 {
        gateway.data(get("/v2/dead/x")).problem(502, "upstream_connect");
    }
    await_breaker(&gateway, "dead", "open");
    let shed = gateway.data(get("/v2/dead/x"));
    shed.problem(503, "breaker_open");
    let seconds: u32 = shed.header("retry-after").expect("no Retry-After").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(gateway.service("dead")["instances"][0]["breaker"], "open");
    assert_eq!(gateway.metrics().only("vertice_gateway_answers_total", &[("reason", "breaker_open")]), 1.0);
}

#[test]
fn failing_answers_of_the_service_open_it_too() {
    let gateway = Gateway::start();
    for code in [502, 503, 504] {
        let service = format!("svc{code}");
        let upstream = Upstream::start(status(&format!("{code} Broken"), "mine"));
        gateway.register(&service, &upstream);
        trip(&gateway, &service, code);
        gateway.data(get(&format!("/v2/{service}/x"))).problem(503, "breaker_open");
        assert_eq!(upstream.count(), 3);
    }
    let resetting = Upstream::start(raw_then_reset(""));
    gateway.register("resetting", &resetting);
    trip(&gateway, "resetting", 502);
}

#[test]
fn other_answers_do_not_open_it() {
    let gateway = Gateway::start();
    for code in [400, 401, 404, 408, 429, 500, 501, 505] {
        let service = format!("svc{code}");
        let upstream = Upstream::start(status(&format!("{code} Whatever"), "mine"));
        gateway.register(&service, &upstream);
        for _ in 0..6 {
            gateway.data(get(&format!("/v2/{service}/x"))).expect(code);
        }
        assert_eq!(gateway.breaker(&service), "closed", "{code}");
    }
}

#[test]
fn a_success_in_between_starts_the_count_again() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(text("good"));
    gateway.register("shaky", &upstream);
    // On one connection, where a request is not read before the outcome of the one before it has been noted.
    let mut conn = Conn::open(gateway.gateway);
    for round in 0..9 {
        let good = round % 3 == 2;
        upstream.set(if good { text("good") } else { status("503 No", "bad") });
        conn.ask(&get("/v2/shaky/x")).expect(if good { 200 } else { 503 });
    }
    assert_eq!(gateway.breaker("shaky"), "closed");
    assert_eq!(upstream.count(), 9);
}

#[test]
fn it_heals_by_itself_once_the_service_is_back() {
    let gateway = patient_gateway();
    let addr = net::closed();
    gateway.register_at("phoenix", &format!("http://{addr}"));
    trip(&gateway, "phoenix", 502);
    let _upstream = Upstream::start_at(addr, text("risen"));
    eventually("traffic to flow again", || gateway.data(get("/v2/phoenix/x")).status == 200);
    eventually("the breaker to close", || {
        gateway.data(get("/v2/phoenix/x"));
        gateway.breaker("phoenix") == "closed"
    });
    for _ in 0..10 {
        gateway.data(get("/v2/phoenix/x")).expect(200);
    }
}

#[test]
fn a_stream_of_events_is_no_probe_that_keeps_others_waiting() {
    let gateway = patient_gateway();
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let upstream = Upstream::start(script(move |exchange| {
        exchange.read_body()?;
        if asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 3 {
            exchange.answer("503 Service Unavailable", &[], b"")?;
            return Ok(After::KeepAlive);
        }
        if exchange.seen.target == "/stream" {
            exchange.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")?;
            return exchange.hold();
        }
        exchange.answer("200 OK", &[], b"well")?;
        Ok(After::KeepAlive)
    }));
    gateway.register("news", &upstream);
    trip(&gateway, "news", 503);
    await_breaker(&gateway, "news", "half_open");
    let mut listener = Conn::open(gateway.gateway);
    listener.start(&get("/v2/news/stream"));
    listener.head();
    assert_eq!(gateway.data(get("/v2/news/x")).expect(200).text(), "well");
    await_breaker(&gateway, "news", "closed");
}

#[test]
fn half_open_admits_one_request_at_a_time() {
    let gateway = Arc::new(patient_gateway());
    let upstream = Upstream::start(status("503 No", "bad"));
    gateway.register("single", &upstream);
    trip(&gateway, "single", 503);
    let (arrived, gate) = (Gate::new(), Gate::new());
    upstream.set(gated(&arrived, &gate));
    await_breaker(&gateway, "single", "half_open");
    let probe = std::thread::spawn({
        let gateway = gateway.clone();
        move || gateway.data(get("/v2/single/probe"))
    });
    arrived.wait(1);
    for _ in 0..5 {
        gateway.data(get("/v2/single/other")).problem(503, "breaker_open");
    }
    assert_eq!(arrived.count(), 1);
    gate.open();
    probe.join().unwrap().expect(200);
    eventually("the second success", || gateway.data(get("/v2/single/second")).status == 200);
    await_breaker(&gateway, "single", "closed");
}

#[test]
fn a_failed_try_opens_it_again() {
    let gateway = patient_gateway();
    let upstream = Upstream::start(status("503 No", "bad"));
    gateway.register("stubborn", &upstream);
    trip(&gateway, "stubborn", 503);
    await_breaker(&gateway, "stubborn", "half_open");
    assert_eq!(gateway.data(get("/v2/stubborn/x")).reason(), None);
    await_breaker(&gateway, "stubborn", "open");
    gateway.data(get("/v2/stubborn/x")).problem(503, "breaker_open");
    assert_eq!(upstream.count(), 4);
}

#[test]
fn a_new_registration_lets_it_be_tried_at_once() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(status("503 No", "bad"));
    gateway.register("again", &upstream);
    trip(&gateway, "again", 503);
    upstream.set(text("good"));
    gateway.data(get("/v2/again/x")).problem(503, "breaker_open");
    gateway.register("again", &upstream);
    assert_eq!(gateway.breaker("again"), "half_open");
    gateway.data(get("/v2/again/x")).expect(200);
    eventually("the second success", || gateway.data(get("/v2/again/x")).status == 200);
    await_breaker(&gateway, "again", "closed");
}

#[test]
fn a_heartbeat_does_not_touch_it() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(status("503 No", "bad"));
    gateway.register("beaten", &upstream);
    trip(&gateway, "beaten", 503);
    gateway.api(post("/heartbeat", &json!({"service_name": "beaten", "status": "healthy"}))).expect(200);
    assert_eq!(gateway.breaker("beaten"), "open");
}

#[test]
fn another_endpoint_starts_with_a_closed_one() {
    let gateway = Gateway::start();
    let (bad, good) = (Upstream::start(status("503 No", "bad")), Upstream::start(text("good")));
    let register = |upstream: &Upstream| {
        let body = json!({"service_name": "mover", "endpoint": upstream.url(), "instance_id": "m:1"});
        gateway.api(post("/register", &body)).expect(201);
    };
    register(&bad);
    trip(&gateway, "mover", 503);
    register(&good);
    assert_eq!(gateway.breaker("mover"), "closed");
    gateway.data(get("/v2/mover/x")).expect(200);
}

#[test]
fn one_open_instance_leaves_the_traffic_to_the_others() {
    // In turn: the default algorithm would avoid the failing one before its breaker opens.
    let gateway = Gateway::builder().config("[balance]\nalgorithm = \"round_robin\"\n").start();
    let (bad, good) = (Upstream::start(status("503 No", "bad")), Upstream::start(text("good")));
    gateway.register("pair", &bad);
    gateway.register("pair", &good);
    // On one connection, where a request is not read before the outcome of the one before it has been noted.
    let mut conn = Conn::open(gateway.gateway);
    eventually("the bad one to be shed", || {
        conn.ask(&Request::new("POST", "/v2/pair/x").body("x"));
        gateway.instances("pair").iter().any(|instance| instance["breaker"] == "open")
    });
    for _ in 0..20 {
        assert_eq!(gateway.data(get("/v2/pair/x")).expect(200).text(), "good");
    }
    assert_eq!(bad.count(), 3);
}

#[test]
fn it_survives_changes_of_the_registry() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(status("503 No", "bad"));
    gateway.register("steady", &upstream);
    trip(&gateway, "steady", 503);
    for number in 0..20 {
        gateway.register_at(&format!("other_{number}"), "http://127.0.0.1:9");
    }
    assert_eq!(gateway.breaker("steady"), "open");
    gateway.data(get("/v2/steady/x")).problem(503, "breaker_open");
}

#[test]
fn clients_that_leave_do_not_count() {
    let gateway = Gateway::start();
    let arrived = Gate::new();
    let counting = arrived.clone();
    let upstream = Upstream::start(script(move |exchange| {
        exchange.read_body()?;
        counting.open();
        exchange.hold()
    }));
    gateway.register("left", &upstream);
    for round in 1..=6 {
        let mut conn = Conn::open(gateway.gateway);
        conn.start(&get("/v2/left/x"));
        arrived.wait(round);
        if round % 2 == 0 { conn.reset() } else { drop(conn) }
    }
    eventually("nothing in flight", || gateway.instances("left")[0]["in_flight"] == 0);
    assert_eq!(gateway.breaker("left"), "closed");
    upstream.set(text("still here"));
    gateway.data(get("/v2/left/x")).expect(200);
}

#[test]
fn our_own_answers_do_not_count() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__BODY_BYTES", "1000").start();
    let upstream = Upstream::start(script(|exchange| {
        exchange.read_body()?;
        exchange.answer("200 OK", &[], b"ok")?;
        Ok(After::KeepAlive)
    }));
    gateway.register("limited", &upstream);
    for _ in 0..5 {
        let answer = gateway.data(Request::new("POST", "/v2/limited/x").body(vec![b'x'; 5000]));
        answer.problem(413, "body_too_large");
        gateway.data(Request::new("POST", "/v2/limited/x").chunked(&[&[b'x'; 5000]])).expect(413);
    }
    assert_eq!(gateway.breaker("limited"), "closed");
    gateway.data(Request::new("POST", "/v2/limited/x").body("small")).expect(200);
}
