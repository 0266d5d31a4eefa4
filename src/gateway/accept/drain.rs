//! Ending without losing a request.
//!
//! Pingora sleeps its whole grace period on SIGTERM even when nothing is left to do, and keeps accepting on a fast shutdown.
//! So the order is ours: say that we are draining (readiness, `Connection: close`, idle connections close), after
//! `shutdown.delay` stop listening, serve whoever had connected by then, wait until the last connection has gone or the
//! deadline is over, and only then let Pingora stop, at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{error, info, warn};

use super::crowd::Crowd;

/// How far the shutdown has come, and what still has to end. Shared by listeners, connections, readiness and the signal.
#[derive(Debug)]
pub struct Drain {
    listeners: AtomicUsize,
    connections: AtomicUsize,
    in_flight: AtomicUsize,
    crowd: Crowd,
    /// Wakes [`Self::drained`] when the last listener or connection has gone.
    empty: Notify,
    requested: Notify,
    draining: watch::Sender<bool>,
    listening_over: watch::Sender<bool>,
    times: Mutex<DrainTimes>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            listeners: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            crowd: Crowd::default(),
            empty: Notify::new(),
            requested: Notify::new(),
            draining: watch::Sender::new(false),
            listening_over: watch::Sender::new(false),
            times: Mutex::default(),
        }
    }
}

impl Drain {
    /// Requests whose first byte has arrived and whose answer is not complete, on all listeners. A WebSocket counts as long
    /// as it is open.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(SeqCst)
    }

    /// Open client connections on all listeners, idle ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// The process is about to stop: readiness says no, answers carry `Connection: close`.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// How long its end may take.
    #[must_use]
    pub fn times(&self) -> DrainTimes {
        *self.times.lock()
    }

    /// Decides how long its end may take, if that has not begun yet.
    pub fn set_times(&self, times: DrainTimes) {
        *self.times.lock() = times;
    }

    /// Asks for the same orderly end as SIGTERM. Needs a running [`DrainSignal`]; may be called before it runs.
    pub fn request(&self) {
        self.requested.notify_one();
    }

    /// Starts draining: idle connections close, answers carry `Connection: close`. Calling it again changes nothing.
    pub fn begin(&self) {
        self.draining.send_replace(true);
    }

    /// Stops listening, and starts draining if that has not happened yet. What already is connected stays.
    pub fn stop_listening(&self) {
        self.begin();
        self.listening_over.send_replace(true);
    }

    /// Waits until every listener has closed and every connection has gone. `false` when `deadline` came first.
    pub async fn drained(&self, deadline: Instant) -> bool {
        loop {
            let mut changed = std::pin::pin!(self.empty.notified());
            // Registered before looking, so that an end between looking and waiting is not missed.
            changed.as_mut().enable();
            if self.listeners.load(SeqCst) == 0 && self.connections() == 0 {
                return true;
            }
            if timeout_at(deadline, changed).await.is_err() {
                return false;
            }
        }
    }

    /// Turns true when draining begins. Pingora's proxy adds `Connection: close` to answers when it is given this one.
    #[must_use]
    pub fn draining_watch(&self) -> ShutdownWatch {
        self.draining.subscribe()
    }

    /// Turns true when the listeners are to be closed.
    pub(super) fn listening_over_watch(&self) -> ShutdownWatch {
        self.listening_over.subscribe()
    }

    /// The clients that were given a place: what the limits on connections are about.
    pub(super) fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    /// Counts, for as long as the guard lives, a service that may still accept connections, or a connection that was accepted
    /// and is not counted as such yet.
    pub(super) fn listen(self: &Arc<Self>) -> ListenGuard {
        self.listeners.fetch_add(1, SeqCst);
        ListenGuard(self.clone())
    }

    /// Counts a connection for as long as the guard lives.
    pub(super) fn connect(&self) -> ConnectionGuard<'_> {
        self.connections.fetch_add(1, SeqCst);
        ConnectionGuard(self)
    }

    /// Counts a request for as long as the guard lives.
    pub(super) fn enter(&self) -> InFlightGuard<'_> {
        self.in_flight.fetch_add(1, SeqCst);
        InFlightGuard(self)
    }
}

/// Somebody who may still bring connections.
#[derive(Debug)]
pub(super) struct ListenGuard(Arc<Drain>);

impl Drop for ListenGuard {
    fn drop(&mut self) {
        if self.0.listeners.fetch_sub(1, SeqCst) == 1 {
            self.0.empty.notify_waiters();
        }
    }
}

/// One open connection.
#[derive(Debug)]
pub(super) struct ConnectionGuard<'a>(&'a Drain);

impl Drop for ConnectionGuard<'_> {
    fn drop(&mut self) {
        if self.0.connections.fetch_sub(1, SeqCst) == 1 {
            self.0.empty.notify_waiters();
        }
    }
}

