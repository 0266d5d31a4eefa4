//! The configuration changes while the gateway runs.

mod effects;
mod steady;
mod watching;

use serde_json::{Value, json};

use crate::harness::{Gateway, Response, post};

/// Writes another configuration into the gateway's file.
fn write(gateway: &Gateway, toml: &str) {
    std::fs::write(gateway.dir().join("vertice.toml"), toml).unwrap();
}

/// Has the file read, as an administrator does.
#[track_caller]
fn ask(gateway: &Gateway) -> Response {
    gateway.api(post("/gateway/reload", &json!({})))
}

/// Puts another configuration in force.
#[track_caller]
fn put(gateway: &Gateway, toml: &str) -> Value {
    write(gateway, toml);
    ask(gateway).expect(200).json()
}

/// A gateway with this file.
#[track_caller]
fn gateway(toml: &str) -> Gateway {
    Gateway::builder().config(toml).start()
}
