//! Which instance takes a request (SPEC §5), seen from outside.

mod affinity;
mod choice;
mod outliers;
mod probes;

use serde_json::{Value, json};

use crate::harness::scripts::text;
use crate::harness::{Gateway, Upstream, post};

/// So many instances, each of which answers with its number.
fn numbered(count: usize) -> Vec<Upstream> {
    const NAMES: [&str; 6] = ["0", "1", "2", "3", "4", "5"];
    NAMES[..count].iter().map(|name| Upstream::start(text(name))).collect()
}

/// Registers an instance with more than its address.
#[track_caller]
fn register(gateway: &Gateway, service: &str, upstream: &Upstream, more: &Value) {
    let mut body = json!({"service_name": service, "endpoint": upstream.url(), "instance_id": upstream.addr.to_string()});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    gateway.api(post("/register", &body)).expect(201);
}

/// What `/gateway/status` says of the instance.
#[track_caller]
fn instance(gateway: &Gateway, service: &str, upstream: &Upstream) -> Value {
    let id = upstream.addr.to_string();
    let found = gateway.instances(service).into_iter().find(|instance| instance["instance_id"] == id.as_str());
    found.unwrap_or_else(|| panic!("{id} is not listed"))
}
