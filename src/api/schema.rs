//! The bodies as JSON Schema.
//!
//! What is a valid name, or how long a lease may be, are rules, and this crate holds none. Fields that obey one refer to a
//! schema by its name; the gateway, which knows the rules, defines these names.

use schemars::generate::{Contract, SchemaSettings};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

use crate::gateway::{Drained, GatewayStatus, HealthCheck, Reloaded};
use crate::health::{Health, Readiness};
use crate::heartbeat::{HeartbeatReceived, HeartbeatRequest};
use crate::problem::Problem;
use crate::register::{Deregistered, RegisterRequest, Registered};
use crate::service::ServiceInfo;

/// Where schemas are found by name: a JSON pointer within the document, without its leading `#`.
pub const DEFINITIONS: &str = "/components/schemas";

/// Schemas that hold a rule and have to be defined by whoever makes a document.
pub mod rule {
    /// A service's name.
    pub const SERVICE_NAME: &str = "ServiceName";
    /// An instance's identity.
    pub const INSTANCE_ID: &str = "InstanceId";
    /// An instance's URL.
    pub const ENDPOINT: &str = "Endpoint";
    /// The path of a health check.
    pub const HEALTH_ENDPOINT: &str = "HealthEndpoint";
    /// Strings by name.
    pub const METADATA: &str = "Metadata";
    /// Length of a lease that is asked for, in seconds.
    pub const TTL: &str = "Ttl";
    /// Share of the traffic.
    pub const WEIGHT: &str = "Weight";
    /// Where something runs.
    pub const ZONE: &str = "Zone";
    /// Which version runs.
    pub const VERSION: &str = "Version";
    /// Words to select services by.
    pub const TAGS: &str = "Tags";
    /// What an instance says of its own health.
    pub const STATUS: &str = "Status";
    /// State of a breaker.
    pub const BREAKER: &str = "Breaker";
    /// The stable word for why the gateway answered itself.
    pub const REASON: &str = "Reason";
}

/// The schemas of all bodies by name, those of [`rule`] missing.
#[must_use]
pub fn definitions() -> Map<String, Value> {
    let mut requests = generator(Contract::Deserialize);
    add::<RegisterRequest>(&mut requests);
    add::<HeartbeatRequest>(&mut requests);
    let mut answers = generator(Contract::Serialize);
    add::<Registered>(&mut answers);
    add::<HeartbeatReceived>(&mut answers);
    add::<Deregistered>(&mut answers);
    add::<ServiceInfo>(&mut answers);
    add::<Health>(&mut answers);
    add::<Readiness>(&mut answers);
    add::<GatewayStatus>(&mut answers);
    add::<HealthCheck>(&mut answers);
    add::<Drained>(&mut answers);
    add::<Reloaded>(&mut answers);
    add::<Problem>(&mut answers);
    let mut answers = answers.take_definitions(true);
    answers.values_mut().for_each(drop_defaults);
    let mut definitions = requests.take_definitions(true);
    definitions.extend(answers);
    definitions
}

/// What a field is taken to be that an older gateway does not send is our clients' business: an answer's schema has no
/// defaults.
fn drop_defaults(schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    schema.remove("default");
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    properties.into_iter().flat_map(Map::values_mut).for_each(drop_defaults);
}

fn generator(contract: Contract) -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = DEFINITIONS.into();
        settings.meta_schema = None;
        settings.contract = contract;
    });
    settings.into_generator()
}

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

/// `function: RULE` makes what the derives ask for: a reference to the rule.
macro_rules! by_rule {
    ($($function:ident: $rule:ident),* $(,)?) => { $(
        pub(crate) fn $function(_: &mut SchemaGenerator) -> Schema {
            json_schema!({"$ref": format!("#{DEFINITIONS}/{}", rule::$rule)})
        }
    )* };
}

/// The same for fields that may be `null`: in a request that is the same as absent.
macro_rules! by_rule_or_null {
    ($($function:ident: $rule:ident),* $(,)?) => { $(
        pub(crate) fn $function(_: &mut SchemaGenerator) -> Schema {
            json_schema!({"anyOf": [{"$ref": format!("#{DEFINITIONS}/{}", rule::$rule)}, {"type": "null"}]})
        }
    )* };
}

by_rule! {
    service_name: SERVICE_NAME,
    instance_id: INSTANCE_ID,
    endpoint: ENDPOINT,
    health_endpoint: HEALTH_ENDPOINT,
    metadata: METADATA,
    weight: WEIGHT,
    status: STATUS,
    breaker: BREAKER,
    reason: REASON,
}

by_rule_or_null! {
    instance_id_or_null: INSTANCE_ID,
    health_endpoint_or_null: HEALTH_ENDPOINT,
    metadata_or_null: METADATA,
    ttl_or_null: TTL,
    weight_or_null: WEIGHT,
    zone_or_null: ZONE,
    version_or_null: VERSION,
    tags_or_null: TAGS,
    status_or_null: STATUS,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_it_needs_and_null_is_absent() {
        let definitions = definitions();
        let request = &definitions["RegisterRequest"];
        assert_eq!(request["required"], serde_json::json!(["service_name", "endpoint"]));
        let ttl = &request["properties"]["ttl"];
        assert_eq!(ttl["anyOf"], serde_json::json!([{"$ref": "#/components/schemas/Ttl"}, {"type": "null"}]));
        assert_eq!(ttl["description"], "Length of the lease in seconds.");
    }

    #[test]
    fn an_answer_promises_what_is_always_sent() {
        let definitions = definitions();
        let required = definitions["Registered"]["required"].as_array().unwrap();
        assert!(required.contains(&"durable".into()) && !required.contains(&"resolved".into()), "{required:?}");
        assert!(definitions["Instance"]["required"].as_array().unwrap().contains(&"zone".into()));
    }
}
