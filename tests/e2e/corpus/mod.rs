//! The corpus of raw bytes (`tests/corpus`): what a client or an instance may send, what comes of it, and what reaches the
//! other side. Each case goes through both lanes, which must do the same, and is also sent byte by byte, because nothing may
//! depend on how bytes were cut into pieces.

mod answers;
mod format;
mod observed;
mod recorder;
mod requests;
mod table;
mod talk;
mod track;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::harness::{Gateway, Lane};
use format::Case;
use observed::{Aspect, Observed};
use track::Track;

/// How many cases run at once. Each runner has a service of its own, so that none sees another's requests.
const RUNNERS: usize = 6;

/// How cases name the service; each runner's has a name of the same length.
const SERVICE: &str = "echo";

/// Between two writes that the kernel shall not join.
const MOMENT: Duration = Duration::from_millis(3);

/// How a case's bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    AsWritten,
    ByteByByte,
}

fn service_of(runner: usize) -> String {
    format!("ech{runner}")
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// The cases of a part of the corpus.
#[track_caller]
fn cases(part: &str) -> Vec<Case> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory().join(part)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        format::read(&name, &std::fs::read_to_string(path).unwrap()).unwrap_or_else(|error| panic!("{error}"))
    };
    paths.iter().flat_map(read).collect()
}

/// A gateway whose breakers stay closed, so that no case suffers from the one before it.
fn gateway(lane: Lane) -> Gateway {
    Gateway::builder()
        .lane(lane)
        .one_worker()
        .env("VERTICE_BREAKER__FAILURES", "63")
        .env("VERTICE_LEASE__TTL", "1h")
        .env("VERTICE_LOG__LEVEL", "error")
        .start()
}

/// Where the lanes may differ.
type Listed = BTreeSet<(String, Aspect)>;

/// Has a case run in one lane.
type Run = fn(&Track<'_>, &Case, Cut, IpAddr) -> Observed;

/// Has all cases of a part run through both lanes by [`RUNNERS`] threads.
#[track_caller]
fn through_both_lanes(part: &str, cases_min: usize, run: Run) {
    let cases = cases(part);
    assert!(cases.len() >= cases_min, "only {} cases", cases.len());
    let mut gateways = [Lane::Express, Lane::Full].map(|lane| (lane, gateway(lane)));
    let listed = table::read(&directory().join("LANES.md"));
    let (next, complaints, occurred) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()), Mutex::new(BTreeSet::new()));
    std::thread::scope(|scope| {
        for number in 0..RUNNERS {
            let (gateways, next, complaints, occurred, listed) = (&gateways, &next, &complaints, &occurred, &listed);
            scope.spawn(move || {
                let runner = Runner::start(gateways, number);
                loop {
                    let Some(case) = next.lock().unwrap().next() else { break };
                    let (found, differences) = runner.check(case, run, listed);
                    complaints.lock().unwrap().extend(found);
                    occurred.lock().unwrap().extend(differences.into_iter().map(|aspect| (case.name.clone(), aspect)));
                }
            });
        }
    });
    let (mut complaints, occurred) = (complaints.into_inner().unwrap(), occurred.into_inner().unwrap());
    let is_here = |name: &String| cases.iter().any(|case| case.name == *name);
    let stale = listed.difference(&occurred).filter(|(name, _)| is_here(name));
    complaints.extend(stale.map(|(name, aspect)| format!("{name}: the lanes no longer differ in the {aspect:?}")));
    assert!(
        complaints.is_empty(),
        "{} complaints about {} cases:\n\n{}",
        complaints.len(),
        cases.len(),
        complaints.join("\n\n")
    );
    let (everything, full) = {
        let metrics = gateways[1].1.metrics();
        let of_services = (0..RUNNERS).map(|number| metrics.full_lane(&service_of(number)));
        (metrics.sum("http_requests_total", &[]), of_services.sum::<f64>())
    };
    assert!(full > 0.0 && full >= everything, "{everything} requests, and {full} through the full lane");
    gateways.iter_mut().for_each(|(_, gateway)| gateway.assert_sound());
}

/// One of those who run cases.
struct Runner<'a> {
    number: u8,
    clients: AtomicU16,
    tracks: [Track<'a>; 2],
}

impl<'a> Runner<'a> {
    fn start(gateways: &'a [(Lane, Gateway); 2], number: usize) -> Self {
        let tracks = gateways.each_ref().map(|(lane, gateway)| Track::start(*lane, gateway, service_of(number)));
        Self { number: u8::try_from(number).unwrap(), clients: AtomicU16::new(0), tracks }
    }

    /// What is wrong with a case, and in what the lanes differ.
    fn check(&self, case: &Case, run: Run, listed: &Listed) -> (Vec<String>, Vec<Aspect>) {
        let is_listed = |aspect: Aspect| listed.contains(&(case.name.clone(), aspect));
        let mut differences = Vec::new();
        for cut in [Cut::AsWritten, Cut::ByteByByte] {
            if cut == Cut::ByteByByte && case.whole_only {
                break;
            }
            let client = self.next_client();
            let express = (&self.tracks[0], self.tracks[0].run(case, cut, client, run));
            // Waiting for an end that does not come takes long.
            let fate = case.fate.filter(|_| !is_listed(Aspect::Connection));
            let full = (&self.tracks[1], self.tracks[1].run(&Case { fate, ..case.clone() }, cut, client, run));
            let wrong = [&express, &full].map(|(track, observed)| track.complaint(case, cut, observed, is_listed));
            let mut complaints: Vec<String> = wrong.into_iter().flatten().collect();
            if complaints.is_empty() {
                let found = express.1.differences(&full.1);
                let unlisted = found.iter().filter(|(aspect, _)| !is_listed(*aspect));
                complaints.extend(unlisted.map(|(_, text)| format!("line {} {} ({cut:?}): {text}", case.line, case.name)));
                differences.extend(found.iter().map(|(aspect, _)| *aspect));
            }
            if !complaints.is_empty() {
                return (complaints, differences);
            }
        }
        (Vec::new(), differences)
    }

    /// A client that no other case has.
    fn next_client(&self) -> IpAddr {
        let [high, low] = self.clients.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        Ipv4Addr::new(127, 100 + self.number, high, low).into()
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
