//! The client library's discovery, and its examples, at the real gateway (SPEC §9).

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use serde_json::json;
use vertice_client::discovery::{Pace, Service, State, Subscription};
use vertice_client::{Discovery, DiscoveryError, DiscoverySettings, RegistryUrls};

use crate::harness::{Gateway, PATIENCE, delete, eventually, net, post};

fn url(gateway: &Gateway) -> String {
    format!("http://{}", gateway.registry)
}

fn discovery(gateway: &Gateway) -> Discovery {
    Discovery::connect(&url(gateway)).unwrap()
}

fn endpoints(service: &Service) -> Vec<&str> {
    service.usable().map(|instance| instance.endpoint.as_str()).collect()
}

/// Waits for the service to have just these endpoints that take traffic.
#[track_caller]
fn wait_for(changes: &mut Subscription, expected: &[&str]) {
    loop {
        let change = changes.wait(PATIENCE).unwrap_or_else(|| panic!("it did not come to {expected:?}"));
        if endpoints(&change.unwrap()) == expected {
            return;
        }
    }
}

#[test]
fn changes_are_heard_of_as_they_happen() {
    let gateway = Gateway::start();
    let discovery = discovery(&gateway);
    assert!(matches!(discovery.service("nmap_service"), Err(DiscoveryError::NotRegistered { .. })));
    let mut changes = discovery.subscribe("nmap_service").unwrap();
    assert!(changes.wait(PATIENCE).unwrap().is_err());
    eventually("the watch", || discovery.state() == State::Watching);

    gateway.register_at("other_service", "http://127.0.0.9:9");
    gateway.register_at("nmap_service", "http://127.0.0.9:1");
    wait_for(&mut changes, &["http://127.0.0.9:1"]);
    gateway.register_at("nmap_service", "http://127.0.0.9:2");
    wait_for(&mut changes, &["http://127.0.0.9:1", "http://127.0.0.9:2"]);

    let heartbeat = json!({"service_name": "nmap_service", "instance_id": "127.0.0.9:1", "status": "draining"});
    gateway.api(post("/heartbeat", &heartbeat)).expect(200);
    wait_for(&mut changes, &["http://127.0.0.9:2"]);
    assert_eq!(discovery.instances("nmap_service").unwrap().len(), 2);
    assert_eq!(discovery.endpoint("nmap_service").unwrap(), "http://127.0.0.9:2");

    gateway.api(delete("/deregister/nmap_service?all=1")).expect(200);
    assert!(matches!(changes.wait(PATIENCE), Some(Err(DiscoveryError::NotRegistered { .. }))));
    // Another service is asked for while the watch is open.
    assert_eq!(discovery.endpoint("other_service").unwrap(), "http://127.0.0.9:9");
    gateway.register_at("nmap_service", "http://127.0.0.9:3");
    wait_for(&mut changes, &["http://127.0.0.9:3"]);
}

#[test]
fn a_restart_is_survived_and_what_changed_meanwhile_is_heard_of() {
    let mut gateway = Gateway::builder().address(net::loopback()).env("VERTICE_STORE__KIND", "memory").start();
    gateway.register_at("nmap_service", "http://127.0.0.9:1");
    gateway.register_at("gone_service", "http://127.0.0.9:2");
    let discovery = discovery(&gateway);
    let (mut nmap, mut gone) = (discovery.subscribe("nmap_service").unwrap(), discovery.subscribe("gone_service").unwrap());
    wait_for(&mut nmap, &["http://127.0.0.9:1"]);
    wait_for(&mut gone, &["http://127.0.0.9:2"]);
    eventually("the watch", || discovery.state() == State::Watching);

    gateway.process.kill();
    eventually("the loss to be noticed", || discovery.state() != State::Watching);
    assert_eq!(discovery.endpoint("nmap_service").unwrap(), "http://127.0.0.9:1", "stale beats nothing");
    gateway.start_again();
    gateway.register_at("nmap_service", "http://127.0.0.9:7");
    wait_for(&mut nmap, &["http://127.0.0.9:7"]);
    assert!(matches!(gone.wait(PATIENCE), Some(Err(DiscoveryError::NotRegistered { .. }))));
}

