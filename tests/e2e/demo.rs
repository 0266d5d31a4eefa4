//! `vertice-gateway demo --once`: the README's promise.

use std::process::Command;

use crate::harness::gateway::PROGRAM;
use crate::harness::process::run;
use crate::harness::{PATIENCE, now, sidecar};

#[test]
fn the_demo_passes_by_itself() {
    // The demo starts a sidecar beside its service.
    sidecar::program();
    let dir = tempfile::tempdir().unwrap();
    let env = [
        ("VERTICE_GATEWAY__LISTEN", "127.0.0.1:0".to_owned()),
        ("VERTICE_REGISTRY__LISTEN", "127.0.0.1:0".to_owned()),
        ("VERTICE_STORE__PATH", dir.path().join("data").to_string_lossy().into_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let mut command = Command::new(PROGRAM);
    command.args(["demo", "--once"]);
    let start = now();
    let finished = run(command, &env, PATIENCE * 2);
    let told = finished.stdout + &finished.stderr;
    assert_eq!(finished.code, Some(0), "{told}");
    assert!(told.contains("PASS"), "{told}");
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

#[test]
fn the_demo_shows_commands_to_paste() {
    let env = [("VERTICE_GATEWAY__LISTEN", "127.0.0.1:0"), ("VERTICE_REGISTRY__LISTEN", "127.0.0.1:0")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut command = Command::new(PROGRAM);
    command.args(["demo", "--once"]);
    let finished = run(command, &env, PATIENCE * 2);
    let told = finished.stdout + &finished.stderr;
    assert!(told.matches("curl").count() >= 2, "{told}");
    assert!(told.contains("/v2/"), "{told}");
}
