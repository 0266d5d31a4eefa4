//! Instances that speak HTTP/2, and gRPC with them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::harness::http2::{Http2, Http2Upstream, echo, taken_back};
use crate::harness::{Conn, Gate, Gateway, Request, eventually, get, net, now, post};

fn gateway(settings: &[(&str, &str)]) -> (Gateway, SocketAddr) {
    let builder = Gateway::builder().env("VERTICE_GATEWAY__H2C_LISTEN", "127.0.0.1:0");
    let gateway = settings.iter().fold(builder, |builder, (name, value)| builder.env(name, value)).start();
    let address = gateway.listener("gateway_h2c");
    (gateway, address)
}

fn register(gateway: &Gateway, service: &str, url: &str, protocol: &str) {
    let metadata = json!({"protocol": protocol});
    let id = url.trim_start_matches("http://");
    let body = json!({"service_name": service, "endpoint": url, "instance_id": id, "metadata": metadata});
    gateway.api(post("/register", &body)).expect(201);
}

#[test]
fn clients_of_either_version_reach_them() {
    for protocol in ["h2c", "h2", "grpc"] {
        let (gateway, address) = gateway(&[]);
        let upstream = Http2Upstream::start(echo);
        register(&gateway, "echo", &upstream.url(), protocol);
        let old = gateway.data(get("/v2/echo/a%2Fb?c")).expect(200).text();
        assert!(old.starts_with(&format!("GET http://{}/a%2Fb?c\n", upstream.addr)), "{old}");
        let sent = Request::new("POST", "/v2/echo/x").chunked(&[b"one", b"two"]);
        let old = gateway.data(sent).expect(200).text();
        assert!(old.ends_with("\n\nonetwo") && !old.contains("transfer-encoding"), "{old}");

        let mut client = Http2::open(address);
        let request = client.request("POST", "/v2/echo/x").header("te", "trailers").body(b"hello".to_vec()).unwrap();
        let answer = client.ask(request).unwrap();
        assert!(answer.text().contains("\nte: trailers\n") && answer.text().ends_with("\n\nhello"), "{}", answer.text());
        let trailers = answer.trailers.expect("trailers");
        assert_eq!(trailers.get("x-trailer").unwrap(), "the end");
    }
}

#[test]
fn they_are_asked_for_their_health_in_http2_on_a_connection_of_its_own() {
    let (gateway, _) = gateway(&[("VERTICE_HEALTH__ACTIVE", "true"), ("VERTICE_HEALTH__INTERVAL", "100ms")]);
    let upstream = Http2Upstream::start(echo);
    register(&gateway, "well", &upstream.url(), "h2c");
    eventually("a probe to pass", || gateway.instances("well")[0]["probe_passed"] == true);
    let before = upstream.connections();
    eventually("another one", || upstream.connections() > before);
    let check = gateway.data(get("/gateway/health-check/well")).expect(200).json();
    assert_eq!(check["healthy"], true, "{check}");
}

