use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn ready() -> Event {
    Event::Health(Health::Ready { status: Status::Healthy, word: None, version: Some("1.0.0".into()) })
}

fn says(status: Status) -> Event {
    Event::Health(Health::Ready { status, word: None, version: None })
}

fn silent() -> Event {
    Event::Health(Health::Silent("failed to connect".into()))
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Feeds one event and splits the answer into log lines and the command.
fn feed(life: &mut Lifecycle, at: f64, event: Event) -> (Vec<String>, Action) {
    let mut actions = life.handle(secs(at), event);
    let command = actions.pop().expect("there is always a command");
    let lines = actions
        .into_iter()
        .map(|action| match action {
            Action::Log(step) => step.to_string(),
            other => panic!("two commands at once: {other:?}"),
        })
        .collect();
    assert!(!matches!(command, Action::Log(_)), "no command");
    (lines, command)
}

/// A life whose registration has just worked at second 0, with a lease of 60 s.
fn registered(settings: Settings) -> Lifecycle {
    let mut life = Lifecycle::new(settings, 1);
    feed(&mut life, 0.0, Event::Tick);
    if settings.probes {
        feed(&mut life, 0.0, ready());
    }
    feed(&mut life, 0.0, Event::Registered(Some(secs(60.0))));
    life
}

fn strict() -> Settings {
    Settings { health_gate: HealthGate::Strict, ..Settings::default() }
}

#[test]
fn the_log_of_a_start_is_a_contract() {
    let mut life = Lifecycle::new(Settings::default(), 1);
    let (lines, command) = feed(&mut life, 0.0, Event::Tick);
    assert_eq!(lines, ["Waiting for service to be ready (max 60s)"]);
    assert_eq!(command, Action::ProbeHealth);

    let (lines, command) = feed(&mut life, 0.1, silent());
    assert_eq!((lines.len(), command), (0, Action::WakeAt(secs(0.35))));
    assert_eq!(feed(&mut life, 0.35, Event::Tick).1, Action::ProbeHealth);
    assert_eq!(feed(&mut life, 0.35, Event::Health(Health::NotReady(503))).1, Action::WakeAt(secs(0.6)));
    assert_eq!(feed(&mut life, 0.6, Event::Tick).1, Action::ProbeHealth);

    let (lines, command) = feed(&mut life, 0.6, ready());
    assert_eq!(lines, ["Service is READY (responded with 200 OK after 3 attempts)", "Starting registration process"]);
    let report = Report { status: Status::Healthy, version: "1.0.0".into(), word: "healthy".into() };
    assert_eq!(command, Action::Register(report));

    let (lines, command) = feed(&mut life, 0.7, Event::Registered(Some(secs(60.0))));
    assert_eq!(lines, ["Service registered successfully", "Starting heartbeat loop (interval: 30s)"]);
    assert_eq!(command, Action::WakeAt(secs(5.7)));
}

#[test]
fn registers_anyway_after_the_wait() {
    let settings = Settings { initial_wait: secs(1.0), ..Settings::default() };
    let mut life = Lifecycle::new(settings, 1);
    feed(&mut life, 0.0, Event::Tick);
    assert_eq!(feed(&mut life, 0.9, Event::Health(Health::NotReady(404))).1, Action::WakeAt(secs(1.0)));
    assert_eq!(feed(&mut life, 1.0, Event::Tick).1, Action::ProbeHealth);
    let (lines, command) = feed(&mut life, 1.0, Event::Health(Health::NotReady(404)));
    assert_eq!(
        lines,
        [
            "Service is not ready after 1s (its health endpoint answers 404); registering it anyway, it gets traffic once it answers 200",
            "Starting registration process"
        ]
    );
    let report = Report { status: Status::Starting, version: "unknown".into(), word: "starting".into() };
    assert_eq!(command, Action::Register(report));

    // From now on it is watched closely, and its first 200 is told at once.
    assert_eq!(feed(&mut life, 1.0, Event::Registered(None)).1, Action::WakeAt(secs(2.0)));
    assert_eq!(feed(&mut life, 2.0, Event::Tick).1, Action::ProbeHealth);
    let (lines, command) = feed(&mut life, 2.0, says(Status::Healthy));
    assert_eq!(lines, ["Service status changed from starting to healthy"]);
    assert!(matches!(command, Action::Heartbeat { status: Status::Healthy, report: Some(_) }), "{command:?}");
}

#[test]
fn without_a_health_endpoint_it_registers_at_once() {
    let mut life = Lifecycle::new(Settings { probes: false, ..Settings::default() }, 1).with_version("2");
    let (_, command) = feed(&mut life, 0.0, Event::Tick);
    assert_eq!(command, Action::Register(Report { status: Status::Healthy, version: "2".into(), word: "healthy".into() }));
    assert_eq!(feed(&mut life, 0.0, Event::Registered(None)).1, Action::WakeAt(secs(30.0)));
    let (_, command) = feed(&mut life, 3.0, Event::StatusSet(Status::Draining));
    assert!(matches!(command, Action::Heartbeat { status: Status::Draining, report: Some(_) }), "{command:?}");
    assert_eq!(feed(&mut life, 3.0, Event::Renewed).1, Action::WakeAt(secs(33.0)));
    assert_eq!(feed(&mut life, 33.0, Event::Tick).1, Action::Heartbeat { status: Status::Draining, report: None });
}

#[test]
fn retries_forever_and_never_waits_longer_than_a_minute() {
    let mut life = Lifecycle::new(Settings { probes: false, ..Settings::default() }, 7);
    feed(&mut life, 0.0, Event::Tick);
    let mut now = 0.0;
    for full in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0] {
        let (lines, command) = feed(&mut life, now, Event::RegisterFailed("it is away".into()));
        let Action::WakeAt(wake) = command else { panic!("{command:?}") };
        let wait = (wake - secs(now)).as_secs_f64();
        assert!(wait >= full / 2.0 - 1e-6 && wait <= full + 1e-6, "{wait} of {full}");
        assert_eq!(
            lines,
            ["Registration failed: it is away".to_owned(), format!("Retrying registration in {} seconds", wait.ceil())]
        );
        // Woken too early, it goes on waiting.
        assert_eq!(feed(&mut life, now, Event::Tick).1, Action::WakeAt(wake));
        now = wake.as_secs_f64();
        assert!(matches!(feed(&mut life, now + 1e-6, Event::Tick).1, Action::Register(_)));
    }
    let (lines, _) = feed(&mut life, now, Event::Registered(None));
    assert_eq!(lines[0], "Service registered successfully");
}

