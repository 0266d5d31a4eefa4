//! Mass-lapse protection: who is held, who is probed, and how it ends.

use super::*;
use proptest::prelude::*;

/// So many instances of `svc`, registered now, with a TTL of 10 s: `i00`, `i01`, …
fn fleet(count: usize) -> Rig {
    let mut rig = Rig::new();
    for n in 0..count {
        rig.register(member(n)).unwrap();
    }
    let _ = rig.told();
    rig
}

fn member(n: usize) -> Registration {
    let ttl = Some(Duration::from_secs(10));
    Registration { ttl, ..with_id(&format!("i{n:02}"), &format!("http://10.0.0.{}", n + 1)) }
}

impl Rig {
    fn renew_members(&mut self, members: std::ops::Range<usize>) {
        for n in members {
            self.renew(heartbeat(Some(&format!("i{n:02}")), "10.9.0.1")).unwrap();
        }
    }

    /// Asked for since the last call: number and instance.
    fn probes(&mut self) -> Vec<(u64, String)> {
        let effects = self.registry.drain();
        let probe =
            |effect| if let Effect::Probe(probe) = effect { Some((probe.no, probe.instance.to_string())) } else { None };
        effects.into_iter().filter_map(probe).collect()
    }

    fn probed(&mut self, no: u64, passed: bool) {
        self.apply(Command::Probed { no, passed }).unwrap();
    }

    /// Moves the clock from deadline to deadline, as the shell's timer would, answering every probe; those who were asked, in
    /// order.
    fn answer_probes_until(&mut self, ms: u64, passes: impl Fn(&str) -> bool) -> Vec<String> {
        let mut asked = Vec::new();
        loop {
            for (no, instance) in self.probes() {
                self.probed(no, passes(&instance));
                asked.push(instance);
            }
            if self.now.mono.millis() >= ms {
                return asked;
            }
            let next = self.registry.next_deadline().map_or(ms, |next| next.nanos().div_ceil(1_000_000));
            self.pass_to(next.clamp(self.now.mono.millis() + 1, ms));
        }
    }
}

#[test]
fn thirty_that_fall_silent_at_once_are_held_and_stay_routable() {
    let mut rig = fleet(30);
    assert_eq!(rig.pass_to(9_999), 0);
    assert_eq!(rig.told(), Vec::<String>::new());
    assert_eq!(rig.pass_to(10_000), 0);
    assert_eq!(rig.usable().len(), 30);
    assert!(rig.upstream("i00").cells.lease.is_held());
    assert_eq!(rig.told()[0], "hold: 30 of 30");
    let since = Some(Moment::from_millis(10_000));
    let figures = LeaseFigures { instances: 30, silent: 30, holding_since: since, held: 30, ..LeaseFigures::default() };
    assert_eq!(rig.registry.lease_figures(), figures);
    assert_eq!(rig.registry.leases.len(), 0);
}

#[test]
fn a_single_silent_one_lapses_on_time_among_many_and_fewer_than_ten_are_not_protected() {
    let mut rig = fleet(12);
    rig.now = at(6_000);
    rig.renew_members(1..12);
    assert_eq!((rig.pass_to(9_999), rig.pass_to(10_000)), (0, 1));
    assert_eq!(rig.told(), ["forget i00", "lapsed i00"]);
    let mut few = fleet(9);
    assert_eq!(few.pass_to(10_000), 9);
    assert_eq!(few.registry.lease_figures(), LeaseFigures::default());
}

#[test]
fn exactly_half_is_no_mass_and_one_more_is() {
    let mut rig = fleet(12);
    rig.now = at(6_000);
    rig.renew_members(6..12);
    assert_eq!(rig.pass_to(10_000), 6);
    let mut rig = fleet(12);
    rig.now = at(6_000);
    rig.renew_members(7..12);
    assert_eq!(rig.pass_to(10_000), 0);
    assert_eq!(rig.registry.lease_figures().held, 7);
}

#[test]
fn silence_is_measured_by_each_instance_s_own_ttl() {
    let mut rig = fleet(4);
    for n in 4..12 {
        rig.register(Registration { ttl: Some(Duration::from_secs(60)), ..member(n) }).unwrap();
    }
    assert_eq!(rig.pass_to(10_000), 4, "a minute's lease is not silent after ten seconds");
}

#[test]
fn a_fleet_that_beats_in_step_every_half_ttl_is_not_silent_for_being_a_moment_late() {
    let mut rig = fleet(12);
    rig.now = at(5_020);
    rig.renew_members(1..12);
    rig.now = at(10_040);
    assert_eq!(rig.tick() + rig.registry.expire(at(10_000).mono), 1);
    assert_eq!(rig.told(), ["forget i00", "lapsed i00"]);
    // All others are due for their second heartbeat at that very moment.
    rig.renew_members(1..12);
    assert_eq!(rig.pass_to(15_030), 0);
}

#[test]
fn fallbacks_do_not_count() {
    let mut rig = fleet(9);
    rig.fallbacks(&[("one", "http://10.1.0.1"), ("two", "http://10.1.0.2"), ("three", "http://10.1.0.3")]);
    assert_eq!(rig.pass_to(10_000), 9);
}

