//! Many watchers of one service, for the load rig: how soon each of them hears of a change.
//!
//! `bench-watchers PORT stream|long-poll COUNT` registers the service `watched` at the registry on that port, lets COUNT
//! clients watch it and prints `ready`. Each line `changes N PAUSE_MS` on standard input registers it anew N times and prints
//! one JSON object: microseconds from sending the registration, and from its 201, until the bytes are read by each client
//! (percentiles over all). It ends with its input. One thread, so the last clients of a thousand are also read last.

mod measure;

use measure::{micros, now, percentiles, say};
use std::io::{self, BufRead};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const SERVICE: &str = "watched";
const PATIENCE: Duration = Duration::from_secs(20);
const HEAD_END: &[u8] = b"\r\n\r\n";
const CHANGE: &[u8] = b"event: change\n";

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, kind, count] = arguments.as_slice() else {
        return Err(io::Error::other("usage: bench-watchers PORT stream|long-poll COUNT"));
    };
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let count: usize = count.parse().map_err(io::Error::other)?;
    let mut registrant = Registrant { stream: connect(port).await?, port, turn: 0 };
    registrant.register().await?;
    let (arrived, mut arrivals) = mpsc::channel(count * 2);
    let arrived = Arc::new(arrived);
    for _ in 0..count {
        let (stream, arrived) = (connect(port).await?, arrived.clone());
        // One that breaks is missed by the count.
        match kind.as_str() {
            "stream" => tokio::spawn(async move { follow(stream, &arrived).await.ok() }),
            _ => tokio::spawn(async move { poll(stream, &arrived).await.ok() }),
        };
    }
    collect(&mut arrivals, count).await?;
    if kind != "stream" {
        // The polls have only been told the index; give them the time to ask.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    say("ready")?;
    let (lines, mut commands) = mpsc::channel(1);
    std::thread::spawn(move || io::stdin().lock().lines().map_while(Result::ok).all(|line| lines.blocking_send(line).is_ok()));
    while let Some(line) = commands.recv().await {
        let numbers: Vec<u64> = line.split(' ').skip(1).filter_map(|word| word.parse().ok()).collect();
        let [changes, pause_ms] = numbers[..] else { return Err(io::Error::other(format!("not understood: {line}"))) };
        let (mut sent, mut answered) = (Vec::new(), Vec::new());
        for _ in 0..changes {
            let (asked_at, answered_at) = registrant.register().await?;
            for at in collect(&mut arrivals, count).await? {
                sent.push(micros(at, asked_at));
                answered.push(micros(at, answered_at));
            }
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
        say(&format!("{{\"from_request\":{},\"from_201\":{}}}", percentiles(&mut sent), percentiles(&mut answered)))?;
    }
    Ok(())
}

/// Registers the service anew each time it is asked.
struct Registrant {
    stream: TcpStream,
    port: u16,
    turn: u64,
}

impl Registrant {
    /// When it was sent, and when the 201 was there.
    async fn register(&mut self) -> io::Result<(Instant, Instant)> {
        self.turn += 1;
        let (turn, port) = (self.turn, self.port);
        let body = format!(
            "{{\"service_name\":\"{SERVICE}\",\"endpoint\":\"http://127.0.0.1:9\",\"instance_id\":\"one\",\"ttl\":3600,\
             \"metadata\":{{\"turn\":\"{turn}\"}}}}"
        );
        let request = format!(
            "POST /register HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let sent = now();
        self.stream.write_all(request.as_bytes()).await?;
        let (head, _) = answer(&mut self.stream, &mut Vec::new()).await?;
        if !head.starts_with("HTTP/1.1 201") {
            return Err(io::Error::other(head));
        }
        Ok((sent, now()))
    }
}

/// Reads a stream of events; tells of its beginning and of each change.
async fn follow(mut stream: TcpStream, arrived: &mpsc::Sender<Instant>) -> io::Result<()> {
    let request = format!("GET /services/{SERVICE} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = Vec::new();
    until(&mut stream, &mut buffer, b"\n\n").await?;
    loop {
        arrived.send(now()).await.map_err(io::Error::other)?;
        until(&mut stream, &mut buffer, CHANGE).await?;
    }
}

/// Asks again and again; tells of each answer.
async fn poll(mut stream: TcpStream, arrived: &mpsc::Sender<Instant>) -> io::Result<()> {
    let mut watch = String::new();
    let mut buffer = Vec::new();
    loop {
        let request = format!("GET /services/{SERVICE}{watch} HTTP/1.1\r\nHost: bench\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let (head, _) = answer(&mut stream, &mut buffer).await?;
        arrived.send(now()).await.map_err(io::Error::other)?;
        watch = format!("?watch={}&wait=10m", field(&head, "x-vertice-index"));
    }
}

/// An answer with a `Content-Length`.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<(String, Vec<u8>)> {
    let head = until(stream, buffer, HEAD_END).await?;
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = field(&head, "content-length").parse().unwrap_or(0);
    while buffer.len() < length {
        fill(stream, buffer).await?;
    }
    let body = buffer.drain(..length).collect();
    Ok((head, body))
}

fn field<'h>(head: &'h str, name: &str) -> &'h str {
    let pairs = head.lines().filter_map(|line| line.split_once(':'));
    pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next_back().unwrap_or_default()
}

/// The bytes up to and including `end`.
async fn until(stream: &mut TcpStream, buffer: &mut Vec<u8>, end: &[u8]) -> io::Result<Vec<u8>> {
    loop {
        if let Some(at) = buffer.windows(end.len()).position(|window| window == end) {
            return Ok(buffer.drain(..at + end.len()).collect());
        }
        fill(stream, buffer).await?;
    }
}

async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

async fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One arrival of each watcher.
async fn collect(arrivals: &mut mpsc::Receiver<Instant>, count: usize) -> io::Result<Vec<Instant>> {
    let all = async {
        let mut times = Vec::with_capacity(count);
        while times.len() < count {
            times.extend(arrivals.recv().await);
        }
        times
    };
    tokio::time::timeout(PATIENCE, all).await.map_err(|_| io::Error::other("not every watcher heard of the change"))
}
