//! What the predecessor's unmodified sidecar and client library sent, replayed byte for byte.

use std::path::Path;

use serde_json::json;

use crate::harness::dns::{Answer, Dns};
use crate::harness::scripts::text;
use crate::harness::{Conn, Gateway, Response, Upstream, eventually, get};

/// The recorded requests of a file, with the length of the body as it is.
fn recorded(file: &str) -> Vec<(String, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/predecessor-wire").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    text.split("=== request\n").filter(|block| !block.trim().is_empty()).map(request).collect()
}

/// The method and the bytes of a recorded request.
fn request(block: &str) -> (String, Vec<u8>) {
    let text = block.replace("\r\n", "\n");
    let (head, body) = text.trim_start().split_once("\n\n").unwrap_or((&text, ""));
    let body = body.trim();
    let method = head.split(' ').next().unwrap().to_owned();
    let mut bytes = String::new();
    for line in head.lines() {
        match line.split_once(':') {
            Some((name, _)) if name.eq_ignore_ascii_case("content-length") => {
                bytes.push_str(&format!("{name}: {}\r\n", body.len()));
            }
            _ => bytes.push_str(&format!("{line}\r\n")),
        }
    }
    (method, (bytes + "\r\n" + body).into_bytes())
}

/// Sends the requests over one connection, as the recorded clients do.
fn replay(conn: &mut Conn, requests: &[(String, Vec<u8>)]) -> Vec<Response> {
    let ask = |(method, bytes): &(String, Vec<u8>)| {
        conn.send(bytes);
        conn.response(method)
    };
    requests.iter().map(ask).collect()
}

fn gateway_with_names(upstream: &Upstream) -> (Gateway, Dns) {
    let dns = Dns::start();
    dns.set_address("vertice-osint", upstream.addr);
    dns.set_address("osint", upstream.addr);
    let gateway = Gateway::builder().env("VERTICE_DNS__SERVERS", &dns.addr.to_string()).start();
    (gateway, dns)
}

#[test]
fn the_fixtures_are_the_recorded_traffic() {
    let methods = |file: &str| recorded(file).into_iter().map(|(method, _)| method).collect::<Vec<_>>();
    assert_eq!(methods("client.txt"), ["POST", "POST", "GET", "GET", "DELETE"]);
    assert_eq!(methods("sidecar.txt"), ["GET", "POST", "POST", "POST", "POST", "POST"]);
}

#[test]
fn the_client_library_gets_what_it_expects() {
    let upstream = Upstream::start(text("osint"));
    let (gateway, _dns) = gateway_with_names(&upstream);
    let mut conn = Conn::open(gateway.registry);
    let answers = replay(&mut conn, &recorded("client.txt"));
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [201, 200, 200, 200, 200]);
    let registered = answers[0].json();
    assert_eq!(registered["message"], "Service registered successfully");
    assert_eq!(registered["service_name"], "osint_service");
    assert_eq!(registered["ttl"], 60);
    assert_eq!(answers[1].text(), r#"{"message":"Heartbeat received","service_name":"osint_service"}"#);
    let service = answers[2].json();
    assert_eq!(service["service_name"], "osint_service");
    assert_eq!(service["endpoint"], "http://vertice-osint:8049");
    assert_eq!(service["health_endpoint"], "/health");
    assert_eq!(service["metadata"], json!({"version": "1.0.0"}));
    assert!(service["registered_at"].is_f64() && service["last_heartbeat"].is_f64());
    assert!(service["ttl_remaining"].as_u64().is_some_and(|left| (50..=60).contains(&left)));
    assert_eq!(answers[3].text(), r#"["osint_service"]"#);
    assert_eq!(answers[4].text(), r#"{"message":"Service deregistered","service_name":"osint_service"}"#);
    assert_eq!(gateway.services(), Vec::<String>::new());
}

#[test]
fn the_sidecar_registers_beats_and_registers_again_on_404() {
    let upstream = Upstream::start(text("osint"));
    let (gateway, dns) = gateway_with_names(&upstream);
    let requests = recorded("sidecar.txt");
    // The first request is the probe of its service's health.
    let (register, beats) = (&requests[1..2], &requests[2..]);
    let mut conn = Conn::open(gateway.registry);
    let early = replay(&mut conn, &beats[..1]);
    assert_eq!(early[0].problem(404, "not_found")["detail"], "Service 'osint_service' not registered");
    assert_eq!(replay(&mut conn, register)[0].status, 201);
    assert!(replay(&mut conn, beats).iter().all(|answer| answer.status == 200));
    assert_eq!(gateway.service("osint_service")["metadata"], json!({"version": "1.0.0", "status": "healthy"}));
    // The recorded port is fixed; what counts here is that the name was resolved.
    eventually("the name to resolve", || {
        let instances = gateway.instances("osint_service");
        instances[0]["addresses"] == json!([format!("{}:8049", upstream.addr.ip())])
    });
    dns.set("osint", Answer::Unknown);
    gateway.api(get("/health")).expect(200);
}