#[test]
fn held_instances_are_probed_every_five_seconds_and_those_that_answer_stay() {
    let mut rig = fleet(12);
    let asked = rig.answer_probes_until(24_900, |_| true);
    assert_eq!(asked.len(), 36, "at 10, 15 and 20 s");
    assert!(asked[..12].iter().collect::<BTreeSet<_>>().len() == 12, "each once before any twice");
    assert_eq!(rig.usable().len(), 12);
}

#[test]
fn two_failed_probes_in_a_row_remove_and_one_does_not() {
    let mut rig = fleet(12);
    rig.answer_probes_until(14_000, |instance| instance != "i03" && instance != "i04");
    assert_eq!(rig.usable().len(), 12);
    rig.answer_probes_until(19_000, |instance| instance != "i03");
    assert_eq!(rig.usable().len(), 11, "i04 failed once and passed once");
    assert!(!rig.usable().contains(&"i03".to_owned()));
    rig.answer_probes_until(24_000, |instance| instance != "i04");
    assert_eq!(rig.usable().len(), 11, "its first failure is forgotten");
    let mut rig = fleet(12);
    rig.pass_to(10_100);
    let no = rig.probes().iter().find(|(_, instance)| instance == "i03").map(|(no, _)| *no).unwrap();
    rig.probed(no, false);
    rig.answer_probes_until(14_900, |_| true);
    rig.pass_to(15_200);
    let second = rig.probes().iter().find(|(_, instance)| instance == "i03").map(|(no, _)| *no).unwrap();
    rig.probed(second, false);
    assert_eq!(rig.told(), ["forget i03", "evicted i03 after 2"]);
}

#[test]
fn a_renewal_ends_it_for_its_instance() {
    let mut rig = fleet(30);
    rig.pass_to(10_000);
    rig.now = at(11_000);
    rig.renew_members(0..1);
    assert!(!rig.upstream("i00").cells.lease.is_held());
    assert_eq!(rig.upstream("i00").cells.lease.deadline(), Moment::from_millis(21_000));
    let _ = rig.told();
    let asked = rig.answer_probes_until(16_000, |_| true);
    assert!(!asked.contains(&"i00".to_owned()));
    let figures = rig.registry.lease_figures();
    assert_eq!((figures.held, figures.silent), (29, 29));
}

#[test]
fn when_half_are_back_the_hold_ends_and_the_others_have_one_ttl_of_grace() {
    let mut rig = fleet(12);
    rig.answer_probes_until(12_000, |_| true);
    rig.renew_members(0..6);
    let _ = rig.told();
    rig.pass_to(12_000);
    assert_eq!(rig.told(), ["hold ended: 6 on grace"]);
    let figures = rig.registry.lease_figures();
    assert_eq!((figures.holding_since, figures.held, figures.on_grace), (None, 0, 6));
    let lease = &rig.upstream("i06").cells.lease;
    assert_eq!((lease.is_held(), lease.deadline()), (false, Moment::from_millis(22_000)));
    rig.now = at(17_000);
    rig.renew_members(0..7);
    assert_eq!(rig.registry.lease_figures().on_grace, 5, "a renewal ends the grace");
    let asked = rig.answer_probes_until(21_900, |instance| instance != "i07");
    assert!(asked.iter().filter(|instance| *instance == "i08").count() >= 2, "they go on being probed");
    assert!(!rig.usable().contains(&"i07".to_owned()));
    assert_eq!((rig.pass_to(21_999), rig.pass_to(22_000)), (0, 4), "then they lapse as anybody does");
    assert_eq!(rig.probes(), []);
    assert_eq!(rig.registry.lease_figures().on_grace, 0);
}

#[test]
fn who_is_on_grace_when_most_fall_silent_again_is_held_again() {
    let mut rig = fleet(12);
    rig.answer_probes_until(12_000, |_| true);
    rig.renew_members(0..6);
    assert_eq!(rig.answer_probes_until(21_000, |_| true).iter().filter(|instance| *instance == "i11").count(), 2);
    assert_eq!(rig.pass_to(22_000), 0);
    assert_eq!(rig.usable().len(), 12);
    assert_eq!(rig.registry.lease_figures().held, 12);
}

#[test]
fn a_hold_ends_when_too_few_are_left_to_tell() {
    let mut rig = fleet(12);
    rig.answer_probes_until(16_000, |instance| instance > "i02");
    let figures = rig.registry.lease_figures();
    assert_eq!((figures.instances, figures.holding_since, figures.on_grace), (9, None, 9));
}

#[test]
fn an_old_result_says_nothing_about_a_newer_registration() {
    let mut rig = fleet(12);
    let failing = |rig: &mut Rig, ms| {
        rig.pass_to(ms);
        let asked = rig.probes();
        asked.iter().find(|(_, instance)| instance == "i03").map(|(no, _)| *no).unwrap()
    };
    let first = failing(&mut rig, 10_100);
    rig.probed(first, false);
    let second = failing(&mut rig, 15_200);
    rig.register(member(3)).unwrap();
    rig.probed(second, false);
    assert!(rig.usable().contains(&"i03".to_owned()));
    // Held again, and the result of its first probe since comes twice.
    let third = failing(&mut rig, 25_500);
    rig.probed(third, false);
    rig.probed(third, false);
    rig.probed(99_999, false);
    assert!(rig.usable().contains(&"i03".to_owned()));
}

