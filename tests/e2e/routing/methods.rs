//! Every method, every status, every kind of body.

use crate::harness::scripts::{echo, raw, script};
use crate::harness::{After, Conn, Gateway, Request, Upstream, delete, get, head};

#[test]
fn every_method_arrives() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE", "MKCOL", "X-CUSTOM", "brew"] {
        let answer = gateway.data(Request::new(method, "/v2/echo/x")).expect(200);
        assert_eq!(upstream.last().method, method);
        assert_eq!(answer.body.is_empty(), method == "HEAD", "{method}");
    }
}

#[test]
fn methods_with_bodies_deliver_them() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "GET", "REPORT"] {
        gateway.data(Request::new(method, "/v2/echo/x").body(format!("body of {method}"))).expect(200);
        assert_eq!(String::from_utf8(upstream.last().body).unwrap(), format!("body of {method}"));
        let request = Request::new(method, "/v2/echo/x").chunked(&[b"chunk of ", method.as_bytes()]);
        gateway.data(request).expect(200);
        assert_eq!(String::from_utf8(upstream.last().body).unwrap(), format!("chunk of {method}"));
    }
}

#[test]
fn a_delete_keeps_its_query() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    gateway.data(delete("/v2/echo/items/7?force=true&reason=a%20b")).expect(200);
    assert_eq!((upstream.last().method, upstream.last().target), ("DELETE".into(), "/items/7?force=true&reason=a%20b".into()));
}

#[test]
fn bodies_need_not_be_json() {
    let gateway = Gateway::start();
    let every_byte: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let upstream = Upstream::start(script(|exchange| {
        let body = exchange.read_body()?;
        exchange.answer("200 OK", &[("Content-Type", "application/octet-stream")], &body)?;
        Ok(After::KeepAlive)
    }));
    gateway.register("mirror", &upstream);
    let answer = gateway.data(Request::new("POST", "/v2/mirror/x").body(every_byte.clone())).expect(200);
    assert_eq!(answer.body, every_byte);
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(upstream.last().body, every_byte);
}

#[test]
fn whatever_status_the_service_gives_passes_through() {
    let gateway = Gateway::start();
    for status in
        [200, 201, 202, 206, 299, 300, 301, 302, 307, 308, 400, 401, 403, 404, 405, 408, 409, 410, 413, 415, 418, 422, 429]
            .into_iter()
            .chain([451, 499, 500, 501, 505, 507, 511, 599])
    {
        let service = format!("svc{status}");
        let body = format!("body of {status}");
        let upstream = Upstream::start(raw(format!(
            "HTTP/1.1 {status} Whatever\r\nContent-Type: text/weird\r\nX-Own: {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )));
        gateway.register(&service, &upstream);
        let answer = gateway.data(get(&format!("/v2/{service}/x"))).expect(status);
        assert_eq!(answer.text(), body);
        assert_eq!(answer.header("x-own"), Some(status.to_string().as_str()));
        assert_eq!(answer.header("content-type"), Some("text/weird"));
        assert_eq!(answer.reason(), None, "{status} came from the service");
    }
}

#[test]
fn the_services_502_503_and_504_pass_through_too() {
    let gateway = Gateway::start();
    for status in [502, 503, 504] {
        let service = format!("svc{status}");
        let upstream = Upstream::start(raw(format!(
            "HTTP/1.1 {status} Mine\r\nRetry-After: 7\r\nX-Own: yes\r\nContent-Length: 4\r\n\r\nmine"
        )));
        gateway.register(&service, &upstream);
        let answer = gateway.data(Request::new("POST", &format!("/v2/{service}/x")).body("x")).expect(status);
        assert_eq!((answer.text().as_str(), answer.reason()), ("mine", None));
        assert_eq!((answer.header("retry-after"), answer.header("x-own")), (Some("7"), Some("yes")));
    }
}

#[test]
fn head_has_the_length_and_no_body() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(script(|exchange| {
        exchange.answer("200 OK", &[("ETag", "\"v1\"")], &[b'x'; 1234])?;
        Ok(After::KeepAlive)
    }));
    gateway.register("headed", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    for _ in 0..3 {
        let answer = conn.ask(&head("/v2/headed/x")).expect(200);
        assert_eq!((answer.header("content-length"), answer.header("etag")), (Some("1234"), Some("\"v1\"")));
        assert_eq!(conn.ask(&get("/v2/headed/x")).expect(200).body.len(), 1234);
    }
    assert_eq!(upstream.seen().iter().filter(|seen| seen.method == "HEAD").count(), 3);
}

#[test]
fn answers_without_a_body_keep_the_connection_in_step() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(script(|exchange| {
        exchange.read_body()?;
        match exchange.seen.target.as_str() {
            "/204" => exchange.write("HTTP/1.1 204 No Content\r\nX-Own: 204\r\n\r\n")?,
            "/304" => exchange.write("HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n")?,
            "/304-with-length" => exchange.write("HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n")?,
            "/empty" => exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?,
            _ => exchange.answer("200 OK", &[], b"full")?,
        }
        Ok(After::KeepAlive)
    }));
    gateway.register("bare", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    for (path, status) in [("/204", 204), ("/304", 304), ("/304-with-length", 304), ("/empty", 200)] {
        let answer = conn.ask(&get(&format!("/v2/bare{path}"))).expect(status);
        assert!(answer.body.is_empty() && answer.complete, "{path}");
        assert_eq!(conn.ask(&get("/v2/bare/full")).expect(200).text(), "full", "after {path}");
    }
}
