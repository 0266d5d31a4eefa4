//! What the callers and the background thread both see.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use vertice_core::name::ServiceName;

use super::cache::Answer;
use super::follower::{Action, Event, Follower, Pace, State};
use super::worker;
use crate::clock::{self, Stopwatch};
use crate::registry::RegistryClient;
use crate::transport;

pub(crate) struct Shared {
    pub(crate) client: RegistryClient,
    /// What one registry gets for one answer.
    timeout: Duration,
    clock: Stopwatch,
    board: Mutex<Board>,
    /// For callers: something has happened.
    changed: Condvar,
    /// For the thread: somebody asks something.
    asked: Condvar,
}

struct Board {
    follower: Follower,
    running: bool,
    stop: bool,
    /// Somebody asked something after the thread got its last [`Action`].
    poked: bool,
    /// Ends the watch that is open or about to be opened.
    watch: Option<ureq::Agent>,
    /// The thread waits for a frame, and only the end of the watch would rouse it.
    reading: bool,
    wakers: BTreeMap<u64, Waker>,
    wakers_made: u64,
}

impl Shared {
    pub(crate) fn new(client: RegistryClient, timeout: Duration, pace: Pace) -> Self {
        let board = Board {
            follower: Follower::new(pace, clock::seed()),
            running: false,
            stop: false,
            poked: false,
            watch: None,
            reading: false,
            wakers: BTreeMap::new(),
            wakers_made: 0,
        };
        Self {
            client,
            timeout,
            clock: Stopwatch::start(),
            board: Mutex::new(board),
            changed: Condvar::new(),
            asked: Condvar::new(),
        }
    }

    pub(crate) fn state(&self) -> State {
        self.lock().follower.state()
    }

    /// What is known now, without waiting; who asks first makes the thread look it up.
    pub(crate) fn ask(self: &Arc<Self>, name: &ServiceName) -> Answer {
        self.ask_locked(&mut self.lock(), name)
    }

