//! Discovery against a registry that can be watched, and against some that cannot.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use serde_json::json;
use vertice_client::discovery::{Pace, Service, State};
use vertice_client::{Discovery, DiscoveryError, DiscoverySettings, RegistryUrls, Token};

use crate::harness::{DEADLINE, Reply, Server};
use crate::watched::{Registry, Watches, at, instance};

const SHORT: Duration = Duration::from_millis(50);

fn discovery(registry: &Registry) -> Discovery {
    Discovery::connect(&registry.url()).unwrap()
}

/// Settings for one or more registries with a pace that suits a test.
fn settings(urls: &str) -> DiscoverySettings {
    let pace = Pace { poll_interval: Duration::from_millis(30), ..Pace::default() };
    DiscoverySettings { pace, ..DiscoverySettings::new(RegistryUrls::parse(urls).unwrap()) }
}

fn endpoints(service: &Service) -> Vec<&str> {
    service.instances().iter().map(|instance| instance.endpoint.as_str()).collect()
}

/// A URL where nobody listens.
fn away() -> String {
    Registry::start().url()
}

/// Runs a future on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park_timeout(DEADLINE),
        }
    }
}

#[test]
fn asks_once_and_then_hears_of_changes() {
    let registry = Registry::start();
    registry.set("nmap_service", &at(&["http://a:1"]));
    let discovery = discovery(&registry);
    assert!(registry.asked().is_empty(), "nothing before the first question");
    let mut changes = discovery.subscribe("nmap_service").unwrap();
    assert_eq!(endpoints(&changes.wait(DEADLINE).unwrap().unwrap()), ["http://a:1"]);
    registry.wait_open(1);
    for _ in 0..100 {
        assert_eq!(discovery.endpoint("nmap_service").unwrap(), "http://a:1");
    }
    assert!(changes.wait(SHORT).is_none(), "nothing has changed");

    registry.set("other_service", &at(&["http://o:1"]));
    registry.set("nmap_service", &at(&["http://a:1", "http://b:1"]));
    assert_eq!(endpoints(&changes.wait(DEADLINE).unwrap().unwrap()), ["http://a:1", "http://b:1"]);
    registry.set("nmap_service", &[]);
    assert!(matches!(changes.wait(DEADLINE), Some(Err(DiscoveryError::NotRegistered { .. }))));
    registry.set("nmap_service", &at(&["http://c:1"]));
    let service = changes.wait(DEADLINE).unwrap().unwrap();
    assert_eq!(endpoints(&service), ["http://c:1"]);
    assert!(!service.is_stale() && service.age() < DEADLINE);
    assert_eq!(registry.times("GET /services/nmap_service"), 1, "{:?}", registry.asked());
    assert_eq!(registry.times("GET /services"), 1);
    assert_eq!(discovery.state(), State::Watching);
}

#[test]
fn unknown_is_not_unreachable() {
    let registry = Registry::start();
    let known = discovery(&registry);
    let error = known.service("nmap_service").unwrap_err();
    assert!(matches!(error, DiscoveryError::NotRegistered { .. }));
    assert_eq!(error.to_string(), "no service nmap_service is registered");

    let unreachable = Discovery::connect(&away()).unwrap();
    let error = unreachable.service("nmap_service").unwrap_err();
    assert!(matches!(error, DiscoveryError::Unreachable { .. }));
    assert!(
        error.to_string().starts_with("failed to learn where nmap_service is: failed to reach the registry at http://127.")
    );
    assert!(matches!(block_on(unreachable.lookup("nmap_service")), Err(DiscoveryError::Unreachable { .. })));
    assert!(matches!(unreachable.state(), State::Away(_)));

    for bad in ["Nmap", "../x", "", "a b c"] {
        let error = known.service(bad).unwrap_err();
        assert!(matches!(&error, DiscoveryError::BadName { name, .. } if name == bad), "{error}");
        assert_eq!(block_on(known.lookup(bad)).unwrap_err(), error);
    }

    registry.set("busy_service", &[instance("http://a:1", &json!({"status": "draining"}))]);
    assert!(matches!(known.pick("busy_service"), Err(DiscoveryError::NoInstance { .. })));
    assert_eq!(known.instances("busy_service").unwrap().len(), 1);
}

