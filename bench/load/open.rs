//! Load at a given rate, whatever the answers: what is due is sent, and its time counts from when it was due.
//!
//! `bench-open PLAN`, where PLAN is JSON: [`Plan`]. It goes on until its input ends; on each line of it, it prints a JSON object
//! with what became of the requests that were due since the last one, when all of them are over. Times are microseconds.
//!
//! Connections are kept: the one that was used last is used next, and if none is idle there is one more. A connection that
//! turns out to be closed before it is used is left; one that breaks afterwards is a failure.

mod measure;

use measure::{micros, now, percentiles, say};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};

const HEAD_END: &[u8] = b"\r\n\r\n";

/// What is sent.
#[derive(Deserialize)]
struct Plan {
    /// Where to.
    port: u16,
    /// Requests a second, of all kinds.
    rate: u32,
    /// Requests that may be under way at once; what is due beyond it fails as `too many under way`.
    under_way: usize,
    /// How long an answer may take from when its request was due.
    patience_ms: u64,
    /// An answer with 200 within this time is in time.
    goal_ms: u64,
    kinds: Vec<Kind>,
}

/// One kind of request.
#[derive(Deserialize)]
struct Kind {
    /// What the results are called.
    name: String,
    method: String,
    path: String,
    /// Fields, each with its line's end.
    #[serde(default)]
    fields: String,
    #[serde(default)]
    body: String,
    /// How many there are of this kind in a turn through all kinds.
    #[serde(default = "one")]
    weight: usize,
}

const fn one() -> usize {
    1
}

/// What is known of an answer.
struct Answer {
    status: u16,
    reason: String,
    keeps: bool,
}

/// Why there is no whole answer.
enum Broken {
    Refused,
    /// Nothing of an answer came.
    Cut(io::Error),
    /// It broke off.
    CutShort(io::Error),
}

/// What became of the requests of a kind that were due in one stretch.
#[derive(Default)]
struct Tally {
    requests: u64,
    in_time: u64,
    /// Microseconds of answers with 200.
    served: Vec<u64>,
    /// Microseconds of other answers.
    refused: Vec<u64>,
    failed: BTreeMap<String, u64>,
}

/// The requests between two lines of input.
struct Stretch {
    begun: Instant,
    kinds: Mutex<Vec<Tally>>,
    under_way: AtomicUsize,
}

struct Load {
    plan: Plan,
    requests: Vec<Vec<u8>>,
    idle: Mutex<Vec<TcpStream>>,
    under_way: AtomicUsize,
    stretch: Mutex<Arc<Stretch>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let plan = std::env::args().nth(1).ok_or_else(|| io::Error::other("usage: bench-open PLAN"))?;
    let load = Arc::new(Load::new(serde_json::from_str(&plan)?));
    let (lines, mut asked) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || io::stdin().lock().lines().map_while(Result::ok).all(|line| lines.blocking_send(line).is_ok()));
    let sending = tokio::spawn(load.clone().send());
    while asked.recv().await.is_some() {
        let over = std::mem::replace(&mut *lock(&load.stretch), Stretch::new(load.plan.kinds.len()));
        let took = micros(now(), over.begun);
        while over.under_way.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let kinds = std::mem::take(&mut *lock(&over.kinds));
        let each: Vec<String> = load.plan.kinds.iter().zip(kinds).map(|(kind, tally)| tally.show(&kind.name)).collect();
        say(&format!("{{\"micros\":{took},\"kinds\":{{{}}}}}", each.join(",")))?;
    }
    sending.abort();
    Ok(())
}

impl Load {
    fn new(plan: Plan) -> Self {
        let requests = plan.kinds.iter().map(Kind::bytes).collect();
        let stretch = Mutex::new(Stretch::new(plan.kinds.len()));
        Self { plan, requests, idle: Mutex::default(), under_way: AtomicUsize::new(0), stretch }
    }

    async fn send(self: Arc<Self>) {
        let order: Vec<usize> = interleaved(&self.plan.kinds);
        let (begun, pause) = (now(), Duration::from_secs(1).as_nanos() as u64 / u64::from(self.plan.rate.max(1)));
        for turn in 0u64.. {
            let due = begun + Duration::from_nanos(pause * turn);
            sleep_until(due.into()).await;
            let kind = order[turn as usize % order.len()];
            let stretch = lock(&self.stretch).clone();
            stretch.under_way.fetch_add(1, Ordering::Relaxed);
            if self.under_way.fetch_add(1, Ordering::Relaxed) < self.plan.under_way {
                tokio::spawn(self.clone().ask(kind, due, stretch));
            } else {
                self.note(kind, due, &stretch, Err("too many under way".into()));
            }
        }
    }

