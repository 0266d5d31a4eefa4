//! Two replicas that share a store: who lets a lease lapse, while the store is there, away, and back.

use super::*;
use crate::record::{Gone, Record, ReplicaId, StoreNews};

pub(super) const A: ReplicaId = ReplicaId::of(0xA);
pub(super) const B: ReplicaId = ReplicaId::of(0xB);
const STALE_AFTER: Duration = Duration::from_secs(60);

/// A replica that knows the store's time and follows it.
pub(super) fn replica(me: ReplicaId) -> Rig {
    let mut rig = Rig::new();
    rig.registry = Registry::new(ROOMY, TTL).shared(me, STALE_AFTER);
    rig.store(StoreNews::Time { micros: 1_000_000_000 });
    rig.store(StoreNews::Following);
    let _ = rig.told();
    rig
}

impl Rig {
    pub(super) fn store(&mut self, news: StoreNews) {
        self.apply(Command::Store(news)).unwrap();
    }

    /// Has the other replica hear, now, of everything that this one told the store.
    pub(super) fn tell(&mut self, me: ReplicaId, other: &mut Self) {
        other.now = self.now;
        for effect in self.registry.drain() {
            let command = match effect {
                Effect::Persist(stored) => Command::Merge(Box::new(stored.record(self.now.mono, me))),
                Effect::Forget(gone) => Command::MergeGone(gone),
                Effect::Renewal { stored, .. } => {
                    let Record { facts, left, holder, .. } = stored.record(self.now.mono, me);
                    let (service, id, version_no) = (facts.service.clone(), facts.id.clone(), facts.version_no);
                    Command::Renewed { service, id, version_no, left, holder }
                }
                _ => continue,
            };
            other.apply(command).unwrap();
        }
    }

    pub(super) fn fetched(&mut self, instance: &str, record: Option<Record>, is_holder_alive: bool) {
        let (service, id, record) = (name("svc"), id(instance), record.map(Box::new));
        self.apply(Command::Fetched { service, id, record, is_holder_alive }).unwrap();
    }

    /// What the store would hold of an instance of this replica.
    pub(super) fn record(&self, instance: &str, me: ReplicaId) -> Record {
        let upstream = self.upstream(instance);
        let stored = crate::record::Stored { facts: upstream.facts.clone(), cells: upstream.cells.clone() };
        stored.record(self.now.mono, me)
    }
}

/// A knows `a`, and B has heard of it.
pub(super) fn pair() -> (Rig, Rig) {
    let (mut one, mut other) = (replica(A), replica(B));
    one.register(with_id("a", "http://10.0.0.1")).unwrap();
    one.tell(A, &mut other);
    assert_eq!(other.told(), ["learned a"]);
    (one, other)
}

#[test]
fn a_registration_elsewhere_is_routable_and_not_written_again() {
    let (_, other) = pair();
    assert_eq!(other.usable(), ["a"]);
    assert_eq!(other.upstream("a").cells.lease.holder(), Some(A));
}

#[test]
fn a_lease_held_elsewhere_is_asked_about_a_second_after_its_end_and_stays_meanwhile() {
    let (one, mut other) = pair();
    assert_eq!(other.pass_to(60_900), 0);
    assert_eq!(other.told(), Vec::<String>::new());
    other.pass_to(61_000);
    assert_eq!((other.told(), other.usable()), (vec!["fetch a".to_owned()], vec!["a".to_owned()]));
    other.pass_to(62_900);
    assert_eq!(other.told(), Vec::<String>::new(), "the answer may take a while");
    other.pass_to(63_000);
    assert_eq!(other.told(), ["fetch a"]);

    let record = Record { left: Duration::ZERO, ..one.record("a", A) };
    other.fetched("a", Some(record.clone()), true);
    assert_eq!(other.usable(), ["a"], "its holder lives, and would have said so");
    other.pass_to(70_000);
    let _ = other.told();
    other.fetched("a", Some(record), false);
    assert_eq!((other.told(), other.usable()), (vec!["forget a".to_owned(), "lapsed a".to_owned()], Vec::new()));
}

#[test]
fn a_renewal_elsewhere_counts_and_the_lapse_of_the_old_holder_does_not() {
    let (mut one, mut other) = pair();
    other.now = at(59_500);
    other.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
    // A has not heard of it in time.
    one.pass_to(60_050);
    let effects = one.registry.drain();
    let Some(Effect::Forget(gone)) = effects.first() else { panic!("{effects:?}") };
    assert_eq!(other.told(), ["renewed a at last"]);
    other.now = at(60_060);
    other.apply(Command::MergeGone(gone.clone())).unwrap();
    assert_eq!(other.usable(), ["a"]);
    other.tell(B, &mut one);
    assert_eq!(one.usable(), ["a"], "a new version brings it back");
}

#[test]
fn a_removal_wins_over_what_was_said_before_and_loses_to_what_is_said_after() {
    let (mut one, mut other) = pair();
    let before = one.record("a", A);
    one.deregister(farewell(Some("a"), "10.9.0.1")).unwrap();
    one.tell(A, &mut other);
    assert_eq!(other.listed(), Vec::<String>::new());
    other.apply(Command::Merge(Box::new(before.clone()))).unwrap();
    assert_eq!(other.listed(), Vec::<String>::new());
    assert_eq!(other.told(), ["departed a", "forget a"], "who says so is told");
    let (service, id) = (name("svc"), id("a"));
    let renewed = Command::Renewed { service, id, version_no: before.facts.version_no, left: TTL, holder: ReplicaId::of(7) };
    other.apply(renewed).unwrap();
    assert_eq!(other.told(), Vec::<String>::new());
    other.register(with_id("a", "http://10.0.0.1")).unwrap();
    other.tell(B, &mut one);
    assert_eq!((one.usable(), other.usable()), (vec!["a".to_owned()], vec!["a".to_owned()]));
}

