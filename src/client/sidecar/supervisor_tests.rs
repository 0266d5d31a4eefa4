use std::collections::VecDeque;

use signal_hook::consts::{SIGHUP, SIGINT, SIGSEGV};

use super::*;

const GRACE: f64 = 10.0;

fn policy() -> Policy {
    Policy {
        restart: Restart::OnFailure,
        restarts_max: 0,
        unhealthy_max: None,
        start_max: secs(60.0),
        stop_grace: secs(GRACE),
        drain_wait: secs(1.0),
    }
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Feeds one event and splits the answer into log lines and the rest.
fn feed(supervisor: &mut Supervisor, at: f64, event: Event) -> (Vec<String>, Vec<Action>) {
    let (mut lines, mut rest) = (Vec::new(), Vec::new());
    for action in supervisor.handle(secs(at), event) {
        match action {
            Action::Log(step) => lines.push(step.to_string()),
            other => rest.push(other),
        }
    }
    (lines, rest)
}

/// A service that was started at second 0.
fn running(policy: Policy) -> Supervisor {
    let mut supervisor = Supervisor::new(policy, 1);
    assert_eq!(feed(&mut supervisor, 0.0, Event::Tick).1, [Action::Start]);
    let (lines, actions) = feed(&mut supervisor, 0.0, Event::Started(42));
    assert_eq!((lines, actions), (vec!["Service started (process 42)".to_owned()], vec![Action::Register]));
    supervisor
}

/// Lets the service end with nobody left behind. Gives the lines, and the exit code if the sidecar ends.
fn die(supervisor: &mut Supervisor, at: f64, exit: Exit) -> (Vec<String>, Option<u8>) {
    let (lines, actions) = feed(supervisor, at, Event::Exited(exit));
    assert!(!actions.contains(&Action::Start), "{actions:?}");
    match feed(supervisor, at, Event::Vacated).1.as_slice() {
        [] => (lines, None),
        [Action::Exit(code)] => (lines, Some(*code)),
        other => panic!("{other:?}"),
    }
}

/// Waits for the restart and says when it was.
fn restart(supervisor: &mut Supervisor) -> f64 {
    let at = supervisor.wake_at().expect("a restart is planned");
    assert_eq!(feed(supervisor, at.as_secs_f64() - 0.001, Event::Tick).1, []);
    assert_eq!(supervisor.handle(at, Event::Tick), [Action::Start]);
    supervisor.handle(at, Event::Started(43));
    at.as_secs_f64()
}

#[test]
fn what_dies_is_deregistered_at_once_and_started_again() {
    let mut supervisor = running(policy());
    let (lines, actions) = feed(&mut supervisor, 5.0, Event::Exited(Exit::Code(3)));
    assert_eq!(lines, ["Service exited with code 3, restarting in 1 seconds"]);
    assert_eq!(actions, [Action::Deregister, Action::Signal(SIGTERM)]);
    assert_eq!(feed(&mut supervisor, 5.0, Event::Deregistered).1, []);
    assert_eq!(feed(&mut supervisor, 5.0, Event::Vacated).1, []);
    let at = restart(&mut supervisor);
    assert!((5.5..=6.0).contains(&at), "{at}");
}

#[test]
fn the_pause_doubles_up_to_a_minute_and_starts_anew_after_a_good_run() {
    let mut supervisor = running(policy());
    let mut at = 0.0;
    for full in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
        let (lines, code) = die(&mut supervisor, at, Exit::Signal(SIGSEGV));
        assert_eq!(code, None);
        assert!(lines[0].starts_with("Service was ended by SIGSEGV, restarting in "), "{lines:?}");
        let again = restart(&mut supervisor);
        assert!((full / 2.0..=full).contains(&(again - at)), "{again} after {at}, not {full}");
        at = again;
    }
    // Being up is not enough: it has to be well.
    for status in [Status::Healthy, Status::Unhealthy, Status::Healthy] {
        at += 59.0;
        feed(&mut supervisor, at, Event::Health(status));
    }
    die(&mut supervisor, at + 59.0, Exit::Code(1));
    let again = restart(&mut supervisor);
    assert!(again - (at + 59.0) >= 30.0, "{again}");

    feed(&mut supervisor, again, Event::Health(Status::Healthy));
    die(&mut supervisor, again + 60.0, Exit::Code(1));
    let anew = restart(&mut supervisor);
    assert!(anew - (again + 60.0) <= 1.0, "{anew}");
}