    async fn ask(self: Arc<Self>, kind: usize, due: Instant, stretch: Arc<Stretch>) {
        let left = Duration::from_millis(self.plan.patience_ms).saturating_sub(now().saturating_duration_since(due));
        let outcome = match timeout(left, self.exchange(&self.requests[kind])).await {
            Err(_) => Err("no answer in time".into()),
            Ok(Err(Broken::Refused)) => Err("refused by the gateway".into()),
            Ok(Err(Broken::Cut(error))) => Err(format!("cut: {}", error.kind())),
            Ok(Err(Broken::CutShort(error))) => Err(format!("cut short: {}", error.kind())),
            Ok(Ok(answer)) => Ok(answer),
        };
        self.note(kind, due, &stretch, outcome);
    }

    fn note(&self, kind: usize, due: Instant, stretch: &Stretch, outcome: Result<Answer, String>) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        let took = micros(now(), due);
        if let Some(tally) = lock(&stretch.kinds).get_mut(kind) {
            tally.note(outcome, took, self.plan.goal_ms * 1000);
        }
        stretch.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    async fn exchange(&self, request: &[u8]) -> Result<Answer, Broken> {
        let mut stream = match self.kept() {
            Some(stream) => stream,
            None => self.connect().await.map_err(|_| Broken::Refused)?,
        };
        // A refusal may come before the whole request was taken: then the answer says more than the failed write.
        let sent = stream.write_all(request).await;
        let answer = read_answer(&mut stream).await.map_err(|broken| match (broken, sent) {
            (Broken::Cut(_), Err(error)) => Broken::Cut(error),
            (broken, _) => broken,
        })?;
        if answer.keeps {
            lock(&self.idle).push(stream);
        }
        Ok(answer)
    }

    /// A connection that the server has neither closed nor said something on.
    fn kept(&self) -> Option<TcpStream> {
        std::iter::from_fn(|| lock(&self.idle).pop()).find(is_quiet)
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.plan.port))).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Stretch {
    fn new(kinds: usize) -> Arc<Self> {
        let kinds = (0..kinds).map(|_| Tally::default()).collect();
        Arc::new(Self { begun: now(), kinds: Mutex::new(kinds), under_way: AtomicUsize::new(0) })
    }
}

impl Kind {
    fn bytes(&self) -> Vec<u8> {
        let Self { method, path, fields, body, .. } = self;
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        format!("{method} {path} HTTP/1.1\r\nHost: bench\r\n{fields}{length}\r\n{body}").into_bytes()
    }
}

impl Tally {
    fn note(&mut self, outcome: Result<Answer, String>, took: u64, goal: u64) {
        self.requests += 1;
        match outcome {
            Ok(Answer { status: 200 | 201, .. }) => {
                self.served.push(took);
                self.in_time += u64::from(took <= goal);
            }
            Ok(Answer { status, reason, .. }) => {
                self.refused.push(took);
                *self.failed.entry(format!("{status} {reason}").trim().to_owned()).or_default() += 1;
            }
            Err(complaint) => *self.failed.entry(complaint).or_default() += 1,
        }
    }

    fn show(mut self, name: &str) -> String {
        let failed: Vec<String> = self.failed.iter().map(|(complaint, times)| format!("{complaint:?}:{times}")).collect();
        format!(
            "{name:?}:{{\"requests\":{},\"served\":{},\"in_time\":{},\"took\":{},\"refused\":{},\"failed\":{{{}}}}}",
            self.requests,
            self.served.len(),
            self.in_time,
            percentiles(&mut self.served),
            percentiles(&mut self.refused),
            failed.join(",")
        )
    }
}

async fn read_answer(stream: &mut TcpStream) -> Result<Answer, Broken> {
    let mut bytes = Vec::with_capacity(1024);
    let head_len = loop {
        if let Some(at) = bytes.windows(HEAD_END.len()).position(|window| window == HEAD_END) {
            break at + HEAD_END.len();
        }
        fill(stream, &mut bytes).await?;
    };
    let head = String::from_utf8_lossy(&bytes[..head_len]).into_owned();
    let field = |name: &str| {
        let pairs = head.lines().filter_map(|line| line.split_once(':'));
        pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).next_back()
    };
    let length: usize = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while bytes.len() < head_len + length {
        fill(stream, &mut bytes).await?;
    }
    Ok(Answer {
        status: head.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0),
        reason: field("x-vertice-reason").unwrap_or_default(),
        keeps: !field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
    })
}

async fn fill(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<(), Broken> {
    let broken = if bytes.is_empty() { Broken::Cut } else { Broken::CutShort };
    match stream.read_buf(bytes).await {
        Ok(0) => Err(broken(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => Ok(()),
        Err(error) => Err(broken(error)),
    }
}

fn is_quiet(stream: &TcpStream) -> bool {
    stream.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// A turn through the kinds in which those of one kind are as far apart as can be.
fn interleaved(kinds: &[Kind]) -> Vec<usize> {
    let mut due: Vec<(usize, usize)> = Vec::new();
    for (at, kind) in kinds.iter().enumerate() {
        due.extend((0..kind.weight).map(|nth| ((nth * 1000 + 500) / kind.weight.max(1), at)));
    }
    due.sort_unstable();
    due.into_iter().map(|(_, at)| at).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
