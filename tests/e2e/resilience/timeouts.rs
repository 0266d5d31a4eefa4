//! Services that keep us waiting.

use std::time::Duration;

use crate::harness::http::one_chunk;
use crate::harness::net::Blackhole;
use crate::harness::scripts::{script, silent, slow, text, two_parts, upgrade_echo};
use crate::harness::{After, Conn, Gate, Gateway, PATIENCE, Request, Upstream, get, now};

fn hasty_gateway() -> Gateway {
    Gateway::builder().env("VERTICE_TIMEOUTS__FIRST_BYTE", "500ms").env("VERTICE_TIMEOUTS__UPSTREAM_SILENCE", "500ms").start()
}

#[test]
fn a_silent_service_is_504_in_time() {
    let gateway = hasty_gateway();
    let upstream = Upstream::start(silent());
    gateway.register("silent", &upstream);
    for request in [get("/v2/silent/x"), Request::new("POST", "/v2/silent/x").body("whole")] {
        let start = now();
        gateway.data(request).problem(504, "upstream_timeout");
        let waited = start.elapsed();
        assert!((400..5000).contains(&waited.as_millis()), "{waited:?}");
    }
    gateway.data(get("/v2/silent/x")).problem(504, "upstream_timeout");
    gateway.data(get("/v2/silent/x")).problem(503, "breaker_open");
}

