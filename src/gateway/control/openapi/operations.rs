//! What each call takes and answers, in words and schemas.

use super::super::call::Call;
use super::rules::{label, reference};
use super::{header_reference, problem, refusal, success};
use http::StatusCode;
use serde_json::{Value, json};
use vertice_api::headers;
use vertice_api::paths::query;
use vertice_api::schema::rule;
use vertice_core::bounds;

/// One call in words.
#[derive(Default)]
pub(super) struct Described {
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    pub(super) parameters: Vec<Value>,
    /// The schema of the body it takes.
    pub(super) body: Option<&'static str>,
    /// What it answers besides refusals, by status.
    pub(super) answers: Vec<(u16, Value)>,
    /// Statuses of its own refusals; those of [`ALWAYS`] and of access go without saying.
    pub(super) refusals: &'static [u16],
}

/// Any request may be answered so: a malformed or slow head or body, one over a limit, a defect, too much to do.
pub(super) const ALWAYS: [u16; 7] = [400, 408, 413, 414, 431, 500, 503];

/// Every call has its words, or this does not compile.
pub(super) fn describe(call: Call) -> Described {
    match call {
        Call::Register => register(),
        Call::Heartbeat => heartbeat(),
        Call::Deregister => deregister(),
        Call::Services => services(),
        Call::Service => service(),
        Call::Health => health(),
        Call::Livez => livez(),
        Call::Readyz => readyz(),
        Call::Metrics => metrics(),
        Call::Status => status(),
        Call::HealthCheck => health_check(),
        Call::Drain => drain(),
        Call::Reload => reload(),
        Call::OpenApi => openapi(),
    }
}

fn register() -> Described {
    let (status, mut registered) = success(StatusCode::CREATED, "Registered.", &reference("Registered"));
    let (service, instance) = ("$response.body#/service_name", "$response.body#/instance_id");
    registered["links"] = json!({
        "Renewal": {"operationId": "heartbeat", "requestBody": {"service_name": service, "instance_id": instance}},
        "Lookup": {"operationId": "getService", "parameters": {"path.name": service}},
        "Removal": {
            "operationId": "deregister",
            "parameters": {"path.name": service, "query.instance_id": instance},
        },
    });
    Described {
        id: "register",
        summary: "Register an instance, or update its registration",
        description: "The instance is routable before the answer is sent, unless its endpoint is a name that has no address \
            yet (`resolved` is then false). Without `instance_id` it is known by the registrant's address. The same endpoint \
            under the same service is the same instance.",
        body: Some("RegisterRequest"),
        answers: vec![(status, registered)],
        refusals: &[415, 422, 429],
        ..Described::default()
    }
}

fn heartbeat() -> Described {
    Described {
        id: "heartbeat",
        summary: "Renew a lease",
        description: "Without `instance_id` it renews the caller's own registration; if there is none, the service's only \
            instance; if there are several, all that were registered without an id. 404 means: register again.",
        body: Some("HeartbeatRequest"),
        answers: vec![success(StatusCode::OK, "Renewed.", &reference("HeartbeatReceived"))],
        refusals: &[404, 415, 422, 429],
        ..Described::default()
    }
}

fn deregister() -> Described {
    Described {
        id: "deregister",
        summary: "Remove an instance",
        description: "Removing what is absent succeeds, too. Without `instance_id` the caller's own registration is meant; if \
            there is none, the service's only instance; if there are several, 409.",
        parameters: vec![
            name("The service.", &json!({"type": "string"})),
            parameter(query::INSTANCE_ID, "Which instance.", &reference(rule::INSTANCE_ID)),
            switch(query::ALL, "All instances of the service."),
            parameter(query::DRAIN, "How long it may finish what it has: it gets nothing new meanwhile.", &span(None)),
        ],
        answers: vec![success(StatusCode::OK, "It is not registered any more.", &reference("Deregistered"))],
        refusals: &[409, 422, 429],
        ..Described::default()
    }
}

fn services() -> Described {
    let list = json!({"anyOf": [
        {"type": "array", "items": reference(rule::SERVICE_NAME)},
        {"type": "array", "items": reference("ServiceInfo")},
    ]});
    let mut parameters = vec![
        switch(query::DETAIL, "Objects instead of names."),
        parameter(query::TAG, "Only services with an instance that has this tag.", &label(bounds::VERSION)),
        parameter(query::VERSION, "Only services with an instance of this version.", &label(bounds::VERSION)),
        parameter(query::ZONE, "Only services with an instance in this zone.", &label(bounds::VERSION)),
        parameter(query::STATUS, "Only services with an instance of this status.", &reference(rule::STATUS)),
    ];
    parameters.extend(watch());
    Described {
        id: "listServices",
        summary: "All services",
        description: STREAMED,
        parameters,
        answers: vec![watched("The names of the services, sorted; objects with `detail`.", &list)],
        refusals: &[422, 429],
        ..Described::default()
    }
}

fn service() -> Described {
    let mut parameters = vec![name("The service.", &reference(rule::SERVICE_NAME))];
    parameters.extend(watch());
    let mut absent = refusal(404);
    absent["headers"][headers::INDEX] = header_reference("Index");
    Described {
        id: "getService",
        summary: "One service",
        description: STREAMED,
        parameters,
        answers: vec![
            watched("The service: the fields of its best instance, and all instances.", &reference("ServiceInfo")),
            (404, absent),
        ],
        refusals: &[422, 429],
        ..Described::default()
    }
}

const STREAMED: &str = "With `watch` the answer waits for a change. With `Accept: text/event-stream` it is a stream: first a \
    line `id: <index>`, then for each change `event: change`, `id: <index>` and `data:` with the service, or with \
    `{\"service_name\": …, \"deleted\": true}`. `event: reset` means: forget what you know, all services follow. A comment \
    comes every 15 s.";

