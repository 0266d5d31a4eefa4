//! What an operator sees of `vertice-sidecar exec`: real commands, mostly shells; their health is answered by the test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::{Reply, Server, Sidecar, eventually, healthy, is_gone, registry_answer, run_sidecar, signal};

const FAST: (&str, &str) = ("HEARTBEAT_INTERVAL", "200ms");
const NO_DRAIN: (&str, &str) = ("SIDECAR_DRAIN_WAIT", "0");

/// Counts seconds until it is told to end, as slow as shells are.
const PATIENT: &str = "trap 'echo told; exit 5' TERM; echo up; while :; do sleep 0.05; done";

/// The last number in a line.
fn number(line: &str) -> u32 {
    let digits: Vec<_> = line.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
    digits.last().unwrap_or_else(|| panic!("no number in {line:?}")).parse().unwrap()
}

#[test]
fn starts_registers_and_ends_the_service_in_this_order() {
    let (service, registry) = (Server::service(), Server::registry());
    let mut sidecar = Sidecar::exec(service.address, &registry.url(), &[FAST], &["sh", "-c", PATIENT]);
    sidecar.wait_line("Service registered successfully");
    assert_eq!(registry.next().line(), "POST /register");
    let (code, _, log) = sidecar.end("TERM");
    assert_eq!(code, Some(5), "{log:#?}");
    let mut rest = log.iter();
    for step in ["Shutting down", "Service deregistered", "told", "Service exited with code 5"] {
        assert!(rest.any(|line| line.ends_with(step)), "{step:?} is not in its place: {log:#?}");
    }
    assert!(log.iter().all(|line| !line.contains(" WARN ")), "{log:#?}");
    registry.next_where(|request| request.method == "DELETE");
}

#[test]
fn the_command_gets_its_arguments_the_environment_and_the_port() {
    let script = r#"echo "$1|$2|$SERVICE_PORT|$GREETING|$SERVICE_NAME"; echo oops >&2"#;
    let arguments = ["exec", "--", "sh", "-c", script, "sh", "a b", "--help"];
    let variables = [("SERVICE_NAME", "osint_service"), ("SERVICE_HOST", "127.0.0.1"), ("GREETING", "hi")];
    let output = run_sidecar(&arguments, &variables);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().any(|line| line == "a b|--help|8080|hi|osint_service"), "{text}");
    assert!(text.contains("Service exited with code 0"), "{text}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "oops\n");
}

#[test]
fn ends_with_the_code_of_the_command() {
    for (command, restart, code) in [
        (["sh", "-c", "exit 0"].as_slice(), "on-failure", 0),
        (&["sh", "-c", "exit 7"], "never", 7),
        (&["sh", "-c", "kill -KILL $$"], "never", 137),
        (&["no-such-command"], "always", 127),
        (&["/no/such/command"], "on-failure", 127),
        (&["/etc/passwd"], "always", 126),
        (&["/"], "on-failure", 126),
    ] {
        let arguments = [["exec", "--"].as_slice(), command].concat();
        let variables = [("SERVICE_NAME", "osint_service"), ("SERVICE_HOST", "127.0.0.1"), ("SIDECAR_RESTART", restart)];
        let output = run_sidecar(&arguments, &variables);
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{command:?}: {told}");
        assert!(code < 126 || code == 137 || told.contains(command[0]), "{told}");
    }
}

#[test]
fn what_dies_is_deregistered_restarted_and_registered_again() {
    let (service, registry) = (Server::service(), Server::registry());
    let mut sidecar = Sidecar::exec(service.address, &registry.url(), &[], &["sleep", "1000"]);
    let process = number(&sidecar.wait_line("Service started (process "));
    sidecar.wait_line("Service registered successfully");
    assert_eq!(registry.next().line(), "POST /register");
    signal(process, "KILL");
    let line = sidecar.wait_line("Service was ended by SIGKILL");
    assert!(line.ends_with("WARN Service was ended by SIGKILL, restarting in 1 seconds"), "{line}");
    assert!(registry.next_where(|request| request.target != "/heartbeat").line().starts_with("DELETE /deregister/"));
    let again = number(&sidecar.wait_line("Service started (process "));
    assert_ne!(again, process);
    sidecar.wait_line("Service registered successfully");
    assert_eq!(registry.next().line(), "POST /register");
}