#[test]
fn the_first_byte_has_its_own_limit() {
    let gateway = Gateway::builder().env("VERTICE_TIMEOUTS__FIRST_BYTE", "500ms").start();
    let upstream = Upstream::start(silent());
    gateway.register("silent", &upstream);
    let start = now();
    gateway.data(get("/v2/silent/x")).problem(504, "upstream_timeout");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_head_that_trickles_is_504_in_time() {
    let gateway = hasty_gateway();
    let upstream = Upstream::start(script(|exchange| {
        // Each byte comes in time, and all of them together take half a minute.
        for byte in b"HTTP/1.1 200 OK\r\nX: ".iter().chain(&[b'x'; 130]) {
            exchange.write([*byte])?;
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(After::Close)
    }));
    gateway.register("trickle", &upstream);
    let start = now();
    gateway.data(get("/v2/trickle/x")).problem(504, "upstream_timeout");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn an_address_that_does_not_answer_is_504_in_time() {
    let hole = Blackhole::new();
    let gateway = Gateway::builder().env("VERTICE_TIMEOUTS__CONNECT", "300ms").start();
    gateway.register_at("hole", &format!("http://{}", hole.addr));
    let start = now();
    gateway.data(get("/v2/hole/x")).problem(504, "upstream_timeout");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_route_may_wait_longer_for_a_connection_than_its_service() {
    let hole = Blackhole::new();
    let gateway = Gateway::builder()
        .config(
            "[timeouts]\nconnect = \"100ms\"\n[retry]\nattempts_max = 1\n\
             [[routes]]\nname = \"far\"\nprefix = \"/far\"\nservice = \"hole\"\n[routes.timeouts]\nconnect = \"1500ms\"\n",
        )
        .start();
    gateway.register_at("hole", &format!("http://{}", hole.addr));
    let start = now();
    gateway.data(get("/far/x")).problem(504, "upstream_timeout");
    assert!(start.elapsed() >= Duration::from_millis(1400), "{:?}", start.elapsed());
}

#[test]
fn another_instance_is_tried_after_a_connect_timeout() {
    let hole = Blackhole::new();
    let living = Upstream::start(text("living"));
    let gateway = Gateway::builder().env("VERTICE_TIMEOUTS__CONNECT", "200ms").start();
    gateway.register_at("pair", &format!("http://{}", hole.addr));
    gateway.register("pair", &living);
    for _ in 0..8 {
        assert_eq!(gateway.data(Request::new("POST", "/v2/pair/x").body("x")).expect(200).text(), "living");
    }
}

#[test]
fn a_body_that_stalls_is_cut_off() {
    let gateway = hasty_gateway();
    let gate = Gate::new();
    let upstream = Upstream::start(two_parts("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst", "other", &gate));
    gateway.register("stalling", &upstream);
    let answer = gateway.data(get("/v2/stalling/x")).expect(200);
    assert!(!answer.complete);
    assert_eq!(answer.text(), "first");
    gate.open();
}

#[test]
fn what_stalls_and_would_end_with_its_connection_is_no_whole_answer() {
    let gateway =
        Gateway::builder().env("VERTICE_TIMEOUTS__UPSTREAM_SILENCE", "500ms").env("VERTICE_BREAKER__FAILURES", "1").start();
    let upstream = Upstream::start(script(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of it")?;
        exchange.hold()
    }));
    gateway.register("stalling", &upstream);
    let answer = gateway.data(get("/v2/stalling/x")).expect(200);
    assert!(!answer.complete && answer.body == b"half of it", "{answer:?}");
    gateway.data(get("/v2/stalling/x")).problem(503, "breaker_open");
}

#[test]
fn a_client_that_takes_its_answer_slowly_is_not_the_services_silence() {
    const LENGTH: usize = 16 * 1024 * 1024;
    let gateway = hasty_gateway();
    let upstream = Upstream::start(script(|exchange| {
        exchange.read_body()?;
        exchange.answer("200 OK", &[], &vec![b'x'; LENGTH])?;
        Ok(After::KeepAlive)
    }));
    gateway.register("large", &upstream);
    let mut clients: Vec<Conn> = (0..4).map(|_| Conn::open(gateway.gateway)).collect();
    clients.iter_mut().for_each(|client| client.start(&get("/v2/large/x")));
    let mut heads: Vec<_> = clients.iter_mut().map(Conn::head).collect();
    assert!(heads.drain(..).all(|head| head.status == 200));
    // Longer than the silence that an answer may keep: nothing must happen in this time.
    std::thread::sleep(Duration::from_millis(1300));
    for client in &mut clients {
        assert_eq!(client.exactly(LENGTH).expect("the whole answer").len(), LENGTH);
    }
    assert_eq!(gateway.breaker("large"), "closed");
}

#[test]
fn a_client_that_takes_nothing_of_a_stream_is_not_the_services_silence() {
    const PIECE: usize = 64 * 1024;
    let gateway = Gateway::builder().env("VERTICE_TIMEOUTS__UPSTREAM_SILENCE", "1s").start();
    let upstream = Upstream::start(script(|exchange| {
        let pieces: usize = exchange.seen.target.trim_start_matches('/').parse().unwrap();
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let piece = one_chunk(&vec![b'x'; PIECE]);
        (0..pieces).try_for_each(|_| exchange.write(&piece))?;
        // Fewer than the lane holds for the client before it stops reading: the socket shows none of them.
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(300));
            exchange.write(one_chunk(b"y"))?;
        }
        exchange.write("0\r\n\r\n")?;
        Ok(After::KeepAlive)
    }));
    gateway.register("stream", &upstream);
    // How much the kernel takes in is its business: one of these fills it, and the lane's queue has room left.
    let clients: Vec<Conn> = (1..=12)
        .map(|pieces| {
            let mut client = Conn::open(gateway.gateway);
            client.start(&get(&format!("/v2/stream/{pieces}")));
            client
        })
        .collect();
    // Longer than the silence that an answer may keep: nothing must happen in this time.
    std::thread::sleep(Duration::from_millis(2500));
    for (mut client, pieces) in clients.into_iter().zip(1..) {
        let answer = client.response("GET").expect(200);
        assert!(answer.complete && answer.body.len() == pieces * PIECE + 4, "{} of {pieces} pieces", answer.body.len());
    }
    assert_eq!(gateway.breaker("stream"), "closed");
}

#[test]
fn a_slow_service_within_its_limits_is_waited_for() {
    let gateway = Gateway::builder().env("VERTICE_TIMEOUTS__FIRST_BYTE", "5s").start();
    let upstream = Upstream::start(slow(Duration::from_millis(800)));
    gateway.register("slow", &upstream);
    assert_eq!(gateway.data(get("/v2/slow/x")).expect(200).text(), "slow");
}

#[test]
fn a_service_can_have_limits_of_its_own() {
    let gateway = Gateway::builder()
        .config("[services.hurried.timeouts]\nfirst_byte = \"300ms\"\nupstream_silence = \"300ms\"\n")
        .start();
    let (hurried, calm) =
        (Upstream::start(slow(Duration::from_millis(1200))), Upstream::start(slow(Duration::from_millis(1200))));
    gateway.register("hurried", &hurried);
    gateway.register("calm", &calm);
    gateway.data(get("/v2/hurried/x")).problem(504, "upstream_timeout");
    gateway.data(get("/v2/calm/x")).expect(200);
}

#[test]
fn a_service_that_takes_nothing_of_an_upload_is_504_in_time() {
    let gateway =
        Gateway::builder().env("VERTICE_LIMITS__BODY_STALL", "500ms").env("VERTICE_LIMITS__WRITE_STALL", "500ms").start();
    let framings =
        [("Content-Length: 1000000000000", vec![b'x'; 65536]), ("Transfer-Encoding: chunked", one_chunk(&[b'x'; 65536]))];
    for (number, (framing, piece)) in framings.into_iter().enumerate() {
        let (service, over) = (format!("deaf{number}"), Gate::new());
        let end = over.clone();
        let upstream = Upstream::start(script(move |_| {
            end.reached_within(1, 3 * PATIENCE);
            Ok(After::Close)
        }));
        gateway.register(&service, &upstream);
        let mut conn = Conn::open(gateway.gateway);
        conn.send(format!("POST /v2/{service}/x HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"));
        conn.stream().set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        while conn.try_send(&piece).is_ok() {}
        conn.response("POST").problem(504, "upstream_timeout");
        over.open();
    }
}

#[test]
fn a_client_that_stalls_its_upload_never_opens_the_breaker() {
    for (silence, stall) in [("300ms", "3s"), ("30s", "400ms")] {
        let gateway = Gateway::builder()
            .env("VERTICE_TIMEOUTS__FIRST_BYTE", silence)
            .env("VERTICE_TIMEOUTS__UPSTREAM_SILENCE", silence)
            .env("VERTICE_LIMITS__BODY_STALL", stall)
            .start();
        let upstream = Upstream::start(script(|exchange| {
            exchange.read_body()?;
            exchange.answer("200 OK", &[], b"ok")?;
            Ok(After::KeepAlive)
        }));
        gateway.register("waiting", &upstream);
        let mut stalled: Vec<Conn> = (0..5)
            .map(|_| {
                let mut conn = Conn::open(gateway.gateway);
                conn.send("POST /v2/waiting/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly this");
                conn
            })
            .collect();
        for conn in &mut stalled {
            match conn.try_response("POST") {
                Ok(answer) => assert!(matches!(answer.status, 408 | 504), "{} {}", answer.status, answer.text()),
                Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "never cut off"),
            }
        }
        assert_eq!(gateway.breaker("waiting"), "closed", "silence {silence}, stall {stall}");
        gateway.data(Request::new("POST", "/v2/waiting/x").body("whole")).expect(200);
    }
}

#[test]
fn a_stalled_upload_is_told_so() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__BODY_STALL", "400ms").start();
    let upstream = Upstream::start(text("never"));
    gateway.register("waiting", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.send("POST /v2/waiting/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly this");
    conn.response("POST").problem(408, "request_timeout");
    let mut conn = Conn::open(gateway.registry);
    conn.send("POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{");
    conn.response("POST").problem(408, "request_timeout");
}

#[test]
fn an_idle_websocket_outlives_the_limits_of_requests() {
    let gateway = hasty_gateway();
    let upstream = Upstream::start(upgrade_echo());
    gateway.register("chat_ws", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&get("/v2/chat_ws/x").header("Connection", "Upgrade").header("Upgrade", "websocket"));
    assert_eq!(conn.head().status, 101);
    assert_eq!(conn.exactly(5).unwrap(), b"hello");
    // Longer than the silence that a request may keep: nothing must happen in this time.
    std::thread::sleep(Duration::from_millis(1300));
    conn.send("still here");
    assert_eq!(conn.exactly(10).unwrap(), b"still here");
}
