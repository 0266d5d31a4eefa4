//! Where the registrar posts what changed, and watchers are told of it.
//!
//! Posting costs the registrar a few map entries and one notification, however many watch: a task of its own
//! ([`NoticeBoard::run`]) wakes those whom a change concerns. A watcher of one service is not woken by others. Nobody is sent
//! anything from here: watchers read, from the table and from the log, so one that does not read costs nothing and catches up
//! with the latest state.
//!
//! A change after a quiet time is told at once. Waking many is work for them all, so after it there is a rest in proportion,
//! and what is posted meanwhile is told together: however fast things change, watchers cannot take the processor away from
//! the registrar.

use crate::telemetry::metrics::{Metrics, WatcherGauge};
use crate::upstream::Table;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use vertice_core::changelog::{ChangeLog, Since};
use vertice_core::name::ServiceName;

/// So many changes are looked up under one lock.
const PORTION: usize = 256;
/// The rest after waking somebody, for each who was woken: twice what it takes a watcher to write one event.
const REST: Duration = Duration::from_micros(50);
/// No rest is longer, however many watch.
const REST_MAX: Duration = Duration::from_secs(1);

/// How somebody watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Waits for one answer.
    LongPoll,
    /// Follows.
    Stream,
}

impl Kind {
    /// The word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LongPoll => "long_poll",
            Self::Stream => "stream",
        }
    }
}

/// What changed, and who wants to know.
pub struct NoticeBoard {
    /// The first index of this process: what is lower was issued by another one.
    first: u64,
    table: Arc<Table>,
    log: Mutex<ChangeLog>,
    posted: Notify,
    anything: watch::Sender<()>,
    /// An entry lives as long as somebody watches the service.
    interests: Mutex<HashMap<ServiceName, Interest>>,
    watchers: AtomicUsize,
    watchers_max: AtomicUsize,
    metrics: Arc<Metrics>,
}

struct Interest {
    news: Arc<watch::Sender<()>>,
    watchers: usize,
}

impl NoticeBoard {
    /// A board for changes of `table` after its present generation. It remembers the last change of `history` services, and
    /// lets `watchers_max` watch at once.
    #[must_use]
    pub fn new(table: Arc<Table>, history: usize, watchers_max: usize, metrics: Arc<Metrics>) -> Self {
        let first = table.load().generation();
        Self {
            first,
            table,
            log: Mutex::new(ChangeLog::new(first, history)),
            posted: Notify::new(),
            anything: watch::Sender::new(()),
            interests: Mutex::default(),
            watchers: AtomicUsize::new(0),
            watchers_max: AtomicUsize::new(watchers_max),
            metrics,
        }
    }

    /// Lets so many watch at once from now on. Who watches already goes on.
    pub fn allow(&self, watchers_max: usize) {
        self.watchers_max.store(watchers_max, Ordering::Relaxed);
    }

    /// The first index of this process.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// Whether this process issued the index.
    #[must_use]
    pub fn is_ours(&self, index: u64) -> bool {
        (self.first..=self.table.load().generation()).contains(&index)
    }

    /// Posts all changes up to the generation `head`. The table must show them already.
    pub fn post(&self, head: u64, changes: impl IntoIterator<Item = (u64, ServiceName)>) {
        self.log.lock().note_all(head, changes);
        self.posted.notify_one();
    }

