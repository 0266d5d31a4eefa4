//! The answers that the gateway makes up itself: RFC 9457 problem details, the same from every room.

use crate::request_id::RequestId;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use std::io::Write;
use vertice_api::{FieldError, Problem, headers};
use vertice_core::reason::Reason;

/// Builds the answer. `errors` names fields; `retry_after_s` tells when a retry makes sense.
#[must_use]
pub(crate) fn response(
    reason: Reason,
    detail: &str,
    retry_after_s: Option<u32>,
    request_id: &RequestId,
    errors: Vec<FieldError>,
) -> Response<Bytes> {
    let problem = Problem::new(reason.status(), reason.title(), reason.as_str(), detail.to_owned(), request_id.as_str())
        .with_errors(errors);
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(headers::PROBLEM_JSON));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert("x-vertice-reason", HeaderValue::from_static(reason.as_str()));
    fields.insert("x-request-id", request_id.to_value());
    if let Some(seconds) = retry_after_s {
        fields.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if reason == Reason::Unauthorized {
        fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// An answer as bytes of HTTP/1.1, sent at `date`. `closes` when it is the connection's last one.
#[must_use]
pub(crate) fn wire(response: &Response<Bytes>, has_body: bool, closes: bool, date: &str) -> Vec<u8> {
    let (status, body) = (response.status(), response.body());
    let mut out = Vec::with_capacity(512 + body.len());
    // Memory takes whatever is written to it.
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or("Error"));
    for (name, value) in response.headers() {
        out.extend_from_slice(customary(name).as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let _ = write!(out, "Content-Length: {}\r\nDate: {date}\r\n", body.len());
    if closes {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if has_body {
        out.extend_from_slice(body);
    }
    out
}

/// A field's name in the spelling of the contract. Case means nothing in HTTP, but people compare what they see.
#[must_use]
pub(crate) fn customary(name: &HeaderName) -> String {
    let word = |word: &str| match word {
        "id" => "ID".to_owned(),
        "ratelimit" => "RateLimit".to_owned(),
        _ => word.char_indices().map(|(at, c)| if at == 0 { c.to_ascii_uppercase() } else { c }).collect(),
    };
    name.as_str().split('-').map(word).collect::<Vec<String>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_people_write_them() {
        let spelled = |name: &'static str| customary(&HeaderName::from_static(name));
        assert_eq!(spelled("x-request-id"), "X-Request-ID");
        assert_eq!(spelled("x-vertice-reason"), "X-Vertice-Reason");
        assert_eq!(spelled("retry-after"), "Retry-After");
    }

    #[test]
    fn an_answer_on_the_wire() {
        let answer = response(Reason::NoRoute, "None.", Some(5), &RequestId::UNKNOWN, Vec::new());
        let shown = |has_body, closes| String::from_utf8(wire(&answer, has_body, closes, "now")).unwrap();
        let whole = shown(true, true);
        let (head, body) = whole.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"), "{head}");
        assert!(head.contains("\r\nRetry-After: 5\r\n") && head.contains("\r\nX-Request-ID: -\r\n"), "{head}");
        let end = format!("\r\nContent-Length: {}\r\nDate: now\r\nConnection: close", body.len());
        assert!(head.ends_with(&end) && body.contains("no_route"), "{whole}");
        assert!(!shown(true, false).contains("Connection:"));
        assert_eq!(shown(false, true), format!("{head}\r\n\r\n"));
    }
}
