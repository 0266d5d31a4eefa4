//! The answers that the gateway makes up itself: RFC 9457 problem details, the same from every room.

use crate::request_id::RequestId;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
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

/// The same as bytes of HTTP/1.1 that end the connection, for requests that never became one.
#[must_use]
pub(crate) fn wire(reason: Reason, detail: &str, request_id: &RequestId, date: &str) -> Vec<u8> {
    let response = response(reason, detail, reason.retry_after_s(), request_id, Vec::new());
    let status = response.status();
    let mut out = format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or("Error")).into_bytes();
    for (name, value) in response.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let rest = format!("content-length: {}\r\ndate: {date}\r\nconnection: close\r\n\r\n", response.body().len());
    out.extend_from_slice(rest.as_bytes());
    out.extend_from_slice(response.body());
    out
}
