//! Large bodies: whole, in order, and never kept whole in memory.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::http::one_chunk;
use crate::harness::scripts::script;
use crate::harness::upstream::Checksum;
use crate::harness::{After, Conn, Gateway, Request, Upstream, eventually, get, now};

const MIB: usize = 1024 * 1024;

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

/// A service that answers with the length and the checksum of the body it got.
fn summing() -> Upstream {
    Upstream::start(script(|exchange| {
        let (length, sum) = exchange.swallow_body()?;
        exchange.answer("200 OK", &[], format!("{length} {sum}").as_bytes())?;
        Ok(After::KeepAlive)
    }))
}

#[test]
fn an_upload_of_known_length_arrives_whole() {
    let gateway = Gateway::start();
    let upstream = summing();
    gateway.register("sum", &upstream);
    let body = pattern(5 * MIB + 17);
    let answer = gateway.data(Request::new("POST", "/v2/sum/x").body(body.clone())).expect(200);
    assert_eq!(answer.text(), format!("{} {}", body.len(), Checksum::of(&body)));
    assert_eq!(upstream.last().header("content-length"), Some(body.len().to_string().as_str()));
}

#[test]
fn a_chunked_upload_arrives_whole() {
    let gateway = Gateway::start();
    let upstream = summing();
    gateway.register("sum", &upstream);
    let body = pattern(3 * MIB + 5);
    let sizes = [1, 2, 1000, 16 * 1024, 65_536, 100_001];
    let (mut chunks, mut rest) = (Vec::new(), &body[..]);
    for size in sizes.into_iter().cycle() {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        chunks.push(chunk);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    let answer = gateway.data(Request::new("PUT", "/v2/sum/x").chunked(&chunks)).expect(200);
    assert_eq!(answer.text(), format!("{} {}", body.len(), Checksum::of(&body)));
    assert_eq!(upstream.last().header("transfer-encoding"), Some("chunked"));
}

#[test]
fn a_download_arrives_whole_with_length_and_in_chunks() {
    let gateway = Gateway::start();
    let body = Arc::new(pattern(5 * MIB + 3));
    let served = body.clone();
    let upstream = Upstream::start(script(move |exchange| {
        if exchange.seen.target == "/length" {
            exchange.answer("200 OK", &[], &served)?;
        } else {
            exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            for chunk in served.chunks(70_001) {
                exchange.write(one_chunk(chunk))?;
            }
            exchange.write("0\r\n\r\n")?;
        }
        Ok(After::KeepAlive)
    }));
    gateway.register("big", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    for target in ["/v2/big/length", "/v2/big/chunks", "/v2/big/length"] {
        let answer = conn.ask(&get(target)).expect(200);
        assert!(answer.complete && answer.body == *body, "{target}: {} bytes", answer.body.len());
    }
}

#[test]
fn uploads_and_downloads_at_once_do_not_wait_for_each_other() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(script(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        while let Some(piece) = exchange.read_piece()? {
            exchange.write(one_chunk(&piece))?;
        }
        exchange.write("0\r\n\r\n")?;
        Ok(After::KeepAlive)
    }));
    gateway.register("mirror", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.send("POST /v2/mirror/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    conn.send(one_chunk(b"first"));
    assert_eq!(conn.head().status, 200);
    assert_eq!(conn.chunk().unwrap(), b"first");
    for round in 0..20 {
        let piece = format!("piece {round}").into_bytes();
        conn.send(one_chunk(&piece));
        assert_eq!(conn.chunk().unwrap(), piece);
    }
    conn.send("0\r\n\r\n");
    assert_eq!(conn.chunk().unwrap(), b"");
}

#[test]
fn a_client_that_does_not_read_stops_the_service_and_not_the_memory() {
    const TOTAL: usize = 200 * MIB;
    let gateway = Gateway::start();
    let written = Arc::new(AtomicUsize::new(0));
    let counter = written.clone();
    let upstream = Upstream::start(script(move |exchange| {
        exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n"))?;
        let block = vec![7; MIB];
        for _ in 0..TOTAL / MIB {
            exchange.write(&block)?;
            counter.fetch_add(MIB, Ordering::SeqCst);
        }
        Ok(After::KeepAlive)
    }));
    gateway.register("endless", &upstream);
    gateway.data(get("/health")).expect(200);
    let before = gateway.process.resident_bytes();
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&get("/v2/endless/x"));
    // It stands still when nothing was written for a while.
    let (mut last, mut since) = (0, now());
    eventually("the service to be held up", || {
        let count = written.load(Ordering::SeqCst);
        if count != last {
            (last, since) = (count, now());
        }
        last > 0 && since.elapsed() > Duration::from_millis(400)
    });
    assert!(last < TOTAL / 2, "{} MiB went somewhere", last / MIB);
    let grown = gateway.process.resident_bytes().saturating_sub(before) as usize;
    assert!(grown < 32 * MIB, "grew by {} MiB", grown / MIB);
    let mut stream = conn.stream();
    let (mut received, mut block) = (0, vec![0; MIB]);
    while received < TOTAL {
        let length = stream.read(&mut block).unwrap();
        assert!(length > 0, "cut off after {received}");
        received += length;
    }
    let grown = gateway.process.resident_bytes().saturating_sub(before) as usize;
    assert!(grown < 48 * MIB, "grew by {} MiB", grown / MIB);
}

#[test]
fn a_service_that_does_not_read_stops_the_client_and_not_the_memory() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(crate::harness::scripts::script(|exchange| {
        std::thread::sleep(Duration::from_secs(2));
        let (length, _) = exchange.swallow_body()?;
        exchange.answer("200 OK", &[], length.to_string().as_bytes())?;
        Ok(After::KeepAlive)
    }));
    gateway.register("lazy", &upstream);
    gateway.data(get("/health")).expect(200);
    let before = gateway.process.resident_bytes();
    let total = 100 * MIB;
    let mut conn = Conn::open(gateway.gateway);
    conn.send(format!("POST /v2/lazy/x HTTP/1.1\r\nHost: x\r\nContent-Length: {total}\r\n\r\n"));
    let mut stream = conn.stream();
    let sender = std::thread::spawn(move || {
        let block = vec![7; MIB];
        (0..total / MIB).all(|_| stream.write_all(&block).is_ok())
    });
    let mut most = 0;
    while !sender.is_finished() {
        most = most.max(gateway.process.resident_bytes().saturating_sub(before) as usize);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(sender.join().unwrap());
    assert_eq!(conn.response("POST").expect(200).text(), total.to_string());
    assert!(most < 32 * MIB, "grew by {} MiB", most / MIB);
}