#[test]
fn a_deregistered_instance_is_neither_held_nor_probed() {
    let mut rig = fleet(12);
    rig.pass_to(10_000);
    rig.deregister(farewell(Some("i03"), "10.9.0.1")).unwrap();
    let _ = rig.told();
    let asked = rig.answer_probes_until(16_000, |_| true);
    assert!(!asked.contains(&"i03".to_owned()));
    assert_eq!(rig.registry.lease_figures().held, 11);
}

#[test]
fn probes_are_spread_and_bounded_and_a_lost_one_frees_its_slot() {
    let mut rig = Rig::with_limits(Limits { services: 1, instances: 2_000, per_service: 2_000 });
    for n in 0..1_000 {
        let url = format!("http://10.0.{}.{}", n / 250, n % 250 + 1);
        rig.register(Registration { ttl: Some(Duration::from_secs(10)), ..with_id(&format!("i{n}"), &url) }).unwrap();
    }
    let _ = rig.told();
    rig.pass_to(10_000);
    assert!(rig.probes().len() <= 10, "no burst");
    let mut asked = BTreeMap::new();
    let mut under_way = 0;
    while let Some(next) = rig.registry.next_deadline().filter(|next| *next < Moment::from_millis(11_000)) {
        rig.now.mono = next;
        rig.registry.expire(next);
        for (no, _) in rig.probes() {
            asked.insert(no, next.millis());
        }
        under_way = under_way.max(asked.len());
    }
    // Nobody answers: the limit is reached, and nothing is asked any more.
    assert!((240..=256).contains(&under_way), "{under_way}");
    let lost = rig.registry.next_deadline().unwrap();
    assert!((120_000..140_000).contains(&lost.millis()), "{lost:?}");
    let again: BTreeSet<String> = rig.answer_probes_until(lost.millis() + 10_000, |_| true).into_iter().collect();
    assert_eq!(again.len(), 1_000, "all are probed now");
}

#[derive(Clone, Debug)]
enum Step {
    Register(usize, u64),
    Renew(std::ops::Range<usize>),
    Deregister(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..16usize, 1..30u64).prop_map(|(n, ttl_s)| Step::Register(n, ttl_s)),
        4 => (0..16usize, 1..16usize).prop_map(|(from, count)| Step::Renew(from..(from + count).min(16))),
        1 => (0..16usize).prop_map(Step::Deregister),
        4 => (0..20_000u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn who_is_silent_and_who_is_held_is_counted_right_whatever_happens(steps in steps()) {
        let mut rig = fleet(16);
        let mut renewed: BTreeMap<String, (u64, u64)> = (0..16).map(|n| (format!("i{n:02}"), (0, 10_000))).collect();
        for step in steps {
            let now_ms = rig.now.mono.millis();
            match step {
                Step::Register(n, ttl_s) => {
                    rig.register(Registration { ttl: Some(Duration::from_secs(ttl_s)), ..member(n) }).unwrap();
                    renewed.insert(format!("i{n:02}"), (now_ms, ttl_s * 1_000));
                }
                Step::Renew(members) => for n in members {
                    let instance = format!("i{n:02}");
                    if rig.renew(heartbeat(Some(&instance), "10.9.0.1")).is_ok() {
                        renewed.entry(instance).and_modify(|(at_ms, _)| *at_ms = now_ms);
                    }
                },
                Step::Deregister(n) => {
                    rig.deregister(farewell(Some(&format!("i{n:02}")), "10.9.0.1")).unwrap();
                }
                Step::Wait(ms) => {
                    rig.answer_probes_until(now_ms + ms, |instance| instance < "i12");
                }
            }
            rig.pass_to(rig.now.mono.millis());
            let (now_ms, figures) = (rig.now.mono.millis(), rig.registry.lease_figures());
            let listed: Vec<(u64, u64)> = rig.listed().iter().map(|text| renewed[text.split('@').next().unwrap()]).collect();
            let past = |per_cent: u64| listed.iter().filter(|(at_ms, ttl_ms)| at_ms + ttl_ms * per_cent / 100 <= now_ms).count();
            prop_assert_eq!(figures.instances, listed.len());
            prop_assert_eq!(figures.silent, past(55));
            prop_assert_eq!(figures.held + figures.on_grace, past(100), "whoever is past its deadline is held or has grace");
            let is_mass = figures.instances >= 10 && figures.silent * 2 > figures.instances;
            prop_assert!(is_mass || figures.holding_since.is_none());
            let shown = rig.service("svc").map_or(0, |service| service.instances.iter().filter(|it| it.cells.lease.is_held()).count());
            prop_assert_eq!(shown, figures.held);
        }
    }
}
