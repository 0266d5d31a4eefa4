//! Sticky cookies.

use super::numbered;
use crate::harness::{Gateway, Response, eventually, get, post};
use serde_json::json;

const STICKY: &str = "[balance.sticky]\nenabled = true\n";

/// `name=value` of the cookie that an answer sets.
fn cookie(answer: &Response) -> Option<String> {
    answer.header("set-cookie").map(|field| field.split(';').next().unwrap().to_owned())
}

#[test]
fn a_client_stays_with_its_instance_while_that_takes_requests() {
    for algorithm in ["p2c", "round_robin", "random", "consistent_hash"] {
        let gateway = Gateway::builder().config(&format!("[balance]\nalgorithm = \"{algorithm}\"\n{STICKY}")).start();
        let upstreams = numbered(4);
        upstreams.iter().for_each(|upstream| gateway.register("sticky", upstream));
        let first = gateway.data(get("/v2/sticky/x")).expect(200);
        let field = first.header("set-cookie").expect("no cookie");
        assert!(field.starts_with("vx_sticky=") && field.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{field}");
        let kept = cookie(&first).unwrap();
        for _ in 0..12 {
            let answer = gateway.data(get("/v2/sticky/x").header("Cookie", &format!("other=1; {kept}"))).expect(200);
            assert_eq!((answer.text(), answer.header("set-cookie")), (first.text(), None), "{algorithm}");
        }
        // Gone: another one takes over, and the client stays with that.
        let id = upstreams[first.text().parse::<usize>().unwrap()].addr.to_string();
        gateway
            .api(post("/heartbeat", &json!({"service_name": "sticky", "instance_id": id, "status": "draining"})))
            .expect(200);
        let moved = gateway.data(get("/v2/sticky/x").header("Cookie", &kept)).expect(200);
        assert_ne!(moved.text(), first.text());
        let again = cookie(&moved).expect("no new cookie");
        assert_eq!(gateway.data(get("/v2/sticky/x").header("Cookie", &again)).expect(200).text(), moved.text());
    }
}

#[test]
fn a_dead_instance_is_left_without_a_failed_request() {
    let gateway = Gateway::builder().config(STICKY).start();
    let mut upstreams = numbered(2);
    upstreams.iter().for_each(|upstream| gateway.register("sticky", upstream));
    let first = gateway.data(get("/v2/sticky/x")).expect(200);
    upstreams[first.text().parse::<usize>().unwrap()].stop();
    for _ in 0..10 {
        let answer = gateway.data(get("/v2/sticky/x").header("Cookie", &cookie(&first).unwrap())).expect(200);
        assert_ne!(answer.text(), first.text());
        assert_ne!(cookie(&answer), cookie(&first));
        assert!(cookie(&answer).is_some());
    }
}

#[test]
fn its_value_tells_nothing_and_whatever_a_client_makes_up_does_no_harm() {
    let gateway = Gateway::builder().config(STICKY).start();
    let upstreams = numbered(2);
    upstreams.iter().for_each(|upstream| gateway.register("sticky", upstream));
    let value = cookie(&gateway.data(get("/v2/sticky/x"))).unwrap();
    let digits = value.strip_prefix("vx_sticky=").unwrap();
    assert!(digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{value}");
    for made_up in ["", "0", "0000000000000000", "ffffffffffffffff", "127.0.0.1:80", "\"\"", &"f".repeat(5000), "%00", "-1"] {
        let answer = gateway.data(get("/v2/sticky/x").header("Cookie", &format!("vx_sticky={made_up}"))).expect(200);
        assert!(answer.header("set-cookie").is_some(), "{made_up}");
    }
    assert!(gateway.data(get("/v2/nobody/x")).header("set-cookie").is_none());
}

#[test]
fn replicas_with_one_secret_and_a_restarted_one_call_instances_the_same() {
    let secret = "[server]\nsecret = \"sixteen characters and more\"\n";
    let config =
        format!("{secret}[balance.sticky]\nenabled = true\ncookie = \"lane\"\nttl = \"1h\"\npath = \"/v2\"\nsecure = true\n");
    let mut gateway = Gateway::builder().config(&config).start();
    let replica = Gateway::builder().config(&config).start();
    let upstreams = numbered(3);
    upstreams.iter().for_each(|upstream| {
        gateway.register("sticky", upstream);
        replica.register("sticky", upstream);
    });
    let first = gateway.data(get("/v2/sticky/x")).expect(200);
    let field = first.header("set-cookie").unwrap();
    assert!(
        field.starts_with("lane=") && field.contains("; Path=/v2; HttpOnly; Max-Age=3600; Secure; SameSite=Lax"),
        "{field}"
    );
    let kept = cookie(&first).unwrap();
    for _ in 0..6 {
        let there = replica.data(get("/v2/sticky/x").header("Cookie", &kept)).expect(200);
        assert_eq!((there.text(), there.header("set-cookie")), (first.text(), None));
    }
    gateway.crash_and_restart();
    eventually("the instances to be back", || gateway.data(get("/v2/sticky/x")).status == 200);
    assert_eq!(gateway.data(get("/v2/sticky/x").header("Cookie", &kept)).expect(200).text(), first.text());
}
