//! Random and mutated bytes at both ports. Nothing a client sends may crash the process or spoil another request.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use crate::harness::random::Random;
use crate::harness::scripts::echo;
use crate::harness::{Conn, Gateway, Upstream, get, net};

const METHODS: [&str; 8] = ["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PRI", "\u{0}"];
const TARGETS: [&str; 16] = [
    "/",
    "*",
    "/v2/echo/x",
    "/v2/echo",
    "/v2//x",
    "/v2/%00/x",
    "/register",
    "/heartbeat",
    "/services",
    "/services/echo",
    "/deregister/echo2?instance_id=%zz",
    "/gateway/status",
    "/gateway/health-check/%2e",
    "/metrics",
    "http://x/v2/echo/x",
    "/health?",
];
const HEADERS: [&str; 18] = [
    "Content-Length: 5",
    "Content-Length: 18446744073709551616",
    "Content-Length: -1",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Connection: close",
    "Connection: upgrade, x, y, z",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "Expect: 100-continue",
    "Expect: nonsense",
    "Content-Type: application/json",
    "X-Forwarded-For: ,,,",
    "Forwarded: for=\"",
    "TE: trailers",
    "Host: \u{ff}",
    "X-Request-ID: \u{0}",
    ": nameless",
];
const BODIES: [&str; 10] = [
    "hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "ffffffffffffffff\r\nhello\r\n",
    "{\"service_name\":\"fuzzed\",\"endpoint\":\"http://127.0.0.1:9\"}",
    "{\"service_name\":\"fuzzed\",\"endpoint\":\"http://[::ffff:1.2.3.4%25x]:9\"}",
    "{\"service_name\":{},\"metadata\":{\"a\":{\"b\":[[[[]]]]}}}",
    "{\"service_name\":\"\\ud800\",\"endpoint\":\"http://\\u0000\"}",
    "[[[[[[[[[[[[[[[[[[[[",
    "",
    "\u{0}\u{1}\u{2}",
];

/// Something that looks like a request, more or less.
fn request(random: &mut Random) -> Vec<u8> {
    if random.below(8) == 0 {
        return random.bytes(3000);
    }
    let version = random.pick(&["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1.1 ", ""]);
    let end = random.pick(&["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r"]);
    let mut head = format!("{} {} {version}{end}", random.pick(&METHODS), random.pick(&TARGETS));
    if random.below(10) > 0 {
        head.push_str(&format!("Host: x{end}"));
    }
    for _ in 0..random.below(5) {
        head.push_str(&format!("{}{end}", random.pick(&HEADERS)));
    }
    let body = random.pick(&BODIES);
    if random.below(3) > 0 {
        head.push_str(&format!("Content-Length: {}{end}", body.len()));
    }
    let mut bytes = (head + end + body).into_bytes();
    mutate(&mut bytes, random);
    bytes
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes[at] = random.next() as u8,
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, random.next() as u8),
            _ => bytes.truncate(at.max(1)),
        }
    }
}

/// Sends the bytes, perhaps in two parts, and reads a little of what comes back.
fn throw(target: SocketAddr, bytes: &[u8], random: &mut Random) {
    let mut stream = net::connect(None, target).expect("the listener is gone");
    stream.set_read_timeout(Some(Duration::from_millis(4))).unwrap();
    let (one, two) = bytes.split_at(random.below(bytes.len() + 1));
    // The gateway may close at any point; that is its right.
    let _ = stream.write_all(one).and_then(|()| stream.write_all(two));
    match random.below(3) {
        0 => net::reset(stream),
        1 => {
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read(&mut [0; 4096]);
        }
        _ => drop(stream.read(&mut [0; 4096])),
    }
}

fn storm(seed: u64, rounds: usize) {
    let mut gateway = Gateway::builder().env("VERTICE_LOG__LEVEL", "error").start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    let mut random = Random(seed);
    for round in 0..rounds {
        let bytes = request(&mut random);
        let target = if round % 2 == 0 { gateway.gateway } else { gateway.registry };
        throw(target, &bytes, &mut random);
        if round % 100 == 0 {
            assert!(gateway.process.is_alive(), "seed {seed:#x}, round {round}: {:?}", String::from_utf8_lossy(&bytes));
            assert_eq!(gateway.data(get("/v2/echo/between")).expect(200).json()["target"], "/between", "seed {seed:#x}");
        }
    }
    assert!(gateway.services().contains(&"echo".to_owned()), "seed {seed:#x}: a registration was lost");
    let mut conn = Conn::open(gateway.gateway);
    for round in 0..5 {
        let target = format!("/after/{round}");
        assert_eq!(conn.ask(&get(&format!("/v2/echo{target}"))).expect(200).json()["target"], target.as_str());
    }
    gateway.api(get("/health")).expect(200);
    gateway.assert_sound();
}

#[test]
fn random_requests_do_no_harm() {
    storm(0x5eed_0001, 2000);
}

#[test]
fn other_random_requests_do_no_harm_either() {
    storm(0xdead_beef, 2000);
}

#[test]
fn random_services_do_no_harm() {
    let mut gateway = Gateway::builder().env("VERTICE_BREAKER__OPEN", "10ms").env("VERTICE_BREAKER__OPEN_MAX", "10ms").start();
    let mut random = Random(0x0bad_5eed);
    let good =
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let upstream = Upstream::start(crate::harness::scripts::text("ok"));
    gateway.register("fuzzed", &upstream);
    for _ in 0..400 {
        let mut bytes = if random.below(6) == 0 { random.bytes(2000) } else { good.as_bytes().to_vec() };
        mutate(&mut bytes, &mut random);
        upstream.set(crate::harness::scripts::raw_then_close(&bytes));
        let mut conn = Conn::open(gateway.gateway);
        conn.start(&get("/v2/fuzzed/x"));
        let _ = conn.try_response("GET");
    }
    upstream.set(crate::harness::scripts::text("ok"));
    crate::harness::eventually("a normal answer", || gateway.data(get("/v2/fuzzed/x")).text() == "ok");
    gateway.assert_sound();
}
