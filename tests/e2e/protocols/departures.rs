//! Clients that leave before their answer, and those that only close their sending side.

use crate::harness::scripts::{gated, silent};
use crate::harness::{Conn, Gate, Gateway, Request, Upstream, eventually, get};

fn leave(service: &str, request: &Request, leave: impl FnOnce(Conn)) {
    let gateway = Gateway::builder().env("VERTICE_LOG__ACCESS", "json").start();
    let upstream = Upstream::start(silent());
    gateway.register(service, &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.start(request);
    eventually("the request to arrive", || upstream.count() == 1);
    leave(conn);
    eventually("the service's connection to end", || upstream.open_connections() == 0);
    eventually("nothing in flight", || gateway.instances(service)[0]["in_flight"] == 0);
    assert_eq!(gateway.breaker(service), "closed");
    let counted = [("service", service), ("status", "499")];
    eventually("it to be counted", || gateway.metrics().sum("http_requests_total", &counted) == 1.0);
}

#[test]
fn a_client_that_closes_its_sending_side_has_left() {
    let mut kept = None;
    leave("silent", &get("/v2/silent/x"), |conn| {
        conn.finish();
        kept = Some(conn);
    });
    leave("silent", &Request::new("POST", "/v2/silent/x").body("whole"), |conn| {
        conn.finish();
        kept = Some(conn);
    });
}

#[test]
fn a_client_that_resets_has_left() {
    leave("silent", &get("/v2/silent/x"), Conn::reset);
}

#[test]
fn a_client_that_resets_has_left_however_much_it_has_asked_for_meanwhile() {
    leave("silent", &get("/v2/silent/x"), |mut conn| {
        conn.send("GET /v2/silent/y HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000));
        // As much as is taken in has to be taken in before.
        std::thread::sleep(std::time::Duration::from_millis(300));
        conn.reset();
    });
}

#[test]
fn a_half_closed_client_gets_its_answer_where_that_is_allowed() {
    const CONFIG: &str = "[services.patient]\nallow_half_close = true\n\
        [[routes]]\nname = 'strict'\nprefix = '/strict'\nservice = 'patient'\nallow_half_close = false\n\
        [[routes]]\nname = 'kind'\nprefix = '/kind'\nservice = 'other'\nallow_half_close = true\n";
    let gateway = Gateway::builder().config(CONFIG).start();
    let (arrived, release) = (Gate::new(), Gate::new());
    let upstream = Upstream::start(gated(&arrived, &release));
    gateway.register("patient", &upstream);
    gateway.register("other", &upstream);
    let begin = |path: &str, nth: u64| {
        let mut conn = Conn::open(gateway.gateway);
        conn.start(&get(path));
        arrived.wait(nth);
        conn.finish();
        conn
    };
    let (mut by_service, mut by_route) = (begin("/v2/patient/x", 1), begin("/kind/x", 2));
    let mut strict = begin("/strict/x", 3);
    assert!(strict.try_response("GET").is_err(), "a route may be stricter than its service");
    assert_eq!(gateway.instances("patient")[0]["in_flight"], 1);
    release.open();
    for conn in [&mut by_service, &mut by_route] {
        assert_eq!(conn.response("GET").expect(200).text(), "late");
        assert!(conn.closes_within(crate::harness::PATIENCE), "nothing more can be asked on it");
    }
}

#[test]
fn a_half_closed_client_that_resets_has_left() {
    let gateway = Gateway::builder().config("[services.patient]\nallow_half_close = true\n").start();
    let upstream = Upstream::start(silent());
    gateway.register("patient", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&get("/v2/patient/x"));
    eventually("the request to arrive", || upstream.count() == 1);
    conn.finish();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(upstream.open_connections(), 1, "it only listens");
    conn.reset();
    eventually("the service's connection to end", || upstream.open_connections() == 0);
    assert_eq!(gateway.breaker("patient"), "closed");
}
