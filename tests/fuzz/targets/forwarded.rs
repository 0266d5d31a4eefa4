//! Forwarding fields: a stranger's are worth nothing, and what we write is read by the next proxy as what we meant.

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use std::net::IpAddr;
use vertice_gateway::proxy::client::Client;
use vertice_gateway::proxy::fields::Fields;
use vertice_gateway::proxy::forwarding::Forwarding;

const NAMES: [&str; 5] = ["x-forwarded-for", "forwarded", "x-forwarded-proto", "x-forwarded-host", "host"];

/// The bytes are lines, each the value of one field; its first byte chooses the field.
pub(crate) fn check(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).take(20) {
        let name = NAMES[usize::from(line[0]) % NAMES.len()];
        if let Ok(value) = HeaderValue::from_bytes(&line[1..]) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    let (stranger, proxy): (IpAddr, IpAddr) = ("203.0.113.9".parse().unwrap(), "10.0.0.1".parse().unwrap());

    let client = Client::find(stranger, &headers, &trusted);
    assert_eq!((client.address, client.is_trusted), (stranger, false));
    let made = made(&client, &headers, "http");
    assert_eq!(made["x-forwarded-for"], "203.0.113.9");
    assert_eq!(made["x-forwarded-proto"], "http");
    assert!(made["forwarded"].as_bytes().starts_with(b"for=203.0.113.9;"));
    assert_eq!(client_by("x-forwarded-for", &made, &trusted), stranger, "the next proxy sees the stranger");
    assert_eq!(client_by("forwarded", &made, &trusted), stranger, "and by Forwarded: {:?}", made["forwarded"]);

    let client = Client::find(proxy, &headers, &trusted);
    assert!(client.is_trusted);
    let made = self::made(&client, &headers, "https");
    let x_for = &made["x-forwarded-for"];
    assert!(x_for.as_bytes().ends_with(b"10.0.0.1"), "the proxy is appended: {x_for:?}");
    if headers.contains_key("x-forwarded-for") {
        assert_eq!(
            client_by("x-forwarded-for", &made, &trusted),
            client.address,
            "the next proxy sees the same client: {x_for:?}"
        );
    }
}

/// What the instance is told, each field once.
fn made(client: &Client, fields: &HeaderMap, scheme: &'static str) -> HeaderMap {
    let mut made = HeaderMap::new();
    Forwarding { client, fields, scheme }.write(&mut made);
    assert!(made.keys().all(|name| made.all(name.as_str()).count() == 1), "{made:?}");
    made
}

/// Whom the next proxy takes for the client, by this field alone.
fn client_by(name: &'static str, made: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut headers = HeaderMap::new();
    headers.insert(name, made[name].clone());
    Client::find("10.9.9.9".parse().unwrap(), &headers, trusted).address
}