/// One request in flight.
#[derive(Debug)]
pub(super) struct InFlightGuard<'a>(&'a Drain);

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, SeqCst);
    }
}

/// The two durations of an orderly end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainTimes {
    /// How long the listeners stay open after the signal, for load balancers that learn of it by readiness.
    pub delay: Duration,
    /// How long requests in flight may then go on.
    pub grace: Duration,
}

/// Waits for SIGTERM, SIGINT or [`Drain::request`], drains, and then tells Pingora to stop at once. A second signal ends the
/// draining.
pub struct DrainSignal {
    drain: Arc<Drain>,
    ready: Mutex<Option<Ready>>,
    hangup: Option<Hangup>,
}

type Ready = Box<dyn FnOnce() + Send>;
type Hangup = Box<dyn Fn() + Send + Sync>;

impl DrainSignal {
    /// A signal for `RunArgs { shutdown_signal }`.
    #[must_use]
    pub fn new(drain: Arc<Drain>) -> Self {
        Self { drain, ready: Mutex::new(None), hangup: None }
    }

    /// Calls `ready` as soon as signals are caught: whoever waits for it may stop the process in good order from then on.
    #[must_use]
    pub fn on_ready(self, ready: impl FnOnce() + Send + 'static) -> Self {
        *self.ready.lock() = Some(Box::new(ready));
        self
    }

    /// Calls `hangup` at each SIGHUP, which ends nothing.
    #[must_use]
    pub fn on_hangup(self, hangup: impl Fn() + Send + Sync + 'static) -> Self {
        Self { hangup: Some(Box::new(hangup)), ..self }
    }

    /// The next signal that ends the process.
    async fn next(&self, signals: &mut StopSignals) -> &'static str {
        loop {
            tokio::select! {
                () = received(&mut signals.terminate) => return "SIGTERM",
                () = received(&mut signals.interrupt) => return "SIGINT",
                () = received(&mut signals.hangup) => self.hangup.iter().for_each(|hangup| hangup()),
            }
        }
    }

    async fn wind_down(&self) {
        let times = self.drain.times();
        self.drain.begin();
        sleep(times.delay).await;
        self.drain.stop_listening();
        if self.drain.drained(Instant::now() + times.grace).await {
            info!("drained: every connection has ended");
        } else {
            let (in_flight, connections) = (self.drain.in_flight(), self.drain.connections());
            warn!("the grace period is over with {in_flight} requests in flight on {connections} connections");
        }
    }
}

impl std::fmt::Debug for DrainSignal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DrainSignal").field("drain", &self.drain).finish_non_exhaustive()
    }
}

#[async_trait]
impl ShutdownSignalWatch for DrainSignal {
    async fn recv(&self) -> ShutdownSignal {
        let mut signals = StopSignals::install();
        let ready = self.ready.lock().take();
        if let Some(ready) = ready {
            ready();
        }
        tokio::select! {
            name = self.next(&mut signals) => info!("{name}: draining"),
            () = self.drain.requested.notified() => info!("draining on request"),
        }
        tokio::select! {
            () = self.wind_down() => {}
            name = self.next(&mut signals) => warn!("{name} again: stopping at once"),
        }
        ShutdownSignal::FastShutdown
    }
}

/// SIGTERM and SIGINT. A handler that could not be installed never fires.
struct StopSignals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
    /// Ends nothing; its default is to kill.
    hangup: Option<Signal>,
}

impl StopSignals {
    fn install() -> Self {
        let install = |kind: SignalKind, name: &str| {
            signal(kind).inspect_err(|cause| error!("failed to install the handler of {name}: {cause}")).ok()
        };
        Self {
            terminate: install(SignalKind::terminate(), "SIGTERM"),
            interrupt: install(SignalKind::interrupt(), "SIGINT"),
            hangup: install(SignalKind::hangup(), "SIGHUP"),
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    let received = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if received.is_none() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test]
    async fn drained_waits_for_the_last_connection() {
        let drain = Arc::new(Drain::default());
        assert!(drain.drained(soon()).await, "nothing is open");

        let (first, second) = (drain.connect(), drain.connect());
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.drained(soon()).await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "one is still open");
        drop(second);
        assert!(waiting.await.unwrap());
        assert_eq!(drain.connections(), 0);
    }

    #[tokio::test]
    async fn drained_gives_up_at_the_deadline() {
        let drain = Drain::default();
        let _open = drain.connect();
        assert!(!drain.drained(Instant::now() + Duration::from_millis(5)).await);
    }

    #[tokio::test]
    async fn a_request_made_before_anyone_listens_is_kept() {
        let drain = Arc::new(Drain::default());
        drain.request();
        let signal = DrainSignal::new(drain.clone()).recv().await;
        assert!(matches!(signal, ShutdownSignal::FastShutdown));
        assert!(drain.is_draining() && *drain.listening_over_watch().borrow());
    }
}