#[test]
fn another_gateway_takes_over() {
    let (mut first, second) = (Gateway::start(), Gateway::start());
    first.register_at("nmap_service", "http://127.0.0.9:1");
    second.register_at("nmap_service", "http://127.0.0.9:2");
    let discovery = Discovery::connect(&format!("{},{}", url(&first), url(&second))).unwrap();
    let mut changes = discovery.subscribe("nmap_service").unwrap();
    wait_for(&mut changes, &["http://127.0.0.9:1"]);
    first.process.kill();
    wait_for(&mut changes, &["http://127.0.0.9:2"]);
    second.register_at("nmap_service", "http://127.0.0.9:3");
    wait_for(&mut changes, &["http://127.0.0.9:2", "http://127.0.0.9:3"]);
}

#[test]
fn where_no_more_watches_are_open_it_polls() {
    let gateway = Gateway::builder().env("VERTICE_LIMITS__WATCHERS", "1").start();
    gateway.register_at("nmap_service", "http://127.0.0.9:1");
    let first = discovery(&gateway);
    first.service("nmap_service").unwrap();
    eventually("the first watch", || first.state() == State::Watching);
    let pace = Pace { poll_interval: Duration::from_millis(50), ..Pace::default() };
    let urls = RegistryUrls::parse(&url(&gateway)).unwrap();
    let second = Discovery::new(DiscoverySettings { pace, ..DiscoverySettings::new(urls) });
    let mut changes = second.subscribe("nmap_service").unwrap();
    wait_for(&mut changes, &["http://127.0.0.9:1"]);
    eventually("the refusal", || second.state() == State::Polling);
    gateway.register_at("nmap_service", "http://127.0.0.9:2");
    wait_for(&mut changes, &["http://127.0.0.9:1", "http://127.0.0.9:2"]);
}

#[test]
fn futures_on_tokio() {
    let gateway = Gateway::start();
    gateway.register_at("nmap_service", "http://127.0.0.9:1");
    let discovery = discovery(&gateway);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let lookups: Vec<_> = (0..50).map(|_| tokio::spawn(discovery.lookup("nmap_service"))).collect();
        for lookup in lookups {
            assert_eq!(endpoints(&lookup.await.unwrap().unwrap()), ["http://127.0.0.9:1"]);
        }
        let mut changes = discovery.subscribe("nmap_service").unwrap();
        changes.changed().await.unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
        assert!(nothing.is_err(), "given up, and nothing lost by it");
        gateway.register_at("nmap_service", "http://127.0.0.9:2");
        let service = tokio::time::timeout(PATIENCE, changes.changed()).await.unwrap().unwrap();
        assert_eq!(endpoints(&service), ["http://127.0.0.9:1", "http://127.0.0.9:2"]);
    });
}

/// An example of the client package, ended when dropped.
struct Example {
    child: Child,
    lines: Receiver<String>,
}

impl Example {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program(name));
        command.args(arguments).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = sync_channel(1000);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.try_send(line);
            }
        });
        Self { child, lines }
    }

    #[track_caller]
    fn says(&self, expected: &str) {
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            if line == expected {
                return;
            }
            seen.push(line);
        }
        panic!("{expected:?} was not said: {seen:#?}");
    }

    fn press_enter(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Examples belong to another package, so Cargo does not tell where they are: below the gateway.
fn program(example: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join(example);
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace --examples` first", path.display());
    path
}

#[test]
fn the_examples_do_what_they_say() {
    let gateway = Gateway::start();
    let url = url(&gateway);
    let blocking = Example::start("discover", &[&url, "nmap_service"]);
    blocking.says("no service nmap_service is registered");

    let mut register = Example::start("register", &[&url, "nmap_service", "http://127.0.0.9:1"]);
    blocking.says("instances that take traffic: [http://127.0.0.9:1]");
    let futures = Example::start("discover_async", &[&url, "nmap_service"]);
    futures.says("next request goes to http://127.0.0.9:1");
    assert_eq!(gateway.service("nmap_service")["metadata"]["team"], "red");

    register.press_enter();
    blocking.says("instances that take traffic: []");
    register.press_enter();
    assert!(register.child.wait().unwrap().success());
    blocking.says("no service nmap_service is registered");
    futures.says("no service nmap_service is registered");
}
