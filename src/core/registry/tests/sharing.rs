//! What replicas make of statements that come late, from before a change of servers, or from somebody who had not heard: each
//! of these was a fault that the simulation of several replicas found.

use super::away::{A, B, pair, replica};
use super::*;
use crate::record::{Gone, Record, ReplicaId, StoreNews, Why};
use proptest::prelude::*;

const IDS: [&str; 3] = ["a", "b", "c"];

/// What happened elsewhere, in this order.
#[derive(Clone, Debug)]
enum Step {
    Register { id: usize, place: usize },
    Change { id: usize },
    Remove { id: usize },
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..IDS.len(), 0usize..3).prop_map(|(id, place)| Step::Register { id, place }),
        2 => (0..IDS.len()).prop_map(|id| Step::Change { id }),
        2 => (0..IDS.len()).prop_map(|id| Step::Remove { id }),
    ];
    proptest::collection::vec(step, 1..12)
}

/// What the replicas said about it, and what there is in the end: places and versions by id.
fn said(history: &[Step]) -> (Vec<Command>, BTreeMap<usize, (usize, u64)>) {
    let (mut said, mut there) = (Vec::new(), BTreeMap::<usize, (usize, u64)>::new());
    for (n, step) in (1u64..).zip(history) {
        let now_no = (n * 100_000) << 10;
        match *step {
            Step::Register { id, place } => {
                let displaced = there.extract_if(.., |other, (at, _)| *at == place && *other != id);
                said.extend(displaced.map(|(other, _)| gone(other, now_no)).collect::<Vec<_>>());
                there.insert(id, (place, now_no));
                said.push(put(id, place, now_no));
            }
            Step::Change { id } => {
                let Some((place, version_no)) = there.get_mut(&id) else { continue };
                *version_no += 1 << 10;
                said.push(put(id, *place, *version_no));
            }
            Step::Remove { id } => {
                there.remove(&id);
                said.push(gone(id, now_no));
            }
        }
    }
    (said, there)
}

fn put(instance: usize, place: usize, version_no: u64) -> Command {
    let mut facts = replica(B);
    facts.register(with_id(IDS[instance], &format!("http://10.0.0.{place}"))).unwrap();
    let mut facts = (*facts.upstream(IDS[instance]).facts).clone();
    facts.version_no = version_no;
    Command::Merge(Box::new(Record { facts: Arc::new(facts), left: TTL, holder: B, drain: None }))
}

fn gone(instance: usize, version_no: u64) -> Command {
    let (service, id, kept) = (name("svc"), id(IDS[instance]), TTL * 2);
    Command::MergeGone(Gone { service, id, version_no, why: Why::Removed, by: B, kept, finishing: None })
}

proptest! {
    #[test]
    fn whatever_order_statements_come_in_and_however_often_the_end_is_the_same(
        history in history(),
        order in proptest::collection::vec(any::<proptest::sample::Index>(), 0..24),
    ) {
        let (said, there) = said(&history);
        let mut rig = replica(A);
        if !said.is_empty() {
            for index in order {
                rig.apply(index.get(&said).clone()).unwrap();
            }
        }
        // Whatever came before, in the end everything has come.
        for command in said.iter().rev() {
            rig.apply(command.clone()).unwrap();
        }
        let known: BTreeMap<_, _> =
            rig.registry.facts().map(|facts| (facts.id.to_string(), (facts.endpoint.to_string(), facts.version_no))).collect();
        let right = there.iter().map(|(id, (place, no))| (IDS[*id].to_owned(), (format!("http://10.0.0.{place}"), *no)));
        prop_assert_eq!(known, right.collect::<BTreeMap<_, _>>());
        prop_assert!(rig.told().iter().all(|effect| !effect.starts_with("fetch")));
    }
}