#[test]
fn which_ends_are_followed_by_a_restart() {
    for (restart, exit, ends_with) in [
        (Restart::Always, Exit::Code(0), None),
        (Restart::Always, Exit::Code(1), None),
        (Restart::OnFailure, Exit::Code(0), Some(0)),
        (Restart::OnFailure, Exit::Code(1), None),
        (Restart::OnFailure, Exit::Signal(SIGTERM), None),
        (Restart::Never, Exit::Code(0), Some(0)),
        (Restart::Never, Exit::Code(7), Some(7)),
        (Restart::Never, Exit::Signal(SIGKILL), Some(137)),
        // A command that cannot be run will not run the next time either.
        (Restart::Always, Exit::Code(127), Some(127)),
        (Restart::OnFailure, Exit::Code(126), Some(126)),
    ] {
        let mut supervisor = running(Policy { restart, ..policy() });
        assert_eq!(die(&mut supervisor, 1.0, exit).1, ends_with, "{restart:?} {exit:?}");
        assert_eq!(supervisor.wake_at().is_some(), ends_with.is_none(), "{restart:?} {exit:?}");
    }
}

#[test]
fn a_command_that_is_missing_later_is_waited_for() {
    let mut supervisor = running(policy());
    assert_eq!(die(&mut supervisor, 1.0, Exit::Code(1)).1, None);
    restart(&mut supervisor);
    assert_eq!(die(&mut supervisor, 9.0, Exit::Code(127)).1, None);

    let mut supervisor = running(policy());
    feed(&mut supervisor, 1.0, Event::Health(Status::Healthy));
    assert_eq!(die(&mut supervisor, 9.0, Exit::Code(127)).1, None);
}

#[test]
fn a_process_that_cannot_be_made_is_tried_again_unless_it_is_the_first() {
    let mut supervisor = Supervisor::new(policy(), 1);
    feed(&mut supervisor, 0.0, Event::Tick);
    let (lines, actions) = feed(&mut supervisor, 0.0, Event::StartFailed("out of memory".into()));
    assert_eq!(lines[0], "Service could not be started: out of memory");
    assert_eq!(actions, [Action::Exit(126)]);

    let mut supervisor = running(policy());
    die(&mut supervisor, 1.0, Exit::Code(1));
    let at = supervisor.wake_at().unwrap();
    assert_eq!(supervisor.handle(at, Event::Tick), [Action::Start]);
    supervisor.handle(at, Event::StartFailed("out of memory".into()));
    restart(&mut supervisor);
}

#[test]
fn gives_up_after_so_many_restarts_in_a_row() {
    let mut supervisor = running(Policy { restarts_max: 2, ..policy() });
    for _ in 0..2 {
        assert_eq!(die(&mut supervisor, 1.0, Exit::Code(9)).1, None);
        restart(&mut supervisor);
    }
    let (lines, code) = die(&mut supervisor, 9.0, Exit::Code(9));
    assert_eq!(lines, ["Service exited with code 9, giving up after 2 restarts in a row"]);
    assert_eq!(code, Some(9));
}

#[test]
fn told_to_end_it_deregisters_drains_asks_and_kills() {
    let mut supervisor = running(policy());
    let (lines, actions) = feed(&mut supervisor, 100.0, Event::Stop(SIGINT));
    assert_eq!((lines[0].as_str(), actions), ("Shutting down", vec![Action::Deregister]));
    // The registry was slow; what follows counts from here.
    assert_eq!(feed(&mut supervisor, 102.0, Event::Deregistered).1, []);
    assert_eq!(supervisor.wake_at(), Some(secs(103.0)));
    assert_eq!(feed(&mut supervisor, 103.0, Event::Tick).1, [Action::Signal(SIGINT)]);
    assert_eq!(supervisor.wake_at(), Some(secs(113.0)));
    let (lines, actions) = feed(&mut supervisor, 113.0, Event::Tick);
    assert_eq!(lines, ["Service did not end within 10s, killing it"]);
    assert_eq!(actions, [Action::Signal(SIGKILL)]);
    let (lines, code) = die(&mut supervisor, 113.0, Exit::Signal(SIGKILL));
    assert_eq!((lines[0].as_str(), code), ("Service was ended by SIGKILL", Some(137)));
}

