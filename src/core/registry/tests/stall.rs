//! Stalls of this process, told by the gaps between its calls.

use super::*;

impl Rig {
    /// Stops ticking at `from` and goes on at `to`, without looking at the leases.
    fn stall(&mut self, from: u64, to: u64) {
        self.pass_to(from);
        self.ticked = at(to).mono;
        self.now = at(to);
    }
}

fn lasting(seconds: u64, instance: &str, url: &str) -> Registration {
    Registration { ttl: Some(Duration::from_secs(seconds)), ..with_id(instance, url) }
}

#[test]
fn every_lease_is_extended_by_the_stall_exactly() {
    let mut rig = Rig::new();
    rig.register(lasting(60, "a", "http://10.0.0.1")).unwrap();
    rig.now = at(10_000);
    rig.register(lasting(60, "b", "http://10.0.0.2")).unwrap();
    let _ = rig.told();
    rig.stall(20_000, 40_000);
    assert_eq!(rig.pass_to(40_000), 0);
    assert_eq!(rig.told(), ["stalled 20s: 2"]);
    assert_eq!(rig.upstream("a").cells.lease.deadline(), Moment::from_millis(80_000), "shown as it is");
    assert_eq!(rig.upstream("a").cells.lease.renewed_wall_ms(), at(0).wall_ms, "no renewal");
    assert_eq!(rig.upstream("b").cells.lease.deadline(), Moment::from_millis(90_000));
    assert_eq!((rig.pass_to(79_999), rig.pass_to(80_000)), (0, 1));
    assert_eq!((rig.pass_to(89_999), rig.pass_to(90_000)), (0, 1));
}

#[test]
fn a_stall_of_half_a_ttl_or_more_gives_a_fresh_one_and_loses_nobody() {
    for ttl in [1, 2, 5, 10, 60] {
        let mut rig = Rig::new();
        rig.register(lasting(ttl, "a", "http://10.0.0.1")).unwrap();
        let _ = rig.told();
        let resumed = 900 + ttl * 1_600;
        rig.stall(900, resumed);
        assert_eq!(rig.pass_to(resumed), 0, "{ttl} s");
        let deadline = Moment::from_millis(resumed + ttl * 1_000);
        assert_eq!(rig.upstream("a").cells.lease.deadline(), deadline);
        assert_eq!((rig.pass_to(deadline.millis() - 1), rig.pass_to(deadline.millis())), (0, 1), "{ttl} s");
    }
}

#[test]
fn a_pause_between_two_ticks_is_no_stall() {
    let mut rig = Rig::new();
    rig.register(lasting(5, "a", "http://10.0.0.1")).unwrap();
    let _ = rig.told();
    rig.stall(1_000, 2_500);
    assert_eq!(rig.pass_to(2_500), 0);
    assert_eq!(rig.told(), Vec::<String>::new());
    assert_eq!(rig.registry.next_deadline(), Some(Moment::from_millis(5_000)));
    rig.stall(3_000, 4_501);
    rig.pass_to(4_501);
    assert_eq!(rig.told(), ["stalled 1.501s: 1"]);
}

#[test]
fn a_lease_about_to_end_leaves_room_for_the_heartbeats_that_piled_up() {
    let mut rig = Rig::new();
    rig.register(lasting(60, "a", "http://10.0.0.1")).unwrap();
    // The last call before its end, and a stall that begins right after.
    rig.stall(59_990, 62_000);
    assert_eq!(rig.pass_to(62_000), 0);
    assert_eq!(rig.registry.next_deadline(), Some(Moment::from_millis(63_000)));
    // A heartbeat that was stamped before the stall counts from its end.
    let renewal = heartbeat(Some("a"), "10.9.0.1");
    rig.registry.apply(Command::Renew(renewal), at(59_995)).unwrap();
    assert_eq!(rig.registry.next_deadline(), Some(Moment::from_millis(122_000)));
}

#[test]
fn a_command_may_be_the_first_call_after_a_stall() {
    let mut rig = Rig::new();
    rig.register(lasting(5, "a", "http://10.0.0.1")).unwrap();
    rig.register(lasting(5, "b", "http://10.0.0.2")).unwrap();
    rig.stall(4_000, 60_000);
    rig.renew(heartbeat(Some("a"), "10.9.0.1")).unwrap();
    assert_eq!(rig.pass_to(64_999), 0);
    assert_eq!(rig.pass_to(65_000), 2);
}

#[test]
fn time_that_did_not_pass_for_us_makes_nobody_silent() {
    let mut rig = Rig::new();
    for n in 0..12 {
        rig.register(lasting(60, &format!("i{n:02}"), &format!("http://10.0.0.{}", n + 1))).unwrap();
    }
    rig.stall(10_000, 38_000);
    rig.pass_to(38_000);
    assert_eq!(rig.registry.lease_figures().silent, 0, "renewed 38 s ago, of which 28 do not count");
    rig.pass_to(60_999);
    assert_eq!(rig.registry.lease_figures().silent, 0);
    rig.pass_to(61_000);
    assert_eq!(rig.registry.lease_figures().silent, 12);
}

#[test]
fn a_short_stall_leaves_the_held_held_and_voids_the_probes_under_way() {
    let mut rig = Rig::new();
    for n in 0..12 {
        rig.register(lasting(60, &format!("i{n:02}"), &format!("http://10.0.0.{}", n + 1))).unwrap();
    }
    rig.pass_to(60_010);
    let asked: Vec<u64> = probes(&mut rig);
    assert!(!asked.is_empty());
    rig.stall(60_020, 65_000);
    for no in asked {
        rig.apply(Command::Probed { no, passed: false }).unwrap();
        rig.apply(Command::Probed { no, passed: false }).unwrap();
    }
    rig.pass_to(65_100);
    assert_eq!(rig.registry.lease_figures().held, 12);
    for no in probes(&mut rig) {
        rig.apply(Command::Probed { no, passed: false }).unwrap();
    }
    assert_eq!(rig.usable().len(), 12, "only one failure counts so far");
}

#[test]
fn a_long_stall_ends_a_hold_as_a_restart_does() {
    let mut rig = Rig::new();
    for n in 0..12 {
        rig.register(lasting(5, &format!("i{n:02}"), &format!("http://10.0.0.{}", n + 1))).unwrap();
    }
    rig.pass_to(5_000);
    assert_eq!(rig.registry.lease_figures().held, 12);
    rig.stall(6_000, 9_000);
    rig.pass_to(9_000);
    let figures = rig.registry.lease_figures();
    assert_eq!((figures.holding_since, figures.held, figures.silent), (None, 0, 0));
    assert!(!rig.upstream("i00").cells.lease.is_held());
    assert_eq!(rig.registry.next_deadline(), Some(Moment::from_millis(14_000)));
}

fn probes(rig: &mut Rig) -> Vec<u64> {
    let effects = rig.registry.drain();
    effects.iter().filter_map(|effect| if let Effect::Probe(probe) = effect { Some(probe.no) } else { None }).collect()
}
