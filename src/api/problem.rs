//! Errors that the gateway makes up itself: RFC 9457 problem details.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Body of an error, sent as [`crate::headers::PROBLEM_JSON`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `/problems/<reason>`: a stable relative URI (RFC 9457 §3.1.1).
    #[serde(rename = "type")]
    pub kind: String,
    /// Short and the same each time.
    pub title: Cow<'static, str>,
    /// The HTTP status, again.
    pub status: u16,
    /// What happened this time, for people.
    pub detail: Cow<'static, str>,
    /// The stable word, the same as in [`crate::headers::REASON`].
    pub reason: Cow<'static, str>,
    /// Names the request in all logs.
    pub request_id: String,
    /// Every field that is missing, mistyped or refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl Problem {
    /// A problem whose title is the status' phrase.
    #[must_use]
    pub fn new(
        status: u16,
        reason: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
        request_id: impl Into<String>,
    ) -> Self {
        let reason = reason.into();
        Self {
            kind: format!("/problems/{reason}"),
            title: Cow::Borrowed(phrase(status)),
            status,
            detail: detail.into(),
            reason,
            request_id: request_id.into(),
            errors: Vec::new(),
        }
    }

    /// The same problem with the fields it is about.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }
}

/// What is wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// The field's name.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl FieldError {
    /// What is wrong with `field`.
    #[must_use]
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// The phrase of a status that the gateway may answer itself (RFC 9110 §15).
#[must_use]
pub const fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_problem() {
        let problem = Problem::new(404, "not_found", "Service 'abc' not found", "r-1");
        assert_eq!(
            serde_json::to_string(&problem).unwrap(),
            r#"{"type":"/problems/not_found","title":"Not Found","status":404,"detail":"Service 'abc' not found","reason":"not_found","request_id":"r-1"}"#
        );
    }

    #[test]
    fn a_problem_with_fields() {
        let problem = Problem::new(422, "unprocessable", "2 fields are wrong", "r-1")
            .with_errors(vec![FieldError::new("endpoint", "is required"), FieldError::new("ttl", "must be 5 to 3600")]);
        let text = serde_json::to_string(&problem).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"type":"/problems/unprocessable","title":"Unprocessable Content","status":422,"detail":"2 fields are wrong","#,
                r#""reason":"unprocessable","request_id":"r-1","errors":[{"field":"endpoint","message":"is required"},"#,
                r#"{"field":"ttl","message":"must be 5 to 3600"}]}"#
            )
        );
        assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
    }
}
