use super::*;
use crate::balance::is_in_panic;
use crate::balance::lineup::Lineup;
use crate::endpoint::Endpoint;
use crate::name::{InstanceId, ServiceName};
use crate::policy::Policy;
use crate::status::Status;
use crate::table::{Bare, Facts, Origin};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn tally(answers: u32, errors: u32, mean_ms: u64) -> Tally {
    Tally { answers, errors, micros: u64::from(answers - errors) * mean_ms * 1000 }
}

fn found(tallies: &[Tally]) -> Vec<(usize, Cause)> {
    outliers(&OutlierPolicy::default(), tallies)
}

#[test]
fn who_fails_more_often_than_the_others_is_an_outlier() {
    let well = tally(200, 1, 10);
    assert_eq!(found(&[well, tally(200, 60, 10), well]), [(1, Cause::SuccessRate)]);
    assert_eq!(found(&[well, well, well]), []);
    assert_eq!(found(&[well, tally(200, 15, 10), well]), [], "a little worse is not an outlier");
    let bad = tally(200, 100, 10);
    assert_eq!(found(&[bad, bad, bad]), [], "nobody stands out where all fail");
    assert_eq!(found(&[well, tally(99, 99, 0), well]), [], "too few answers say nothing");
    assert_eq!(found(&[well, tally(200, 200, 0)]), [], "two instances cannot be told apart");
}

#[test]
fn the_worst_comes_first() {
    let well = tally(1000, 0, 10);
    let tallies = [well, tally(1000, 300, 10), well, well, tally(1000, 900, 10), well, well, well, well, well];
    assert_eq!(found(&tallies), [(4, Cause::SuccessRate), (1, Cause::SuccessRate)]);
}

#[test]
fn bad_ones_do_not_hide_behind_each_other() {
    let (well, broken, slow) = (tally(200, 0, 10), tally(200, 200, 0), tally(200, 0, 1_000));
    let places = |found: Vec<(usize, Cause)>| found.into_iter().map(|(at, _)| at).collect::<Vec<_>>();
    for bad in [broken, tally(200, 100, 10), slow] {
        assert_eq!(places(found(&[well, bad, well, bad, well])), [1, 3], "two of five: {bad:?}");
        assert_eq!(places(found(&[well, bad, well, bad])), [1, 3], "half of them: {bad:?}");
        assert_eq!(found(&[bad, bad, well]), [], "most of them are what is usual: {bad:?}");
    }
    assert_eq!(found(&[well, broken, well, slow, well]), [(1, Cause::SuccessRate), (3, Cause::Latency)]);
}

#[test]
fn where_all_fail_now_and_then_chance_ejects_hardly_anybody() {
    let mut seed = 0u64;
    let mut fails = |per_mille: u32| {
        seed += 1;
        crate::seed::below(crate::seed::mix(seed), 1000) < per_mille
    };
    for per_mille in [50, 200, 500, 800] {
        let rounds = 1_000;
        let mut judged = || found(&[0; 3].map(|_| tally(100, (0..100).map(|_| u32::from(fails(per_mille))).sum(), 10))).len();
        let ejected: usize = (0..rounds).map(|_| judged()).sum();
        assert!(ejected * 100 <= rounds * 3 * 2, "{ejected} of {} at {per_mille} ‰", rounds * 3);
    }
}

#[test]
fn who_is_many_times_slower_is_an_outlier() {
    let quick = tally(200, 0, 10);
    assert_eq!(found(&[quick, quick, tally(200, 0, 400)]), [(2, Cause::Latency)]);
    assert_eq!(found(&[quick, quick, tally(200, 0, 100)]), [], "not by 100 ms");
    let slow = tally(200, 0, 400);
    assert_eq!(found(&[slow, slow, tally(200, 0, 1_000)]), [], "not five times");
    assert_eq!(found(&[quick, quick, tally(200, 150, 900)]), [(2, Cause::SuccessRate)], "50 good answers are too few");
    let off = OutlierPolicy { latency_milli: 0, ..OutlierPolicy::default() };
    assert_eq!(outliers(&off, &[quick, quick, slow]), []);
}

fn fleet(count: u8, policy: OutlierPolicy) -> Service<Bare> {
    let instance = |n: u8| {
        let facts = Facts {
            service: ServiceName::parse("svc").unwrap(),
            id: InstanceId::parse(&n.to_string()).unwrap(),
            origin: Origin::Registered,
            endpoint: Endpoint::parse(&format!("http://10.0.0.{}", n + 1)).unwrap(),
            health_endpoint: "/health".into(),
            metadata: std::collections::BTreeMap::new(),
            weight: 100,
            zone: None,
            version: None,
            tags: Vec::new(),
            status: Status::Healthy,
            ttl: SECOND,
            resolved: Vec::new(),
            registered_wall_ms: 0,
            version_no: 0,
        };
        Arc::new(Upstream {
            facts: Arc::new(facts),
            addresses: [std::net::SocketAddr::from(([10, 0, 0, n + 1], 80))].into(),
            cells: Arc::default(),
            is_draining: false,
            is_leaving: false,
            token: 0,
            x: (),
        })
    };
    let instances: Vec<_> = (0..count).map(instance).collect();
    let policy = Policy { outlier: policy, ..Policy::default() };
    let (usable, lineup) = Lineup::arrange(&instances, &policy.balance, None);
    Service {
        name: ServiceName::parse("svc").unwrap(),
        policy: Arc::new(policy),
        instances: instances.into(),
        usable,
        lineup,
        cells: Arc::default(),
        is_fallback: false,
        changed_at: 0,
        x: (),
    }
}