#[test]
fn while_the_store_is_away_nobody_lapses_who_may_be_renewed_elsewhere() {
    let (mut one, mut other) = pair();
    for rig in [&mut one, &mut other] {
        rig.store(StoreNews::Away { others: true });
        rig.pass_to(61_500);
        assert_eq!(rig.told(), ["probe 1 a"]);
        assert_eq!(rig.registry.lease_figures().stale, 1);
        rig.apply(Command::Probed { no: 1, passed: true }).unwrap();
        rig.pass_to(67_000);
        assert_eq!((rig.told(), rig.usable()), (vec!["probe 2 a".to_owned()], vec!["a".to_owned()]));
    }
    other.apply(Command::Probed { no: 2, passed: false }).unwrap();
    other.pass_to(73_000);
    other.apply(Command::Probed { no: 3, passed: false }).unwrap();
    assert_eq!(other.listed(), Vec::<String>::new(), "who fails two probes is gone");
}

#[test]
fn alone_with_the_store_away_a_lease_lapses_on_time() {
    let mut rig = replica(A);
    rig.register(with_id("a", "http://10.0.0.1")).unwrap();
    rig.pass_to(59_000);
    rig.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
    rig.pass_to(60_000);
    rig.store(StoreNews::Away { others: false });
    assert_eq!((rig.pass_to(118_999), rig.pass_to(119_000)), (0, 1));
}

#[test]
fn when_the_store_is_back_the_others_have_time_to_speak_before_anybody_is_judged() {
    let (mut one, mut other) = pair();
    one.store(StoreNews::Away { others: true });
    other.store(StoreNews::Away { others: true });
    other.now = at(50_000);
    other.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
    one.pass_to(80_000);
    let _ = one.told();
    one.store(StoreNews::Following);
    one.pass_to(84_900);
    assert_eq!((one.told(), one.usable()), (Vec::new(), vec!["a".to_owned()]));
    other.now = at(84_900);
    other.tell(B, &mut one);
    one.pass_to(100_000);
    assert_eq!((one.told(), one.usable()), (Vec::new(), vec!["a".to_owned()]), "B renewed it");
    assert_eq!(one.registry.lease_figures().stale, 0);
}

#[test]
fn a_store_that_lost_everything_is_given_it_again_by_whoever_has_it() {
    let (mut one, mut other) = pair();
    one.register(with_id("b", "http://10.0.0.2")).unwrap();
    one.deregister(farewell(Some("b"), "10.9.0.1")).unwrap();
    one.tell(A, &mut other);
    let _ = other.told();
    other.store(StoreNews::Lost);
    other.apply(Command::Compare { service: name("svc"), stored: Vec::new() }).unwrap();
    assert_eq!(other.told(), ["persist a"]);
    other.pass_to(60_500);
    let _ = other.told();
    other.apply(Command::Compare { service: name("svc"), stored: Vec::new() }).unwrap();
    assert_eq!(other.told(), Vec::<String>::new(), "nobody vouches for a lease that is over");
}

#[test]
fn a_deregistration_that_the_store_could_not_hear_of_wins_over_its_stale_record() {
    let (one, mut other) = (pair().0, replica(B));
    let stale = one.record("a", A);
    // A process that was started while the store was away: it has never heard of the instance, nor of the store's time. Its
    // own clock is ten minutes slow.
    other.registry = Registry::new(ROOMY, TTL).shared(B, STALE_AFTER);
    other.now = Now { mono: at(30_000).mono, wall_ms: 100_000 };
    let reply = other.deregister(farewell(Some("a"), "10.9.0.9")).unwrap();
    assert_eq!(reply, Reply::Deregistered(0));
    other.store(StoreNews::Time { micros: 1_031_000_000 });
    let effects = other.registry.drain();
    let Some(Effect::Forget(Gone { version_no, .. })) = effects.last() else { panic!("{effects:?}") };
    assert!(*version_no > stale.facts.version_no, "it came later, whatever its clock says");
    other.store(StoreNews::Following);
    other.apply(Command::Merge(Box::new(stale))).unwrap();
    assert_eq!((other.listed(), other.told()), (Vec::new(), vec!["forget a".to_owned()]));
}

#[test]
fn drains_cross() {
    let (mut one, mut other) = pair();
    let draining = |span| Command::Drain(Draining { service: name("svc"), id: None, span });
    one.apply(draining(Some(Duration::from_secs(20)))).unwrap();
    one.tell(A, &mut other);
    assert_eq!((other.usable(), other.listed().len()), (Vec::new(), 1));
    one.apply(draining(None)).unwrap();
    one.tell(A, &mut other);
    assert_eq!(other.usable(), ["a"]);
    one.apply(draining(Some(Duration::from_secs(20)))).unwrap();
    one.tell(A, &mut other);
    other.pass_to(20_001);
    assert_eq!(other.usable(), ["a"], "it ends by itself");
    one.now = other.now;
    let leaving = Deregistration { drain: Some(Duration::from_secs(5)), ..farewell(Some("a"), "10.9.0.1") };
    one.deregister(leaving).unwrap();
    one.tell(A, &mut other);
    assert_eq!((other.usable(), other.listed().len()), (Vec::new(), 1), "it may finish there, too");
    other.pass_to(26_000);
    assert_eq!(other.listed(), Vec::<String>::new());
}