#[test]
fn crowds_do_not_come_back_together() {
    let wait = |seed| {
        let mut life = Lifecycle::new(Settings { probes: false, ..Settings::default() }, seed);
        feed(&mut life, 0.0, Event::Tick);
        feed(&mut life, 0.0, Event::RegisterFailed(String::new())).1
    };
    assert_ne!(wait(1), wait(2));
    assert_eq!(wait(1), wait(1));
}

#[test]
fn a_retry_asks_the_service_again() {
    let mut life = Lifecycle::new(Settings::default(), 1);
    feed(&mut life, 0.0, Event::Tick);
    feed(&mut life, 0.0, ready());
    feed(&mut life, 0.0, Event::RegisterFailed("no".into()));
    assert_eq!(feed(&mut life, 1.0, Event::Tick).1, Action::ProbeHealth);
    let (_, command) = feed(&mut life, 1.0, says(Status::Degraded));
    let report = Report { status: Status::Degraded, version: "1.0.0".into(), word: "degraded".into() };
    assert_eq!(command, Action::Register(report));
}

#[test]
fn heartbeats_follow_a_probe_and_keep_their_rhythm() {
    let mut life = registered(Settings { heartbeat_interval: secs(10.0), ..Settings::default() });
    for beat in 1..100 {
        let due = 10.0 * f64::from(beat);
        assert_eq!(feed(&mut life, due - 4.9, Event::Tick).1, Action::ProbeHealth);
        assert_eq!(feed(&mut life, due - 4.8, ready()).1, Action::WakeAt(secs(due)));
        assert_eq!(feed(&mut life, due, Event::Tick).1, Action::ProbeHealth);
        let (lines, command) = feed(&mut life, due + 0.1, ready());
        assert_eq!((lines.len(), command), (0, Action::Heartbeat { status: Status::Healthy, report: None }));
        assert_eq!(feed(&mut life, due + 0.2, Event::Renewed).1, Action::WakeAt(secs(due + 5.1)));
    }
}

