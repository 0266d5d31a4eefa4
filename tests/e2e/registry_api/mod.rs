//! The registry API over the wire (SPEC §3).

mod access;
mod drain;
mod fields;
mod identity;
mod leases;
mod limits;
mod quotas;
mod reads;
mod refusals;
mod registration;

use serde_json::{Value, json};

use crate::harness::{Gateway, Request, Response, post};

/// A registration of `service` at `endpoint` without an id.
fn registration(service: &str, endpoint: &str) -> Value {
    json!({"service_name": service, "endpoint": endpoint})
}

/// Registers without an id from another loopback address.
fn register_from(gateway: &Gateway, source: [u8; 4], service: &str, endpoint: &str) -> Response {
    gateway.api(post("/register", &registration(service, endpoint)).from(source)).expect(201)
}

/// The endpoints of all instances, sorted.
fn endpoints(gateway: &Gateway, service: &str) -> Vec<String> {
    let info = gateway.service(service);
    let instances = info["instances"].as_array().unwrap();
    let mut endpoints: Vec<_> = instances.iter().map(|i| i["endpoint"].as_str().unwrap().to_owned()).collect();
    endpoints.sort();
    endpoints
}

/// The instance at `endpoint`.
fn instance(gateway: &Gateway, service: &str, endpoint: &str) -> Value {
    let info = gateway.service(service);
    let instances = info["instances"].as_array().unwrap();
    let found = instances.iter().find(|instance| instance["endpoint"] == endpoint);
    found.unwrap_or_else(|| panic!("no {endpoint} in {info}")).clone()
}

/// Registers with these bytes as the body.
fn register_bytes(gateway: &Gateway, body: impl Into<Vec<u8>>) -> Response {
    gateway.api(Request::new("POST", "/register").json(body))
}

/// The fields that the 422 to this registration names.
#[track_caller]
fn refused_fields(gateway: &Gateway, body: &Value) -> Vec<String> {
    let problem = gateway.api(post("/register", body)).problem(422, "unprocessable");
    let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors in {problem}"));
    let message = |error: &Value| error["message"].as_str().is_some_and(|text| !text.is_empty());
    assert!(errors.iter().all(message), "{problem}");
    let mut fields: Vec<_> = errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect();
    fields.sort();
    fields
}