#[test]
fn a_drain_by_someone_who_has_not_heard_of_the_removal_brings_nobody_back() {
    let (mut one, mut other) = pair();
    one.now = at(5_000);
    one.deregister(farewell(Some("a"), "10.9.0.1")).unwrap();
    let effects = one.registry.drain();
    let Some(Effect::Forget(gone)) = effects.into_iter().next() else { panic!("it is removed from the store") };
    other.now = at(9_000);
    let span = Some(Duration::from_secs(20));
    other.apply(Command::Drain(Draining { service: name("svc"), id: None, span })).unwrap();
    other.tell(B, &mut one);
    assert_eq!(one.listed(), Vec::<String>::new());
    other.apply(Command::MergeGone(gone)).unwrap();
    assert_eq!(other.listed(), Vec::<String>::new());
}

#[test]
fn a_status_heard_by_someone_who_has_not_heard_of_the_move_moves_nobody_back() {
    let (mut one, mut other) = pair();
    one.now = at(5_000);
    one.register(with_id("a", "http://10.0.0.2")).unwrap();
    let moved = one.record("a", A);
    other.now = at(9_000);
    other.renew(Renewal { status: Some(Status::Degraded), ..heartbeat(Some("a"), "10.9.0.1") }).unwrap();
    other.tell(B, &mut one);
    assert_eq!(one.listed(), ["a@http://10.0.0.2"]);
    other.apply(Command::Merge(Box::new(moved))).unwrap();
    assert_eq!(other.listed(), ["a@http://10.0.0.2"]);
}

#[test]
fn a_renewal_counts_for_a_version_that_was_not_known_when_it_came() {
    let (mut one, mut other) = pair();
    one.now = at(1_000);
    one.register(with_id("a", "http://10.0.0.2")).unwrap();
    let anew = one.record("a", A);
    other.now = at(30_000);
    other.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
    let _ = other.told();
    // A minute had passed at A when the record set out; nothing has been heard of the renewal there.
    other.apply(Command::Merge(Box::new(Record { left: Duration::from_secs(31), ..anew }))).unwrap();
    assert_eq!(other.told(), ["renewed a", "learned anew a"], "and the others are told of it once more");
    assert_eq!((other.pass_to(89_000), other.usable().len()), (0, 1));
}

#[test]
fn a_removal_by_someone_who_never_knew_the_instance_wins_over_what_was_said_before() {
    let (mut one, mut other) = (replica(A), replica(B));
    one.register(with_id("a", "http://10.0.0.1")).unwrap();
    other.now = at(3_000);
    assert_eq!(other.deregister(farewell(Some("a"), "10.9.0.1")).unwrap(), Reply::Deregistered(0));
    one.tell(A, &mut other);
    assert_eq!(other.listed(), Vec::<String>::new());
    other.tell(B, &mut one);
    assert_eq!(one.listed(), Vec::<String>::new());
}

#[test]
fn a_lease_of_ones_own_that_may_have_been_renewed_elsewhere_meanwhile_is_asked_about() {
    let (mut one, _) = pair();
    one.store(StoreNews::Away { others: true });
    let record = Record { left: Duration::from_secs(40), holder: B, ..one.record("a", A) };
    one.pass_to(59_000);
    one.store(StoreNews::Following);
    one.pass_to(63_900);
    assert_eq!(one.told(), Vec::<String>::new(), "the others are coming back");
    one.pass_to(64_000);
    assert_eq!((one.told(), one.usable().len()), (vec!["fetch a".to_owned()], 1));
    one.fetched("a", Some(record), true);
    assert_eq!((one.pass_to(103_000), one.usable().len()), (0, 1));
    // Whoever renews here from now on lapses on time.
    one.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
    assert_eq!((one.pass_to(162_900), one.pass_to(163_000)), (0, 1));
}

