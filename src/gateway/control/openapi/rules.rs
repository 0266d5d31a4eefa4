//! The limits that the handlers check, as schemas.

use super::super::fields::{HEALTH_PATH_PATTERN, LABEL_PATTERN};
use serde_json::{Map, Value, json};
use std::ops::RangeInclusive;
use vertice_api::schema::{DEFINITIONS, rule};
use vertice_core::bounds;
use vertice_core::breaker::Phase;
use vertice_core::endpoint::Endpoint;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::reason::Reason;
use vertice_core::status::Status;

/// What refers to the schema of that name.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#{DEFINITIONS}/{name}")})
}

/// What [`vertice_api::schema::rule`] leaves open.
pub(super) fn definitions() -> Map<String, Value> {
    let rules = [
        (rule::SERVICE_NAME, json!({"type": "string", "pattern": ServiceName::PATTERN, "examples": ["maximus_core_service"]})),
        (rule::INSTANCE_ID, json!({"type": "string", "pattern": InstanceId::PATTERN, "examples": ["maximus-core:8150"]})),
        (
            rule::ENDPOINT,
            json!({
                "type": "string",
                "pattern": Endpoint::PATTERN,
                "maxLength": Endpoint::LENGTH_MAX,
                "description": "`http(s)://host[:port][/prefix]` without user information, query and fragment. Refused: port \
                    0 and ports above 65535, dot segments, link-local, metadata, unspecified, multicast and broadcast \
                    addresses in any notation, and this gateway itself.",
                "examples": ["http://maximus-core:8150"],
            }),
        ),
        (
            rule::HEALTH_ENDPOINT,
            json!({"type": "string", "pattern": HEALTH_PATH_PATTERN, "maxLength": bounds::HEALTH_ENDPOINT, "examples": ["/health"]}),
        ),
        (
            rule::METADATA,
            json!({
                "type": "object",
                "maxProperties": bounds::METADATA_KEYS,
                "propertyNames": {"maxLength": bounds::METADATA_KEY},
                "additionalProperties": {"type": "string", "maxLength": bounds::METADATA_VALUE},
            }),
        ),
        (rule::TTL, integer(bounds::TTL_S)),
        (rule::WEIGHT, integer(bounds::WEIGHT)),
        (rule::ZONE, label(bounds::ZONE)),
        (rule::VERSION, label(bounds::VERSION)),
        (rule::TAGS, json!({"type": "array", "maxItems": bounds::TAGS, "items": label(bounds::TAG)})),
        (rule::STATUS, words(Status::ALL.iter().map(|status| status.as_str()))),
        (rule::BREAKER, words(Phase::ALL.iter().map(|phase| phase.as_str()))),
        (rule::REASON, words(Reason::ALL.iter().map(|reason| reason.as_str()))),
    ];
    rules.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

/// A short printable text.
pub(super) fn label(length_max: usize) -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": length_max, "pattern": LABEL_PATTERN})
}

fn integer(bounds: RangeInclusive<u64>) -> Value {
    json!({"type": "integer", "minimum": bounds.start(), "maximum": bounds.end()})
}

fn words<'w>(words: impl Iterator<Item = &'w str>) -> Value {
    json!({"type": "string", "enum": words.collect::<Vec<_>>()})
}
