//! `GET /openapi.json`: the calls of [`super::call::CALLS`], described for the listener that is asked.
//!
//! The bodies are described by the types that are sent ([`vertice_api::schema`]), their limits by the figures that the
//! handlers check ([`rules`]). What a call takes and answers stands in [`operations`].

mod operations;
mod rules;

use super::call::{CALLS, Entry, Part};
use super::{Control, Role, json_response};
use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::OnceLock;
use vertice_api::headers;
use vertice_api::schema::rule;
use vertice_core::reason::Reason;

/// What the description depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct View {
    role: Role,
    registry_on_gateway: bool,
    /// Whether writes need a token.
    needs_token: bool,
}

/// The description. It is made once for each view and kept.
pub(super) fn answer(control: &Control, role: Role) -> Response<Bytes> {
    static MADE: [OnceLock<Bytes>; 8] = [const { OnceLock::new() }; 8];
    let view = View {
        role,
        registry_on_gateway: control.settings.registry_on_gateway,
        needs_token: !control.access.tokens.is_empty(),
    };
    let number =
        usize::from(role == Role::Registry) << 2 | usize::from(view.registry_on_gateway) << 1 | usize::from(view.needs_token);
    let body = MADE[number].get_or_init(|| Bytes::from(document(view).to_string()));
    json_response(body.clone())
}

fn document(view: View) -> Value {
    let mut schemas = vertice_api::schema::definitions();
    schemas.extend(rules::definitions());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Vértice Gateway",
            "summary": "Registry and administration",
            "description": INTRODUCTION,
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": tag(Part::Registry), "description": "Who is there: registration, leases and look-ups."},
            {"name": tag(Part::Admin), "description": "What is in force, and how services are."},
            {"name": tag(Part::Process), "description": "This process, for load balancers and monitoring."},
        ],
        "paths": paths(view),
        "components": {
            "schemas": schemas,
            "responses": refusals(),
            "headers": response_headers(),
            "securitySchemes": {
                TOKEN: {"type": "apiKey", "in": "header", "name": headers::REGISTRY_TOKEN},
                API_KEY: {"type": "apiKey", "in": "header", "name": headers::REGISTRY_API_KEY},
                BEARER: {"type": "http", "scheme": "bearer"},
            },
        },
    })
}

const INTRODUCTION: &str = "Services register and keep their leases alive here; what is registered is routable at \
    `/v2/{service}/…` on the gateway's listener, which is not part of this description. Every answer that is not a success is \
    a problem document (RFC 9457) whose `reason` is a stable word, also sent as `X-Vertice-Reason`. `HEAD` is answered \
    wherever `GET` is; other methods are answered 405. Unknown fields of bodies and unknown query parameters are ignored.";

const TOKEN: &str = "registryToken";
const API_KEY: &str = "registryApiKey";
const BEARER: &str = "bearer";

const fn tag(part: Part) -> &'static str {
    match part {
        Part::Registry => "registry",
        Part::Admin => "administration",
        Part::Process => "process",
    }
}

fn paths(view: View) -> Value {
    let mut paths = Map::new();
    for entry in CALLS.iter().filter(|entry| entry.exists(view.role, view.registry_on_gateway)) {
        let methods = paths.entry(entry.template()).or_insert_with(|| json!({}));
        methods[entry.method.as_str().to_ascii_lowercase()] = operation(entry, view);
    }
    Value::Object(paths)
}

