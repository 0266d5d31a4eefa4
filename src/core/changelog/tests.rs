//! The log against a reader that was told everything.

use super::*;
use proptest::prelude::*;

fn name(no: u8) -> ServiceName {
    ServiceName::parse(&format!("svc-{no}")).unwrap()
}

#[test]
fn each_service_is_told_once_with_its_last_change() {
    let mut log = ChangeLog::new(100, 10);
    assert_eq!(log.since(100, 10), Since::Nothing);
    for (generation, no) in [(101, 1), (103, 2), (104, 1)] {
        log.note(generation, name(no));
    }
    assert_eq!(log.since(100, 10), Since::Changes(vec![(103, name(2)), (104, name(1))]));
    assert_eq!(log.since(100, 1), Since::Changes(vec![(103, name(2))]));
    assert_eq!(log.since(103, 10), Since::Changes(vec![(104, name(1))]));
    assert_eq!(log.since(104, 10), Since::Nothing);
    assert_eq!(log.since(99, 10), Since::Unknown, "before its first");
    assert_eq!((log.changed_at("svc-1"), log.changed_at("svc-3")), (Some(104), None));
}

#[test]
fn what_is_forgotten_is_said_to_be_unknown() {
    let mut log = ChangeLog::new(0, 2);
    for no in 1..=3 {
        log.note(no.into(), name(no));
    }
    assert_eq!(log.since(0, 10), Since::Unknown);
    assert_eq!(log.since(1, 10), Since::Changes(vec![(2, name(2)), (3, name(3))]));
    assert!(log.is_unchanged_since("svc-1", 1) && !log.is_unchanged_since("svc-1", 0));
    assert!(log.is_unchanged_since("svc-9", 1) && !log.is_unchanged_since("svc-9", 0));
    assert!(log.is_unchanged_since("svc-3", 3) && !log.is_unchanged_since("svc-3", 2));
}

#[test]
fn a_storm_on_few_services_forgets_nothing() {
    let mut log = ChangeLog::new(0, 4);
    for generation in 1..=10_000_u64 {
        log.note(generation, name((generation % 4) as u8));
    }
    assert!(matches!(log.since(0, 10), Since::Changes(changes) if changes.len() == 4));
}

/// Batches of changes: a batch's generations are noted in the order of names, as a publish does.
fn batches() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(0..12_u8, 1..6), 1..40)
}

/// What was noted, in order of generations.
fn fill(log: &mut ChangeLog, first: u64, batches: &[Vec<u8>]) -> Vec<(u64, u8)> {
    let mut history = Vec::new();
    let mut generation = first;
    for batch in batches {
        let mut last = BTreeMap::new();
        for no in batch {
            generation += 1;
            last.insert(*no, generation);
        }
        for (no, generation) in &last {
            log.note(*generation, name(*no));
        }
        let mut noted: Vec<_> = last.into_iter().map(|(no, generation)| (generation, no)).collect();
        noted.sort_unstable();
        history.extend(noted);
    }
    history
}

proptest! {
    #[test]
    fn since_is_what_a_full_history_says(first in 0..1000_u64, batches in batches(), services_max in 1..16_usize, count_max in 1..8_usize) {
        let mut log = ChangeLog::new(first, services_max);
        let history = fill(&mut log, first, &batches);
        let head = history.last().map_or(first, |(generation, _)| *generation);
        let mut is_known = false;
        for index in first.saturating_sub(1)..=head {
            let expected: Vec<_> = history
                .iter()
                .enumerate()
                .filter(|(at, (generation, no))| *generation > index && !history[at + 1..].iter().any(|(_, later)| later == no))
                .map(|(_, (generation, no))| (*generation, name(*no)))
                .collect();
            let distinct = expected.len();
            match log.since(index, usize::MAX) {
                Since::Unknown => prop_assert!(!is_known, "{index} was unknown, an older one was not"),
                Since::Nothing => prop_assert!(expected.is_empty()),
                Since::Changes(changes) => prop_assert_eq!(&changes, &expected),
            }
            is_known |= log.since(index, 1) != Since::Unknown;
            prop_assert!(is_known || index < first || distinct > services_max, "forgot for no reason");
            if let Since::Changes(changes) = log.since(index, count_max) {
                prop_assert_eq!(&changes[..], &expected[..changes.len()]);
                prop_assert!(changes.len() == count_max.min(distinct));
            }
            for no in 0..12 {
                let changed_after = history.iter().any(|(generation, other)| *other == no && *generation > index);
                let claims = log.is_unchanged_since(name(no).as_str(), index);
                prop_assert!(!(claims && changed_after), "{index}: svc-{no} did change");
                prop_assert!(!is_known || claims != changed_after, "{index}: certain of everything else, but not of svc-{no}");
            }
        }
        prop_assert!(is_known, "the present index is always known");
    }

    /// A reader that takes portions while changes go on ends up with the same knowledge as one that saw it all, unless it is
    /// told that it missed something.
    #[test]
    fn portions_add_up(batches in batches(), services_max in 8..16_usize, portions in prop::collection::vec(0..4_usize, 40)) {
        let mut log = ChangeLog::new(0, services_max);
        let (mut truth, mut known, mut cursor) = (BTreeMap::new(), BTreeMap::new(), 0);
        let mut generation = 0;
        let mut read = |log: &ChangeLog, count_max: usize, cursor: &mut u64, truth: &BTreeMap<ServiceName, u64>| {
            match log.since(*cursor, count_max) {
                Since::Nothing => {}
                Since::Changes(changes) => for (generation, name) in changes {
                    assert!(generation > *cursor, "time goes forward");
                    *cursor = generation;
                    known.insert(name, generation);
                },
                Since::Unknown => {
                    known.clone_from(truth);
                    *cursor = truth.values().copied().max().unwrap_or(0);
                }
            }
            known.clone()
        };
        for (batch, count_max) in batches.iter().zip(&portions) {
            for no in batch {
                generation += 1;
                log.note(generation, name(*no));
                truth.insert(name(*no), generation);
            }
            if *count_max > 0 {
                read(&log, *count_max, &mut cursor, &truth);
            }
        }
        let known = read(&log, usize::MAX, &mut cursor, &truth);
        prop_assert_eq!(known, truth);
    }
}