fn health() -> Described {
    let schema = reference("Health");
    Described {
        id: "getHealth",
        summary: "How the process is",
        description: "`degraded` is said with status 200: the process serves.",
        answers: vec![
            success(StatusCode::OK, "It serves.", &schema),
            unfit("The process is on its way out, or cannot serve.", &schema),
        ],
        ..Described::default()
    }
}

fn livez() -> Described {
    Described {
        id: "getLive",
        summary: "Whether the process answers at all",
        answers: vec![text("It does.", "text/plain")],
        ..Described::default()
    }
}

fn readyz() -> Described {
    let schema = reference("Readiness");
    Described {
        id: "getReady",
        summary: "Whether traffic may be sent here",
        answers: vec![success(StatusCode::OK, "It may.", &schema), unfit("Traffic should go elsewhere.", &schema)],
        ..Described::default()
    }
}

/// The same object as when all is well, or the refusal that any call may get.
fn unfit(description: &str, schema: &Value) -> (u16, Value) {
    let content = json!({headers::JSON: {"schema": schema}, headers::PROBLEM_JSON: {"schema": problem(503)}});
    (503, json!({"description": description, "content": content}))
}

fn metrics() -> Described {
    Described {
        id: "getMetrics",
        summary: "Metrics for Prometheus",
        description: "This listener's part of them: scraping both listeners counts nothing twice.",
        answers: vec![text("The metrics.", "text/plain")],
        ..Described::default()
    }
}

fn status() -> Described {
    Described {
        id: "getStatus",
        summary: "What is in force",
        answers: vec![success(StatusCode::OK, "The state of this process.", &reference("GatewayStatus"))],
        ..Described::default()
    }
}

fn health_check() -> Described {
    Described {
        id: "checkHealth",
        summary: "Whether a service is well",
        description: "Asks the service's health endpoint, unless a recent answer is known. Other spellings and aliases of a \
            service's name are understood.",
        parameters: vec![name("The service.", &json!({"type": "string"}))],
        answers: vec![success(StatusCode::OK, "What was found; also when the service is not well.", &reference("HealthCheck"))],
        refusals: &[404],
        ..Described::default()
    }
}

fn drain() -> Described {
    Described {
        id: "drain",
        summary: "Take instances out of rotation for a while",
        description: "They get no new requests for that long, whatever they report, and stay registered. A new registration \
            of an instance ends its drain.",
        parameters: vec![
            name("The service.", &reference(rule::SERVICE_NAME)),
            parameter(query::INSTANCE_ID, "Which instance; without one, all of the service.", &reference(rule::INSTANCE_ID)),
            parameter(query::FOR, "How long, at most 24 hours; `0` ends a drain.", &span(Some("30s"))),
        ],
        answers: vec![success(StatusCode::OK, "Which instances were meant.", &reference("Drained"))],
        refusals: &[404, 422],
        ..Described::default()
    }
}

fn reload() -> Described {
    Described {
        id: "reload",
        summary: "Read the configuration again",
        description: "What has changed is in force when the answer comes; requests under way keep what they began with. With a \
            mistake anywhere nothing changes, and every mistake is named in `errors`.",
        answers: vec![success(StatusCode::OK, "The configuration is good and in force.", &reference("Reloaded"))],
        refusals: &[422],
        ..Described::default()
    }
}

fn openapi() -> Described {
    Described {
        id: "getOpenApi",
        summary: "This description",
        description: "It lists what the listener that is asked has.",
        answers: vec![success(StatusCode::OK, "An OpenAPI 3.1 document.", &json!({"type": "object"}))],
        ..Described::default()
    }
}

/// The name in the path.
fn name(description: &str, schema: &Value) -> Value {
    json!({"name": "name", "in": "path", "required": true, "description": description, "schema": schema})
}

fn parameter(name: &str, description: &str, schema: &Value) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": schema})
}

/// On when it is there, unless it says `0` or `false`.
fn switch(name: &str, description: &str) -> Value {
    parameter(name, description, &json!({"type": "string", "examples": ["1"]}))
}

/// A length of time. A pattern would refuse what is understood: `1m 30s`, `0.25`.
fn span(default: Option<&str>) -> Value {
    let mut schema = json!({"type": "string", "examples": ["500ms", "30s", "2m"]});
    if let Some(default) = default {
        schema["default"] = json!(default);
    }
    schema
}

/// The parameters of look-ups that can wait.
fn watch() -> [Value; 4] {
    let index = json!({"type": "integer", "minimum": 0});
    let resumed = "Where a stream goes on without a gap: the last `id` that was received. Only streams look at it.";
    let last_id = json!({"type": "string"});
    [
        parameter(query::WATCH, "Answer as soon as something changed after this index.", &index),
        parameter(query::WAIT, "How long a watch waits, at most 10 minutes; without a unit in seconds.", &span(Some("30s"))),
        parameter(query::LAST_EVENT_ID, resumed, &last_id),
        json!({"name": headers::LAST_EVENT_ID, "in": "header", "description": resumed, "schema": last_id}),
    ]
}

/// A success of a look-up.
fn watched(description: &str, schema: &Value) -> (u16, Value) {
    let (status, mut answer) = success(StatusCode::OK, description, schema);
    answer["headers"] = json!({headers::INDEX: header_reference("Index")});
    answer["content"][headers::EVENT_STREAM] = json!({"schema": {"type": "string"}});
    (status, answer)
}

fn text(description: &str, media_type: &str) -> (u16, Value) {
    (200, json!({"description": description, "content": {media_type: {"schema": {"type": "string"}}}}))
}