    /// What changed up to this generation has been posted. The table may be further.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.log.lock().head()
    }

    /// What changed after `index`, the `count_max` oldest changes of it. An index that is not ours is unknown.
    #[must_use]
    pub fn since(&self, index: u64, count_max: usize) -> Since {
        if !self.is_ours(index) {
            return Since::Unknown;
        }
        self.log.lock().since(index, count_max)
    }

    /// The generation at which the service last changed, if that is remembered.
    #[must_use]
    pub fn changed_at(&self, service: &ServiceName) -> Option<u64> {
        self.log.lock().changed_at(service.as_str())
    }

    /// Whether it is certain that the service has not changed after `index`.
    #[must_use]
    pub fn is_unchanged_since(&self, service: &ServiceName, index: u64) -> bool {
        self.is_ours(index) && self.log.lock().is_unchanged_since(service.as_str(), index)
    }

    /// Takes a place among the watchers of a service, or of everything; `None` when all are taken.
    #[must_use]
    pub fn watch(self: &Arc<Self>, service: Option<ServiceName>, kind: Kind) -> Option<Watcher> {
        if self.watchers.fetch_add(1, Ordering::Relaxed) >= self.watchers_max.load(Ordering::Relaxed) {
            self.watchers.fetch_sub(1, Ordering::Relaxed);
            self.metrics.limit_hit("watchers");
            return None;
        }
        let news = match &service {
            None => self.anything.subscribe(),
            Some(service) => {
                let mut interests = self.interests.lock();
                let new = || Interest { news: Arc::new(watch::Sender::new(())), watchers: 0 };
                let interest = interests.entry(service.clone()).or_insert_with(new);
                interest.watchers += 1;
                interest.news.subscribe()
            }
        };
        let gauge = self.metrics.watcher_starts(kind.as_str());
        Some(Watcher { board: self.clone(), service, news, _gauge: gauge })
    }

    /// Wakes watchers, for ever.
    pub async fn run(&self) {
        let mut cursor = self.first;
        loop {
            self.posted.notified().await;
            let mut woken = 0;
            while let Some(reached) = self.tell(cursor, &mut woken) {
                cursor = reached;
            }
            woken += wake(&self.anything);
            if woken > 0 {
                let woken = u32::try_from(woken).unwrap_or(u32::MAX);
                tokio::time::sleep(REST.saturating_mul(woken).min(REST_MAX)).await;
            }
        }
    }

    /// Wakes those who watch single services that changed after `cursor`, and adds how many; tells how far it came, `None`
    /// when that was all.
    fn tell(&self, cursor: u64, woken: &mut usize) -> Option<u64> {
        let (since, head) = {
            let log = self.log.lock();
            (log.since(cursor, PORTION), log.head())
        };
        let changes = match since {
            Since::Nothing => return None,
            Since::Changes(changes) => changes,
            Since::Unknown => {
                // More has changed than is remembered: anybody may be concerned.
                let everybody: Vec<_> = self.interests.lock().values().map(|interest| interest.news.clone()).collect();
                *woken += everybody.iter().map(|news| wake(news)).sum::<usize>();
                return Some(head);
            }
        };
        let interests = self.interests.lock();
        let concerned = changes.iter().filter_map(|(_, service)| interests.get(service));
        let concerned: Vec<_> = concerned.map(|interest| interest.news.clone()).collect();
        drop(interests);
        *woken += concerned.iter().map(|news| wake(news)).sum::<usize>();
        changes.last().map(|(generation, _)| *generation)
    }

    fn leave(&self, service: &ServiceName) {
        let mut interests = self.interests.lock();
        if let Some(interest) = interests.get_mut(service) {
            interest.watchers -= 1;
            if interest.watchers == 0 {
                interests.remove(service);
            }
        }
    }
}

/// Wakes all who listen; tells how many.
fn wake(news: &watch::Sender<()>) -> usize {
    news.send_replace(());
    news.receiver_count()
}

impl std::fmt::Debug for NoticeBoard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NoticeBoard").field("first", &self.first).field("watchers", &self.watchers).finish_non_exhaustive()
    }
}

/// A place among the watchers; given up on drop.
///
/// No change is missed by whoever calls [`Watcher::look`] first, looks at the state next and then waits for
/// [`Watcher::news`].
#[derive(Debug)]
pub struct Watcher {
    board: Arc<NoticeBoard>,
    service: Option<ServiceName>,
    news: watch::Receiver<()>,
    _gauge: WatcherGauge,
}

impl Watcher {
    /// What changed before this counts as seen.
    pub fn look(&mut self) {
        self.news.mark_unchanged();
    }

