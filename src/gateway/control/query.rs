//! Query parameters.

use super::error::Error;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::time::Duration;
use vertice_api::{FieldError, paths};
use vertice_core::name::InstanceId;

/// The first value of a parameter, decoded; `Some("")` when it stands without one.
pub(super) fn value<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key)? == name).then(|| decode(value)).flatten()
    })
}

/// Whether a switch is on: present, and not `0` or `false`.
pub(super) fn is_on(query: &str, name: &str) -> bool {
    value(query, name).is_some_and(|value| !matches!(&*value, "0" | "false"))
}

/// The instance that is meant, if one is named.
pub(super) fn instance_id(query: &str) -> Result<Option<InstanceId>, Error> {
    let name = paths::query::INSTANCE_ID;
    let parse = |text: Cow<'_, str>| InstanceId::parse(&text);
    let id = value(query, name).map(parse).transpose();
    id.map_err(|error| Error::fields(vec![FieldError::new(name, error.to_string())]))
}

/// A time span: `30s`, `500ms`, `1m 30s`, or a bare number of seconds.
pub(super) fn span(query: &str, name: &str) -> Result<Option<Duration>, FieldError> {
    let Some(text) = value(query, name) else { return Ok(None) };
    let seconds = || text.parse().ok().map(Duration::from_secs);
    let span = seconds().or_else(|| humantime::parse_duration(&text).ok());
    span.map(Some).ok_or_else(|| FieldError::new(name, "must be a time span like 30s or 500ms"))
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(text).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let query = "a=1&instance_id=%5B%3A%3A1%5D%3A80&all&b=%FF";
        assert_eq!(value(query, "instance_id").as_deref(), Some("[::1]:80"));
        assert_eq!(value(query, "all").as_deref(), Some(""));
        assert_eq!(value(query, "b"), None);
        assert_eq!(value(query, "c"), None);
        assert_eq!(span("a=1&b=2s&c=500ms&d=1m%2030s", "d"), Ok(Some(Duration::from_secs(90))));
        assert_eq!(span("a=1", "a"), Ok(Some(Duration::from_secs(1))));
        assert_eq!(span("a=1", "b"), Ok(None));
        for absurd in ["-1", "1e9", "soon", "", "99999999999999999999", "1s1"] {
            assert!(span(&format!("a={absurd}"), "a").is_err(), "{absurd}");
        }
        assert!(is_on(query, "all") && is_on("all=1", "all") && !is_on("all=0", "all") && !is_on("", "all"));
    }
}
