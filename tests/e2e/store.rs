//! The embedded store: what was acknowledged survives, and a broken store never stops the routing (SPEC §8).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::scripts::text;
use crate::harness::{Gateway, Upstream, delete, eventually, get, post};

/// All files below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Checks that the gateway routes although its store does not keep anything, and says so.
#[track_caller]
fn assert_serves_without_store(gateway: &Gateway) {
    let upstream = Upstream::start(text("here"));
    let body = json!({"service_name": "unkept", "endpoint": upstream.url()});
    assert_eq!(gateway.api(post("/register", &body)).expect(201).json()["durable"], false);
    assert_eq!(gateway.data(get("/v2/unkept/x")).expect(200).text(), "here");
    let health = gateway.api(get("/health")).expect(200).json();
    assert_eq!(health["status"], "degraded", "{health}");
    assert_ne!(health["components"]["store"]["status"], "healthy", "{health}");
    assert!(health["components"]["store"]["detail"].as_str().is_some_and(|why| !why.is_empty()), "{health}");
    assert_eq!(gateway.status()["store"]["healthy"], false);
    gateway.api(get("/readyz")).expect(200);
    let log = gateway.process.stderr().to_lowercase();
    assert!(log.contains("store"), "{log}");
}

#[test]
fn registrations_survive_a_crash_and_are_routable_with_the_first_request() {
    let mut gateway = Gateway::start();
    let upstream = Upstream::start(text("here"));
    let full = json!({
        "service_name": "kept", "endpoint": format!("{}/prefix", upstream.url()), "health_endpoint": "/h?x=1",
        "metadata": {"team": "réd", "k": ""}, "instance_id": "kept:[::1]:80", "ttl": 1800, "weight": 7, "zone": "eu",
        "version": "2", "tags": ["a", "b"], "status": "degraded"
    });
    gateway.api(post("/register", &full)).expect(201);
    gateway.register("also_kept", &upstream);
    gateway.register("given_up", &upstream);
    gateway.api(delete("/deregister/given_up")).expect(200);
    let before = gateway.service("kept");
    gateway.crash_and_restart();
    assert_eq!(gateway.data(get("/v2/kept/x")).expect(200).text(), "here");
    assert_eq!(upstream.last().target, "/prefix/x");
    assert_eq!(gateway.services(), ["also_kept", "kept"]);
    let after = gateway.service("kept");
    let comparable = |info: &Value| {
        let mut instance = info["instances"][0].clone();
        for changing in ["ttl_remaining", "last_heartbeat", "registered_at"] {
            instance.as_object_mut().unwrap().remove(changing);
        }
        instance
    };
    assert_eq!(comparable(&after), comparable(&before));
    assert!((after["registered_at"].as_f64().unwrap() - before["registered_at"].as_f64().unwrap()).abs() < 0.002);
    assert!(after["ttl_remaining"].as_u64().is_some_and(|left| left > 1790), "a fresh TTL: {after}");
    assert_eq!(gateway.api(get("/services?tag=b")).json(), json!(["kept"]));
    gateway.api(post("/heartbeat", &json!({"service_name": "kept", "instance_id": "kept:[::1]:80"}))).expect(200);
    gateway.api(post("/heartbeat", &json!({"service_name": "also_kept"}))).expect(200);
    gateway.data(get("/v2/given_up/x")).problem(503, "no_route");
}

#[test]
fn the_registrants_identity_survives_a_crash() {
    let mut gateway = Gateway::start();
    let register = |gateway: &Gateway, port: u16| {
        let body = json!({"service_name": "anon", "endpoint": format!("http://127.0.0.1:{port}")});
        gateway.api(post("/register", &body).from([127, 0, 0, 31])).expect(201);
    };
    register(&gateway, 1001);
    gateway.crash_and_restart();
    register(&gateway, 1002);
    let info = gateway.service("anon");
    assert_eq!(info["instances"].as_array().map(Vec::len), Some(1), "{info}");
    assert_eq!(info["endpoint"], "http://127.0.0.1:1002");
}