#[test]
fn a_silent_registry_is_waited_for_in_bounds() {
    let registry = Server::start(|_, _| Reply::Stall(Vec::new()));
    let discovery = Discovery::new(DiscoverySettings { patience: Duration::from_millis(300), ..settings(&registry.url()) });
    assert!(matches!(discovery.service("nmap_service"), Err(DiscoveryError::Unreachable { .. })));
    assert!(matches!(block_on(discovery.lookup("nmap_service")), Err(DiscoveryError::Unreachable { .. })));
}

#[test]
fn a_fallback_stands_in_until_the_registry_knows_better() {
    let fallback = |url: &'static str| -> vertice_client::discovery::Fallback {
        Arc::new(move |name: &str| (name == "nmap_service").then(|| url.to_owned()))
    };
    let with = |urls: &str, url| Discovery::new(DiscoverySettings { fallback: Some(fallback(url)), ..settings(urls) });

    let alone = with(&away(), "http://10.0.0.7:8047/");
    let service = alone.service("nmap_service").unwrap();
    assert!(service.is_fallback() && !service.is_stale());
    assert_eq!(alone.endpoint("nmap_service").unwrap(), "http://10.0.0.7:8047");
    assert!(matches!(alone.service("other_service"), Err(DiscoveryError::Unreachable { .. })));
    assert!(with(&away(), "no url").service("nmap_service").is_err());

    let registry = Registry::start();
    let together = with(&registry.url(), "http://10.0.0.7:8047");
    let mut changes = together.subscribe("nmap_service").unwrap();
    assert!(changes.wait(DEADLINE).unwrap().unwrap().is_fallback());
    registry.set("nmap_service", &at(&["http://a:1"]));
    assert!(!changes.wait(DEADLINE).unwrap().unwrap().is_fallback());
    registry.set("nmap_service", &[]);
    assert!(changes.wait(DEADLINE).unwrap().unwrap().is_fallback());
}

#[test]
fn instances_take_turns_by_weight() {
    let registry = Registry::start();
    let weigh = |endpoint, weight, status| instance(endpoint, &json!({"weight": weight, "status": status}));
    registry.set(
        "nmap_service",
        &[
            weigh("http://a:1", 100, "healthy"),
            weigh("http://b:1", 300, "degraded"),
            weigh("http://c:1", 100, "unhealthy"),
            weigh("http://d:1", 0, "healthy"),
            weigh("http://e:1", 100, "a word of the future"),
        ],
    );
    let discovery = discovery(&registry);
    let picks: Vec<String> = (0..400).map(|_| discovery.endpoint("nmap_service").unwrap()).collect();
    let count = |endpoint: &str| picks.iter().filter(|pick| *pick == endpoint).count();
    assert_eq!((count("http://a:1"), count("http://b:1")), (100, 300));
    // Snapshots share the turns.
    let next = |_| discovery.service("nmap_service").unwrap().pick().unwrap().endpoint.clone();
    assert_eq!((0..400).map(next).filter(|pick| pick == "http://a:1").count(), 100);
}

#[test]
fn a_new_question_does_not_cost_the_watch_its_place() {
    let registry = Registry::start();
    registry.set("nmap_service", &at(&["http://a:1"]));
    registry.set("osint_service", &at(&["http://o:1"]));
    let index = registry.index().to_string();
    let discovery = discovery(&registry);
    discovery.service("nmap_service").unwrap();
    registry.wait_open(1);
    assert_eq!(discovery.endpoint("osint_service").unwrap(), "http://o:1");
    let mut changes = discovery.subscribe("nmap_service").unwrap();
    changes.wait(DEADLINE).unwrap().unwrap();
    registry.set("nmap_service", &at(&["http://b:1"]));
    assert_eq!(endpoints(&changes.wait(DEADLINE).unwrap().unwrap()), ["http://b:1"]);
    let asked = registry.asked();
    let opened: Vec<_> = asked.iter().filter(|(line, _)| line == "GET /services").map(|(_, last)| last.clone()).collect();
    assert!(opened.iter().all(|last| last.as_ref() == Some(&index)), "{asked:?}");
    assert_eq!(registry.times("GET /services/nmap_service"), 1, "nothing was missed, so nothing is asked again");
}

