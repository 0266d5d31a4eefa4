//! 422: every field that is missing, mistyped or refused, and all of them at once.

use serde_json::{Value, json};

use super::refused_fields;
use crate::harness::{Gateway, post};

fn with(changes: Value) -> Value {
    let mut body = json!({"service_name": "probe", "endpoint": "http://127.0.0.1:9"});
    body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    body
}

#[test]
fn every_missing_and_refused_field_is_named() {
    let gateway = Gateway::start();
    assert_eq!(refused_fields(&gateway, &json!({})), ["endpoint", "service_name"]);
    let all_wrong = json!({
        "service_name": 5, "endpoint": ["x"], "health_endpoint": 1, "metadata": "text", "instance_id": {}, "ttl": "soon",
        "weight": -1, "zone": 7, "version": false, "tags": "one", "status": null
    });
    let fields = refused_fields(&gateway, &all_wrong);
    let expected =
        ["endpoint", "health_endpoint", "instance_id", "metadata", "service_name", "tags", "ttl", "version", "weight", "zone"];
    for field in expected {
        assert!(fields.iter().any(|found| found == field), "{field} is missing in {fields:?}");
    }
    let refused = json!({
        "service_name": "UPPER", "endpoint": "ftp://x", "health_endpoint": "x", "metadata": {"a": 1}, "instance_id": "a b",
        "ttl": 4, "weight": 1001, "status": "sleepy"
    });
    let fields = refused_fields(&gateway, &refused);
    for field in ["endpoint", "health_endpoint", "instance_id", "service_name", "status", "ttl", "weight"] {
        assert!(fields.iter().any(|found| found == field), "{field} is missing in {fields:?}");
    }
    assert!(fields.iter().any(|field| field.starts_with("metadata")), "{fields:?}");
    assert_eq!(gateway.services(), Vec::<String>::new());
}

#[test]
fn service_names_outside_the_pattern_are_refused() {
    let gateway = Gateway::start();
    for name in ["", "ab", "Upper", "_abc", "-abc", "a.b.c", "a b c", "abc\n", "ábc", "abc/def", &"x".repeat(65)] {
        assert_eq!(refused_fields(&gateway, &with(json!({"service_name": name}))), ["service_name"], "{name:?}");
    }
}

#[test]
fn endpoints_that_are_no_plain_http_url_are_refused() {
    let gateway = Gateway::start();
    for endpoint in [
        "",
        "127.0.0.1:9",
        "//127.0.0.1:9",
        "ftp://127.0.0.1:9",
        "file:///etc/passwd",
        "http://",
        "http://:80",
        "http:///path",
        "http://127.0.0.1:0",
        "http://127.0.0.1:65536",
        "http://127.0.0.1:abc",
        "http://127.0.0.1:9?q=1",
        "http://127.0.0.1:9/#frag",
        "http://user@127.0.0.1:9",
        "http://user:secret@127.0.0.1:9",
        "http://@127.0.0.1:9",
        "http://127.0.0.1 :9",
        "http://127.0.0.1:9/a b",
        "http://127.0.0.1:9/\r\nX-Evil: 1",
        "http://[::1",
        "http://[nonsense]:80",
        "http://exa mple:80",
        "http://example\u{0}.test:80",
    ] {
        assert_eq!(refused_fields(&gateway, &with(json!({"endpoint": endpoint}))), ["endpoint"], "{endpoint:?}");
    }
}

#[test]
fn endpoints_that_lead_where_nobody_should_go_are_refused() {
    let gateway = Gateway::start();
    for host in [
        "169.254.169.254",
        "169.254.0.1",
        "2852039166",
        "0xA9FEA9FE",
        "0xa9.0xfe.0xa9.0xfe",
        "0251.0376.0251.0376",
        "169.16689662",
        "169.254.43518",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "0.0.0.0",
        "0",
        "[::]",
        "[::ffff:0.0.0.0]",
        "224.0.0.1",
        "239.255.255.255",
        "[ff02::1]",
        "255.255.255.255",
        "4294967295",
    ] {
        let endpoint = format!("http://{host}:8080");
        assert_eq!(refused_fields(&gateway, &with(json!({"endpoint": endpoint}))), ["endpoint"], "{endpoint}");
    }
}

#[test]
fn the_gateways_own_listeners_are_refused_and_only_they() {
    let gateway = Gateway::builder().address([127, 0, 0, 1]).start();
    for own in [gateway.gateway, gateway.registry] {
        let endpoint = format!("http://{own}");
        assert_eq!(refused_fields(&gateway, &with(json!({"endpoint": endpoint}))), ["endpoint"], "{endpoint}");
        let mapped = format!("http://[::ffff:127.0.0.1]:{}", own.port());
        assert_eq!(refused_fields(&gateway, &with(json!({"endpoint": mapped}))), ["endpoint"], "{mapped}");
        let decimal = format!("http://2130706433:{}", own.port());
        assert_eq!(refused_fields(&gateway, &with(json!({"endpoint": decimal}))), ["endpoint"], "{decimal}");
    }
    let elsewhere = format!("http://192.0.2.7:{}", gateway.gateway.port());
    gateway.api(post("/register", &with(json!({"endpoint": elsewhere})))).expect(201);
}