#[test]
fn every_acknowledged_registration_of_a_busy_registry_survives() {
    let mut gateway = Gateway::start();
    let address = gateway.registry;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            std::thread::spawn(move || {
                for number in 0..50 {
                    let name = format!("svc_{writer}_{number}");
                    let body = json!({"service_name": name, "endpoint": "http://127.0.0.1:9"});
                    let answer = post("/register", &body).send(address).expect(201).json();
                    assert_eq!(answer["durable"], true);
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    gateway.crash_and_restart();
    assert_eq!(gateway.services().len(), 200);
}

#[test]
fn an_orderly_end_keeps_everything_too() {
    let mut gateway = Gateway::start();
    gateway.register_at("kept", "http://127.0.0.1:9");
    gateway.process.terminate();
    assert_eq!(gateway.process.exit_within(crate::harness::PATIENCE).code(), Some(0));
    gateway.start_again();
    assert_eq!(gateway.services(), ["kept"]);
    assert_eq!(gateway.health()["status"], "healthy");
}

#[test]
fn a_lease_that_ended_does_not_come_back() {
    let mut gateway = Gateway::builder().env("VERTICE_LEASE__TTL", "1s").start();
    gateway.register_at("brief", "http://127.0.0.1:9");
    eventually("the lease to end", || gateway.services().is_empty());
    // What is acknowledged after the lapse is written after it.
    let body = json!({"service_name": "later", "endpoint": "http://127.0.0.1:9", "ttl": 3600});
    gateway.api(post("/register", &body)).expect(201);
    gateway.crash_and_restart();
    assert_eq!(gateway.services(), ["later"]);
}

#[test]
fn a_restored_lease_that_nobody_renews_ends() {
    let mut gateway = Gateway::builder().env("VERTICE_LEASE__TTL", "2s").start();
    gateway.register_at("orphan", "http://127.0.0.1:9");
    gateway.crash_and_restart();
    assert_eq!(gateway.services(), ["orphan"]);
    eventually("the restored lease to end", || gateway.services().is_empty());
}

#[test]
fn a_missing_directory_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("not/yet/there");
    let gateway = Gateway::builder().env("VERTICE_STORE__PATH", path.to_str().unwrap()).start();
    let body = json!({"service_name": "kept", "endpoint": "http://127.0.0.1:9"});
    assert_eq!(gateway.api(post("/register", &body)).expect(201).json()["durable"], true);
    assert!(path.is_dir());
    assert_eq!(gateway.status()["store"]["path"], path.to_str().unwrap());
}

#[test]
fn a_corrupt_store_is_kept_aside_and_the_gateway_starts() {
    let mut gateway = Gateway::start();
    gateway.register_at("lost", "http://127.0.0.1:9");
    gateway.process.kill();
    let marker = b"this is no store at all, it is garbage".repeat(300);
    for file in files(&gateway.store()) {
        fs::write(file, &marker).unwrap();
    }
    gateway.start_again();
    assert_eq!(gateway.services(), Vec::<String>::new());
    let upstream = Upstream::start(text("here"));
    gateway.register("fresh", &upstream);
    gateway.data(get("/v2/fresh/x")).expect(200);
    let kept = files(gateway.dir()).into_iter().any(|file| fs::read(file).is_ok_and(|bytes| bytes == marker));
    assert!(kept, "the bad file is gone: {:?}", files(gateway.dir()));
    let log = gateway.process.stderr().to_lowercase();
    assert!(log.contains("store") && (log.contains("aside") || log.contains("corrupt")), "{log}");
    gateway.crash_and_restart();
    assert_eq!(gateway.services(), ["fresh"]);
}

#[test]
fn a_store_cut_off_in_the_middle_does_not_stop_the_start() {
    let mut gateway = Gateway::start();
    for number in 0..20 {
        gateway.register_at(&format!("svc_{number:02}"), "http://127.0.0.1:9");
    }
    for cut in [1, 7, 100, 3000] {
        gateway.process.kill();
        for file in files(&gateway.store()) {
            let length = fs::metadata(&file).unwrap().len();
            let file = fs::OpenOptions::new().write(true).open(file).unwrap();
            file.set_len(length.saturating_sub(cut)).unwrap();
        }
        gateway.start_again();
        gateway.register_at("after", "http://127.0.0.1:9");
        assert!(gateway.services().contains(&"after".to_owned()));
    }
}

#[test]
fn a_store_in_use_by_another_gateway_is_left_alone() {
    let first = Gateway::start();
    first.register_at("theirs", "http://127.0.0.1:9");
    let second = Gateway::builder().in_dir_of(&first).start();
    assert_eq!(second.services(), Vec::<String>::new());
    assert_serves_without_store(&second);
    assert_eq!(first.services(), ["theirs"]);
    assert_eq!(first.health()["status"], "healthy");
    let body = json!({"service_name": "ours", "endpoint": "http://127.0.0.1:9"});
    assert_eq!(first.api(post("/register", &body)).expect(201).json()["durable"], true);
    drop(second);
    let mut first = first;
    first.crash_and_restart();
    assert_eq!(first.services(), ["ours", "theirs"]);
}

#[test]
fn a_place_that_cannot_be_written_does_not_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "a file where a directory should be").unwrap();
    let gateway = Gateway::builder().env("VERTICE_STORE__PATH", file.join("data").to_str().unwrap()).start();
    assert_serves_without_store(&gateway);
    assert_eq!(fs::read_to_string(&file).unwrap(), "a file where a directory should be");
}

#[test]
fn a_file_in_the_place_of_the_directory_does_not_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    fs::write(&file, "precious").unwrap();
    let gateway = Gateway::builder().env("VERTICE_STORE__PATH", file.to_str().unwrap()).start();
    let upstream = Upstream::start(text("here"));
    gateway.register("routed", &upstream);
    gateway.data(get("/v2/routed/x")).expect(200);
    let kept = files(dir.path()).into_iter().any(|file| fs::read(file).is_ok_and(|bytes| bytes == b"precious"));
    assert!(kept, "somebody's file is gone");
}

#[test]
fn in_memory_is_a_choice_and_no_fault() {
    let gateway = Gateway::builder().env("VERTICE_STORE__KIND", "memory").start();
    let body = json!({"service_name": "brief", "endpoint": "http://127.0.0.1:9"});
    assert_eq!(gateway.api(post("/register", &body)).expect(201).json()["durable"], false);
    assert_eq!(gateway.health()["status"], "healthy");
    assert!(!gateway.store().exists());
}
