//! A steady load on the data plane, and what became of it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::balancer::LOST_BY;
use super::{Conn, Request, Response, eventually, get, now};

/// Pause of a client between two requests.
const PAUSE: Duration = Duration::from_millis(4);
/// Failures that are described; all are counted.
const DESCRIBED: usize = 5;

/// Clients that ask for services, one after another, on connections that they keep.
pub(crate) struct SteadyLoad {
    tally: Arc<Tally>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Tally {
    stopping: AtomicBool,
    sent: AtomicUsize,
    failed: AtomicUsize,
    /// Those of the failures that a gateway took with it.
    lost: AtomicUsize,
    slowest: Mutex<Duration>,
    described: Mutex<Vec<String>>,
}

/// What became of the load.
pub(crate) struct Report {
    pub(crate) sent: usize,
    pub(crate) failed: usize,
    /// Those of the failures that a gateway took with it.
    pub(crate) lost: usize,
    pub(crate) slowest: Duration,
    described: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, failed, lost, slowest, described } = self;
        write!(f, "{sent} sent, {failed} failed, {lost} of them lost with a gateway, slowest {slowest:?}; {described:#?}")
    }
}

impl SteadyLoad {
    /// How many clients there are, and so how many requests can be under way at once.
    pub(crate) const CLIENTS: usize = 2;

    /// Starts asking `target` for these services, and waits for the first answers.
    #[track_caller]
    pub(crate) fn start(target: SocketAddr, services: &[&str]) -> Self {
        Self::asking(target, services.iter().map(|service| get(&format!("/v2/{service}/load"))).collect())
    }

    /// Starts sending these requests to `target`, and waits for the first answers.
    #[track_caller]
    pub(crate) fn asking(target: SocketAddr, requests: Vec<Request>) -> Self {
        let tally = Arc::<Tally>::default();
        let clients = (0..Self::CLIENTS).map(|_| {
            let (tally, requests) = (tally.clone(), requests.clone());
            std::thread::spawn(move || tally.keep_asking(target, &requests))
        });
        let load = Self { clients: clients.collect(), tally };
        load.goes_on();
        load
    }

    /// Waits until some more requests have been answered since this call: whatever was done before it, the load met.
    #[track_caller]
    pub(crate) fn goes_on(&self) {
        let before = self.tally.sent.load(Ordering::SeqCst);
        eventually("the load to go on", || self.tally.sent.load(Ordering::SeqCst) > before + 20);
    }

    /// Ends it.
    pub(crate) fn stop(mut self) -> Report {
        self.end();
        let tally = &self.tally;
        Report {
            sent: tally.sent.load(Ordering::SeqCst),
            failed: tally.failed.load(Ordering::SeqCst),
            lost: tally.lost.load(Ordering::SeqCst),
            slowest: *tally.slowest.lock().unwrap(),
            described: tally.described.lock().unwrap().clone(),
        }
    }

    /// Ends it and checks that every request was answered with 200, and none waited for somebody else's trouble.
    #[track_caller]
    pub(crate) fn assert_nothing_failed(self) {
        self.goes_on();
        let report = self.stop();
        assert_eq!(report.failed, 0, "{report}");
        assert!(report.slowest < Duration::from_secs(3), "{report}");
    }

    fn end(&mut self) {
        self.tally.stopping.store(true, Ordering::SeqCst);
        self.clients.drain(..).for_each(|client| client.join().unwrap());
    }
}

impl Drop for SteadyLoad {
    fn drop(&mut self) {
        self.tally.stopping.store(true, Ordering::SeqCst);
    }
}

impl Tally {
    fn keep_asking(&self, target: SocketAddr, requests: &[Request]) {
        let mut kept = None;
        for request in requests.iter().cycle() {
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            let start = now();
            let outcome = ask(&mut kept, target, request);
            self.note(request, &outcome, start.elapsed());
            std::thread::sleep(PAUSE);
        }
    }

    fn note(&self, request: &Request, outcome: &std::io::Result<Response>, took: Duration) {
        {
            let mut slowest = self.slowest.lock().unwrap();
            *slowest = took.max(*slowest);
        }
        let is_lost = outcome.as_ref().is_ok_and(|response| response.header(LOST_BY).is_some());
        if !outcome.as_ref().is_ok_and(|response| response.status == 200 && response.complete) {
            self.failed.fetch_add(1, Ordering::SeqCst);
            self.lost.fetch_add(usize::from(is_lost), Ordering::SeqCst);
            let mut described = self.described.lock().unwrap();
            if described.len() < DESCRIBED {
                let text = outcome.as_ref().map(Response::text).unwrap_or_default();
                described.push(format!("{} after {took:?}: {outcome:?} {text}", request.path()));
            }
        }
        self.sent.fetch_add(1, Ordering::SeqCst);
    }
}

/// Asks on the kept connection, or on a new one; keeps it as long as the other side does.
fn ask(kept: &mut Option<Conn>, target: SocketAddr, request: &Request) -> std::io::Result<Response> {
    let mut conn = kept.take().map_or_else(|| Conn::open_from(None, target), Ok)?;
    conn.try_send(request.bytes(&target.to_string()))?;
    let response = conn.try_response(&request.method)?;
    let closes = response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    if !closes && response.complete {
        *kept = Some(conn);
    }
    Ok(response)
}