#[test]
fn asked_a_second_time_it_does_not_wait_for_the_drain() {
    let mut supervisor = running(Policy { drain_wait: secs(30.0), ..policy() });
    feed(&mut supervisor, 1.0, Event::Stop(SIGTERM));
    feed(&mut supervisor, 1.0, Event::Deregistered);
    let (lines, actions) = feed(&mut supervisor, 2.0, Event::Stop(SIGTERM));
    assert_eq!((lines.len(), actions), (0, vec![Action::Signal(SIGTERM)]));
    assert_eq!(feed(&mut supervisor, 3.0, Event::Stop(SIGINT)).1, [Action::Signal(SIGINT)]);
    assert_eq!(die(&mut supervisor, 4.0, Exit::Code(0)).1, Some(0));
}

#[test]
fn the_group_is_waited_for_with_the_same_patience() {
    // The shell is gone, its server is still answering.
    let mut supervisor = running(Policy { drain_wait: Duration::ZERO, ..policy() });
    feed(&mut supervisor, 1.0, Event::Stop(SIGTERM));
    assert_eq!(feed(&mut supervisor, 1.0, Event::Deregistered).1, [Action::Signal(SIGTERM)]);
    assert_eq!(feed(&mut supervisor, 1.1, Event::Exited(Exit::Signal(SIGTERM))).1, []);
    assert_eq!(supervisor.wake_at(), Some(secs(11.0)));
    assert_eq!(feed(&mut supervisor, 11.0, Event::Tick).1, [Action::Signal(SIGKILL)]);
    assert_eq!(feed(&mut supervisor, 11.1, Event::Vacated).1, [Action::Exit(143)]);

    // It left a worker behind, which keeps the port: no start before that has gone.
    let mut supervisor = running(policy());
    feed(&mut supervisor, 1.0, Event::Exited(Exit::Code(1)));
    assert_eq!(feed(&mut supervisor, 6.0, Event::Tick).1, []);
    assert_eq!(feed(&mut supervisor, 7.0, Event::Vacated).1, [Action::Start]);
}

#[test]
fn what_hangs_in_the_kernel_is_left_there() {
    let mut supervisor = running(policy());
    feed(&mut supervisor, 0.0, Event::Stop(SIGTERM));
    feed(&mut supervisor, 0.0, Event::Deregistered);
    feed(&mut supervisor, 1.0, Event::Tick);
    feed(&mut supervisor, 11.0, Event::Tick);
    assert_eq!(supervisor.wake_at(), Some(secs(16.0)));
    assert_eq!(feed(&mut supervisor, 16.0, Event::Tick).1, [Action::Exit(137)]);
}

#[test]
fn told_to_end_while_it_backs_off_it_ends_as_the_service_did() {
    let mut supervisor = running(policy());
    die(&mut supervisor, 1.0, Exit::Code(3));
    assert_eq!(feed(&mut supervisor, 1.1, Event::Stop(SIGTERM)).1, [Action::Exit(3)]);

    let mut supervisor = running(policy());
    feed(&mut supervisor, 1.0, Event::Exited(Exit::Code(3)));
    assert_eq!(feed(&mut supervisor, 1.1, Event::Stop(SIGTERM)).1, []);
    assert_eq!(feed(&mut supervisor, 1.2, Event::Vacated).1, [Action::Exit(3)]);
}

fn impatient() -> Policy {
    Policy { unhealthy_max: Some(secs(30.0)), ..policy() }
}

#[test]
fn unhealthy_for_too_long_it_is_restarted_even_if_it_ends_well() {
    let mut supervisor = running(impatient());
    feed(&mut supervisor, 5.0, Event::Health(Status::Healthy));
    for at in [10.0, 20.0, 34.9] {
        assert_eq!(feed(&mut supervisor, at, Event::Health(Status::Unhealthy)).1, []);
    }
    let (lines, actions) = feed(&mut supervisor, 35.5, Event::Health(Status::Unhealthy));
    assert_eq!(lines, ["Service has not been healthy for 30s, restarting it"]);
    assert_eq!(actions, [Action::Deregister]);
    // No drain: it has had no traffic since it became unhealthy.
    assert_eq!(feed(&mut supervisor, 35.5, Event::Deregistered).1, [Action::Signal(SIGTERM)]);
    let (lines, code) = die(&mut supervisor, 36.0, Exit::Code(0));
    assert_eq!((lines[0].as_str(), code), ("Service exited with code 0, restarting in 1 seconds", None));
    restart(&mut supervisor);
}

