//! Walks an object's fields and collects every mistake, so that a client sees all of them at once.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use vertice_api::FieldError;
use vertice_core::bounds;

/// A body's fields and the mistakes found in them so far.
pub(super) struct Fields<'o> {
    object: &'o Map<String, Value>,
    /// What is wrong, in the order of asking.
    pub(super) errors: Vec<FieldError>,
}

impl<'o> Fields<'o> {
    /// Starts reading.
    pub(super) const fn new(object: &'o Map<String, Value>) -> Self {
        Self { object, errors: Vec::new() }
    }

    /// Notes a mistake.
    pub(super) fn refuse(&mut self, field: &str, message: impl Into<String>) {
        self.errors.push(FieldError::new(field, message));
    }

    /// A field that must be there, read by `parse`.
    pub(super) fn required<T, E: ToString>(&mut self, field: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        if self.get(field).is_none() {
            self.refuse(field, "is required");
            return None;
        }
        self.text(field, parse)
    }

    /// A text, read by `parse`; `None` when absent or wrong.
    pub(super) fn text<T, E: ToString>(&mut self, field: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        match self.get(field)? {
            Value::String(text) => parse(text).map_err(|error| self.refuse(field, error.to_string())).ok(),
            _ => {
                self.refuse(field, "must be a string");
                None
            }
        }
    }

    /// A whole number within bounds; `None` when absent or wrong.
    pub(super) fn integer(&mut self, field: &str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let value = self.get(field)?;
        match value.as_u64() {
            Some(number) if bounds.contains(&number) => Some(number),
            _ => {
                self.refuse(field, format!("must be a whole number from {} to {}", bounds.start(), bounds.end()));
                None
            }
        }
    }

    /// An object of strings within the limits of the contract; `None` when absent or wrong.
    pub(super) fn metadata(&mut self, field: &str) -> Option<BTreeMap<String, String>> {
        let Value::Object(object) = self.get(field)? else {
            self.refuse(field, "must be an object of strings");
            return None;
        };
        if object.len() > bounds::METADATA_KEYS {
            self.refuse(field, format!("must have at most {} keys", bounds::METADATA_KEYS));
        }
        let mut metadata = BTreeMap::new();
        for (key, value) in object {
            let shown: String = key.chars().take(bounds::METADATA_KEY).collect();
            if key.chars().count() > bounds::METADATA_KEY {
                self.refuse(field, format!("has a key longer than {} characters: {shown}…", bounds::METADATA_KEY));
            }
            match value.as_str() {
                Some(text) if text.chars().count() <= bounds::METADATA_VALUE => {
                    metadata.insert(key.clone(), text.to_owned());
                }
                Some(_) => {
                    let rule = format!("must be at most {} characters long", bounds::METADATA_VALUE);
                    self.refuse(&format!("{field}.{shown}"), rule);
                }
                None => self.refuse(&format!("{field}.{shown}"), "must be a string"),
            }
        }
        Some(metadata)
    }

    /// A list of short strings; empty when absent or wrong.
    pub(super) fn texts(&mut self, field: &str, count_max: usize, length_max: usize) -> Vec<String> {
        let Some(value) = self.get(field) else { return Vec::new() };
        let texts: Option<Vec<String>> =
            value.as_array().and_then(|list| list.iter().map(|item| item.as_str().map(str::to_owned)).collect());
        match texts {
            Some(texts) if texts.len() <= count_max && texts.iter().all(|text| label(text, length_max).is_ok()) => texts,
            _ => {
                let rule = format!("must be a list of at most {count_max} strings of 1 to {length_max} printable characters");
                self.refuse(field, rule);
                Vec::new()
            }
        }
    }

    /// `null` is the same as absent.
    fn get(&self, field: &str) -> Option<&'o Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }
}

/// What [`label`] takes, apart from its length.
pub(super) const LABEL_PATTERN: &str = r"^[^\u0000-\u001F\u007F-\u009F]+$";

/// A short printable text.
pub(super) fn label(text: &str, length_max: usize) -> Result<String, String> {
    let fits = (1..=length_max).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err(format!("must be 1 to {length_max} printable characters")) }
}

/// What [`health_path`] takes, apart from the length. Without look-ahead, which not every reader of JSON Schema has.
pub(super) const HEALTH_PATH_PATTERN: &str =
    r"^/((\.[!$-\-/-;=?-\[\]_a-z~]|[!$-\-0-;=?-\[\]_a-z~])(\.?[!$-\-/-;=?-\[\]_a-z~])*)?\.?$";

/// The path of a health check: starts with one `/`, is not too long, no `..`, nothing invisible.
pub(super) fn health_path(text: &str) -> Result<String, String> {
    let refuse = |why: &str| Err(why.to_owned());
    if !text.starts_with('/') || text.starts_with("//") {
        refuse("must start with one '/'")
    } else if text.len() > bounds::HEALTH_ENDPOINT {
        Err(format!("must be at most {} characters long", bounds::HEALTH_ENDPOINT))
    } else if text.contains("..") {
        refuse("must not contain '..'")
    } else if !text.bytes().all(|b| b.is_ascii_graphic()) || text.contains(['"', '<', '>', '\\', '^', '`', '{', '|', '}', '#'])
    {
        refuse("must contain only characters that a URL may have")
    } else {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_told() {
        let body = serde_json::json!({"n": "x", "ttl": 4, "m": {"a": 1, "b": "c"}, "tags": ["a", ""], "null": null});
        let object = body.as_object().unwrap();
        let mut fields = Fields::new(object);
        assert_eq!(fields.required("missing", |t| Ok::<_, String>(t.to_owned())), None);
        assert_eq!(fields.required("null", |t| Ok::<_, String>(t.to_owned())), None);
        assert_eq!(fields.text("n", |_| Err::<(), _>("is bad")), None);
        assert_eq!(fields.integer("ttl", bounds::TTL_S), None);
        fields.metadata("m");
        fields.texts("tags", 32, 64);
        let told: Vec<String> = fields.errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
        assert_eq!(
            told,
            [
                "missing: is required",
                "null: is required",
                "n: is bad",
                "ttl: must be a whole number from 5 to 3600",
                "m.a: must be a string",
                "tags: must be a list of at most 32 strings of 1 to 64 printable characters",
            ]
        );
    }

    #[test]
    fn health_paths() {
        for good in ["/", "/health", "/a/b?x=1", "/%20"] {
            assert!(health_path(good).is_ok(), "{good}");
        }
        for bad in ["", "health", "//evil", "/a/../b", "/a b", "/é", "/a\r\nb", &format!("/{}", "x".repeat(255))] {
            assert!(health_path(bad).is_err(), "{bad}");
        }
    }
}
