//! Clients that ask as fast as they are answered, or at a given rate: the load that proxies are measured under.
//!
//! `bench-clients PLAN`, where PLAN is JSON: [`Plan`]. It connects, warms up, measures, and prints one JSON object: how many were
//! answered, in how long (microseconds), and the CPU time that it and the processes it was told of took meanwhile.
//!
//! At a given rate, a request is due when it is due, whatever became of those before it: its time counts from then, and if every
//! connection is taken it waits its turn. So a proxy that stalls shows it in each request of that time (no coordinated omission).
//!
//! One thread, epoll, one `write` and one `read` for a small exchange: the cheaper the load, the less it is what is measured.

mod head;
mod measure;
mod reactor;

use measure::{micros, now, percentiles, say};
use reactor::{Event, Reactor, is_ending, token, unless_blocked};
use serde::Deserialize;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

const READ_BYTES: usize = 256 * 1024;
/// Nothing that the upstream sends looks like that before its end.
const CHUNKS_END: &[u8; 5] = b"0\r\n\r\n";
/// How long answers are waited for that are missing when the time is over.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is sent, and what is watched.
#[derive(Deserialize)]
struct Plan {
    /// Where to.
    port: u16,
    connections: usize,
    /// How long it measures, and what it does before.
    seconds: f64,
    warm_seconds: f64,
    /// Requests a second; as fast as they are answered when absent.
    rate: Option<f64>,
    method: String,
    path: String,
    /// Fields, each with its line's end.
    #[serde(default)]
    fields: String,
    /// Of the request's body.
    #[serde(default)]
    body_bytes: usize,
    /// Processes by what their CPU time is called in the result.
    #[serde(default)]
    watched: BTreeMap<String, Vec<u32>>,
}

struct Connection {
    stream: TcpStream,
    /// Of the request; all of it when nothing is under way.
    sent: usize,
    /// When the request was due that is under way.
    due: Option<Instant>,
    /// The beginning of a head.
    unread: Vec<u8>,
    left: Left,
    refused: bool,
}

/// What is missing of an answer.
enum Left {
    Head,
    Bytes(usize),
    /// Chunks; and the last bytes that came.
    Chunks([u8; CHUNKS_END.len()]),
}

#[derive(Default)]
struct Tally {
    requests: u64,
    micros: Vec<u64>,
    /// Answers with another status than 200.
    refused: u64,
    /// Connections that broke with a request under way.
    broken: u64,
}

struct Load {
    plan: Plan,
    request: Vec<u8>,
    reactor: Reactor,
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
    /// When requests were due that wait for a connection.
    waiting: VecDeque<Instant>,
    buffer: Vec<u8>,
    tally: Tally,
}

fn main() -> io::Result<()> {
    let plan: Plan =
        serde_json::from_str(&std::env::args().nth(1).ok_or_else(|| io::Error::other("usage: bench-clients PLAN"))?)?;
    // Timers that are 50 µs late would be in every time at a given rate. Where that cannot be said, they are late.
    fs::write("/proc/self/timerslack_ns", "1000").ok();
    say(&Load::new(plan)?.run()?)
}

impl Load {
    fn new(plan: Plan) -> io::Result<Self> {
        let Plan { method, path, fields, body_bytes, .. } = &plan;
        let length = if *body_bytes > 0 { format!("Content-Length: {body_bytes}\r\n") } else { String::new() };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: bench.example\r\n{fields}{length}\r\n");
        let request = [head.as_bytes(), &vec![b'x'; *body_bytes]].concat();
        let reactor = Reactor::new()?;
        let connections =
            (0..plan.connections).map(|at| Connection::new(plan.port, &reactor, at)).collect::<io::Result<_>>()?;
        let (idle, waiting) = ((0..plan.connections).collect(), VecDeque::new());
        Ok(Self { plan, request, reactor, connections, idle, waiting, buffer: vec![0; READ_BYTES], tally: Tally::default() })
    }

    /// Warms up, measures, and tells the result.
    fn run(&mut self) -> io::Result<String> {
        self.go_on_until(now() + Duration::from_secs_f64(self.plan.warm_seconds))?;
        self.tally = Tally::default();
        let (begun, before) = (now(), self.cpu_micros()?);
        self.go_on_until(begun + Duration::from_secs_f64(self.plan.seconds))?;
        let (over, after) = (now(), self.cpu_micros()?);
        let requests = self.tally.requests;
        if self.plan.rate.is_some() {
            self.wait_for_the_rest(over)?;
        }
        let cpu: Vec<String> =
            after.iter().map(|(name, after)| format!("{name:?}:{}", after.saturating_sub(before[name]))).collect();
        let Tally { micros: took, refused, broken, .. } = &mut self.tally;
        let (micros, took, cpu) = (micros(over, begun), percentiles(took), cpu.join(","));
        Ok(format!(
            "{{\"requests\":{requests},\"micros\":{micros},\"refused\":{refused},\"broken\":{broken},\"took\":{took},\"cpu\":{{{cpu}}}}}"
        ))
    }

    fn go_on_until(&mut self, end: Instant) -> io::Result<()> {
        let pause = self.plan.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        let mut due = now();
        let mut events = Vec::new();
        loop {
            let at = now();
            if at >= end {
                return Ok(());
            }
            match pause {
                None => while self.begin(at)? {},
                Some(pause) => {
                    while due <= at {
                        self.waiting.push_back(due);
                        due += pause;
                    }
                    self.begin_what_is_due()?;
                }
            }
            let next = if pause.is_some() { due.min(end) } else { end };
            self.reactor.wait(&mut events, Some(next.saturating_duration_since(at)))?;
            self.handle(&events)?;
        }
    }