#[test]
fn only_fresh_evidence_counts_against_it() {
    let mut supervisor = running(impatient());
    feed(&mut supervisor, 5.0, Event::Health(Status::Healthy));
    feed(&mut supervisor, 6.0, Event::Health(Status::Unhealthy));
    // Nothing was heard for a long time; it may be well again.
    assert_eq!(supervisor.wake_at(), None);
    assert_eq!(feed(&mut supervisor, 300.0, Event::Tick).1, []);
    assert_eq!(feed(&mut supervisor, 301.0, Event::Health(Status::Healthy)).1, []);
    assert_eq!(feed(&mut supervisor, 302.0, Event::Health(Status::Unhealthy)).1, []);
    // Degraded takes traffic, draining is deliberate.
    for status in [Status::Degraded, Status::Draining] {
        assert_eq!(feed(&mut supervisor, 500.0, Event::Health(status)).1, []);
        assert_eq!(feed(&mut supervisor, 501.0, Event::Health(Status::Unhealthy)).1, []);
    }
}

#[test]
fn a_slow_start_is_no_illness() {
    let mut supervisor = running(impatient());
    for at in [1.0, 59.0, 61.0, 89.0] {
        assert_eq!(feed(&mut supervisor, at, Event::Health(Status::Starting)).1, [], "{at}");
    }
    assert_eq!(feed(&mut supervisor, 90.0, Event::Health(Status::Starting)).1, [Action::Deregister]);

    let mut patient = running(policy());
    assert_eq!(feed(&mut patient, 100_000.0, Event::Health(Status::Starting)).1, []);
}

#[test]
fn an_unhealthy_service_that_is_given_up_is_no_success() {
    let mut supervisor = running(Policy { restarts_max: 1, ..impatient() });
    assert_eq!(die(&mut supervisor, 1.0, Exit::Code(1)).1, None);
    let at = restart(&mut supervisor) + 100.0;
    feed(&mut supervisor, at, Event::Health(Status::Starting));
    feed(&mut supervisor, at, Event::Deregistered);
    assert_eq!(die(&mut supervisor, at, Exit::Code(0)).1, Some(1));
}

#[test]
fn told_to_end_in_the_middle_of_a_restart_for_bad_health() {
    let mut supervisor = running(impatient());
    feed(&mut supervisor, 100.0, Event::Health(Status::Starting));
    feed(&mut supervisor, 100.0, Event::Deregistered);
    let (lines, actions) = feed(&mut supervisor, 101.0, Event::Stop(SIGINT));
    assert_eq!((lines[0].as_str(), actions), ("Shutting down", vec![Action::Signal(SIGINT)]));
    assert_eq!(die(&mut supervisor, 102.0, Exit::Code(0)).1, Some(0));
}

#[test]
fn other_signals_go_to_a_service_that_is_there() {
    let mut supervisor = running(policy());
    assert_eq!(feed(&mut supervisor, 1.0, Event::Forward(SIGHUP)).1, [Action::Signal(SIGHUP)]);
    die(&mut supervisor, 1.0, Exit::Code(1));
    assert_eq!(feed(&mut supervisor, 1.1, Event::Forward(SIGHUP)).1, []);
}

