//! `Expect: 100-continue` and other 1xx answers.

use crate::harness::scripts::{raw, script};
use crate::harness::{After, Conn, Gateway, Request, Upstream, eventually, get};

const EXPECTING: &str = "POST /v2/svc/x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

#[test]
fn a_client_that_waits_for_100_gets_it_and_then_its_answer() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(script(|exchange| {
        if exchange.seen.header("expect").is_some() {
            exchange.write("HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = exchange.read_body()?;
        exchange.answer("200 OK", &[], &body)?;
        Ok(After::KeepAlive)
    }));
    gateway.register("svc", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.send(EXPECTING);
    assert_eq!(conn.head().status, 100);
    conn.send("hello");
    let answer = conn.response("POST").expect(200);
    assert_eq!((answer.text().as_str(), answer.interim.len()), ("hello", 0));
}

#[test]
fn a_service_that_refuses_early_spares_the_client_the_body() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(script(|exchange| {
        exchange.write("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")?;
        Ok(After::Close)
    }));
    gateway.register("svc", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.send(EXPECTING);
    let answer = conn.response("POST");
    assert_eq!((answer.status, answer.text().as_str()), (417, "no"));
}

#[test]
fn a_client_that_does_not_wait_is_served_too() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(script(|exchange| {
        let body = exchange.read_body()?;
        exchange.answer("200 OK", &[], &body)?;
        Ok(After::KeepAlive)
    }));
    gateway.register("svc", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.send(format!("{EXPECTING}hello"));
    assert_eq!(conn.response("POST").expect(200).text(), "hello");
    assert_eq!(conn.ask(&Request::new("POST", "/v2/svc/x").body("again")).expect(200).text(), "again");
}

#[test]
fn a_client_that_leaves_after_its_100_has_left_before_its_answer() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(script(|exchange| {
        exchange.write("HTTP/1.1 100 Continue\r\n\r\n")?;
        exchange.hold()
    }));
    gateway.register("svc", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.send(EXPECTING);
    assert_eq!(conn.head().status, 100);
    drop(conn);
    let counted = |status: &str| gateway.metrics().sum("http_requests_total", &[("service", "svc"), ("status", status)]);
    eventually("the request to be counted", || counted("499") + counted("100") > 0.0);
    assert_eq!(counted("499"), 1.0, "100 is no answer");
}

#[test]
fn a_registration_with_expect_gets_its_100() {
    let gateway = Gateway::start();
    let body = r#"{"service_name":"curl_like","endpoint":"http://127.0.0.1:9"}"#;
    let mut conn = Conn::open(gateway.registry);
    conn.send(format!(
        "POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    ));
    assert_eq!(conn.head().status, 100);
    conn.send(body);
    conn.response("POST").expect(201);
}

#[test]
fn early_hints_do_not_disturb_the_answer() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(raw("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nLink: </script.js>; rel=preload\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"));
    gateway.register("hinting", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    for _ in 0..3 {
        let answer = conn.ask(&get("/v2/hinting/x")).expect(200);
        assert_eq!(answer.text(), "done");
        assert!(answer.interim.iter().all(|head| head.status == 103));
    }
    // HTTP/1.0 knows no interim answers (RFC 9110 §15.2).
    let old = gateway.data(get("/v2/hinting/x").http10()).expect(200);
    assert_eq!((old.text().as_str(), old.interim.len()), ("done", 0));
}