#[test]
fn a_broken_watch_goes_on_without_a_gap() {
    let registry = Registry::start();
    registry.set("nmap_service", &at(&["http://a:1"]));
    let discovery = discovery(&registry);
    let mut changes = discovery.subscribe("nmap_service").unwrap();
    changes.wait(DEADLINE).unwrap().unwrap();
    registry.wait_open(1);
    registry.cut();
    registry.set("nmap_service", &at(&["http://b:1"]));
    assert_eq!(endpoints(&changes.wait(DEADLINE).unwrap().unwrap()), ["http://b:1"]);
    assert_eq!(registry.times("GET /services/nmap_service"), 1);
}

#[test]
fn another_process_is_believed_afresh() {
    let registry = Registry::start();
    registry.set("nmap_service", &at(&["http://a:1"]));
    registry.set("gone_service", &at(&["http://g:1"]));
    let discovery = discovery(&registry);
    let mut nmap = discovery.subscribe("nmap_service").unwrap();
    let mut gone = discovery.subscribe("gone_service").unwrap();
    nmap.wait(DEADLINE).unwrap().unwrap();
    gone.wait(DEADLINE).unwrap().unwrap();
    registry.wait_open(1);
    registry.restart_with(&[("nmap_service", &at(&["http://b:1"]))]);
    assert_eq!(endpoints(&nmap.wait(DEADLINE).unwrap().unwrap()), ["http://b:1"]);
    assert!(matches!(gone.wait(DEADLINE), Some(Err(DiscoveryError::NotRegistered { .. }))));
}

#[test]
fn stale_beats_nothing() {
    let registry = Registry::start();
    registry.set("nmap_service", &at(&["http://a:1"]));
    let pace = Pace { stale_after: Duration::from_millis(200), ..Pace::default() };
    let discovery = Discovery::new(DiscoverySettings { pace, ..settings(&registry.url()) });
    discovery.service("nmap_service").unwrap();
    registry.wait_open(1);
    registry.go_down();
    let mut service = discovery.service("nmap_service").unwrap();
    while !service.is_stale() {
        thread::sleep(Duration::from_millis(10));
        service = discovery.service("nmap_service").unwrap();
    }
    assert_eq!(endpoints(&service), ["http://a:1"]);
    assert!(service.age() >= Duration::from_millis(200));
    assert!(matches!(discovery.state(), State::Away(_)));
    assert!(matches!(discovery.service("new_service"), Err(DiscoveryError::Unreachable { .. })));
}

#[test]
fn another_registry_takes_over() {
    let (first, second) = (Registry::start(), Registry::start());
    first.set("nmap_service", &at(&["http://a:1"]));
    second.set("nmap_service", &at(&["http://b:1"]));
    let discovery = Discovery::new(settings(&format!("{},{}", first.url(), second.url())));
    let mut changes = discovery.subscribe("nmap_service").unwrap();
    assert_eq!(endpoints(&changes.wait(DEADLINE).unwrap().unwrap()), ["http://a:1"]);
    first.wait_open(1);
    first.go_down();
    assert_eq!(endpoints(&changes.wait(DEADLINE).unwrap().unwrap()), ["http://b:1"]);
    second.wait_open(1);
    second.set("nmap_service", &at(&["http://c:1"]));
    assert_eq!(endpoints(&changes.wait(DEADLINE).unwrap().unwrap()), ["http://c:1"]);
}