#[test]
fn an_unknown_lease_is_registered_again_at_once() {
    let mut life = registered(Settings::default());
    feed(&mut life, 30.0, Event::Tick);
    feed(&mut life, 30.0, ready());
    let (lines, command) = feed(&mut life, 30.0, Event::LeaseUnknown);
    assert_eq!(lines[1], "Starting registration process");
    assert!(matches!(command, Action::Register(_)));
    let (lines, command) = feed(&mut life, 30.0, Event::Registered(None));
    assert_eq!(lines, ["Service registered successfully"]);
    assert_eq!(command, Action::WakeAt(secs(35.0)));
}

#[test]
fn a_failed_heartbeat_is_tried_again_soon_and_not_more_often_than_the_interval() {
    let mut life = registered(Settings { probes: false, heartbeat_interval: secs(3.0), ..Settings::default() });
    let mut now = 3.0;
    for full in [1.0, 2.0, 3.0, 3.0] {
        assert_eq!(feed(&mut life, now, Event::Tick).1, Action::Heartbeat { status: Status::Healthy, report: None });
        let (lines, command) = feed(&mut life, now, Event::HeartbeatFailed("it is away".into()));
        let Action::WakeAt(wake) = command else { panic!("{command:?}") };
        let wait = (wake - secs(now)).as_secs_f64();
        assert!(wait >= full / 2.0 - 1e-6 && wait <= full + 1e-6, "{wait} of {full}");
        assert!(lines[0].starts_with("Heartbeat failed, next one in"), "{lines:?}");
        now = wake.as_secs_f64() + 1e-6;
    }
    feed(&mut life, now, Event::Tick);
    assert_eq!(feed(&mut life, now, Event::Renewed).0, ["Heartbeats work again"]);
}

#[test]
fn when_the_lease_must_be_gone_it_registers_again() {
    let mut life = registered(Settings { probes: false, ..Settings::default() });
    feed(&mut life, 30.0, Event::Tick);
    feed(&mut life, 30.0, Event::HeartbeatFailed("500".into()));
    let (lines, command) = feed(&mut life, 60.0, Event::Tick);
    assert_eq!(lines[1], "Starting registration process");
    assert!(matches!(command, Action::Register(_)));
}

#[test]
fn a_short_lease_is_renewed_in_time() {
    for (lease, interval) in [(60.0, 30.0), (20.0, 10.0), (5.0, 2.5), (1.0, 0.5), (0.0, 0.5)] {
        let mut life = Lifecycle::new(Settings { probes: false, ..Settings::default() }, 1);
        feed(&mut life, 0.0, Event::Tick);
        let (lines, command) = feed(&mut life, 0.0, Event::Registered(Some(secs(lease))));
        assert_eq!(command, Action::WakeAt(secs(interval)), "lease {lease}");
        assert_eq!(lines.iter().any(|line| line.contains("lease is only")), interval < 30.0, "{lines:?}");
    }
}

