//! Calls to a gateway whose registry holds many services, for the rig. Prints JSON objects, one a line; times in them are
//! microseconds.
//!
//! `bench-registry PORT SERVICES CONNECTIONS` waits for lines of input until they end. `fill` registers SERVICES services of one
//! instance each and prints how many. `CALL SECONDS [RATE]` sends calls of one kind over CONNECTIONS kept-alive connections for
//! so many seconds, as fast as they are answered, or RATE a second, and prints what became of them. CALL is `heartbeat`,
//! `lookup`, `register` (again, which changes the routing table), each for the next service in a shuffled order, or
//! `proxied`, which is a request to the data plane and asks for `/v2/bench/`.
//!
//! At a given rate a call's time counts from when it was due. Threads that block instead of tasks: each connection has one, and
//! sleeps are exact to microseconds, where a timer wheel has milliseconds.

mod client;
mod measure;

use client::{Answer, Broken, Client};
use measure::{micros, now, percentiles, say};
use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any measurement: nothing lapses on its own.
const TTL_S: u32 = 3600;
/// Coprime to any number of services that is not a multiple of it, so that a walk by it meets all of them.
const STRIDE: u64 = 7_919;

#[derive(Clone, Copy)]
enum Call {
    Heartbeat,
    Lookup,
    Register,
    Proxied,
}

/// What is asked of whom.
#[derive(Clone, Copy)]
struct Target {
    port: u16,
    services: u64,
    connections: u64,
}

/// What became of one stretch of calls.
#[derive(Default)]
struct Tally {
    took: Vec<u64>,
    failed: BTreeMap<String, u64>,
}

fn main() -> io::Result<()> {
    let arguments: Vec<u64> = std::env::args().skip(1).map_while(|argument| argument.parse().ok()).collect();
    let [port, services, connections] = arguments[..] else {
        return Err(io::Error::other("usage: bench-registry PORT SERVICES CONNECTIONS"));
    };
    // Linux wakes sleepers up to 50 µs late to save interrupts; threads have this from who starts them.
    std::fs::write("/proc/self/timerslack_ns", "1")?;
    let target = Target { port: u16::try_from(port).map_err(io::Error::other)?, services, connections };
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let report = match words[..] {
            ["fill"] => target.drive(Call::Register, services, None, None),
            [call, seconds] => target.stretch(call, seconds, None)?,
            [call, seconds, rate] => target.stretch(call, seconds, Some(rate))?,
            _ => return Err(io::Error::other(format!("not understood: {line}"))),
        };
        say(&report)?;
    }
    Ok(())
}

impl Target {
    fn stretch(self, call: &str, seconds: &str, rate: Option<&str>) -> io::Result<String> {
        let call = match call {
            "heartbeat" => Call::Heartbeat,
            "lookup" => Call::Lookup,
            "register" => Call::Register,
            "proxied" => Call::Proxied,
            other => return Err(io::Error::other(format!("no such call: {other}"))),
        };
        let seconds = Duration::from_secs_f64(seconds.parse().map_err(io::Error::other)?);
        let rate: Option<f64> = rate.map(str::parse).transpose().map_err(io::Error::other)?;
        Ok(self.drive(call, u64::MAX, Some(seconds), rate))
    }

    /// So many calls, for so long at most.
    fn drive(self, call: Call, count: u64, limit: Option<Duration>, rate: Option<f64>) -> String {
        let begun = now();
        let end = limit.map(|limit| begun + limit);
        let own = |connection: u64| {
            move || self.converse(call, (connection..count).step_by(self.connections as usize), begun, end, rate)
        };
        let threads: Vec<_> = (0..self.connections).map(|connection| thread::spawn(own(connection))).collect();
        let mut all = Tally::default();
        for thread in threads {
            match thread.join() {
                Ok(tally) => all.add(tally),
                Err(_) => all.fail("a thread of the load panicked".to_owned()),
            }
        }
        all.show(micros(now(), begun))
    }

    /// One connection's calls, one after another.
    fn converse(
        self,
        call: Call,
        turns: impl Iterator<Item = u64>,
        begun: Instant,
        end: Option<Instant>,
        rate: Option<f64>,
    ) -> Tally {
        let (mut client, mut tally) = (Client::new(self.port), Tally::default());
        for turn in turns {
            let due = match rate {
                Some(rate) => begun + Duration::from_secs_f64(turn as f64 / rate),
                None => now(),
            };
            if end.is_some_and(|end| due >= end) {
                break;
            }
            thread::sleep(due.saturating_duration_since(now()));
            let answer = client.ask(&call.request(turn.wrapping_mul(STRIDE) % self.services));
            tally.note(answer, micros(now(), due));
        }
        tally
    }
}

impl Call {
    fn request(self, service: u64) -> String {
        let name = format!("scanner_{service:05}_service");
        match self {
            Self::Heartbeat => post("/heartbeat", &format!("{{\"service_name\":\"{name}\",\"instance_id\":\"one\"}}")),
            Self::Lookup => format!("GET /services/{name} HTTP/1.1\r\nHost: bench\r\n\r\n"),
            Self::Proxied => "GET /v2/bench/ HTTP/1.1\r\nHost: bench\r\n\r\n".to_owned(),
            Self::Register => {
                let endpoint = format!("http://10.{}.{}.{}:8080", service >> 16 & 255, service >> 8 & 255, service & 255);
                let body = format!(
                    "{{\"service_name\":\"{name}\",\"instance_id\":\"one\",\"endpoint\":\"{endpoint}\",\"ttl\":{TTL_S},\
                     \"metadata\":{{\"version\":\"1.4.2\",\"team\":\"recon\"}}}}"
                );
                post("/register", &body)
            }
        }
    }
}

impl Tally {
    fn note(&mut self, answer: Result<Answer, Broken>, took: u64) {
        match answer {
            Ok(Answer { status: 200 | 201, .. }) => self.took.push(took),
            Ok(answer) => self.fail(format!("{} {}", answer.status, answer.field("x-vertice-reason"))),
            Err(Broken::Refused) => self.fail("refused".to_owned()),
            Err(Broken::Cut(error)) => self.fail(format!("cut: {}", error.kind())),
        }
    }

    fn fail(&mut self, complaint: String) {
        *self.failed.entry(complaint).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        self.took.extend(other.took);
        for (complaint, times) in other.failed {
            *self.failed.entry(complaint).or_default() += times;
        }
    }

    fn show(mut self, micros: u64) -> String {
        let failed: Vec<String> = self.failed.iter().map(|(complaint, times)| format!("{complaint:?}:{times}")).collect();
        format!(
            "{{\"answered\":{},\"micros\":{micros},\"took\":{},\"failed\":{{{}}}}}",
            self.took.len(),
            percentiles(&mut self.took),
            failed.join(",")
        )
    }
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}
