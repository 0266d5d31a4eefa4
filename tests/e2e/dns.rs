//! Endpoints given as names (SPEC §3, §5; DESIGN §6).

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::dns::{Answer, Dns};
use crate::harness::gateway::Builder;
use crate::harness::scripts::{echo, text};
use crate::harness::{Gateway, PATIENCE, Upstream, eventually, get, net, now, post};

fn gateway_asking(dns: &Dns) -> Builder {
    Gateway::builder()
        .env("VERTICE_DNS__SERVERS", &dns.addr.to_string())
        .env("VERTICE_DNS__REFRESH", "500ms")
        .env("VERTICE_DNS__TIMEOUT", "300ms")
}

/// Registers `service` at the name `host`.
fn register(gateway: &Gateway, service: &str, host: &str, port: u16) -> Value {
    let body = json!({"service_name": service, "endpoint": format!("http://{host}:{port}"), "instance_id": "n:1"});
    gateway.api(post("/register", &body)).expect(201).json()
}

#[test]
fn a_named_endpoint_is_routable_with_its_201() {
    let dns = Dns::start();
    let upstream = Upstream::start(echo());
    for host in ["osint.test", "vertice-osint", "maximus_core", "Upper.Case.Test"] {
        dns.set_address(&host.to_lowercase(), upstream.addr);
        let gateway = gateway_asking(&dns).start();
        let registered = register(&gateway, "named", host, upstream.addr.port());
        assert_eq!(registered.get("resolved"), None, "{host}: {registered}");
        gateway.data(get("/v2/named/x")).expect(200);
        let host_header = upstream.last().header("host").unwrap().to_lowercase();
        assert_eq!(host_header, format!("{}:{}", host.to_lowercase(), upstream.addr.port()));
        assert_eq!(gateway.instances("named")[0]["addresses"], json!([upstream.addr.to_string()]));
    }
}

#[test]
fn a_name_that_does_not_resolve_says_so_and_heals_by_itself() {
    let dns = Dns::start();
    let upstream = Upstream::start(text("found"));
    let mut gateway = gateway_asking(&dns).start();
    let registered = register(&gateway, "lost", "lost.test", upstream.addr.port());
    assert_eq!(registered["resolved"], false);
    gateway.data(get("/v2/lost/x")).problem(503, "no_instance");
    assert_eq!(gateway.instances("lost")[0]["addresses"], json!([]));
    assert_eq!(gateway.services(), ["lost"]);
    let health = gateway.api(get("/health")).expect(200).json();
    assert_ne!(health["components"]["dns"]["status"], "healthy", "{health}");
    dns.set_address("lost.test", upstream.addr);
    eventually("the name to be found", || gateway.data(get("/v2/lost/x")).status == 200);
    eventually("a healthy resolver", || gateway.health()["components"]["dns"]["status"] == "healthy");
    gateway.assert_sound();
}

#[test]
fn a_silent_name_server_delays_a_registration_only_briefly() {
    let dns = Dns::start();
    dns.mute(true);
    let gateway = gateway_asking(&dns).env("VERTICE_DNS__TIMEOUT", "2s").start();
    let start = now();
    let registered = register(&gateway, "slow", "slow.test", 9);
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    assert_eq!(registered["resolved"], false);
    // A registration with an address does not wait for anybody else's name.
    let start = now();
    gateway.register_at("quick", "http://127.0.0.1:9");
    assert!(start.elapsed() < Duration::from_millis(1000), "{:?}", start.elapsed());
}

#[test]
fn a_name_known_already_costs_no_wait() {
    let dns = Dns::start();
    let upstream = Upstream::start(text("here"));
    dns.set_address("known.test", upstream.addr);
    let gateway = gateway_asking(&dns).start();
    register(&gateway, "first", "known.test", upstream.addr.port());
    dns.mute(true);
    let registered = register(&gateway, "second", "known.test", upstream.addr.port());
    assert_eq!(registered.get("resolved"), None, "{registered}");
    gateway.data(get("/v2/second/x")).expect(200);
}