#[test]
fn a_store_that_has_just_lost_its_data_is_not_believed_that_nobody_else_is_there() {
    let (mut one, mut other) = pair();
    other.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
    other.tell(B, &mut one);
    let _ = one.told();
    one.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
    one.now = at(10_000);
    one.store(StoreNews::Away { others: false });
    one.pass_to(61_000);
    assert_eq!((one.usable().len(), one.told().last().cloned()), (1, Some("probe 1 a".to_owned())));
    // It was followed for long, and nobody was heard: then it is believed.
    let mut alone = replica(A);
    alone.register(with_id("a", "http://10.0.0.1")).unwrap();
    alone.pass_to(59_000);
    alone.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
    alone.pass_to(61_000);
    alone.store(StoreNews::Away { others: false });
    assert_eq!(alone.pass_to(119_000), 1);
}

#[test]
fn more_left_than_any_lease_has_is_the_word_of_a_clock_that_was_set_back() {
    let (mut one, mut other) = pair();
    other.now = at(10_000);
    other.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
    let _ = other.told();
    let beyond = Record { left: Duration::from_secs(600), ..one.record("a", A) };
    other.apply(Command::Merge(Box::new(beyond.clone()))).unwrap();
    assert_eq!(other.upstream("a").cells.lease.holder(), None, "the renewal here is still its own");
    // Whoever held it is dead: nobody will say better.
    one.store(StoreNews::Following);
    let mut third = replica(ReplicaId::of(0xC));
    third.apply(Command::Merge(Box::new(Record { left: TTL, ..beyond.clone() }))).unwrap();
    third.pass_to(61_500);
    let _ = third.told();
    third.fetched("a", Some(beyond), false);
    assert_eq!((third.told(), third.listed()), (vec!["forget a".to_owned(), "lapsed a".to_owned()], Vec::new()));
}

#[test]
fn a_lapse_elsewhere_of_what_was_changed_there_is_outweighed_and_of_what_registered_anew_is_not() {
    let lapsed = |version_no| {
        let (service, id, kept) = (name("svc"), id("a"), TTL * 2);
        Command::MergeGone(Gone { service, id, version_no, why: Why::Lapsed, by: A, kept, finishing: None })
    };
    let renewed = || {
        let (mut one, mut other) = pair();
        (one.now, other.now) = (at(30_000), at(30_000));
        other.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
        let _ = other.told();
        (one, other)
    };
    let (mut one, mut other) = renewed();
    one.renew(Renewal { status: Some(Status::Degraded), ..heartbeat(Some("a"), "10.9.0.1") }).unwrap();
    let changed = one.record("a", A).facts.version_no;
    other.apply(lapsed(changed)).unwrap();
    assert_eq!((other.told(), other.usable().len()), (vec!["persist a".to_owned()], 1));
    assert!(other.record("a", B).facts.version_no > changed);

    let (mut one, mut other) = renewed();
    one.register(with_id("a", "http://10.0.0.2")).unwrap();
    let anew = one.record("a", A).facts.version_no;
    other.apply(lapsed(anew)).unwrap();
    assert_eq!(other.listed(), Vec::<String>::new(), "nobody would be found where it was");
}

#[test]
fn whoever_died_while_the_store_was_away_is_asked_about_as_soon_as_it_is_back() {
    let (_, mut other) = pair();
    other.now = at(1_000);
    other.register(Registration { ttl: Some(TTL / 6), ..with_id("b", "http://10.0.0.2") }).unwrap();
    let short = other.record("b", B);
    let mut third = replica(ReplicaId::of(0xC));
    third.now = at(1_000);
    third.apply(Command::Merge(Box::new(short))).unwrap();
    third.store(StoreNews::Away { others: true });
    third.pass_to(20_000);
    let _ = third.told();
    third.store(StoreNews::Following);
    third.pass_to(25_000);
    assert_eq!(third.told(), ["fetch b"], "not when it would have been stale");
}

