//! What a service can do wrong, and how it is told to the client.

use crate::harness::scripts::{raw, raw_then_close, raw_then_reset, script};
use crate::harness::{After, Gate, Gateway, Upstream, get, net};

#[test]
fn a_refused_connection_is_502() {
    let gateway = Gateway::start();
    gateway.register_at("refused", &format!("http://{}", net::closed()));
    gateway.data(get("/v2/refused/x")).problem(502, "upstream_connect");
}

#[test]
fn a_connection_that_ends_without_an_answer_is_502() {
    let gateway = Gateway::start();
    for (name, upstream) in [
        ("closing", Upstream::start(raw_then_close(""))),
        ("resetting", Upstream::start(raw_then_reset(""))),
        ("half_head", Upstream::start(raw_then_close("HTTP/1.1 200 OK\r\nContent-Le"))),
    ] {
        gateway.register(name, &upstream);
        let answer = gateway.data(get(&format!("/v2/{name}/x")));
        assert_eq!(answer.status, 502, "{name}: {}", answer.text());
        assert!(matches!(answer.reason(), Some("upstream_reset" | "upstream_invalid")), "{name}: {:?}", answer.reason());
    }
}

#[test]
fn what_is_not_http_is_502() {
    let mut gateway = Gateway::start();
    let long_header = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\nok", "x".repeat(2 * 1024 * 1024));
    for (number, bytes) in [
        "nonsense nonsense nonsense\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 99999 OK\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nBad Header Name: x\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
        &long_header,
    ]
    .into_iter()
    .enumerate()
    {
        let upstream = Upstream::start(raw_then_close(bytes));
        let service = format!("garbage_{number}");
        gateway.register(&service, &upstream);
        let answer = gateway.data(get(&format!("/v2/{service}/x")));
        let shown = &bytes[..bytes.len().min(60)];
        assert_eq!(answer.status, 502, "{shown:?}: {} {}", answer.status, answer.text());
        assert!(matches!(answer.reason(), Some("upstream_invalid" | "upstream_reset")), "{shown:?}: {:?}", answer.reason());
    }
    gateway.assert_sound();
}

#[test]
fn a_service_that_says_too_much_does_not_spoil_the_next_answer() {
    let mut gateway = Gateway::builder().one_worker().start();
    let upstream = Upstream::start(raw(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    ));
    gateway.register("chatty", &upstream);
    for _ in 0..5 {
        let answer = gateway.data(get("/v2/chatty/x"));
        assert!(answer.status == 502 || answer.text() == "ok", "{} {}", answer.status, answer.text());
    }
    gateway.assert_sound();
}

#[test]
fn a_service_that_speaks_first_does_not_spoil_the_next_answer() {
    let gateway = Gateway::builder().one_worker().start();
    let (answered, spoken) = (Gate::new(), Gate::new());
    let (read, said) = (answered.clone(), spoken.clone());
    let upstream = Upstream::start(script(move |exchange| {
        exchange.read_body()?;
        let target = exchange.seen.target.clone();
        exchange.answer("200 OK", &[], target.as_bytes())?;
        // Something that nobody asked for, while the gateway keeps the connection for the next request.
        read.wait(target[1..].parse::<u64>().unwrap() + 1);
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")?;
        said.open();
        Ok(After::KeepAlive)
    }));
    gateway.register("eager", &upstream);
    for round in 0..10 {
        let target = format!("/{round}");
        assert_eq!(gateway.data(get(&format!("/v2/eager{target}"))).expect(200).text(), target);
        answered.open();
        spoken.wait(round + 1);
    }
}

#[test]
fn broken_chunks_of_a_service_are_seen_to_break_off() {
    let mut gateway = Gateway::start();
    for (number, chunks) in
        ["5\r\nhelloXX\r\n", "zz\r\nhello\r\n0\r\n\r\n", "fffffffffffffffff\r\nhello\r\n", "5\r\nhel"].into_iter().enumerate()
    {
        let service = format!("chunks_{number}");
        let upstream =
            Upstream::start(raw_then_close(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")));
        gateway.register(&service, &upstream);
        let answer = gateway.data(get(&format!("/v2/{service}/x")));
        assert!(answer.status == 502 || !answer.complete, "{chunks:?} looked whole: {answer:?}");
    }
    gateway.assert_sound();
}

#[test]
fn the_gateway_lives_on_after_all_of_this() {
    let mut gateway = Gateway::start();
    let upstream = Upstream::start(raw_then_reset("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"));
    gateway.register("dying", &upstream);
    for _ in 0..20 {
        let _ = get("/v2/dying/x").try_send(gateway.gateway);
    }
    gateway.data(get("/health")).expect(200);
    gateway.assert_sound();
}