/// A service and its group, as moody as the seed says, and the rules that hold whatever they do.
struct World {
    supervisor: Supervisor,
    seed: u64,
    now: Duration,
    leader: bool,
    others: bool,
    registered: bool,
    /// Whether they do not hear SIGTERM.
    deaf: bool,
    told_to_end: Option<Duration>,
    starts: u32,
    code: Option<u8>,
    /// What has happened and was not told yet.
    news: VecDeque<Event>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            supervisor: Supervisor::new(policy(), seed),
            seed,
            now: Duration::ZERO,
            leader: false,
            others: false,
            registered: false,
            deaf: false,
            told_to_end: None,
            starts: 0,
            code: None,
            news: VecDeque::from([Event::Tick]),
        };
        let restart = [Restart::Always, Restart::OnFailure, Restart::Never][world.draw(3)];
        let restarts_max = [0, 1, 5][world.draw(3)];
        let unhealthy_max = (restart != Restart::Never && world.draw(2) == 0).then(|| secs(20.0));
        let policy = Policy { restart, restarts_max, unhealthy_max, start_max: secs(10.0), ..policy() };
        world.supervisor = Supervisor::new(policy, seed);
        world
    }

    fn draw(&mut self, bound: u32) -> usize {
        self.seed = seed::mix(self.seed);
        seed::below(self.seed, bound) as usize
    }

    /// Tells the news until there are none.
    fn settle(&mut self) {
        while let Some(event) = self.news.pop_front() {
            let died = matches!(event, Event::Exited(_));
            for action in self.supervisor.handle(self.now, event) {
                assert_eq!(self.code, None, "{action:?} after the end");
                self.perform(action);
            }
            assert!(!died || !self.registered, "a dead service stays registered");
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Log(step) => assert!(!step.to_string().is_empty()),
            Action::Start => self.start(),
            Action::Register => self.registered = true,
            Action::Deregister => {
                self.registered = false;
                self.news.push_back(Event::Deregistered);
            }
            Action::Signal(SIGKILL) => {
                self.die(Exit::Signal(SIGKILL));
                self.leave();
            }
            Action::Signal(signal) if self.deaf || signal == SIGHUP => {}
            Action::Signal(_) => {
                if self.draw(2) == 0 {
                    self.die(Exit::Code(0));
                }
                if self.draw(2) == 0 {
                    self.leave();
                }
            }
            Action::Exit(code) => {
                assert!(!self.leader && !self.others && !self.registered, "it ended too early");
                self.code = Some(code);
            }
        }
    }

    fn start(&mut self) {
        assert!(!self.leader && !self.others, "a second one beside the first");
        assert_eq!(self.told_to_end, None, "a start after the end was wanted");
        self.starts += 1;
        if self.draw(20) == 0 {
            return self.news.push_back(Event::StartFailed("no".into()));
        }
        (self.leader, self.others, self.deaf) = (true, self.draw(3) == 0, self.draw(4) == 0);
        self.news.push_back(Event::Started(1));
    }

    fn die(&mut self, exit: Exit) {
        if std::mem::take(&mut self.leader) {
            self.news.push_back(Event::Exited(exit));
            self.vacate();
        }
    }

    fn leave(&mut self) {
        if std::mem::take(&mut self.others) {
            self.vacate();
        }
    }

    fn vacate(&mut self) {
        if !self.leader && !self.others {
            self.news.push_back(Event::Vacated);
        }
    }

    /// Something happens, then time passes: until the supervisor wants to wake, or less.
    fn step(&mut self) {
        match self.draw(8) {
            0 => {
                let exit = [Exit::Code(0), Exit::Code(1), Exit::Code(127), Exit::Signal(SIGSEGV)][self.draw(4)];
                self.die(exit);
            }
            1 => self.leave(),
            2 => self.news.push_back(Event::Forward(SIGHUP)),
            3..6 if self.leader => {
                let status = Status::ALL[self.draw(5)];
                self.news.push_back(Event::Health(status));
            }
            _ => {}
        }
        self.settle();
        let some = Duration::from_millis(self.draw(10_000) as u64);
        let due = self.supervisor.wake_at().map_or(some, |at| at.saturating_sub(self.now).min(some));
        self.now += due;
        self.news.push_back(Event::Tick);
        self.settle();
    }
}

#[test]
fn whatever_happens_there_is_one_service_and_an_end() {
    let (mut starts, mut ends) = (0, 0);
    for seed in 0..500 {
        let mut world = World::new(seed);
        for _ in 0..200 {
            if world.code.is_none() {
                world.step();
            }
        }
        if world.code.is_none() {
            world.told_to_end = Some(world.now);
            world.news.push_back(Event::Stop(SIGTERM));
        }
        let end = world.now + policy().drain_wait + policy().stop_grace + KILL_MAX;
        while world.code.is_none() {
            world.step();
            assert!(world.now <= end, "seed {seed} does not end");
        }
        starts += world.starts;
        ends += u32::from(world.told_to_end.is_none());
    }
    assert!(starts > 1000 && ends > 100 && ends < 500, "the world is too dull: {starts} starts, {ends} ends by themselves");
}
