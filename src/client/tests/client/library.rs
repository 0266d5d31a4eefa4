//! What a program that uses the library sees.

use std::time::Duration;

use vertice_client::{
    Registration, RegistrationConfig, RegistryClient, RegistryError, RegistryUrls, ServiceName, Status, Token,
};

use crate::harness::{DEADLINE, Reply, Server, registry_answer};

fn urls(text: &str) -> RegistryUrls {
    RegistryUrls::parse(text).unwrap()
}

fn config(registry: &str) -> RegistrationConfig {
    let name = ServiceName::parse("osint_service").unwrap();
    RegistrationConfig {
        heartbeat_interval: Duration::from_millis(200),
        version: Some("3.0".into()),
        metadata: [("team".to_owned(), "red".to_owned())].into(),
        ..RegistrationConfig::new(name, "http://10.0.0.7:8049", urls(registry))
    }
}

#[test]
fn registers_beats_and_takes_back() {
    let registry = Server::registry();
    let registration = Registration::start(config(&registry.url()), |_| {}).unwrap();
    assert!(registration.wait_registered(DEADLINE));
    let register = registry.next().json();
    assert_eq!(register["endpoint"], "http://10.0.0.7:8049");
    assert_eq!(register["instance_id"], "10.0.0.7:8049");
    assert_eq!(register["version"], "3.0");
    assert_eq!(register["metadata"], serde_json::json!({"status": "healthy", "team": "red", "version": "3.0"}));
    assert_eq!(registry.next().json()["status"], "healthy");

    registration.set_status(Status::Draining);
    let heartbeat = registry.next_where(|request| request.target == "/heartbeat" && request.json()["status"] == "draining");
    assert_eq!(heartbeat.json()["metadata"]["team"], "red");

    registration.stop();
    let last = registry.drain(|| true).pop().unwrap();
    assert_eq!(last.line(), "DELETE /deregister/osint_service?instance_id=10.0.0.7:8049");
}

#[test]
fn a_dropped_handle_takes_back_too() {
    let registry = Server::registry();
    let registration = Registration::start(config(&registry.url()), |_| {}).unwrap();
    assert!(registration.wait_registered(DEADLINE));
    drop(registration);
    registry.next_where(|request| request.method == "DELETE");
}

#[test]
fn a_registry_that_is_away_disturbs_nobody() {
    // A port where nobody listens.
    let away = Server::registry().url();
    let registration = Registration::start(config(&away), |_| {}).unwrap();
    assert!(!registration.wait_registered(Duration::from_millis(50)));
    assert!(!registration.is_registered() && !registration.is_finished());
    registration.stop();
}

#[test]
fn looks_up_and_lists() {
    let registry = Server::start(|_, request| {
        match request.map(|request| request.line()).as_deref() {
        Some("GET /services") => Reply::Json(200, r#"["abc","osint_service"]"#.into()),
        Some("GET /services/osint_service") => Reply::Json(
            200,
            r#"{"service_name":"osint_service","endpoint":"http://osint:8049","health_endpoint":"/health","metadata":{},"registered_at":1.0,"last_heartbeat":2.0,"ttl_remaining":60}"#.into(),
        ),
        Some("GET /services/broken") => Reply::Json(200, "[]".into()),
        _ => registry_answer(request, 60),
    }
    });
    let client = RegistryClient::new(urls(&registry.url()), Token::parse("t0ken").ok());
    assert_eq!(client.services().unwrap(), ["abc", "osint_service"]);
    assert_eq!(registry.next().header("X-Registry-Token"), Some("t0ken"));
    assert_eq!(client.lookup("osint_service").unwrap().map(|info| info.endpoint).as_deref(), Some("http://osint:8049"));
    assert_eq!(client.lookup("unknown").unwrap(), None);
    assert_eq!(client.lookup("no/../such?x").unwrap(), None);
    assert_eq!(registry.next_where(|request| request.target.contains("such")).target, "/services/no%2F..%2Fsuch%3Fx");
    assert!(matches!(client.lookup("broken"), Err(RegistryError::Unreadable { status: 200, .. })));
}

#[test]
fn one_good_registry_is_enough() {
    let away = Server::registry().url();
    let broken = Server::start(|_, _| Reply::Json(503, "{}".into()));
    let good = Server::start(|_, request| match request.map(|request| request.line()).as_deref() {
        Some("GET /services") => Reply::Json(200, "[]".into()),
        _ => registry_answer(request, 60),
    });
    let client = RegistryClient::new(urls(&format!("{away},{},{}", broken.url(), good.url())), None);
    assert!(client.services().unwrap().is_empty());
    assert!(client.services().unwrap().is_empty());
    assert_eq!(broken.drain(|| true).len(), 1, "the one that answered is kept");

    // An answer is an answer: nobody else is asked.
    let client = RegistryClient::new(urls(&format!("{},{}", good.url(), broken.url())), None);
    assert_eq!(client.lookup("unknown").unwrap(), None);
    assert!(broken.drain(|| true).is_empty());

    let client = RegistryClient::new(urls(&format!("{away},{}", broken.url())), None);
    assert!(matches!(client.services(), Err(RegistryError::Refused { status: 503, .. })));
}