    /// What is under way or waits when the time is over took at least as long as it has been due.
    fn wait_for_the_rest(&mut self, over: Instant) -> io::Result<()> {
        let mut events = Vec::new();
        while (self.idle.len() < self.connections.len() || !self.waiting.is_empty()) && now() < over + PATIENCE {
            self.begin_what_is_due()?;
            self.reactor.wait(&mut events, Some(Duration::from_millis(10)))?;
            self.handle(&events)?;
        }
        let at = now();
        let under_way = self.connections.iter().filter_map(|connection| connection.due);
        self.tally.micros.extend(under_way.chain(self.waiting.iter().copied()).map(|due| micros(at, due)));
        Ok(())
    }

    fn begin_what_is_due(&mut self) -> io::Result<()> {
        while let Some(due) = self.waiting.front().copied() {
            if !self.begin(due)? {
                break;
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Sends a request on the connection that has been idle for longest; tells whether there is one.
    fn begin(&mut self, due: Instant) -> io::Result<bool> {
        let Some(at) = self.idle.pop_front() else { return Ok(false) };
        let connection = &mut self.connections[at];
        (connection.due, connection.sent) = (Some(due), 0);
        // Should it be broken, its event says so.
        connection.send(&self.request).ok();
        Ok(true)
    }

    fn handle(&mut self, events: &[Event]) -> io::Result<()> {
        for event in events {
            let at = token(event);
            let connection = &mut self.connections[at];
            let Ok(whole) = connection.go_on(&self.request, &mut self.buffer, is_ending(event)) else {
                let was_under_way = connection.due.is_some();
                *connection = Connection::new(self.plan.port, &self.reactor, at)?;
                if was_under_way {
                    self.tally.broken += 1;
                    self.idle.push_back(at);
                }
                continue;
            };
            if whole && let Some(due) = connection.due.take() {
                let answered = now();
                self.tally.requests += 1;
                self.tally.refused += u64::from(connection.refused);
                self.tally.micros.push(micros(answered, due));
                // The server wants no more requests on it.
                if is_ending(event) || connection.sent < self.request.len() {
                    *connection = Connection::new(self.plan.port, &self.reactor, at)?;
                }
                self.idle.push_back(at);
                if self.plan.rate.is_none() {
                    self.begin(answered)?;
                }
            }
        }
        Ok(())
    }

    /// What this process and those that are watched have taken so far.
    fn cpu_micros(&self) -> io::Result<BTreeMap<String, u64>> {
        let mut all = BTreeMap::from([("load".to_owned(), cpu_micros(std::process::id())?)]);
        for (name, processes) in &self.plan.watched {
            let each = processes.iter().map(|process| cpu_micros(*process));
            all.insert(name.clone(), each.sum::<io::Result<u64>>()?);
        }
        Ok(all)
    }
}

/// The kernel's account of a process's threads.
fn cpu_micros(process: u32) -> io::Result<u64> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may have ended meanwhile.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanos += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(nanos / 1000)
}

impl Connection {
    fn new(port: u16, reactor: &Reactor, at: usize) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        reactor.watch(&stream, at)?;
        Ok(Self { stream, sent: 0, due: None, unread: Vec::new(), left: Left::Head, refused: false })
    }

    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        while self.sent < request.len() {
            match unless_blocked(self.stream.write(&request[self.sent..]))? {
                None => break,
                Some(wrote) => self.sent += wrote,
            }
        }
        Ok(())
    }

    /// Tells whether the answer is whole now. What is broken, ended, or not understood is an error.
    fn go_on(&mut self, request: &[u8], buffer: &mut [u8], ending: bool) -> io::Result<bool> {
        if self.due.is_some() {
            self.send(request)?;
        }
        let mut whole = false;
        loop {
            match unless_blocked(self.stream.read(buffer))? {
                None => return Ok(whole),
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(read) => {
                    // An answer that nobody asked for, or a second one.
                    if whole || self.due.is_none() {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    whole = self.take(&buffer[..read])?;
                    if read < buffer.len() && (whole || !ending) {
                        return Ok(whole);
                    }
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let joined;
        let mut rest = bytes;
        if matches!(self.left, Left::Head) {
            if !self.unread.is_empty() {
                joined = [&std::mem::take(&mut self.unread), bytes].concat();
                rest = &joined;
            }
            let Some(end) = head::end(rest) else {
                self.unread = rest.to_vec();
                return Ok(false);
            };
            let head = &rest[..end];
            self.refused = head.get(9..12) != Some(b"200");
            self.left = match head::content_length(head) {
                Some(length) => Left::Bytes(length),
                None if head::field(head, b"transfer-encoding:") == Some(b"chunked") => Left::Chunks([0; CHUNKS_END.len()]),
                None => return Err(io::Error::other("an answer without a length")),
            };
            rest = &rest[end..];
        }
        let whole = match &mut self.left {
            Left::Head => false,
            Left::Bytes(left) => {
                *left = left.checked_sub(rest.len()).ok_or(io::ErrorKind::InvalidData)?;
                *left == 0
            }
            Left::Chunks(last) => {
                let new = rest.len().min(CHUNKS_END.len());
                last.rotate_left(new % CHUNKS_END.len());
                last[CHUNKS_END.len() - new..].copy_from_slice(&rest[rest.len() - new..]);
                last == CHUNKS_END
            }
        };
        if whole {
            self.left = Left::Head;
        }
        Ok(whole)
    }
}