#[test]
fn many_requests_share_a_connection() {
    let (gateway, address) = gateway(&[]);
    let (arrived, release) = (Gate::new(), Arc::new(tokio::sync::Semaphore::new(0)));
    let upstream = Http2Upstream::start({
        let (arrived, release) = (arrived.clone(), release.clone());
        move |request, respond| {
            let (arrived, release) = (arrived.clone(), release.clone());
            async move {
                arrived.open();
                release.acquire().await.unwrap().forget();
                echo(request, respond).await;
            }
        }
    });
    register(&gateway, "echo", &upstream.url(), "h2c");
    let mut client = Http2::open(address);
    // One after the other: the pool has no connection while it begins a stream on it, and who comes then opens another one.
    let begun: Vec<_> = (0..31)
        .map(|n| {
            let request = client.request("GET", &format!("/v2/echo/{n}")).body(()).unwrap();
            let answer = client.begin(request, true).0;
            arrived.wait(n + 1);
            answer
        })
        .collect();
    release.add_permits(31);
    for (n, answer) in begun.into_iter().enumerate() {
        assert!(client.answer(answer).unwrap().text().contains(&format!("/{n}\n")));
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn one_that_is_silent_is_given_up_and_those_beside_it_are_not() {
    let (gateway, address) = gateway(&[("VERTICE_TIMEOUTS__FIRST_BYTE", "700ms"), ("VERTICE_BREAKER__FAILURES", "20")]);
    let taken = Gate::new();
    let upstream = Http2Upstream::start({
        let taken = taken.clone();
        move |request, mut respond| {
            let taken = taken.clone();
            async move {
                match request.uri().path() {
                    "/silent" => {
                        assert_eq!(taken_back(&mut respond).await, Some(h2::Reason::CANCEL));
                        taken.open();
                    }
                    // Speaks now and then, for longer than the silent one is waited for.
                    "/slow" => {
                        let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                        for n in 0..8 {
                            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
                            body.send_data(format!("{n}").into(), n == 7).unwrap();
                        }
                    }
                    _ => echo(request, respond).await,
                }
            }
        }
    });
    register(&gateway, "odd", &upstream.url(), "h2c");
    let mut client = Http2::open(address);
    let request = client.request("GET", "/v2/odd/slow").body(()).unwrap();
    let (slow, _stream) = client.begin(request, true);
    // An idempotent request would be tried again, were there another instance.
    let answer = client.get("/v2/odd/silent");
    assert_eq!((answer.status, answer.header("x-vertice-reason")), (504, Some("upstream_timeout")));
    gateway.data(get("/v2/odd/silent")).problem(504, "upstream_timeout");
    taken.wait(2);
    // An upload that takes longer than that blames nobody.
    let request = client.request("POST", "/v2/odd/x").body(()).unwrap();
    let (answer, mut body) = client.begin(request, false);
    let start = now();
    while start.elapsed() < std::time::Duration::from_millis(1200) {
        body.send_data("piece".into(), false).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    body.send_data("".into(), true).unwrap();
    assert_eq!(client.answer(answer).unwrap().status, 200);
    assert_eq!(client.answer(slow).unwrap().text(), "01234567");
}

#[test]
fn a_request_that_was_not_looked_at_is_sent_again() {
    let (gateway, address) = gateway(&[]);
    let count = Arc::<AtomicUsize>::default();
    let upstream = Http2Upstream::start({
        let count = count.clone();
        move |request, mut respond| {
            let count = count.clone();
            async move {
                match count.fetch_add(1, Ordering::SeqCst) {
                    0 => respond.send_reset(h2::Reason::REFUSED_STREAM),
                    _ => echo(request, respond).await,
                }
            }
        }
    });
    register(&gateway, "picky", &upstream.url(), "h2c");
    let mut client = Http2::open(address);
    let request = client.request("POST", "/v2/picky/x").body(b"once".to_vec()).unwrap();
    let answer = client.ask(request).unwrap();
    assert!(answer.status == 200 && answer.text().ends_with("once"), "{answer:?}");
    assert_eq!(count.load(Ordering::SeqCst), 2);
    assert_eq!(gateway.breaker("picky"), "closed");
}

#[test]
fn one_that_is_silent_costs_nothing_where_another_answers_whatever_that_speaks() {
    let (gateway, _) = gateway(&[("VERTICE_TIMEOUTS__FIRST_BYTE", "500ms"), ("VERTICE_BALANCE__ALGORITHM", "round_robin")]);
    let silent = Http2Upstream::start(|_, mut respond| async move {
        taken_back(&mut respond).await;
    });
    let other = crate::harness::Upstream::start(crate::harness::scripts::text("other"));
    register(&gateway, "mixed", &silent.url(), "h2c");
    gateway.register("mixed", &other);
    for _ in 0..2 {
        assert_eq!(gateway.data(get("/v2/mixed/x")).expect(200).text(), "other");
    }
    assert!(silent.connections() > 0, "nobody asked the silent one: the test shows nothing");
}

#[test]
fn what_they_can_bear_is_found_out_by_requests_without_a_body_too() {
    let settings = [("VERTICE_CONCURRENCY__ADAPTIVE", "true"), ("VERTICE_CONCURRENCY__MIN", "2")];
    let (gateway, address) = gateway(&settings);
    let upstream = Http2Upstream::start(echo);
    register(&gateway, "svc", &upstream.url(), "h2c");
    let mut client = Http2::open(address);
    eventually("the limit to rise", || {
        (0..50).for_each(|_| assert_eq!(client.get("/v2/svc/x").status, 200));
        gateway.metrics().sum("vertice_service_concurrency", &[("service", "svc"), ("kind", "limit")]) > 2.0
    });
}

#[test]
fn one_that_looks_at_nothing_is_left_for_another() {
    let (gateway, _) = gateway(&[("VERTICE_BALANCE__ALGORITHM", "round_robin")]);
    let refused = Arc::<AtomicUsize>::default();
    let full = Http2Upstream::start({
        let refused = refused.clone();
        move |_, mut respond| {
            refused.fetch_add(1, Ordering::SeqCst);
            async move { respond.send_reset(h2::Reason::REFUSED_STREAM) }
        }
    });
    let free = Http2Upstream::start(echo);
    register(&gateway, "pair", &full.url(), "h2c");
    register(&gateway, "pair", &free.url(), "h2c");
    for _ in 0..4 {
        gateway.data(Request::new("POST", "/v2/pair/x").body("once")).expect(200);
    }
    assert!(refused.load(Ordering::SeqCst) > 0, "nobody asked the full one: the test shows nothing");
}

#[test]
fn one_that_resets_is_502() {
    let (gateway, address) = gateway(&[]);
    let upstream = Http2Upstream::start(|_, mut respond| async move { respond.send_reset(h2::Reason::INTERNAL_ERROR) });
    register(&gateway, "broken", &upstream.url(), "h2c");
    let request = Http2::open(address).request("POST", "/v2/broken/x").body(b"x".to_vec()).unwrap();
    let answer = Http2::open(address).ask(request).unwrap();
    assert_eq!((answer.status, answer.header("x-vertice-reason")), (502, Some("upstream_reset")));
}

#[test]
fn a_client_that_leaves_takes_its_request_back() {
    let (gateway, address) = gateway(&[]);
    let (arrived, taken) = (Gate::new(), Gate::new());
    let upstream = Http2Upstream::start({
        let (arrived, taken) = (arrived.clone(), taken.clone());
        move |_, mut respond| {
            let (arrived, taken) = (arrived.clone(), taken.clone());
            async move {
                arrived.open();
                if taken_back(&mut respond).await == Some(h2::Reason::CANCEL) {
                    taken.open();
                }
            }
        }
    });
    register(&gateway, "silent", &upstream.url(), "h2c");
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&get("/v2/silent/x"));
    arrived.wait(1);
    drop(conn);
    taken.wait(1);
    let mut client = Http2::open(address);
    let request = client.request("POST", "/v2/silent/x").body(()).unwrap();
    let (answer, mut stream) = client.begin(request, false);
    arrived.wait(2);
    stream.send_reset(h2::Reason::CANCEL);
    drop(answer);
    taken.wait(2);
    eventually("nothing in flight", || gateway.instances("silent")[0]["in_flight"] == 0);
    assert_eq!(gateway.breaker("silent"), "closed");
}

#[test]
fn a_grpc_client_may_think_before_it_speaks_again() {
    let settings = [
        ("VERTICE_LIMITS__BODY_STALL", "200ms"),
        ("VERTICE_LIMITS__BODY_RATE_WINDOW", "200ms"),
        ("VERTICE_TIMEOUTS__FIRST_BYTE", "10s"),
    ];
    let (gateway, address) = gateway(&settings);
    let upstream = Http2Upstream::start(echo);
    register(&gateway, "echo", &upstream.url(), "grpc");
    let mut client = Http2::open(address);
    let mut begin = |kind: &str| {
        let request = client.request("POST", "/v2/echo/p.S/M").header("content-type", kind).body(()).unwrap();
        client.begin(request, false)
    };
    let ((pensive, mut say), (stalled, _never)) = (begin("application/grpc"), begin("application/octet-stream"));
    assert_eq!(client.answer(stalled).map(|answer| answer.status).unwrap_or(408), 408);
    // By then the other one has thought for as long.
    say.send_data(bytes::Bytes::from_static(b"a thought"), true).unwrap();
    let answer = client.answer(pensive).unwrap();
    assert!(answer.status == 200 && answer.text().ends_with("a thought"), "{answer:?}");
}

#[test]
fn failures_are_told_to_grpc_clients_in_their_own_words() {
    let (gateway, address) = gateway(&[("VERTICE_TIMEOUTS__FIRST_BYTE", "300ms")]);
    let upstream = Http2Upstream::start(|_, mut respond| async move {
        let _ = taken_back(&mut respond).await;
    });
    register(&gateway, "silent", &upstream.url(), "grpc");
    register(&gateway, "dead", &format!("http://{}", net::closed()), "grpc");
    let mut client = Http2::open(address);
    for (path, status, reason) in [
        ("/v2/nobody/p.S/M", "14", "no_route"),
        ("/v2/dead/p.S/M", "14", "upstream_connect"),
        ("/v2/silent/p.S/M", "4", "upstream_timeout"),
    ] {
        let request = client.request("POST", path).header("content-type", "application/grpc+proto");
        let answer = client.ask(request.body(b"\0\0\0\0\0".to_vec()).unwrap()).unwrap();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/grpc")), "{path}");
        assert_eq!((answer.header("grpc-status"), answer.header("x-vertice-reason")), (Some(status), Some(reason)), "{path}");
        assert!(answer.header("grpc-message").is_some_and(|message| message.contains("ervice '")), "{answer:?}");
        assert!(answer.body.is_empty() && answer.trailers.is_none());
    }
    // In HTTP/1 there is no gRPC.
    gateway.data(Request::new("POST", "/v2/nobody/x").header("Content-Type", "application/grpc")).problem(503, "no_route");
}
