//! Nobody notices a reload who is not meant to.

use std::time::Duration;

use super::{gateway, put, write};
use crate::harness::scripts::{script, text, upgrade_echo};
use crate::harness::{After, Conn, Gate, SteadyLoad, Upstream, eventually, get};

/// A configuration that differs in routes, policies and limits from the one before and the one after.
fn version(number: usize) -> String {
    let algorithm = ["p2c", "round_robin"][number % 2];
    let extra = format!("[[routes]]\nname = \"extra\"\nprefix = \"/extra/{number}\"\nservice = \"svc_{}\"\n", number % 2);
    format!(
        "[limits]\nbody_bytes = {}\nhead_bytes = {}\nidle_keepalive = \"{}s\"\n\
         [timeouts]\nfirst_byte = \"{}s\"\nupstream_keepalive = \"{}s\"\n[breaker]\nfailures = {}\n\
         [balance]\nalgorithm = \"{algorithm}\"\n[services.svc_1.retry]\nattempts_max = {}\n\
         [[routes]]\nname = \"api\"\nprefix = \"/api\"\nservice = \"svc_{}\"\nstrip = true\n{extra}",
        100_000 + number,
        32_768 + number,
        60 + number,
        20 + number,
        1 + number % 4,
        3 + number % 5,
        2 + number % 3,
        number / 2 % 2,
    )
}

#[test]
fn reloads_under_load_lose_nothing() {
    let gateway = gateway(&version(0));
    let upstreams: Vec<Upstream> = (0..4).map(|number| Upstream::start(text(&number.to_string()))).collect();
    for (number, upstream) in upstreams.iter().enumerate() {
        gateway.register(&format!("svc_{}", number % 2), upstream);
    }
    let requests = vec![get("/v2/svc_0/load"), get("/api/load"), get("/v2/svc_1/load"), get("/api/other")];
    let load = SteadyLoad::asking(gateway.gateway, requests);
    for number in 1..=30 {
        put(&gateway, &version(number));
        gateway.data(get(&format!("/extra/{number}"))).expect(200);
        gateway.data(get(&format!("/extra/{}", number - 1))).expect(404);
        load.goes_on();
    }
    assert_eq!(gateway.status()["config"]["generation"], 31);
    load.assert_nothing_failed();
    assert_eq!(gateway.metrics().sum("vertice_breaker_transitions_total", &[]), 0.0);
}

#[test]
fn a_storm_of_signals_is_a_few_reloads() {
    let mut gateway = gateway(&version(0));
    let upstreams = [0, 1].map(|number| {
        let upstream = Upstream::start(text("ok"));
        gateway.register(&format!("svc_{number}"), &upstream);
        upstream
    });
    let load = SteadyLoad::start(gateway.gateway, &["svc_0", "svc_1"]);
    for number in 1..=10 {
        write(&gateway, &version(number));
        for _ in 0..10 {
            gateway.process.signal("HUP");
        }
    }
    eventually("the last version", || gateway.data(get("/extra/10")).status == 200);
    load.assert_nothing_failed();
    let count = gateway.metrics().sum("vertice_config_reloads_total", &[]);
    assert!((1.0..=100.0).contains(&count), "{count}");
    assert_eq!(gateway.metrics().sum("vertice_config_reloads_total", &[("result", "success")]), count);
    gateway.assert_sound();
    drop(upstreams);
}

#[test]
fn open_tunnels_and_streams_go_on() {
    let gateway = gateway(&version(0));
    let gate = Gate::new();
    let stepped = gate.clone();
    let events = Upstream::start(script(move |exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for event in 1..=8 {
            stepped.wait(event);
            exchange.write(crate::harness::http::one_chunk(format!("data: {event}\n\n").as_bytes()))?;
        }
        exchange.write("0\r\n\r\n")?;
        Ok(After::KeepAlive)
    }));
    let chat = Upstream::start(upgrade_echo());
    gateway.register("svc_0", &events);
    gateway.register("svc_1", &chat);
    let mut stream = Conn::open(gateway.gateway);
    stream.start(&get("/v2/svc_0/stream"));
    assert_eq!(stream.head().status, 200);
    let mut tunnel = Conn::open(gateway.gateway);
    let handshake = get("/v2/svc_1/chat").header("Connection", "Upgrade").header("Upgrade", "websocket");
    tunnel.start(&handshake.header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==").header("Sec-WebSocket-Version", "13"));
    assert_eq!(tunnel.head().status, 101);
    assert_eq!(tunnel.exactly(5).unwrap(), b"hello");
    let mut watcher = Conn::open(gateway.registry);
    watcher.start(&get("/services").header("Accept", "text/event-stream"));
    assert_eq!(watcher.head().status, 200);
    for event in 1..=8 {
        put(&gateway, &version(event));
        gate.open();
        assert_eq!(stream.chunk().unwrap(), format!("data: {event}\n\n").as_bytes());
        tunnel.send(format!("still there? {event}"));
        assert_eq!(tunnel.exactly(14).unwrap(), format!("still there? {event}").as_bytes());
    }
    assert_eq!(stream.chunk().unwrap(), b"");
    assert!(!watcher.closes_within(Duration::from_millis(50)), "the registry's own stream has ended");
}

#[test]
fn a_hangup_on_the_way_out_does_no_harm() {
    let mut gateway = gateway("[shutdown]\ngrace = \"1s\"\n");
    let _idle = Conn::open(gateway.gateway);
    put(&gateway, "[shutdown]\ndelay = \"300ms\"\ngrace = \"15s\"\n");
    gateway.process.terminate();
    gateway.process.signal("HUP");
    assert_eq!(ask_status(&gateway), Some(503), "it still listens: the delay is the reloaded one");
    assert_eq!(gateway.process.exit_within(crate::harness::PATIENCE).code(), Some(0));
}

/// What `/health` says while the process ends, if anybody answers.
fn ask_status(gateway: &crate::harness::Gateway) -> Option<u16> {
    let mut status = None;
    for _ in 0..50 {
        status = get("/readyz").try_send(gateway.registry).ok().map(|response| response.status);
        if status == Some(503) {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    status
}