#[test]
fn a_wildcard_listener_is_every_address_of_the_machine() {
    let gateway = Gateway::builder().address([0, 0, 0, 0]).start();
    for host in ["127.0.0.1", "127.0.0.2"] {
        let endpoint = format!("http://{host}:{}", gateway.gateway.port());
        let body = with(json!({"endpoint": endpoint}));
        let target = std::net::SocketAddr::from(([127, 0, 0, 1], gateway.registry.port()));
        let answer = post("/register", &body).send(target);
        assert_eq!((answer.status, answer.reason()), (422, Some("unprocessable")), "{endpoint}");
    }
}

#[test]
fn a_name_that_means_this_gateway_is_never_routed_to_itself() {
    let gateway = Gateway::start();
    let endpoint = format!("http://localhost:{}", gateway.gateway.port());
    let status = gateway.api(post("/register", &with(json!({"endpoint": endpoint})))).status;
    assert!(matches!(status, 201 | 422), "{status}");
    // The gateway's own /livez would answer 200.
    let answer = gateway.data(crate::harness::get("/v2/probe/livez"));
    assert!(answer.reason().is_some(), "{} {}", answer.status, answer.text());
}

#[test]
fn health_endpoints_that_are_no_path_are_refused() {
    let gateway = Gateway::start();
    let long = format!("/{}", "x".repeat(255));
    for path in ["", "health", "//evil.test/health", "/../etc", "/a/../b", "/a/..", "/a\r\nb", "/a\tb", "/a\u{7f}", &long] {
        let fields = refused_fields(&gateway, &with(json!({"health_endpoint": path})));
        assert_eq!(fields, ["health_endpoint"], "{path:?}");
    }
    for path in ["/", "/health", "/a/b.c?deep=1", &long[..255]] {
        gateway.api(post("/register", &with(json!({"health_endpoint": path})))).expect(201);
    }
}

#[test]
fn metadata_has_limits() {
    let gateway = Gateway::start();
    let of = |keys: usize| (0..keys).map(|key| (format!("k{key}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    let refused = [
        json!({"metadata": of(33)}),
        json!({"metadata": {"k".repeat(65): "v"}}),
        json!({"metadata": {"k": "v".repeat(513)}}),
        json!({"metadata": {"k": 1}}),
        json!({"metadata": {"k": null}}),
        json!({"metadata": {"k": ["v"]}}),
        json!({"metadata": []}),
    ];
    for changes in refused {
        let fields = refused_fields(&gateway, &with(changes.clone()));
        assert!(fields.iter().all(|field| field.starts_with("metadata")), "{changes}: {fields:?}");
    }
    let accepted =
        [json!({"metadata": of(32)}), json!({"metadata": {"k".repeat(64): "v".repeat(512)}}), json!({"metadata": {}})];
    for changes in accepted {
        gateway.api(post("/register", &with(changes))).expect(201);
    }
}

#[test]
fn numbers_and_ids_have_limits() {
    let gateway = Gateway::start();
    let refused = [
        ("ttl", json!(4)),
        ("ttl", json!(3601)),
        ("ttl", json!(-1)),
        ("ttl", json!(1e300)),
        ("ttl", json!(18446744073709551615_u64)),
        ("weight", json!(1001)),
        ("weight", json!(-1)),
        ("instance_id", json!("")),
        ("instance_id", json!("a/b")),
        ("instance_id", json!("a b")),
        ("instance_id", json!("x".repeat(129))),
        ("status", json!("sleepy")),
        ("status", json!("HEALTHY")),
        ("tags", json!([1])),
        ("tags", json!({"a": 1})),
    ];
    for (field, value) in refused {
        let fields = refused_fields(&gateway, &with(json!({field: value})));
        assert!(fields.iter().all(|found| found.starts_with(field)), "{field} = {value}: {fields:?}");
    }
    let accepted = [
        json!({"ttl": 5}),
        json!({"ttl": 3600}),
        json!({"weight": 0}),
        json!({"weight": 1000}),
        json!({"instance_id": "x".repeat(128)}),
        json!({"instance_id": "[fd00::1]:80"}),
    ];
    for changes in accepted {
        gateway.api(post("/register", &with(changes))).expect(201);
    }
}

#[test]
fn heartbeats_are_checked_too() {
    let gateway = Gateway::start();
    gateway.register_at("probe", "http://127.0.0.1:9");
    for body in [
        json!({}),
        json!({"service_name": 1}),
        json!({"service_name": "probe", "status": "sleepy"}),
        json!({"service_name": "probe", "metadata": {"k": 1}}),
        json!({"service_name": "probe", "instance_id": 5}),
    ] {
        let problem = gateway.api(post("/heartbeat", &body)).problem(422, "unprocessable");
        assert!(problem["errors"].as_array().is_some_and(|errors| errors.len() == 1), "{problem}");
    }
}