#[test]
fn a_service_that_says_it_is_unwell_is_believed_at_once() {
    for event in [Event::Health(Health::NotReady(503)), says(Status::Unhealthy)] {
        let mut life = registered(Settings::default());
        feed(&mut life, 5.0, Event::Tick);
        let (lines, command) = feed(&mut life, 5.0, event);
        assert_eq!(lines, ["Service status changed from healthy to unhealthy"]);
        assert!(matches!(command, Action::Heartbeat { status: Status::Unhealthy, report: Some(_) }), "{command:?}");
        feed(&mut life, 5.0, Event::Renewed);
        feed(&mut life, 10.0, Event::Tick);
        let (lines, command) = feed(&mut life, 10.0, ready());
        assert_eq!(lines, ["Service status changed from unhealthy to healthy"]);
        assert!(matches!(command, Action::Heartbeat { status: Status::Healthy, report: Some(_) }), "{command:?}");
    }
}

#[test]
fn one_silence_asks_for_a_second_opinion() {
    let mut life = registered(Settings::default());
    feed(&mut life, 5.0, Event::Tick);
    assert_eq!(feed(&mut life, 7.0, silent()).1, Action::WakeAt(secs(7.5)));
    feed(&mut life, 7.5, Event::Tick);
    assert_eq!(feed(&mut life, 7.5, ready()).1, Action::WakeAt(secs(12.5)));
    feed(&mut life, 12.5, Event::Tick);
    feed(&mut life, 14.5, silent());
    feed(&mut life, 15.0, Event::Tick);
    let (_, command) = feed(&mut life, 17.0, silent());
    assert!(matches!(command, Action::Heartbeat { status: Status::Unhealthy, .. }), "{command:?}");
}

#[test]
fn news_of_a_dead_registry_wait_for_the_retry() {
    let mut life = registered(Settings::default());
    feed(&mut life, 5.0, Event::Tick);
    feed(&mut life, 5.0, says(Status::Degraded));
    let Action::WakeAt(retry) = feed(&mut life, 5.0, Event::HeartbeatFailed(String::new())).1 else { panic!() };
    assert!(retry > secs(5.0) && retry <= secs(6.0), "{retry:?}");
    let early = 5.0 + (retry - secs(5.0)).as_secs_f64() / 2.0;
    assert_eq!(feed(&mut life, early, says(Status::Degraded)).1, Action::WakeAt(retry));
    assert_eq!(feed(&mut life, 6.0, Event::Tick).1, Action::ProbeHealth);
    assert!(matches!(feed(&mut life, 6.0, says(Status::Degraded)).1, Action::Heartbeat { status: Status::Degraded, .. }));
}

#[test]
fn strict_lets_the_lease_lapse_and_comes_back() {
    let mut life = registered(strict());
    feed(&mut life, 5.0, Event::Tick);
    let (lines, command) = feed(&mut life, 5.0, says(Status::Unhealthy));
    assert_eq!(lines, ["Service is unhealthy: no heartbeats until it recovers (SIDECAR_HEALTH_GATE=strict)"]);
    assert_eq!(command, Action::WakeAt(secs(10.0)));
    for at in [10.0, 30.0, 35.0] {
        assert_eq!(feed(&mut life, at, Event::Tick).1, Action::ProbeHealth);
        let (lines, command) = feed(&mut life, at, says(Status::Unhealthy));
        assert!(lines.is_empty() && matches!(command, Action::WakeAt(wake) if wake > secs(at)), "{command:?}");
    }
    let mut late = life.clone();
    // Before the lease is over a heartbeat keeps it …
    feed(&mut life, 40.0, Event::Tick);
    let (lines, command) = feed(&mut life, 40.0, ready());
    assert_eq!(lines, ["Service recovered, sending heartbeats again"]);
    assert!(matches!(command, Action::Heartbeat { status: Status::Healthy, .. }), "{command:?}");
    // … after that it takes a registration.
    feed(&mut late, 70.0, Event::Tick);
    assert!(matches!(feed(&mut late, 70.0, ready()).1, Action::Register(_)));
}