#[test]
fn a_changed_address_heals_within_five_seconds() {
    let dns = Dns::start();
    let mut old = Upstream::start(text("old"));
    let new = Upstream::start_at(SocketAddr::from((net::loopback(), old.addr.port())), text("new"));
    dns.set_address("moving.test", old.addr);
    // With the refresh so slow that only the failure to connect can bring the news.
    let gateway = gateway_asking(&dns).env("VERTICE_DNS__REFRESH", "1h").start();
    register(&gateway, "moving", "moving.test", old.addr.port());
    assert_eq!(gateway.data(get("/v2/moving/x")).expect(200).text(), "old");
    dns.set_address("moving.test", new.addr);
    old.stop();
    let start = now();
    eventually("the new address to be used", || {
        let answer = gateway.data(get("/v2/moving/x"));
        answer.status == 200 && answer.text() == "new"
    });
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_changed_address_is_followed_while_the_old_one_still_answers() {
    let dns = Dns::start();
    let old = Upstream::start(text("old"));
    let new = Upstream::start_at(SocketAddr::from((net::loopback(), old.addr.port())), text("new"));
    dns.set_address("moving.test", old.addr);
    let gateway = gateway_asking(&dns).start();
    register(&gateway, "moving", "moving.test", old.addr.port());
    assert_eq!(gateway.data(get("/v2/moving/x")).expect(200).text(), "old");
    dns.set_address("moving.test", new.addr);
    eventually("the new address", || gateway.data(get("/v2/moving/x")).expect(200).text() == "new");
}

#[test]
fn the_last_good_answer_is_kept_when_the_name_server_fails() {
    let dns = Dns::start();
    let upstream = Upstream::start(text("here"));
    let gateway = gateway_asking(&dns).start();
    dns.set_address("kept.test", upstream.addr);
    register(&gateway, "kept", "kept.test", upstream.addr.port());
    for answer in [Answer::Failure, Answer::Unknown, Answer::Addresses(vec![]), Answer::Silence] {
        dns.set("kept.test", answer.clone());
        let asked = dns.queries();
        eventually("some more questions", || {
            assert_eq!(gateway.data(get("/v2/kept/x")).expect(200).text(), "here", "{answer:?}");
            dns.queries() >= asked + 3
        });
    }
    assert_eq!(gateway.instances("kept")[0]["addresses"], json!([upstream.addr.to_string()]));
}

#[test]
fn of_several_addresses_the_living_ones_serve() {
    let dns = Dns::start();
    let gateway = gateway_asking(&dns).start();
    // Addresses are tried in their order: wherever the living one stands among the dead, it is found.
    for place in 0..3 {
        let mut addresses: Vec<Ipv4Addr> = (0..3).map(|_| net::loopback()).collect();
        addresses.sort_unstable();
        let living = Upstream::start_at(SocketAddr::from((addresses[place], 0)), text("living"));
        let (service, host) = (format!("many{place}"), format!("many{place}.test"));
        dns.set(&host, Answer::Addresses(addresses));
        register(&gateway, &service, &host, living.addr.port());
        assert_eq!(gateway.instances(&service).len(), 1);
        for round in 0..10 {
            let answer = gateway.data(get(&format!("/v2/{service}/x")));
            assert_eq!((answer.status, answer.text().as_str()), (200, "living"), "place {place}, round {round}");
        }
    }
}

#[test]
fn a_name_does_not_lead_where_an_address_may_not() {
    let dns = Dns::start();
    dns.set("rebound.test", Answer::Addresses(vec![Ipv4Addr::new(169, 254, 169, 254)]));
    dns.set("nowhere.test", Answer::Addresses(vec![Ipv4Addr::UNSPECIFIED]));
    dns.set("mine.test", Answer::Addresses(vec![Ipv4Addr::LOCALHOST]));
    let gateway = gateway_asking(&dns).address(Ipv4Addr::LOCALHOST).start();
    for (service, host, port) in
        [("rebound", "rebound.test", 80), ("nowhere", "nowhere.test", 80), ("mine", "mine.test", gateway.gateway.port())]
    {
        register(&gateway, service, host, port);
        gateway.data(get(&format!("/v2/{service}/livez"))).problem(503, "no_instance");
    }
}

#[test]
fn fallbacks_may_be_names_too() {
    let dns = Dns::start();
    let upstream = Upstream::start(text("here"));
    dns.set_address("static.test", upstream.addr);
    dns.set_address("vision", upstream.addr);
    let port = upstream.addr.port();
    let gateway = gateway_asking(&dns)
        .config(&format!("[services.fixed]\nurl = \"http://static.test:{port}\"\n"))
        .env("VISION_URL", &format!("http://vision:{port}"))
        .start();
    for service in ["fixed", "vision"] {
        eventually("the fallback's name to resolve", || gateway.data(get(&format!("/v2/{service}/x"))).status == 200);
    }
}

#[test]
fn restored_names_are_resolved_again() {
    let dns = Dns::start();
    let upstream = Upstream::start(text("here"));
    dns.set_address("kept.test", upstream.addr);
    let mut gateway = gateway_asking(&dns).start();
    register(&gateway, "kept", "kept.test", upstream.addr.port());
    gateway.crash_and_restart();
    eventually("the restored name to resolve", || gateway.data(get("/v2/kept/x")).status == 200);
    dns.mute(true);
    let start = now();
    gateway.crash_and_restart();
    assert!(start.elapsed() < PATIENCE / 2, "a silent name server held up the start: {:?}", start.elapsed());
    assert_eq!(gateway.services(), ["kept"]);
}
