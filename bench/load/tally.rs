//! How requests went, counted by all threads that send them.

use crate::client::{Answer, Broken, Client, connect};
use crate::measure::{micros, now, percentiles};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a killed process may take to be gone for its connections' ends to count as its own.
const DEATH: Duration = Duration::from_millis(100);

/// How requests went.
#[derive(Default)]
pub(crate) struct Tally {
    requests: u64,
    /// Microseconds of those that were answered as wanted.
    micros: Vec<u64>,
    /// Registrations that are in the store.
    durable: u64,
    /// Connections that were refused, so that the next replica was asked.
    moved: u64,
    /// Requests that were under way in a process as it died.
    in_flight: u64,
    /// All others, by what happened.
    failed: BTreeMap<String, u64>,
}

enum Outcome {
    Answered(Answer),
    InFlight,
    Failed(String),
}

impl Tally {
    /// One request to the client whose turn it is, or the next one that is there; tells whether it was answered as wanted.
    pub(crate) fn ask(tally: &Mutex<Self>, clients: &mut [Client], turn: usize, request: &str, wanted: u16) -> bool {
        let (begun, mut moved) = (now(), 0);
        let outcome = loop {
            let at = (turn + moved) % clients.len();
            match clients[at].ask(request) {
                Err(Broken::Refused) if moved + 1 < clients.len() => moved += 1,
                Err(Broken::Refused) => break Outcome::Failed("refused".into()),
                Err(Broken::Cut(_)) if is_dead(&clients[at]) => break Outcome::InFlight,
                Err(Broken::Cut(error)) => break Outcome::Failed(format!("cut: {}", error.kind())),
                Ok(answer) if answer.status == wanted => break Outcome::Answered(answer),
                Ok(answer) => break Outcome::Failed(complaint(&answer)),
            }
        };
        let took = micros(now(), begun);
        let is_answered = matches!(outcome, Outcome::Answered(_));
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.requests += 1;
        tally.moved += moved as u64;
        match outcome {
            Outcome::Answered(answer) => {
                tally.micros.push(took);
                tally.durable += u64::from(answer.body.contains("\"durable\":true"));
            }
            Outcome::InFlight => tally.in_flight += 1,
            Outcome::Failed(complaint) => *tally.failed.entry(complaint).or_default() += 1,
        }
        is_answered
    }

    /// Adds what one thread counted on its own: threads that share a tally at full speed would mostly wait for each other.
    pub(crate) fn add(tally: &Mutex<Self>, own: Mutex<Self>) {
        let own = own.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.requests += own.requests;
        tally.micros.extend(own.micros);
        tally.durable += own.durable;
        tally.moved += own.moved;
        tally.in_flight += own.in_flight;
        for (complaint, times) in own.failed {
            *tally.failed.entry(complaint).or_default() += times;
        }
    }

    /// As JSON; it begins anew.
    pub(crate) fn take(tally: &Mutex<Self>) -> String {
        let mut tally = std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner));
        let failed: u64 = tally.failed.values().sum();
        let why: Vec<String> = tally.failed.iter().map(|(complaint, times)| format!("{times} × {complaint}")).collect();
        format!(
            "{{\"requests\":{},\"durable\":{},\"moved\":{},\"in_flight\":{},\"failed\":{failed},\"why\":{:?},\"took\":{}}}",
            tally.requests,
            tally.durable,
            tally.moved,
            tally.in_flight,
            why.join(", "),
            percentiles(&mut tally.micros)
        )
    }
}

/// Whether the process that broke the connection is gone, or will be in a moment.
fn is_dead(client: &Client) -> bool {
    let begun = now();
    while connect(client.port).is_ok() {
        if now() - begun > DEATH {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

fn complaint(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.field("x-vertice-reason")).trim().to_owned()
}