    /// Completes when something of interest has changed since the last look.
    pub async fn news(&mut self) {
        if self.news.changed().await.is_err() {
            // Without its sender nothing can be told any more; the board, which this watcher keeps alive, has it.
            std::future::pending().await
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(service) = &self.service {
            self.board.leave(service);
        }
        self.board.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vertice_core::table::Snapshot;

    const FIRST: u64 = 1000;

    fn name(text: &str) -> ServiceName {
        ServiceName::parse(text).unwrap()
    }

    struct Rig {
        board: Arc<NoticeBoard>,
        table: Arc<Table>,
        cursor: u64,
    }

    impl Rig {
        fn new(history: usize, watchers_max: usize) -> Self {
            let table = Arc::new(Table::from_pointee(Snapshot::empty(1).with(FIRST, Vec::new())));
            let board = NoticeBoard::new(table.clone(), history, watchers_max, Arc::new(Metrics::new().unwrap()));
            Self { board: Arc::new(board), table, cursor: FIRST }
        }

        fn post(&mut self, generation: u64, service: &str) {
            self.publish(generation, service);
            while let Some(reached) = self.board.tell(self.cursor, &mut 0) {
                self.cursor = reached;
            }
            self.board.anything.send_replace(());
        }

        fn publish(&self, generation: u64, service: &str) {
            let next = self.table.load().with(generation, Vec::new());
            self.table.store(Arc::new(next));
            self.board.post(generation, [(generation, name(service))]);
        }
    }

    fn has_news(watcher: &Watcher) -> bool {
        watcher.news.has_changed().unwrap()
    }

    #[test]
    fn only_those_are_woken_whom_a_change_concerns() {
        let mut rig = Rig::new(10, 10);
        let mut abc = rig.board.watch(Some(name("abc")), Kind::LongPoll).unwrap();
        let xyz = rig.board.watch(Some(name("xyz")), Kind::LongPoll).unwrap();
        let all = rig.board.watch(None, Kind::Stream).unwrap();
        rig.post(FIRST + 1, "abc");
        assert_eq!((has_news(&abc), has_news(&xyz), has_news(&all)), (true, false, true));
        abc.look();
        assert!(!has_news(&abc));
        rig.post(FIRST + 2, "abc");
        assert!(has_news(&abc) && !has_news(&xyz));
    }

    #[test]
    fn more_changes_than_are_remembered_wake_everybody() {
        let mut rig = Rig::new(1, 10);
        let abc = rig.board.watch(Some(name("abc")), Kind::LongPoll).unwrap();
        rig.board.post(FIRST + 1, [(FIRST + 1, name("abc"))]);
        rig.post(FIRST + 2, "xyz");
        assert!(has_news(&abc));
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_wakes_many_only_now_and_then_and_a_single_change_at_once() {
        let rig = Rig::new(10, 1000);
        let mut all: Vec<_> = (0..999).map(|_| rig.board.watch(None, Kind::Stream).unwrap()).collect();
        let mut watcher = rig.board.watch(Some(name("abc")), Kind::Stream).unwrap();
        let telling = tokio::spawn({
            let board = rig.board.clone();
            async move { board.run().await }
        });
        let mut wakes = 0;
        for step in 1..=1000 {
            rig.publish(FIRST + step, "abc");
            tokio::time::sleep(Duration::from_millis(1)).await;
            wakes += usize::from(has_news(&watcher));
            watcher.look();
            assert!(step > 1 || wakes == 1, "at once");
        }
        assert!((10..=25).contains(&wakes), "{wakes} in a second");
        tokio::time::sleep(REST_MAX).await;
        assert!(has_news(&watcher), "and the last change is told, too");
        all.iter_mut().for_each(Watcher::look);
        rig.publish(FIRST + 1001, "xyz");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(all.iter().all(has_news));
        telling.abort();
    }

    #[test]
    fn places_are_limited_and_given_back() {
        let rig = Rig::new(10, 2);
        let first = rig.board.watch(Some(name("abc")), Kind::LongPoll).unwrap();
        let second = rig.board.watch(Some(name("abc")), Kind::Stream).unwrap();
        assert!(rig.board.watch(None, Kind::LongPoll).is_none());
        assert_eq!(rig.board.interests.lock().len(), 1);
        drop(first);
        assert_eq!(rig.board.interests.lock().len(), 1, "somebody watches it still");
        drop(second);
        assert!(rig.board.interests.lock().is_empty());
        assert!(rig.board.watch(None, Kind::LongPoll).is_some());
    }

    #[test]
    fn what_another_process_issued_is_unknown() {
        let mut rig = Rig::new(10, 10);
        rig.post(FIRST + 5, "abc");
        for (index, is_ours) in [(0, false), (FIRST - 1, false), (FIRST, true), (FIRST + 5, true), (FIRST + 6, false)] {
            assert_eq!(rig.board.is_ours(index), is_ours, "{index}");
            assert_eq!(rig.board.since(index, 9) == Since::Unknown, !is_ours, "{index}");
        }
        assert!(rig.board.is_unchanged_since(&name("xyz"), FIRST));
        assert!(!rig.board.is_unchanged_since(&name("xyz"), FIRST + 6) && !rig.board.is_unchanged_since(&name("abc"), FIRST));
    }
}