#[test]
fn a_lease_that_was_renewed_in_an_older_version_elsewhere_is_not_claimed_for_a_newer_one() {
    let (mut one, _) = pair();
    let mut third = replica(ReplicaId::of(0xC));
    third.now = at(20_000);
    third.apply(Command::Merge(Box::new(Record { holder: B, ..one.record("a", A) }))).unwrap();
    one.now = at(1_000);
    one.register(with_id("a", "http://10.0.0.2")).unwrap();
    let anew = Record { left: Duration::from_secs(41), ..one.record("a", A) };
    third.apply(Command::Merge(Box::new(anew.clone()))).unwrap();
    assert_eq!(third.upstream("a").cells.lease.holder(), Some(A), "B has never heard of it");
    // Were it said all the same, B would speak only for itself.
    let mut fresh = replica(B);
    fresh.fetched("a", Some(Record { holder: B, ..anew }), true);
    let effects = fresh.registry.drain();
    assert!(matches!(&effects[..], [Effect::Forget(Gone { why: Why::Lapsed, .. })]), "{effects:?}");
}

#[test]
fn who_was_removed_while_this_process_was_stopped_for_longer_than_a_grave_is_kept_stays_away() {
    let stopped = || {
        let mut rig = replica(A);
        rig.register(with_id("gone", "http://10.0.0.1")).unwrap();
        rig.register(with_id("here", "http://10.0.0.2")).unwrap();
        rig.pass_to(10_000);
        // Nothing is called for three minutes.
        (rig.now, rig.ticked) = (at(190_000), at(190_000).mono);
        rig.renew(heartbeat(Some("here"), "10.9.0.1")).unwrap();
        let _ = rig.told();
        rig
    };
    let nothing = || Command::Compare { service: name("svc"), stored: Vec::new() };
    let mut rig = stopped();
    rig.apply(nothing()).unwrap();
    assert_eq!(rig.told(), ["fetch gone", "persist here"]);
    rig.fetched("gone", None, false);
    assert_eq!((rig.told(), rig.usable()), (vec!["forget gone".to_owned(), "lapsed gone".to_owned()], vec!["here".to_owned()]));

    // A store that was flushed meanwhile says nothing against anybody.
    let mut rig = stopped();
    rig.store(StoreNews::Lost);
    rig.apply(nothing()).unwrap();
    assert_eq!(rig.told(), ["persist gone", "persist here"]);
}

#[test]
fn a_change_by_someone_who_missed_renewals_takes_none_away() {
    let (mut one, mut other) = pair();
    let mut third = replica(ReplicaId::of(0xC));
    third.apply(Command::Merge(Box::new(one.record("a", A)))).unwrap();
    one.now = at(50_000);
    one.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
    one.tell(A, &mut third);
    // B has heard of no renewal, and nothing is left of the lease as it knows it.
    other.now = at(59_999);
    let span = Some(Duration::from_secs(20));
    other.apply(Command::Drain(Draining { service: name("svc"), id: None, span })).unwrap();
    other.tell(B, &mut third);
    third.pass_to(109_000);
    let _ = third.told();
    assert_eq!(third.listed().len(), 1);
    assert_eq!(third.upstream("a").cells.lease.deadline(), at(110_000).mono);
}

#[test]
fn an_answer_from_before_the_store_was_away_judges_nobody() {
    let (one, mut other) = pair();
    other.pass_to(61_500);
    assert_eq!(other.told(), ["fetch a"]);
    other.store(StoreNews::Away { others: true });
    other.store(StoreNews::Following);
    let record = Record { left: Duration::ZERO, ..one.record("a", A) };
    other.fetched("a", Some(record.clone()), false);
    assert_eq!(other.usable(), ["a"], "its holder is coming back, too");
    other.pass_to(67_000);
    assert_eq!(other.told().last().map(String::as_str), Some("fetch a"));
    other.fetched("a", Some(record), false);
    assert_eq!(other.listed(), Vec::<String>::new());
}

#[test]
fn whoever_is_renewed_after_a_late_answer_keeps_its_lease() {
    let (mut one, _) = pair();
    one.store(StoreNews::Away { others: true });
    one.pass_to(61_000);
    let record = Record { left: Duration::ZERO, ..one.record("a", A) };
    one.fetched("a", Some(record), true);
    one.store(StoreNews::Following);
    one.pass_to(62_500);
    one.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
    assert_eq!((one.pass_to(122_000), one.usable().len()), (0, 1));
}
