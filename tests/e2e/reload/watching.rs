//! Files that change, as editors and orchestrators change them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use super::gateway;
use crate::harness::{Gateway, eventually, post};

fn version(ttl: u32) -> String {
    format!("[server]\nwatch_config = true\n[lease]\nttl = {ttl}\n")
}

#[track_caller]
fn await_ttl(gateway: &Gateway, ttl: f64) {
    eventually(&format!("a TTL of {ttl}"), || gateway.status()["cache"]["ttl"] == ttl);
}

/// As editors do: the new file takes the old one's name.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[test]
fn a_file_that_is_replaced_or_written_is_read() {
    let gateway = gateway(&version(100));
    let path = gateway.dir().join("vertice.toml");
    replace(&path, &version(200));
    await_ttl(&gateway, 200.0);
    fs::write(&path, version(300)).unwrap();
    await_ttl(&gateway, 300.0);
    replace(&path, "[lease]\nttl = \"soon\"\n");
    eventually("the refusal", || gateway.status()["config"]["last_reload"]["success"] == false);
    assert_eq!(gateway.status()["cache"]["ttl"], 300.0);
    // It is watched on, because the running configuration says so.
    fs::remove_file(&path).unwrap();
    replace(&path, &version(400));
    await_ttl(&gateway, 400.0);
}

#[test]
fn a_directory_that_is_swapped_is_noticed() {
    // As Kubernetes mounts a ConfigMap: the file is a link through a link, and the one in the middle is moved.
    let dir = tempfile::tempdir().unwrap();
    for (name, ttl) in [("first", 100), ("second", 200)] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("vertice.toml"), version(ttl)).unwrap();
    }
    symlink("first", dir.path().join("..data")).unwrap();
    let path = dir.path().join("vertice.toml");
    symlink("..data/vertice.toml", &path).unwrap();
    let gateway = Gateway::builder().env("VERTICE_CONFIG", path.to_str().unwrap()).start();
    await_ttl(&gateway, 100.0);
    symlink("second", dir.path().join("..next")).unwrap();
    fs::rename(dir.path().join("..next"), dir.path().join("..data")).unwrap();
    await_ttl(&gateway, 200.0);
}

#[test]
fn a_secret_that_is_rotated_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    fs::write(&path, "the-first-token\n").unwrap();
    let toml = version(60) + &format!("[registry]\ntoken_file = {:?}\n", path.to_str().unwrap());
    let gateway = gateway(&toml);
    let register = |token: &str| {
        let body = json!({"service_name": "svc", "endpoint": "http://127.0.0.1:9"});
        gateway.api(post("/register", &body).header("X-Registry-Token", token)).status
    };
    assert_eq!((register("the-first-token"), register("the-second-token")), (201, 401));
    replace(&path, "the-second-token\n");
    eventually("the new token", || register("the-second-token") == 201);
    assert_eq!(register("the-first-token"), 401);
}