#[test]
fn a_command_that_fails_at_once_backs_off_and_is_never_registered() {
    let service = Server::start(|_, _| Reply::Json(503, String::new()));
    let registry = Server::registry();
    let more = [("SIDECAR_RESTART_MAX", "2")];
    let sidecar = Sidecar::exec(service.address, &registry.url(), &more, &["sh", "-c", "echo try; exit 3"]);
    let (code, log) = sidecar.wait_end();
    assert_eq!(code, Some(3), "{log:#?}");
    assert_eq!(log.iter().filter(|line| *line == "try").count(), 3, "{log:#?}");
    for step in ["code 3, restarting in 1 seconds", "code 3, restarting in 2 seconds", "giving up after 2 restarts in a row"] {
        assert!(log.iter().any(|line| line.ends_with(step)), "{step}: {log:#?}");
    }
    assert!(registry.drain(|| true).is_empty());
}

#[test]
fn a_registry_that_hangs_does_not_keep_the_signal_from_the_service() {
    let service = Server::service();
    let registry = Server::start(|_, request| match request {
        Some(request) if request.method == "DELETE" => Reply::Stall(Vec::new()),
        _ => registry_answer(request, 60),
    });
    let mut sidecar = Sidecar::exec(service.address, &registry.url(), &[NO_DRAIN], &["sh", "-c", PATIENT]);
    sidecar.wait_line("Service registered successfully");
    let (code, took, log) = sidecar.end("INT");
    // A shell dies of SIGINT unless it traps it.
    assert_eq!(code, Some(130), "{log:#?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn what_does_not_end_is_killed_after_the_grace() {
    let (service, registry) = (Server::service(), Server::registry());
    let more = [NO_DRAIN, ("SIDECAR_STOP_GRACE", "300ms")];
    let deaf = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    let mut sidecar = Sidecar::exec(service.address, &registry.url(), &more, &["sh", "-c", deaf]);
    sidecar.wait_line("up");
    let (code, _, log) = sidecar.end("TERM");
    assert_eq!(code, Some(137), "{log:#?}");
    assert!(log.iter().any(|line| line.ends_with("Service did not end within 0.3s, killing it")), "{log:#?}");
}

#[test]
fn nobody_of_the_group_survives() {
    // Neither when told to end,
    let (service, registry) = (Server::service(), Server::registry());
    let parent = "sleep 1000 & echo worker $!; wait";
    let mut sidecar = Sidecar::exec(service.address, &registry.url(), &[NO_DRAIN], &["sh", "-c", parent]);
    let worker = number(&sidecar.wait_line("worker "));
    assert_eq!(sidecar.end("TERM").0, Some(143));
    assert!(is_gone(worker));

    // nor when their leader ends, be they deaf.
    let more = [("SIDECAR_RESTART", "never"), ("SIDECAR_STOP_GRACE", "300ms")];
    let parent = "trap '' TERM; sleep 1000 & echo worker $!; exit 9";
    let mut sidecar = Sidecar::exec(service.address, &registry.url(), &more, &["sh", "-c", parent]);
    let worker = number(&sidecar.wait_line("worker "));
    let (code, log) = sidecar.wait_end();
    assert_eq!(code, Some(9), "{log:#?}");
    assert!(is_gone(worker));
}

#[test]
fn a_worker_may_finish_what_its_shell_does_not_wait_for() {
    let (service, registry) = (Server::service(), Server::registry());
    // The shell dies of the signal; the worker takes a while.
    let parent =
        "sh -c \"trap 'sleep 0.3; echo finished; exit 0' TERM; echo worker; while :; do sleep 0.05; done\"; echo never";
    let mut sidecar = Sidecar::exec(service.address, &registry.url(), &[NO_DRAIN], &["sh", "-c", parent]);
    sidecar.wait_line("worker");
    let (code, _, log) = sidecar.end("TERM");
    assert_eq!(code, Some(143), "{log:#?}");
    assert!(log.iter().any(|line| line == "finished"), "{log:#?}");
}

#[test]
fn the_command_dies_with_a_sidecar_that_is_killed() {
    let (service, registry) = (Server::service(), Server::registry());
    let mut sidecar = Sidecar::exec(service.address, &registry.url(), &[], &["sleep", "1000"]);
    let process = number(&sidecar.wait_line("Service started (process "));
    sidecar.wait_line("Service registered successfully");
    assert!(!is_gone(process));
    drop(sidecar);
    eventually("the end of the command", || is_gone(process));
}

#[test]
fn orphans_are_adopted_and_buried() {
    let (service, registry) = (Server::service(), Server::registry());
    // Their parent ends, they do not.
    let script = "sh -c 'for n in 1 2 3 4 5; do sleep 1000 & echo orphan $!; done'; sleep 1000";
    let mut sidecar = Sidecar::exec(service.address, &registry.url(), &[], &["sh", "-c", script]);
    let orphans: Vec<_> = (0..5).map(|_| number(&sidecar.wait_line("orphan "))).collect();
    let adopted = format!("\nPPid:\t{}\n", sidecar.id());
    let status = |orphan: &u32| std::fs::read_to_string(format!("/proc/{orphan}/status"));
    eventually("the adoption", || orphans.iter().all(|orphan| status(orphan).unwrap().contains(&adopted)));
    orphans.iter().for_each(|&orphan| signal(orphan, "KILL"));
    // A zombie would still have a status.
    eventually("the burial", || orphans.iter().all(|orphan| status(orphan).is_err()));
    assert_eq!(sidecar.end("TERM").0, Some(143));
}

#[test]
fn other_signals_are_passed_on() {
    let (service, registry) = (Server::service(), Server::registry());
    let names = ["HUP", "QUIT", "USR1", "USR2", "WINCH", "CONT"];
    let traps: String = names.iter().map(|name| format!("trap 'echo heard {name}' {name}; ")).collect();
    let script = format!("{traps} echo up; while :; do sleep 0.05; done");
    let mut sidecar = Sidecar::exec(service.address, &registry.url(), &[], &["sh", "-c", &script]);
    sidecar.wait_line("up");
    for name in names {
        signal(sidecar.id(), name);
        sidecar.wait_line(&format!("heard {name}"));
    }
    assert!(sidecar.is_running());
}

#[test]
fn stopped_and_continued_like_any_job() {
    let (service, registry) = (Server::service(), Server::registry());
    let mut sidecar = Sidecar::exec(service.address, &registry.url(), &[FAST], &["sleep", "1000"]);
    let process = number(&sidecar.wait_line("Service started (process "));
    sidecar.wait_line("Service registered successfully");
    let stopped = |id: u32| std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap().contains(") T ");
    signal(sidecar.id(), "TSTP");
    eventually("both to stop", || stopped(sidecar.id()) && stopped(process));
    signal(sidecar.id(), "CONT");
    eventually("both to go on", || !stopped(sidecar.id()) && !stopped(process));
    drop(registry.drain(|| true));
    registry.next_where(|request| request.target == "/heartbeat");
}

#[test]
fn unhealthy_for_too_long_it_is_restarted() {
    let well = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&well);
    let service =
        Server::start(move |_, _| if flag.load(Ordering::SeqCst) { healthy() } else { Reply::Json(503, "{}".into()) });
    let registry = Server::registry();
    let more = [FAST, ("SIDECAR_UNHEALTHY_RESTART", "1")];
    // Ends well when asked to, and is started again nevertheless.
    let script = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let mut sidecar = Sidecar::exec(service.address, &registry.url(), &more, &["sh", "-c", script]);
    sidecar.wait_line("Service registered successfully");
    well.store(false, Ordering::SeqCst);
    sidecar.wait_line("Service has not been healthy for 1s, restarting it");
    sidecar.wait_line("Service exited with code 0, restarting in 1 seconds");
    registry.next_where(|request| request.method == "DELETE");
    sidecar.wait_line("up");
    well.store(true, Ordering::SeqCst);
    sidecar.wait_line("Service registered successfully");
    registry.next_where(|request| request.target == "/register");
}

