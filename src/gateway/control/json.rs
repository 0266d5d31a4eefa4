//! Request bodies: exactly one JSON object.
//!
//! `serde_json::Value` keeps the last of two equal keys; two readers that disagree about which one counts are a hole, so
//! duplicate keys are an error here, at any depth.

use super::error::Error;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use vertice_core::reason::Reason;

/// Reads the one object of a body.
///
/// # Errors
/// 415 for another content type or an encoding, 400 when it is not one valid object.
pub(super) fn object(headers: &HeaderMap, body: &Bytes) -> Result<Map<String, Value>, Error> {
    check_type(headers)?;
    let Strict(value) = serde_json::from_slice(body)
        .map_err(|error| Error::new(Reason::BadRequest, format!("The body is not one valid JSON object: {error}.")))?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(Error::new(Reason::BadRequest, "The body is not one valid JSON object: it is another JSON value.")),
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), Error> {
    let refuse = |detail: &str| Err(Error::new(Reason::UnsupportedMediaType, detail));
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return refuse("Encoded bodies are not accepted: send plain JSON.");
    }
    let Some(content_type) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let media_type = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let media_type = media_type.to_ascii_lowercase();
    if media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json")) {
        Ok(())
    } else {
        refuse("The body must be application/json.")
    }
}

/// A JSON value in which no object has the same key twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let Strict(value) = map.next_value()?;
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} stands twice")));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content_type: Option<&'static str>, body: &'static str) -> Result<Map<String, Value>, u16> {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
        }
        object(&headers, &Bytes::from_static(body.as_bytes())).map_err(|error| error.reason.status())
    }

    #[test]
    fn one_object_and_nothing_else() {
        let json = Some("application/json; charset=utf-8");
        assert_eq!(read(json, r#"{"a":{"b":[1,2.5,null,true,"x"]}}"#).unwrap()["a"]["b"][1], 2.5);
        assert!(read(None, "{}").is_ok());
        for bad in ["", "[]", "1", "{", "{} {}", "{}x", r#"{"a":1,"a":2}"#, r#"{"o":{"a":1,"a":2}}"#, "{'a':1}", "NaN"] {
            assert_eq!(read(json, bad), Err(400), "{bad}");
        }
        assert_eq!(read(Some("text/plain"), "{}"), Err(415));
        assert_eq!(read(Some("application/x-www-form-urlencoded"), "{}"), Err(415));
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_crash() {
        let deep: &'static str = Box::leak("[".repeat(60_000).into_boxed_str());
        assert_eq!(read(None, deep), Err(400));
    }
}