#[test]
fn a_new_version_is_registered() {
    let mut life = registered(Settings::default());
    feed(&mut life, 5.0, Event::Tick);
    let event = Event::Health(Health::Ready { status: Status::Healthy, word: None, version: Some("2.0.0".into()) });
    let (_, command) = feed(&mut life, 5.0, event);
    assert!(matches!(&command, Action::Register(report) if report.version == "2.0.0"), "{command:?}");
    feed(&mut life, 5.0, Event::Registered(None));
    feed(&mut life, 10.0, Event::Tick);
    // An answer that forgets the version is no other version.
    assert!(matches!(feed(&mut life, 10.0, says(Status::Healthy)).1, Action::WakeAt(_)));
}

#[test]
fn stopping_takes_the_registration_back() {
    let mut life = registered(Settings::default());
    assert_eq!(feed(&mut life, 1.0, Event::Stop), (vec!["Shutting down".to_owned()], Action::Deregister));
    let mut other = life.clone();
    assert_eq!(feed(&mut life, 1.1, Event::Deregistered), (vec!["Service deregistered".to_owned()], Action::Done));
    let (lines, command) = feed(&mut other, 2.0, Event::DeregisterFailed("it hangs".into()));
    assert!(lines[0].contains("it hangs"), "{lines:?}");
    assert_eq!(command, Action::Done);
    assert_eq!(feed(&mut other, 3.0, Event::Tick), (vec![], Action::Done));
}

#[test]
fn stopping_before_registering_takes_nothing_back() {
    let mut life = Lifecycle::new(Settings::default(), 1);
    feed(&mut life, 0.0, Event::Tick);
    assert_eq!(feed(&mut life, 0.1, Event::Stop).1, Action::Done);
    // But a registration that failed may have arrived all the same.
    let mut life = Lifecycle::new(Settings { probes: false, ..Settings::default() }, 1);
    feed(&mut life, 0.0, Event::Tick);
    feed(&mut life, 0.0, Event::RegisterFailed("timeout".into()));
    assert_eq!(feed(&mut life, 0.1, Event::Stop).1, Action::Deregister);
}

/// A registry and a service on a virtual clock, both as unreliable as the seed wants them, until `calm`.
struct World {
    now: Duration,
    random: u64,
    calm: Duration,
    ttl: Duration,
    lease_until: Option<Duration>,
    status: Option<Status>,
    last_calls: [Option<Duration>; 2],
}

impl World {
    fn random(&mut self, bound: u32) -> u32 {
        self.random = seed::mix(self.random);
        seed::below(self.random, bound)
    }

    fn is_calm(&self) -> bool {
        self.now >= self.calm
    }

    fn alive(&self) -> bool {
        self.lease_until.is_some_and(|until| self.now < until)
    }

    fn perform(&mut self, command: Action) -> Event {
        match command {
            Action::WakeAt(at) => {
                assert!(at <= self.now + secs(60.0), "nothing waits longer than a minute: {:?}", at - self.now);
                self.now = self.now.max(at);
                Event::Tick
            }
            Action::ProbeHealth => self.probe(),
            Action::Register(report) => self.write(Some(report.status), true),
            Action::Heartbeat { status, .. } => self.write(Some(status), false),
            other => panic!("{other:?}"),
        }
    }

    fn probe(&mut self) -> Event {
        let slow = !self.is_calm() && self.random(10) == 0;
        self.now += if slow { secs(2.0) } else { secs(0.002) };
        match if self.is_calm() { 0 } else { self.random(5) } {
            0 | 1 => ready(),
            2 => says(Status::Unhealthy),
            3 => Event::Health(Health::NotReady(500)),
            _ => silent(),
        }
    }

