//! The corpus of raw bytes (`tests/corpus`): what a client or an instance may send, what comes of it, and what reaches the
//! other side. Each case is also sent byte by byte, because nothing may depend on how bytes were cut into pieces.

mod answers;
mod format;
mod recorder;
mod requests;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::harness::Gateway;
use recorder::Recorder;

/// How many cases run at once. Each runner has a service of its own, so that none sees another's requests.
const RUNNERS: usize = 6;

/// How cases name the service; each runner's has a name of the same length.
const SERVICE: &str = "echo";

fn service_of(runner: usize) -> String {
    format!("ech{runner}")
}

fn directory(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(part)
}

/// The files of a part of the corpus, as `(name, text)`.
fn files(part: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = std::fs::read_dir(directory(part))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// A gateway whose breakers stay closed, so that no case suffers from the one before it.
fn gateway() -> Gateway {
    Gateway::builder()
        .env("VERTICE_BREAKER__FAILURES", "63")
        .env("VERTICE_LEASE__TTL", "1h")
        .env("VERTICE_LOG__LEVEL", "error")
        .start()
}

/// Has all cases run by [`RUNNERS`] threads. Gives the complaints.
fn run<C: Sync>(gateway: &Gateway, cases: &[C], check: impl Fn(&Runner<'_>, &C) -> Vec<String> + Sync) -> Vec<String> {
    let (next, complaints) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for number in 0..RUNNERS {
            let (next, complaints, check) = (&next, &complaints, &check);
            scope.spawn(move || {
                let runner = Runner::start(gateway, number);
                loop {
                    let Some(case) = next.lock().unwrap().next() else { break };
                    let found = check(&runner, case);
                    complaints.lock().unwrap().extend(found);
                }
            });
        }
    });
    complaints.into_inner().unwrap()
}

/// One of those who run cases.
struct Runner<'a> {
    gateway: &'a Gateway,
    number: u8,
    clients: AtomicU16,
    service: String,
    recorder: Recorder,
}

impl<'a> Runner<'a> {
    fn start(gateway: &'a Gateway, number: usize) -> Self {
        let recorder = Recorder::start();
        let service = service_of(number);
        gateway.register_at(&service, &format!("http://{}", recorder.addr));
        Self { gateway, number: u8::try_from(number).unwrap(), clients: AtomicU16::new(0), service, recorder }
    }

    /// A client that no other case has.
    fn next_client(&self) -> IpAddr {
        let [high, low] = self.clients.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        Ipv4Addr::new(127, 100 + self.number, high, low).into()
    }

    /// The case's bytes for this runner's service.
    fn own(&self, bytes: &[u8]) -> Vec<u8> {
        replaced(bytes, format!("/v2/{SERVICE}").as_bytes(), format!("/v2/{}", self.service).as_bytes())
    }
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// Bytes as a person reads them, long ones shortened.
fn shown(bytes: &[u8]) -> String {
    const ENOUGH: usize = 1200;
    if bytes.len() <= ENOUGH {
        return bytes.escape_ascii().to_string();
    }
    let (head, tail) = (&bytes[..ENOUGH / 2], &bytes[bytes.len() - ENOUGH / 2..]);
    format!("{} …{} bytes… {}", head.escape_ascii(), bytes.len() - ENOUGH, tail.escape_ascii())
}
