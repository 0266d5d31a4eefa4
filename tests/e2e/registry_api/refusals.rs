//! Requests that are refused before their fields are looked at: 400, 413, 415; and what a refusal must not harm.

use serde_json::json;

use super::register_bytes;
use crate::harness::{Conn, Gateway, Request, post};

const GOOD: &str = r#"{"service_name":"good","endpoint":"http://127.0.0.1:9"}"#;

#[test]
fn what_is_not_one_json_object_is_400() {
    let mut gateway = Gateway::start();
    let nested = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"nonsense".to_vec(),
        b"[]".to_vec(),
        b"\"text\"".to_vec(),
        b"null".to_vec(),
        b"17".to_vec(),
        format!("{GOOD}x").into_bytes(),
        format!("{GOOD}{GOOD}").into_bytes(),
        format!("{GOOD} null").into_bytes(),
        GOOD.replace("\"service_name\"", "'service_name'").into_bytes(),
        GOOD.replace('}', ",}").into_bytes(),
        b"\xff\xfe{}".to_vec(),
        b"{\"service_name\":\"\xff\xff\xff\",\"endpoint\":\"http://127.0.0.1:9\"}".to_vec(),
        nested.clone().into_bytes(),
        format!(r#"{{"service_name":"good","endpoint":"http://127.0.0.1:9","x":{nested}}}"#).into_bytes(),
    ];
    for body in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let answer = register_bytes(&gateway, body.clone());
        assert_eq!(answer.status, 400, "register {shown}: {}", answer.text());
        answer.problem(400, "bad_request");
        gateway.api(Request::new("POST", "/heartbeat").json(body)).problem(400, "bad_request");
    }
    assert_eq!(gateway.services(), Vec::<String>::new());
    gateway.assert_sound();
}

#[test]
fn duplicate_keys_are_400_wherever_they_stand() {
    let gateway = Gateway::start();
    let bodies = [
        r#"{"service_name":"good","endpoint":"http://127.0.0.1:9","service_name":"evil"}"#,
        r#"{"service_name":"good","endpoint":"http://127.0.0.1:9","service\u005fname":"evil"}"#,
        r#"{"service_name":"good","endpoint":"http://127.0.0.1:9","metadata":{"a":"1","a":"2"}}"#,
        r#"{"service_name":"good","endpoint":"http://127.0.0.1:9","ignored":{"a":1,"a":2}}"#,
        r#"{"service_name":"good","endpoint":"http://127.0.0.1:9","ignored":1,"ignored":2}"#,
    ];
    for body in bodies {
        register_bytes(&gateway, body).problem(400, "bad_request");
    }
    let beat = r#"{"service_name":"good","service_name":"good"}"#;
    gateway.api(Request::new("POST", "/heartbeat").json(beat)).problem(400, "bad_request");
}

#[test]
fn white_space_around_the_object_is_fine() {
    let gateway = Gateway::start();
    register_bytes(&gateway, format!(" \r\n\t{GOOD}\r\n ")).expect(201);
}

#[test]
fn a_body_over_64_kib_is_413() {
    let gateway = Gateway::start();
    let padded = |length: usize| format!("{GOOD}{}", " ".repeat(length - GOOD.len()));
    register_bytes(&gateway, padded(64 * 1024)).expect(201);
    register_bytes(&gateway, padded(64 * 1024 + 1)).problem(413, "body_too_large");
    let half = vec![b' '; 40 * 1024];
    let chunked = Request::new("POST", "/register").header("Content-Type", "application/json").chunked(&[&half, &half]);
    gateway.api(chunked).problem(413, "body_too_large");
}

#[test]
fn a_huge_declared_length_is_refused_without_waiting_for_it() {
    let gateway = Gateway::start();
    let mut conn = Conn::open(gateway.registry);
    conn.send("POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n{");
    conn.response("POST").problem(413, "body_too_large");
}

#[test]
fn another_content_type_or_encoding_is_415() {
    let gateway = Gateway::start();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "nonsense"] {
        let request = Request::new("POST", "/register").header("Content-Type", kind).body(GOOD);
        gateway.api(request).problem(415, "unsupported_media_type");
    }
    for encoding in ["gzip", "br", "deflate"] {
        let request = Request::new("POST", "/register").header("Content-Encoding", encoding).json(GOOD);
        gateway.api(request).problem(415, "unsupported_media_type");
    }
    assert_eq!(gateway.services(), Vec::<String>::new());
}

#[test]
fn a_refusal_leaves_the_connection_and_the_registry_alone() {
    let gateway = Gateway::start();
    gateway.register_at("settled", "http://127.0.0.1:9");
    let before = gateway.service("settled");
    let mut conn = Conn::open(gateway.registry);
    for body in ["{", "[]", r#"{"service_name":"settled"}"#, r#"{"service_name":"settled","endpoint":"ftp://x"}"#] {
        let status = conn.ask(&Request::new("POST", "/register").json(body)).status;
        assert!(matches!(status, 400 | 422), "{status} for {body}");
    }
    let good = post("/register", &json!({"service_name": "after", "endpoint": "http://127.0.0.1:9"}));
    conn.ask(&good).expect(201);
    let after = gateway.service("settled");
    assert_eq!(after["instances"].as_array().map(Vec::len), Some(1));
    assert_eq!(after["registered_at"], before["registered_at"]);
    assert_eq!(after["endpoint"], before["endpoint"]);
}

#[test]
fn the_request_id_of_a_refusal_is_the_callers() {
    let gateway = Gateway::start();
    let request = Request::new("POST", "/register").header("X-Request-ID", "trace-me-42").json("{");
    let problem = gateway.api(request).problem(400, "bad_request");
    assert_eq!(problem["request_id"], "trace-me-42");
}

#[test]
fn strange_query_strings_and_names_do_no_harm() {
    let mut gateway = Gateway::start();
    gateway.register_at("settled", "http://127.0.0.1:9");
    for target in [
        "/services?detail=%ff%fe",
        "/services?tag",
        "/services?tag=%",
        "/services?&&==&",
        "/services/%2e%2e",
        "/services/%00",
        "/services/%F0%9F%92%A9",
        "/services/a%2Fb",
    ] {
        let status = gateway.api(Request::new("GET", target)).status;
        assert!(matches!(status, 200 | 400 | 404 | 422), "{status} for {target}");
    }
    for target in ["/deregister/%00", "/deregister/settled?instance_id=%", "/deregister/settled?instance_id=%00"] {
        let status = gateway.api(Request::new("DELETE", target)).status;
        assert!(matches!(status, 200 | 400 | 404 | 409 | 422), "{status} for {target}");
    }
    assert_eq!(gateway.services(), ["settled"]);
    gateway.assert_sound();
}