#[test]
fn health_is_watched_while_the_registry_is_away() {
    let well = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&well);
    let service =
        Server::start(move |_, _| if flag.load(Ordering::SeqCst) { healthy() } else { Reply::Json(503, "{}".into()) });
    let registry = Server::start(|_, _| Reply::Json(500, "{}".into()));
    let more = [FAST, ("SIDECAR_UNHEALTHY_RESTART", "1")];
    let mut sidecar = Sidecar::exec(service.address, &registry.url(), &more, &["sleep", "1000"]);
    sidecar.wait_line("Retrying registration in 1 seconds");
    well.store(false, Ordering::SeqCst);
    sidecar.wait_line("Service has not been healthy for");
    sidecar.wait_line("Service was ended by SIGTERM, restarting in 1 seconds");
}

#[test]
fn every_mistake_is_told_at_once() {
    let variables = [
        ("SERVICE_NAME", "Osint"),
        ("SIDECAR_RESTART", "sometimes"),
        ("SIDECAR_RESTART_MAX", "many"),
        ("SIDECAR_UNHEALTHY_RESTART", "soon"),
        ("SIDECAR_DRAIN_WAIT", "-1"),
        ("SIDECAR_STOP_GRACE", "x"),
    ];
    let output = run_sidecar(&["exec", "--", "sh", "-c", "echo started"], &variables);
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).unwrap();
    for (name, _) in variables.into_iter().chain([("SERVICE_HOST", "")]) {
        assert_eq!(text.matches(&format!("\n  {name} ")).count(), 1, "{name}: {text}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn usage() {
    for arguments in [["exec"].as_slice(), &["exec", "--"], &["exec", "sleep", "1"]] {
        let output = run_sidecar(arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("exec -- COMMAND"), "{arguments:?}");
    }
    let help = String::from_utf8(run_sidecar(&["--help"], &[]).stdout).unwrap();
    for name in ["RESTART", "RESTART_MAX", "UNHEALTHY_RESTART", "DRAIN_WAIT", "STOP_GRACE"] {
        assert!(help.contains(&format!("\n  SIDECAR_{name}")), "{name}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
}

#[test]
fn stays_small() {
    let (service, registry) = (Server::service(), Server::registry());
    let more = [("HEARTBEAT_INTERVAL", "100ms")];
    let mut sidecar = Sidecar::exec(service.address, &registry.url(), &more, &["sleep", "1000"]);
    sidecar.wait_line("Starting heartbeat loop");
    for _ in 0..20 {
        registry.next_where(|request| request.target == "/heartbeat");
    }
    let (resident, ticks) = (sidecar.resident_kib(), sidecar.cpu_ticks());
    println!("sidecar with its command after 20 heartbeats: {resident} KiB resident, {ticks} ticks (10 ms)");
    // An unoptimised binary is twice as large; the promise is about the released one.
    let most = if cfg!(debug_assertions) { 10 * 1024 } else { 5 * 1024 };
    assert!(resident < most, "{resident} KiB");
    assert!(ticks < 50, "{ticks} ticks for 20 heartbeats");
}
