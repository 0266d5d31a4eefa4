//! `POST /heartbeat` and `DELETE /deregister/{name}`.

use super::error::Error;
use super::fields::Fields;
use super::{Answer, Caller, Control, drain, json, query};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use vertice_api::register::field;
use vertice_api::{Deregistered, HeartbeatReceived, paths};
use vertice_core::command::{Command, Deregistration, Renewal};
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::status::Status;

pub(super) async fn heartbeat(control: &Control, headers: &HeaderMap, body: &Bytes, caller: &Caller) -> Answer {
    let renewal = parse(headers, body, caller)?;
    let service = renewal.service.clone();
    if control.settings.limits_calls {
        control.quotas.heartbeat(service.as_str(), renewal.id.as_ref().map(InstanceId::as_str), caller.address)?;
    }
    let applied = control.registrar.ask(Command::Renew(renewal)).await;
    applied.map_err(|error| Error::of(error, service.as_str()))?;
    json(StatusCode::OK, &HeartbeatReceived::new(service.as_str()))
}

/// What a body would renew.
///
/// # Errors
/// It is not one JSON object, or fields of it are missing, mistyped or refused.
pub fn parse(headers: &HeaderMap, body: &Bytes, caller: &Caller) -> Result<Renewal, Error> {
    let object = super::json::object(headers, body)?;
    let mut fields = Fields::new(&object);
    let service = fields.required(field::SERVICE_NAME, ServiceName::parse);
    let id = fields.text(field::INSTANCE_ID, InstanceId::parse);
    let status = fields.text(field::STATUS, status);
    let metadata = fields.metadata(field::METADATA);
    let (Some(service), true) = (service, fields.errors.is_empty()) else { return Err(Error::fields(fields.errors)) };
    Ok(Renewal { service, id, registrant: caller.address, status, metadata })
}

pub(super) async fn deregister(control: &Control, name: &str, params: &str, caller: &Caller) -> Answer {
    let mut errors = Vec::new();
    let id = query::read(params, paths::query::INSTANCE_ID, &mut errors, InstanceId::parse);
    let drain = drain::span(params, paths::query::DRAIN, &mut errors).filter(|span| !span.is_zero());
    if !errors.is_empty() {
        return Err(Error::fields(errors));
    }
    // What cannot have been registered is absent, and the removal of what is absent succeeds.
    let Ok(service) = ServiceName::parse(name) else { return json(StatusCode::OK, &Deregistered::new(name)) };
    let all = query::is_on(params, paths::query::ALL);
    let request = Deregistration { service: service.clone(), id, all, registrant: caller.address, drain };
    let applied = control.registrar.ask(Command::Deregister(request)).await;
    let applied = applied.map_err(|error| Error::of(error, service.as_str()))?;
    if let Some(stored) = applied.stored {
        // Answered either way: the removal is in force, and is written as soon as the store can.
        let _ = tokio::time::timeout(control.settings.store_wait, stored).await;
    }
    json(StatusCode::OK, &Deregistered::new(service.as_str()))
}

/// Reads a status.
pub(super) fn status(text: &str) -> Result<Status, String> {
    Status::parse(text).ok_or_else(|| {
        let words: Vec<&str> = Status::ALL.iter().map(|status| status.as_str()).collect();
        format!("must be one of {}", words.join(", "))
    })
}