fn operation(entry: &Entry, view: View) -> Value {
    let described = operations::describe(entry.call);
    let mut operation = json!({
        "operationId": described.id,
        "tags": [tag(entry.part)],
        "summary": described.summary,
        "parameters": described.parameters,
    });
    if !described.description.is_empty() {
        operation["description"] = json!(described.description);
    }
    if let Some(schema) = described.body {
        let content = json!({headers::JSON: {"schema": rules::reference(schema)}});
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    if entry.is_write {
        let optional = (!view.needs_token).then(|| json!({}));
        let schemes = [json!({TOKEN: []}), json!({API_KEY: []}), json!({BEARER: []})];
        operation["security"] = schemes.into_iter().chain(optional).collect();
    }
    let mut responses: Map<String, Value> = described.answers.into_iter().map(|(s, answer)| (s.to_string(), answer)).collect();
    let access = [401, 403].into_iter().filter(|_| entry.is_write);
    for status in operations::ALWAYS.into_iter().chain(access).chain(described.refusals.iter().copied()) {
        let refusal = json!({"$ref": format!("#/components/responses/{}", refusal_name(status))});
        responses.entry(status.to_string()).or_insert(refusal);
    }
    operation["responses"] = Value::Object(responses);
    operation
}

fn refusal_name(status: u16) -> String {
    format!("Refusal{status}")
}

/// The answers that are no success, one for each status.
fn refusals() -> Map<String, Value> {
    let statuses: BTreeSet<u16> = own_reasons().map(Reason::status).collect();
    statuses.into_iter().map(|status| (refusal_name(status), refusal(status))).collect()
}

fn refusal(status: u16) -> Value {
    let reasons: Vec<Reason> = own_reasons().filter(|reason| reason.status() == status).collect();
    let titles: Vec<&str> = reasons.iter().map(|reason| reason.title()).collect();
    let mut fields = json!({
        headers::REASON: header_reference("Reason"),
        headers::REQUEST_ID: header_reference("RequestId"),
    });
    if reasons.iter().any(|reason| reason.retry_after_s().is_some()) {
        fields[headers::RETRY_AFTER] = header_reference("RetryAfter");
    }
    if reasons.contains(&Reason::Unauthorized) {
        fields[header::WWW_AUTHENTICATE.as_str()] = json!({"required": true, "schema": {"const": "Bearer"}});
    }
    json!({
        "description": format!("{}.", titles.join(", or: ")),
        "headers": fields,
        "content": {headers::PROBLEM_JSON: {"schema": problem(status)}},
    })
}

/// A problem document of that status.
fn problem(status: u16) -> Value {
    let words: Vec<&str> = own_reasons().filter(|reason| reason.status() == status).map(|reason| reason.as_str()).collect();
    let narrowed = json!({"properties": {"status": {"const": status}, "reason": {"enum": words}}});
    json!({"allOf": [rules::reference("Problem"), narrowed]})
}

/// The reasons that these calls give; the others are about services behind `/v2`.
fn own_reasons() -> impl Iterator<Item = Reason> {
    Reason::ALL.into_iter().filter(|reason| match reason {
        Reason::BadRequest
        | Reason::Unauthorized
        | Reason::Forbidden
        | Reason::NotFound
        | Reason::RequestTimeout
        | Reason::Conflict
        | Reason::BodyTooLarge
        | Reason::UriTooLong
        | Reason::UnsupportedMediaType
        | Reason::Unprocessable
        | Reason::RateLimited
        | Reason::HeadersTooLarge
        | Reason::Internal
        | Reason::Overloaded
        | Reason::Draining => true,
        // What answers 405 is no operation.
        Reason::MethodNotAllowed
        | Reason::UpstreamConnect
        | Reason::UpstreamReset
        | Reason::UpstreamInvalid
        | Reason::NoRoute
        | Reason::NoInstance
        | Reason::BreakerOpen
        | Reason::UpstreamTimeout => false,
    })
}

fn header_reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/headers/{name}")})
}

fn response_headers() -> Value {
    json!({
        "Index": {
            "description": "The index of the registry at the time of the answer: an opaque number for `watch` and `Last-Event-ID`.",
            "required": true,
            "schema": {"type": "integer", "minimum": 0},
        },
        "Reason": {
            "description": "The `reason` of the body.",
            "required": true,
            "schema": rules::reference(rule::REASON),
        },
        "RequestId": {
            "description": "The `request_id` of the body: the request's own X-Request-ID when that was well-formed.",
            "required": true,
            "schema": {"type": "string", "pattern": "^[0-9A-Za-z._-]{1,128}$"},
        },
        "RetryAfter": {
            "description": "Seconds after which another try makes sense.",
            "required": true,
            "schema": {"type": "integer", "minimum": 0},
        },
    })
}

/// A success with a JSON body of that schema.
fn success(status: StatusCode, description: &str, schema: &Value) -> (u16, Value) {
    (status.as_u16(), json!({"description": description, "content": {headers::JSON: {"schema": schema}}}))
}

#[cfg(test)]
mod tests;
