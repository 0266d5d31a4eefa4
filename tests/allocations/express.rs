//! The whole gateway under plain requests: its express lane allocates nothing between a request and its answer.

use super::on_all_threads;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use vertice_gateway::config;
use vertice_gateway::server::Gateway;

/// So many that one allocation for each would stand out.
const REQUESTS: u64 = 3_000;

/// What everything else in the process may allocate meanwhile: housekeeping, which goes on by the clock.
const OTHERS_MAX: u64 = 300;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world\n";

/// Answers every request that comes in one piece.
fn instance() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while client.read(&mut buffer).is_ok_and(|read| read > 0) && client.write_all(ANSWER).is_ok() {}
            });
        }
    });
    address
}

/// Sends a request and reads its answer, which ends with `end`.
fn ask(gateway: &mut TcpStream, request: &[u8], end: &[u8]) {
    let (mut answer, mut read) = ([0; 1024], 0);
    gateway.write_all(request).expect("the gateway takes it");
    while !answer[..read].ends_with(end) {
        let more = gateway.read(&mut answer[read..]).expect("the gateway answers");
        assert!(more > 0, "closed after {}", answer[..read].escape_ascii());
        read += more;
    }
    assert!(answer.starts_with(b"HTTP/1.1 20"), "{}", answer[..read].escape_ascii());
}

#[test]
fn a_plain_request_allocates_nothing_from_its_first_byte_to_its_last() {
    let directory = tempfile::tempdir().expect("a directory");
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let env = BTreeMap::from([
        setting("VERTICE_GATEWAY__LISTEN", "127.0.0.1:0"),
        setting("VERTICE_REGISTRY__LISTEN", "127.0.0.1:0"),
        setting("VERTICE_GATEWAY__WORKERS", "1"),
        setting("VERTICE_LOG__ACCESS", "off"),
        setting("VERTICE_STORE__PATH", &directory.path().join("data").display().to_string()),
    ]);
    let config = config::load(None, &env).expect("a good configuration");
    let gateway = Gateway::prepare(config, None).expect("it starts");
    let (addresses, drain) = (gateway.addresses().clone(), gateway.drain());
    let running = thread::spawn(move || gateway.run());

    let instance = instance();
    let body = format!("{{\"service_name\":\"plain\",\"endpoint\":\"http://{instance}\"}}");
    let register = format!(
        "POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut registry = TcpStream::connect(addresses.registry[0]).expect("it listens");
    ask(&mut registry, register.as_bytes(), b"}");

    let mut client = TcpStream::connect(addresses.gateway[0]).expect("it listens");
    client.set_nodelay(true).expect("a socket");
    let get = b"GET /v2/plain/x?y HTTP/1.1\r\nHost: gateway:8000\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n".as_slice();
    let post = b"POST /v2/plain/x HTTP/1.1\r\nHost: gateway:8000\r\nContent-Length: 5\r\n\r\nhello".as_slice();
    for request in [get, post] {
        let mut ask = |times: u64| (0..times).for_each(|_| ask(&mut client, request, b"Hello, world\n"));
        // The first ones find their buffers, a connection, and their counters.
        ask(100);
        let allocated = on_all_threads(|| ask(REQUESTS));
        assert!(allocated < OTHERS_MAX, "{allocated} allocations for {REQUESTS} requests");
    }
    drain.request();
    drop((client, registry));
    running.join().expect("no panic").expect("an orderly end");
}
