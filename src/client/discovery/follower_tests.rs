use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

fn info(service: &str, endpoint: &str, index: u64) -> ServiceInfo {
    ServiceInfo {
        service_name: service.into(),
        endpoint: endpoint.into(),
        health_endpoint: "/health".into(),
        metadata: BTreeMap::new(),
        registered_at: 0.0,
        last_heartbeat: 0.0,
        ttl_remaining: 60,
        instances: Vec::new(),
        index,
    }
}

fn found(service: &str, endpoint: &str, index: u64) -> Event {
    Event::LookedUp(name(service), Some(Box::new(info(service, endpoint, index))))
}

fn frame(kind: &str, id: u64, data: impl Into<Vec<u8>>) -> Event {
    Event::Read(Frame::Event { kind: kind.into(), id: Some(id.to_string()), data: data.into() })
}

fn change(service: &str, endpoint: &str, index: u64) -> Event {
    frame("change", index, serde_json::to_vec(&info(service, endpoint, index)).unwrap())
}

fn removal(service: &str, index: u64) -> Event {
    frame("change", index, format!(r#"{{"service_name":"{service}","deleted":true}}"#))
}

fn follower() -> Follower {
    Follower::new(Pace::default(), 7)
}

/// A follower that watches since second 0 and knows `abc` at `http://a`.
fn watching() -> Follower {
    let mut it = follower();
    it.ask(&name("abc"), Duration::ZERO);
    it.handle(Duration::ZERO, Event::Tick);
    it.handle(Duration::ZERO, found("abc", "http://a", 5));
    assert_eq!(it.handle(Duration::ZERO, Event::Opened), Action::Read);
    it
}

fn endpoint(it: &mut Follower, service: &str, now: Duration) -> Result<(String, Duration), Answer> {
    match it.look(&name(service), now).0 {
        Answer::Present(service) => Ok((service.instances()[0].endpoint.clone(), service.age())),
        other => Err(other),
    }
}

#[test]
fn nothing_is_done_before_somebody_asks() {
    assert_eq!(follower().handle(Duration::ZERO, Event::Tick), Action::Sleep(None));
}

#[test]
fn a_first_question_is_looked_up_and_watched_from_there() {
    let mut it = follower();
    assert!(matches!(it.ask(&name("abc"), Duration::ZERO), (Answer::Awaited, true)));
    assert!(matches!(it.ask(&name("abc"), Duration::ZERO), (Answer::Awaited, false)), "once is enough");
    assert_eq!(it.handle(SECOND, Event::Tick), Action::Lookup(name("abc")));
    assert_eq!(it.handle(SECOND, found("abc", "http://a", 5)), Action::Open(Some(5)));
    assert_eq!(it.handle(SECOND, Event::Opened), Action::Read, "the lookup and the watch leave no gap");
    assert_eq!(it.handle(SECOND, change("abc", "http://b", 6)), Action::Read);
    assert_eq!(endpoint(&mut it, "abc", SECOND * 3).unwrap(), ("http://b".to_owned(), SECOND * 2));
    assert_eq!(it.handle(SECOND * 3, Event::Read(Frame::KeepAlive)), Action::Read);
    assert_eq!(endpoint(&mut it, "abc", SECOND * 3).unwrap().1, Duration::ZERO, "a sign of life proves that nothing happened");
    assert_eq!(it.state(), State::Watching);
}

#[test]
fn without_an_index_to_go_on_from_it_looks_again_once_the_watch_is_open() {
    let mut it = follower();
    it.ask(&name("abc"), Duration::ZERO);
    it.handle(SECOND, Event::Tick);
    assert_eq!(it.handle(SECOND, Event::LookedUp(name("abc"), None)), Action::Open(None));
    assert!(matches!(it.look(&name("abc"), SECOND).0, Answer::Absent));
    assert_eq!(it.handle(SECOND, Event::Opened), Action::Lookup(name("abc")));
    assert_eq!(it.handle(SECOND, found("abc", "http://a", 9)), Action::Read);
    assert_eq!(endpoint(&mut it, "abc", SECOND).unwrap().0, "http://a");
}

#[test]
fn a_removal_and_a_return_are_heard_of() {
    let mut it = watching();
    let before = it.look(&name("abc"), SECOND).1;
    it.handle(SECOND, removal("abc", 6));
    let (answer, revision) = it.look(&name("abc"), SECOND);
    assert!(matches!(answer, Answer::Absent) && revision > before);
    it.handle(SECOND, removal("abc", 7));
    assert_eq!(it.look(&name("abc"), SECOND).1, revision, "gone is gone");
    it.handle(SECOND, change("abc", "http://c", 8));
    assert_eq!(endpoint(&mut it, "abc", SECOND).unwrap().0, "http://c");
}

#[test]
fn a_heartbeat_is_no_change() {
    let mut it = watching();
    it.take_news();
    let before = it.look(&name("abc"), SECOND).1;
    let info = ServiceInfo { last_heartbeat: 99.0, ttl_remaining: 3, ..info("abc", "http://a", 6) };
    it.handle(SECOND, frame("change", 6, serde_json::to_vec(&info).unwrap()));
    assert_eq!(it.look(&name("abc"), SECOND).1, before);
    assert!(!it.take_news());
}

#[test]
fn nobody_asked_nobody_keeps() {
    let mut it = watching();
    it.handle(SECOND, change("other", "http://x", 6));
    assert!(matches!(it.look(&name("other"), SECOND).0, Answer::Unasked));
    assert!(!it.cache.has(&name("other")));
}

#[test]
fn a_question_interrupts_the_watch_which_goes_on_where_it_was() {
    let mut it = watching();
    it.handle(SECOND, change("abc", "http://b", 8));
    assert!(matches!(it.ask(&name("new"), SECOND), (Answer::Awaited, true)));
    it.interrupt();
    assert_eq!(it.handle(SECOND, Event::Ended("shut down".into())), Action::Lookup(name("new")));
    assert_eq!(it.handle(SECOND, found("new", "http://n", 9)), Action::Open(Some(8)));
    assert_eq!(it.handle(SECOND, Event::Opened), Action::Read);
    assert_eq!(it.failures, 0);
}

#[test]
fn a_reset_looks_everything_up_again() {
    let mut it = watching();
    assert_eq!(it.handle(SECOND * 60, frame("reset", 100, "{}")), Action::Lookup(name("abc")));
    assert_eq!(endpoint(&mut it, "abc", SECOND * 60).unwrap(), ("http://a".to_owned(), SECOND * 60), "kept, and no younger");
    assert_eq!(it.handle(SECOND * 61, Event::LookedUp(name("abc"), None)), Action::Read);
    assert!(matches!(it.look(&name("abc"), SECOND * 61).0, Answer::Absent), "it was not there any more");
    assert_eq!(it.position, Some(100));
}

#[test]
fn a_registry_that_resets_all_the_time_is_left_alone_for_a_while() {
    let mut it = watching();
    it.handle(SECOND * 60, frame("reset", 100, "{}"));
    assert!(matches!(it.handle(SECOND * 61, frame("reset", 101, "{}")), Action::Sleep(Some(_))));
}

#[test]
fn an_unreadable_change_is_looked_up() {
    for data in ["", "[]", "{}", r#"{"service_name":"ABC"}"#, r#"{"service_name":"abc","endpoint":7}"#] {
        let mut it = watching();
        assert_eq!(it.handle(SECOND, frame("change", 6, data)), Action::Lookup(name("abc")), "{data}");
    }
}

#[test]
fn stale_beats_nothing() {
    let mut it = watching();
    it.handle(Duration::ZERO, Event::Read(Frame::KeepAlive));
    let mut now = SECOND * 30;
    let mut action = it.handle(now, Event::Ended("gone".into()));
    let mut waits = Vec::new();
    while now < SECOND * 100_000 {
        let Action::Sleep(Some(until)) = action else { panic!("{action:?}") };
        waits.push(until - now);
        now = until;
        assert_eq!(it.handle(now, Event::Tick), Action::Open(Some(5)));
        action = it.handle(now, Event::OpenFailed("refused".into()));
    }
    assert!(waits[0] <= SECOND && waits[0] >= SECOND / 2, "{waits:?}");
    assert!(waits.iter().all(|&wait| wait <= SECOND * 30) && waits[8..].iter().all(|&wait| wait >= SECOND * 15), "{waits:?}");
    assert_eq!(it.state(), State::Away("refused".into()));
    let Answer::Present(service) = it.ask(&name("abc"), now).0 else { panic!("forgotten") };
    assert!(service.is_stale() && service.age() == now, "{:?}", service.age());

    it.handle(now + SECOND * 60, Event::Tick);
    it.handle(now + SECOND * 60, Event::Opened);
    it.handle(now + SECOND * 60, frame("message", 5, ""));
    let Answer::Present(service) = it.ask(&name("abc"), now + SECOND * 60).0 else { panic!("forgotten") };
    assert!(!service.is_stale(), "the watch has gone on without a gap");
}

#[test]
fn while_the_registry_is_away_a_question_is_one_try_a_second() {
    let mut it = follower();
    it.ask(&name("abc"), Duration::ZERO);
    it.handle(Duration::ZERO, Event::Tick);
    let Action::Sleep(Some(_)) = it.handle(Duration::ZERO, Event::Unreachable("refused".into())) else { panic!() };
    let failed = |answer: (Answer, bool)| matches!(answer, (Answer::Failed(cause), false) if &*cause == "refused");
    assert!(failed(it.ask(&name("abc"), SECOND / 4)) && failed(it.ask(&name("other"), SECOND / 4)));
    it.failures = 10;
    it.handle(SECOND, Event::OpenFailed("refused".into()));
    assert!(matches!(it.ask(&name("abc"), SECOND * 3), (Answer::Awaited, true)));
    assert_eq!(it.handle(SECOND * 3, Event::Tick), Action::Lookup(name("abc")));
    assert!(matches!(it.handle(SECOND * 3, Event::Unreachable("refused".into())), Action::Sleep(Some(_))));
    assert!(failed(it.ask(&name("abc"), SECOND * 3)));
    // What was asked for meanwhile is learnt as soon as somebody is there.
    let Action::Open(None) = it.handle(SECOND * 90, Event::Tick) else { panic!() };
    assert_eq!(it.handle(SECOND * 90, Event::Opened), Action::Lookup(name("abc")));
    assert_eq!(it.handle(SECOND * 90, found("abc", "http://a", 4)), Action::Lookup(name("other")));
}

#[test]
fn a_registry_without_watches_is_polled() {
    let mut it = follower();
    it.ask(&name("abc"), Duration::ZERO);
    it.handle(Duration::ZERO, Event::Tick);
    it.handle(Duration::ZERO, found("abc", "http://a", 0));
    assert_eq!(it.handle(Duration::ZERO, Event::NoWatch { overloaded: false }), Action::Lookup(name("abc")));
    let action = it.handle(Duration::ZERO, found("abc", "http://a", 0));
    assert_eq!(action, Action::Sleep(Some(SECOND * 10)));
    assert_eq!(it.state(), State::Polling);
    assert_eq!(it.handle(SECOND * 10, Event::Tick), Action::Lookup(name("abc")));
    assert_eq!(it.handle(SECOND * 10, found("abc", "http://b", 0)), Action::Sleep(Some(SECOND * 20)));
    assert_eq!(endpoint(&mut it, "abc", SECOND * 12).unwrap(), ("http://b".to_owned(), SECOND * 2));
    assert_eq!(it.handle(SECOND * 300, Event::Tick), Action::Open(None), "it may have been replaced by one that has them");
}

#[test]
fn a_watch_through_which_nothing_comes_is_none() {
    let mut it = watching();
    assert_eq!(it.handle(SECOND * 40, Event::Ended("timed out".into())), Action::Lookup(name("abc")));
    assert_eq!(it.state(), State::Polling);

    let mut it = watching();
    it.handle(SECOND, Event::Read(Frame::KeepAlive));
    assert!(matches!(it.handle(SECOND * 41, Event::Ended("timed out".into())), Action::Sleep(Some(_))));
    assert_eq!(it.state(), State::Away("timed out".into()));
}

#[test]
fn one_refused_lookup_concerns_one_service() {
    let mut it = watching();
    it.ask(&name("bad"), SECOND);
    assert_eq!(it.handle(SECOND, Event::Read(Frame::KeepAlive)), Action::Lookup(name("bad")));
    assert_eq!(it.handle(SECOND, Event::LookupRefused(name("bad"), "500".into())), Action::Read);
    assert!(matches!(it.look(&name("bad"), SECOND).0, Answer::Failed(_)));
    assert_eq!(it.handle(SECOND * 6, Event::Read(Frame::KeepAlive)), Action::Lookup(name("bad")));
}

#[test]
fn what_is_watched_is_looked_up_now_and_then_all_the_same() {
    let mut it = watching();
    assert_eq!(it.handle(SECOND * 299, Event::Read(Frame::KeepAlive)), Action::Read);
    assert_eq!(it.handle(SECOND * 301, Event::Read(Frame::KeepAlive)), Action::Lookup(name("abc")));
}

#[test]
fn the_least_wanted_is_forgotten_first() {
    let mut it = Follower::new(Pace { services_max: 2, ..Pace::default() }, 7);
    for (service, index) in [("abc", 1), ("def", 2)] {
        it.ask(&name(service), Duration::ZERO);
        it.handle(Duration::ZERO, Event::Tick);
        it.handle(Duration::ZERO, found(service, "http://a", index));
    }
    it.ask(&name("abc"), SECOND);
    it.ask(&name("ghi"), SECOND);
    assert!(matches!(it.look(&name("def"), SECOND).0, Answer::Unasked));
    assert!(endpoint(&mut it, "abc", SECOND).is_ok());
    it.ask(&name("jkl"), SECOND);
    assert!(matches!(it.ask(&name("mno"), SECOND).0, Answer::Failed(_)), "who waits is not forgotten");
}

/// A registry as the contract describes it, reduced to versions of services.
#[derive(Default)]
struct Registry {
    base: u64,
    changes: Vec<(String, Option<u64>)>,
    services: BTreeMap<String, u64>,
}

impl Registry {
    fn index(&self) -> u64 {
        self.base + self.changes.len() as u64
    }

    fn set(&mut self, service: &str, version: Option<u64>) {
        match version {
            Some(version) => drop(self.services.insert(service.into(), version)),
            None => drop(self.services.remove(service)),
        }
        self.changes.push((service.into(), version));
    }

    /// The frames after `from`, as indices, starting with a reset where that is not ours.
    fn open(&self, from: Option<u64>) -> (Vec<Event>, u64) {
        match from {
            Some(from) if from >= self.base && from <= self.index() => (Vec::new(), from),
            Some(_) => {
                let mut frames = vec![frame("reset", self.index(), "{}")];
                frames.extend(self.services.iter().map(|(s, v)| change(s, &format!("http://v{v}"), self.index())));
                (frames, self.index())
            }
            None => (Vec::new(), self.index()),
        }
    }

    fn frames_after(&self, sent: u64) -> Vec<Event> {
        let first = usize::try_from(sent - self.base).unwrap();
        let event = |(n, (service, version)): (usize, &(String, Option<u64>))| {
            let index = self.base + n as u64 + 1;
            version.map_or_else(|| removal(service, index), |version| change(service, &format!("http://v{version}"), index))
        };
        self.changes.iter().enumerate().skip(first).map(event).collect()
    }
}

#[derive(Clone, Debug)]
enum Happens {
    Set(usize, Option<u64>),
    Ask(usize),
    /// Another process takes over with the same knowledge.
    Restart,
    /// The connection breaks.
    Break,
    /// The next so many calls fail.
    Away(u8),
    /// The follower does so many steps.
    Steps(u8),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => (0usize..4, proptest::option::of(0u64..100)).prop_map(|(s, v)| Happens::Set(s, v)),
        2 => (0usize..4).prop_map(Happens::Ask),
        1 => Just(Happens::Restart),
        1 => Just(Happens::Break),
        1 => (1u8..4).prop_map(Happens::Away),
        6 => (1u8..6).prop_map(Happens::Steps),
    ]
}

const NAMES: [&str; 4] = ["abc", "def", "ghi", "jkl"];

/// The follower with a registry at the other end of the wire.
struct World {
    it: Follower,
    registry: Registry,
    now: Duration,
    event: Event,
    /// Frames under way, and the index up to which the open watch has sent.
    stream: Option<(std::collections::VecDeque<Event>, u64)>,
    away: u8,
}

impl World {
    fn step(&mut self) {
        self.now += Duration::from_millis(50);
        let away = self.away > 0;
        let action = self.it.handle(self.now, std::mem::replace(&mut self.event, Event::Tick));
        self.event = match action {
            Action::Lookup(_) | Action::Open(_) if away => {
                self.away -= 1;
                if matches!(action, Action::Open(_)) {
                    Event::OpenFailed("away".into())
                } else {
                    Event::Unreachable("away".into())
                }
            }
            Action::Lookup(name) => {
                let version = self.registry.services.get(name.as_str());
                let found = version.map(|v| Box::new(info(name.as_str(), &format!("http://v{v}"), self.registry.index())));
                Event::LookedUp(name, found)
            }
            Action::Open(from) => {
                let (frames, sent) = self.registry.open(from);
                self.stream = Some((frames.into(), sent));
                Event::Opened
            }
            Action::Read => self.read(),
            Action::Sleep(until) => {
                self.now = self.now.max(until.unwrap_or(self.now));
                Event::Tick
            }
        };
    }

    fn read(&mut self) -> Event {
        let Some((frames, sent)) = &mut self.stream else { return Event::Ended("broken".into()) };
        frames.extend(self.registry.frames_after(*sent));
        *sent = self.registry.index();
        frames.pop_front().unwrap_or(Event::Read(Frame::KeepAlive))
    }

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::Set(service, version) => self.registry.set(NAMES[service], version),
            Happens::Ask(service) => drop(self.it.ask(&name(NAMES[service]), self.now)),
            Happens::Restart => {
                let base = self.registry.index() + 1_000_000;
                self.registry = Registry { base, changes: Vec::new(), services: std::mem::take(&mut self.registry.services) };
                self.stream = None;
            }
            Happens::Break => self.stream = None,
            Happens::Away(calls) => self.away = calls,
            Happens::Steps(count) => (0..count).for_each(|_| self.step()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn in_the_end_the_cache_says_what_the_registry_says(story in proptest::collection::vec(happens(), 0..60), seed: u64) {
        let mut world = World {
            it: Follower::new(Pace::default(), seed),
            registry: Registry { base: 1000, ..Registry::default() },
            now: Duration::ZERO,
            event: Event::Tick,
            stream: None,
            away: 0,
        };
        story.into_iter().for_each(|what| world.happen(what));
        world.away = 0;
        (0..200).for_each(|_| world.step());
        for service in NAMES {
            let known = world.it.look(&name(service), world.now).0;
            let truth = world.registry.services.get(service).map(|version| format!("http://v{version}"));
            match known {
                Answer::Present(known) => prop_assert_eq!(Some(known.instances()[0].endpoint.clone()), truth),
                Answer::Absent => prop_assert_eq!(None, truth),
                Answer::Unasked => {}
                other => prop_assert!(false, "{}: {:?}", service, other),
            }
        }
    }
}