    /// Waits until a question finds what it is looking for, at most this long. Else the last answer.
    pub(crate) fn wait<T>(
        self: &Arc<Self>,
        at_most: Duration,
        mut find: impl FnMut(&mut Questions<'_>) -> Option<T>,
    ) -> Option<T> {
        let start = self.clock.elapsed();
        let mut board = self.lock();
        loop {
            if let Some(found) = find(&mut Questions { shared: self, board: &mut board }) {
                return Some(found);
            }
            let left = at_most.checked_sub(self.clock.elapsed().saturating_sub(start)).filter(|left| !left.is_zero())?;
            board = self.changed.wait_timeout(board, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The same for a future: `key` names its waker until it is ready or given up.
    pub(crate) fn poll<T>(
        self: &Arc<Self>,
        key: &mut Option<u64>,
        context: &Context<'_>,
        find: impl FnOnce(&mut Questions<'_>) -> Option<T>,
    ) -> Poll<T> {
        let mut board = self.lock();
        let found = find(&mut Questions { shared: self, board: &mut board });
        // A waker that is not needed any more is dropped after the lock: that may drop a task, and its futures with it.
        let _old = match (&found, *key) {
            (Some(_), None) => None,
            (Some(_), Some(known)) => {
                *key = None;
                board.wakers.remove(&known)
            }
            (None, known) => {
                let known = known.unwrap_or(board.wakers_made + 1);
                board.wakers_made = board.wakers_made.max(known);
                *key = Some(known);
                board.wakers.insert(known, context.waker().clone())
            }
        };
        drop(board);
        found.map_or(Poll::Pending, Poll::Ready)
    }

    /// A future was given up.
    pub(crate) fn forget(&self, key: Option<u64>) {
        if let Some(key) = key {
            let waker = self.lock().wakers.remove(&key);
            drop(waker);
        }
    }

    /// Nobody will ask anything any more.
    pub(crate) fn stop(&self) {
        let watch = {
            let mut board = self.lock();
            board.stop = true;
            board.watch.take()
        };
        self.asked.notify_all();
        self.client.interrupt();
        if let Some(watch) = watch {
            watch.shutdown();
        }
    }

    fn ask_locked(self: &Arc<Self>, board: &mut Board, name: &ServiceName) -> Answer {
        let (answer, is_news) = board.follower.ask(name, self.clock.elapsed());
        if !is_news {
            return answer;
        }
        if !board.running {
            let shared = Arc::clone(self);
            let thread = thread::Builder::new().name("discovery".to_owned()).stack_size(STACK);
            if let Err(error) = thread.spawn(move || worker::run(&shared)) {
                board.follower.give_up(&format!("failed to start a thread: {error}"), self.clock.elapsed());
                return board.follower.look(name, self.clock.elapsed()).0;
            }
            board.running = true;
        }
        board.poked = true;
        self.asked.notify_all();
        if std::mem::take(&mut board.reading)
            && let Some(watch) = board.watch.take()
        {
            board.follower.interrupt();
            watch.shutdown();
        }
        answer
    }

    // For the thread.

    /// What the thread has to do after this event; `None`: end.
    pub(crate) fn next(&self, event: Event) -> Option<Task> {
        let mut board = self.lock();
        if board.stop {
            return None;
        }
        let action = board.follower.handle(self.clock.elapsed(), event);
        board.poked = false;
        board.reading = action == Action::Read;
        let task = match action {
            Action::Lookup(name) => Task::Lookup(name),
            Action::Open(index) => {
                let agent = transport::endless(self.timeout, SILENCE_MAX);
                board.watch = Some(agent.clone());
                Task::Open(agent, index)
            }
            Action::Read => Task::Read,
            Action::Sleep(until) => Task::Sleep(until),
        };
        self.spread_news(board);
        Some(task)
    }

    /// Until this time since the start, or until somebody asks something.
    pub(crate) fn sleep(&self, until: Option<Duration>) {
        let left = until.unwrap_or(Duration::MAX).saturating_sub(self.clock.elapsed());
        let board = self.lock();
        let slept = self.asked.wait_timeout_while(board, left.min(LONG), |board| !board.poked && !board.stop);
        drop(slept.unwrap_or_else(PoisonError::into_inner));
    }

    /// The thread ends. Also after a defect: whoever waits must hear of it, and who asks next starts another one.
    pub(crate) fn ended(&self) {
        let mut board = self.lock();
        board.running = false;
        board.follower.give_up("the thread that follows the registry has ended", self.clock.elapsed());
        self.spread_news(board);
    }

    fn spread_news(&self, mut board: MutexGuard<'_, Board>) {
        if !board.follower.take_news() {
            return;
        }
        let wakers = std::mem::take(&mut board.wakers);
        drop(board);
        self.changed.notify_all();
        wakers.into_values().for_each(Waker::wake);
    }

    /// The board stays meaningful whoever panicked while holding it.
    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("client", &self.client).finish_non_exhaustive()
    }
}

/// Asks while nothing can happen in between.
pub(crate) struct Questions<'a> {
    shared: &'a Arc<Shared>,
    board: &'a mut Board,
}

impl Questions<'_> {
    pub(crate) fn ask(&mut self, name: &ServiceName) -> Answer {
        self.shared.ask_locked(self.board, name)
    }

    /// What is known, and the revision of that. Asks nobody.
    pub(crate) fn look(&mut self, name: &ServiceName) -> (Answer, u64) {
        self.board.follower.look(name, self.shared.clock.elapsed())
    }
}

/// What the thread has to do.
pub(crate) enum Task {
    Lookup(ServiceName),
    Open(ureq::Agent, Option<u64>),
    Read,
    Sleep(Option<Duration>),
}

/// The deepest thing on it is reading a JSON answer.
const STACK: usize = 512 * 1024;
/// The registry says something every 15 s; this is two of them lost, and a bit.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// No clock can be asked to wait for more.
const LONG: Duration = Duration::from_secs(24 * 3600);