#[test]
fn the_predecessor_is_polled() {
    let registry = Registry::with(Watches::Never);
    registry.set("nmap_service", &at(&["http://a:1"]));
    let discovery = Discovery::new(settings(&registry.url()));
    let mut changes = discovery.subscribe("nmap_service").unwrap();
    let service = changes.wait(DEADLINE).unwrap().unwrap();
    assert_eq!((endpoints(&service), service.pick().unwrap().instance_id.as_str()), (vec!["http://a:1"], "a:1"));
    registry.set("nmap_service", &at(&["http://b:1"]));
    assert_eq!(endpoints(&changes.wait(DEADLINE).unwrap().unwrap()), ["http://b:1"]);
    registry.set("nmap_service", &[]);
    assert!(changes.wait(DEADLINE).unwrap().is_err());
    assert_eq!(discovery.state(), State::Polling);
    assert_eq!(registry.times("GET /services"), 1, "it is not asked for watches all the time");
}

#[test]
fn an_event_without_end_does_not_fill_the_memory() {
    let registry = Registry::with(Watches::Endless);
    registry.set("nmap_service", &at(&["http://a:1"]));
    let discovery = discovery(&registry);
    assert_eq!(discovery.endpoint("nmap_service").unwrap(), "http://a:1");
    let taken = registry.wait_endless();
    // The limit, and what fits into the buffers of two sockets.
    assert!((4 << 20..32 << 20).contains(&taken), "{taken} bytes were taken");
    assert_eq!(discovery.endpoint("nmap_service").unwrap(), "http://a:1");
}

#[test]
fn futures_of_any_runtime() {
    let registry = Registry::start();
    registry.set("nmap_service", &at(&["http://a:1"]));
    let discovery = discovery(&registry);
    block_on(async {
        // Given up before it is ready: disturbs nobody.
        drop(discovery.lookup("nmap_service"));
        let service = discovery.lookup("nmap_service").await.unwrap();
        assert_eq!(endpoints(&service), ["http://a:1"]);
        assert!(matches!(discovery.lookup("unknown").await, Err(DiscoveryError::NotRegistered { .. })));
        let mut changes = discovery.subscribe("nmap_service").unwrap();
        changes.changed().await.unwrap();
        {
            let mut given_up = pin!(changes.changed());
            let polled = std::future::poll_fn(|context| Poll::Ready(given_up.as_mut().poll(context))).await;
            assert!(polled.is_pending());
        }
        registry.set("nmap_service", &at(&["http://b:1"]));
        assert_eq!(endpoints(&changes.changed().await.unwrap()), ["http://b:1"]);
    });
}

#[test]
fn many_threads_ask_at_once() {
    let registry = Registry::start();
    let names: Vec<String> = (0..10).map(|n| format!("service_{n}")).collect();
    for name in &names {
        registry.set(name, &at(&[&format!("http://{}:1", name.replace('_', "-"))]));
    }
    let discovery = discovery(&registry);
    thread::scope(|scope| {
        for n in 0..40 {
            let (discovery, name) = (&discovery, &names[n % 10]);
            scope.spawn(move || {
                let service = if n % 2 == 0 { discovery.service(name) } else { block_on(discovery.lookup(name)) };
                assert_eq!(service.unwrap().name().as_str(), name);
            });
        }
    });
    for name in &names {
        assert!(registry.times(&format!("GET /services/{name}")) <= 2, "{:?}", registry.asked());
    }
}

#[test]
fn the_token_is_sent_and_the_end_is_an_end() {
    let registry = Registry::start();
    registry.set("nmap_service", &at(&["http://a:1"]));
    let discovery = Discovery::new(DiscoverySettings { token: Token::parse("t0ken").ok(), ..settings(&registry.url()) });
    let clone = discovery.clone();
    clone.service("nmap_service").unwrap();
    registry.wait_open(1);
    assert!(registry.tokens().iter().all(|token| token.as_deref() == Some("t0ken")));
    drop(discovery);
    let changes = clone.subscribe("nmap_service").unwrap();
    drop(clone);
    registry.wait_open(1);
    drop(changes);
    registry.wait_open(0);
}
