//! Path and query reach the service byte for byte.

use crate::harness::scripts::echo;
use crate::harness::{Conn, Gateway, Upstream, get};

#[test]
fn path_and_query_are_untouched() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    for rest in [
        "/",
        "/a",
        "/a/",
        "/a/b/c.html",
        "/a%2Fb",
        "/a%2fb",
        "/%61bc",
        "/a/../b",
        "/a/./b",
        "/../../etc/passwd",
        "/..",
        "/%2e%2e/x",
        "//x",
        "/a//b///c",
        "//",
        "/a;p=1/b;q",
        "/a,b:c@d!$&'()*+=~-._",
        "/%00",
        "/a%20b?q=%26&r=+&s=a%20b",
        "/%E2%82%AC",
        "/x?",
        "/?",
        "/?a=1&a=2&b",
        "/?q=a?b/c:d@e",
        "/?url=http://example.test:80/x?y=z",
        "/?%",
        "/v2/echo/v2",
        "/register",
        "/gateway/status",
    ] {
        let before = upstream.count();
        gateway.data(get(&format!("/v2/echo{rest}"))).expect(200);
        assert_eq!(upstream.last().target, rest);
        assert_eq!(upstream.count(), before + 1, "{rest}");
    }
}

#[test]
fn a_missing_path_means_the_root() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    for (target, expected) in [("/v2/echo", "/"), ("/v2/echo?x=1", "/?x=1"), ("/v2/echo?", "/?"), ("/v2/echo/", "/")] {
        gateway.data(get(target)).expect(200);
        assert_eq!(upstream.last().target, expected, "{target}");
    }
}

#[test]
fn unusual_characters_are_passed_on_or_refused_and_never_changed() {
    let mut gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    for rest in ["/a|b", "/{id}", "/[x]", "/\"q\"", "/a^b`c", "/<x>", "/a\\b", "/?a=[1]|{2}", "/?\"'<>"] {
        let answer = gateway.data(get(&format!("/v2/echo{rest}")));
        match answer.status {
            200 => assert_eq!(upstream.last().target, rest),
            400 => drop(answer.problem(400, "bad_request")),
            status => panic!("{status} for {rest}"),
        }
    }
    gateway.assert_sound();
}

#[test]
fn a_long_target_arrives_whole() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    let rest = format!("/{}?q={}", "p".repeat(7000), "q".repeat(7000));
    gateway.data(get(&format!("/v2/echo{rest}"))).expect(200);
    assert_eq!(upstream.last().target, rest);
}

#[test]
fn a_target_in_absolute_form_is_understood() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    gateway.data(get(&format!("http://{}/v2/echo/x?y=1", gateway.gateway))).expect(200);
    assert_eq!(upstream.last().target, "/x?y=1");
}

#[test]
fn paths_that_lead_nowhere_are_404() {
    let gateway = Gateway::start();
    for path in ["/", "/v2", "/v1/echo/x", "/v22/echo", "/unknown", "/gateway/unknown"] {
        gateway.data(get(path)).problem(404, "not_found");
    }
}

#[test]
fn no_dot_segment_leads_out_of_the_service() {
    let gateway = Gateway::start();
    let (open, secret) = (Upstream::start(echo()), Upstream::start(echo()));
    gateway.register("open_service", &open);
    gateway.register("secret_service", &secret);
    for path in ["/v2/open_service/../secret_service/x", "/v2/open_service/%2e%2e/secret_service/x"] {
        gateway.data(get(path)).expect(200);
    }
    assert_eq!((open.count(), secret.count()), (2, 0));
}

#[test]
fn requests_on_one_connection_go_to_different_services() {
    let gateway = Gateway::start();
    let (one, two) = (Upstream::start(echo()), Upstream::start(echo()));
    gateway.register("one", &one);
    gateway.register("two", &two);
    let mut conn = Conn::open(gateway.gateway);
    for round in 0..5 {
        conn.ask(&get(&format!("/v2/one/{round}"))).expect(200);
        conn.ask(&get(&format!("/v2/two/{round}"))).expect(200);
        conn.ask(&get("/health")).expect(200);
        conn.ask(&get("/v2/three/x")).expect(503);
        conn.ask(&get("/nowhere")).expect(404);
    }
    assert_eq!((one.count(), two.count()), (5, 5));
    assert_eq!(two.last().target, "/4");
}
