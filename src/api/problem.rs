//! Errors that the gateway makes up itself: RFC 9457 problem details.

use std::borrow::Cow;

#[cfg(feature = "schema")]
use crate::schema;
use serde::{Deserialize, Serialize};

/// Body of an error, sent as `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// The stable word, the same as in `X-Vertice-Reason`.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::reason"))]
    pub reason: Cow<'static, str>,
    /// Names the request in all logs.
    pub request_id: String,
    /// Every field that is missing, mistyped or refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl Problem {
    /// A problem; `title` is the same for every occurrence of its `reason`.
    #[must_use]
    pub fn new(
        status: u16,
        title: impl Into<Cow<'static, str>>,
        reason: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
        request_id: impl Into<String>,
    ) -> Self {
        let reason = reason.into();
        Self {
            kind: format!("/problems/{reason}"),
            title: title.into(),
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_problem() {
        let problem = Problem::new(404, "Not Found", "not_found", "Service 'abc' not found", "r-1");
        assert_eq!(
            serde_json::to_string(&problem).unwrap(),
            r#"{"type":"/problems/not_found","title":"Not Found","status":404,"detail":"Service 'abc' not found","reason":"not_found","request_id":"r-1"}"#
        );
    }

    #[test]
    fn a_problem_with_fields() {
        let problem = Problem::new(422, "Unprocessable Content", "unprocessable", "2 fields are wrong", "r-1")
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