fn answer(service: &Service<Bare>, at: usize, status: u16, times: u32) {
    (0..times).for_each(|_| service.usable[at].cells.tally.note(Ending::Answered { status }, Some(1_000.0)));
}

#[test]
fn any_5xx_counts_and_what_clients_do_does_not() {
    let cell = TallyCell::default();
    cell.note(Ending::Answered { status: 200 }, Some(1_500.0));
    cell.note(Ending::Answered { status: 404 }, Some(500.0));
    cell.note(Ending::Answered { status: 500 }, Some(1.0));
    cell.note(Ending::Reset, Some(1.0));
    cell.note(Ending::Answered { status: 413 }, None);
    cell.note(Ending::TimedOut { request_sent: true }, Some(1.0));
    cell.note(Ending::ClientGone, Some(1.0));
    cell.note(Ending::Ours, Some(1.0));
    assert_eq!(cell.take(), Tally { answers: 5, errors: 3, micros: 2_000 });
    assert_eq!(cell.take(), Tally::default());
}

#[test]
fn it_stays_out_longer_each_time_until_it_has_behaved() {
    let service = fleet(3, OutlierPolicy::default());
    let mut now = Moment::from_millis(1_000);
    let round = |errors: u32, now| {
        (0..3).for_each(|at| answer(&service, at, 200, 100));
        answer(&service, 0, 500, errors);
        review(&service, now, 7)
    };
    for expected in [30, 60, 120, 240, 300, 300] {
        let ejections = round(100, now);
        assert_eq!(ejections.len(), 1);
        let (span, full) = (ejections[0].span, SECOND * expected);
        assert!(span >= full && span <= full.mul_f64(1.1), "{span:?}");
        assert!(service.usable[0].cells.standing.is_out(now) && !is_in_panic(&service, now));
        now = now.plus(span);
        assert!(!service.usable[0].cells.standing.is_out(now));
    }
    (0..6).for_each(|_| assert!(round(0, now).is_empty()));
    assert!(round(100, now)[0].span < SECOND * 34, "forgiven");
}

#[test]
fn an_interval_is_counted_from_its_beginning() {
    let (cell, at) = (ReviewCell::default(), |seconds: u64| Moment::from_millis(seconds * 1000));
    assert_eq!(cell.due(at(100), 10 * SECOND), Due::First);
    assert_eq!(cell.due(at(109), 10 * SECOND), Due::NotYet);
    assert_eq!(cell.due(at(110), 10 * SECOND), Due::Now);
    assert_eq!(cell.due(at(131), 10 * SECOND), Due::First, "nobody looked for an interval");
    assert_eq!(cell.due(at(132), SECOND), Due::First, "the interval was made shorter");
    assert_eq!(cell.due(at(133), SECOND), Due::Now);
}

#[test]
fn what_was_counted_before_the_first_interval_is_forgotten() {
    let service = fleet(3, OutlierPolicy::default());
    (0..3).for_each(|at| answer(&service, at, if at == 0 { 500 } else { 200 }, 1000));
    start(&service);
    assert!(review(&service, Moment::from_millis(1), 0).is_empty());
}

proptest! {
    /// However bad they are, the cap holds, in one review and over several.
    #[test]
    fn no_more_than_half_are_ever_ejected(rounds in proptest::collection::vec(proptest::collection::vec(0u32..200, 8), 1..6), cap in 0u32..=100) {
        let service = fleet(8, OutlierPolicy { ejected_max_percent: cap, ..OutlierPolicy::default() });
        for (nth, errors) in rounds.iter().enumerate() {
            let now = Moment::from_millis(1_000 * nth as u64);
            for (at, errors) in errors.iter().enumerate() {
                answer(&service, at, 500, *errors);
                answer(&service, at, 200, 200 - errors);
            }
            review(&service, now, nth as u64);
            let out = service.usable.iter().filter(|upstream| upstream.cells.standing.is_out(now)).count();
            prop_assert!(out * 100 <= 8 * cap as usize, "{} of 8 out", out);
        }
    }

    /// Nobody who did as well as the best is ever an outlier by success rate.
    #[test]
    fn the_best_is_never_an_outlier(errors in proptest::collection::vec(0u32..=300, 3..10)) {
        let tallies: Vec<Tally> = errors.iter().map(|&errors| tally(300, errors, 1)).collect();
        let best = *errors.iter().min().unwrap();
        prop_assert!(outliers(&OutlierPolicy::default(), &tallies).iter().all(|(at, _)| errors[*at] > best));
    }
}