    fn write(&mut self, status: Option<Status>, register: bool) -> Event {
        let last = self.last_calls[usize::from(register)];
        assert!(last.is_none_or(|last| self.now > last), "a call is repeated at once");
        let (away, slow) = if self.is_calm() { (false, false) } else { (self.random(3) == 0, self.random(10) == 0) };
        self.now += if slow { secs(5.0) } else { secs(0.002) };
        self.last_calls[usize::from(register)] = Some(self.now);
        if !self.is_calm() && self.random(20) == 0 {
            self.lease_until = None;
        }
        match (away, register) {
            (true, true) => return Event::RegisterFailed("away".into()),
            (true, false) => return Event::HeartbeatFailed("away".into()),
            (false, false) if !self.alive() => return Event::LeaseUnknown,
            (false, _) => {}
        }
        self.lease_until = Some(self.now + self.ttl);
        self.status = status;
        if register { Event::Registered(Some(self.ttl)) } else { Event::Renewed }
    }
}

#[test]
fn whatever_happened_calm_brings_it_back_and_keeps_it() {
    for seed in 0..300 {
        let settings = Settings {
            health_gate: if seed % 2 == 0 { HealthGate::Report } else { HealthGate::Strict },
            probes: seed % 5 != 0,
            heartbeat_interval: secs([0.2, 5.0, 30.0, 300.0][seed as usize % 4]),
            initial_wait: secs([0.0, 60.0][seed as usize % 2]),
        };
        let ttl = secs([1.0, 5.0, 60.0][seed as usize % 3]);
        let calm = secs(300.0);
        let mut world =
            World { now: Duration::ZERO, random: seed, calm, ttl, lease_until: None, status: None, last_calls: [None; 2] };
        let mut life = Lifecycle::new(settings, seed);
        let mut event = Event::Tick;
        while world.now < calm * 3 {
            let mut actions = life.handle(world.now, event);
            let command = actions.pop().expect("there is always a command");
            assert!(actions.iter().all(|action| matches!(action, Action::Log(_))), "seed {seed}: {actions:?}");
            event = world.perform(command);
            // A minute of backoff, one slow call and one probe interval later everything must be well, and stay so.
            if world.now > calm + secs(75.0) {
                assert!(world.alive(), "seed {seed}: the lease lapsed at {:?}", world.lease_until);
                assert_eq!(world.status, Some(Status::Healthy), "seed {seed}");
            }
        }
        let (_, command) = feed(&mut life, world.now.as_secs_f64(), Event::Stop);
        assert_eq!(command, Action::Deregister, "seed {seed}");
        assert_eq!(feed(&mut life, world.now.as_secs_f64(), Event::Deregistered).1, Action::Done, "seed {seed}");
    }
}

#[test]
fn any_event_at_any_time_gives_exactly_one_command() {
    let events = || {
        vec![
            Event::Tick,
            ready(),
            silent(),
            Event::Registered(Some(SECOND)),
            Event::RegisterFailed(String::new()),
            Event::Renewed,
            Event::LeaseUnknown,
            Event::HeartbeatFailed(String::new()),
            Event::StatusSet(Status::Degraded),
            Event::Deregistered,
            Event::DeregisterFailed(String::new()),
            Event::Stop,
        ]
    };
    for seed in 0..2000u64 {
        let mut life = Lifecycle::new(Settings { probes: seed % 2 == 0, ..strict() }, seed);
        let (mut random, mut now) = (seed, 0.0);
        for _ in 0..30 {
            random = seed::mix(random);
            let all = events();
            let event = all[seed::below(random, 12) as usize].clone();
            // `feed` checks the shape.
            feed(&mut life, now, event);
            now += f64::from(seed::below(seed::mix(random ^ 1), 40_000)) / 1000.0;
        }
    }
}

#[test]
fn waits_of_any_length_do_not_overflow() {
    let settings = Settings { heartbeat_interval: Duration::MAX, initial_wait: Duration::MAX, ..Settings::default() };
    let mut life = Lifecycle::new(settings, 1);
    feed(&mut life, 1.0, Event::Tick);
    feed(&mut life, 1.0, silent());
    feed(&mut life, 1.0, ready());
    assert_eq!(feed(&mut life, 1.0, Event::Registered(None)).1, Action::WakeAt(secs(6.0)));
    assert_eq!(SECOND, secs(1.0));
}
