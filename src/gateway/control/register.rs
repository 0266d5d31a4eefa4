//! `POST /register`.

use super::error::Error;
use super::fields::{Fields, health_path, label};
use super::{Answer, Caller, Control, json};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};
use std::net::SocketAddr;
use std::time::Duration;
use vertice_api::Registered;
use vertice_api::register::{DEFAULT_HEALTH_ENDPOINT, field};
use vertice_core::bounds;
use vertice_core::command::{Command, Registration, Reply};
use vertice_core::endpoint::{Endpoint, Guard, Host};
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::reason::Reason;
use vertice_core::status::Status;

pub(super) async fn register(control: &Control, headers: &HeaderMap, body: &Bytes, caller: &Caller) -> Answer {
    let mut registration = parse(headers, body, caller, &control.guard.load())?;
    if let Some(host) = registration.endpoint.name() {
        registration.resolved = control.resolver.addresses(host, control.settings.register_wait).await;
    }
    let service = registration.service.clone();
    let applied = control.registrar.ask(Command::Register(Box::new(registration))).await;
    let applied = applied.map_err(|error| Error::of(error, service.as_str()))?;
    let durable = match applied.stored {
        Some(stored) => tokio::time::timeout(control.settings.store_wait, stored).await.is_ok_and(|stored| stored == Ok(true)),
        None => false,
    };
    let Reply::Registered { id, ttl, resolved } = applied.reply else {
        return Err(Error::new(Reason::Internal, "The registrar gave an unexpected answer."));
    };
    json(StatusCode::CREATED, &Registered::new(service.as_str(), id.as_str(), ttl.as_secs(), durable, resolved))
}

/// What a body would register.
///
/// # Errors
/// It is not one JSON object, or fields of it are missing, mistyped or refused.
pub fn parse(headers: &HeaderMap, body: &Bytes, caller: &Caller, guard: &Guard) -> Result<Registration, Error> {
    read(&super::json::object(headers, body)?, caller, guard)
}

fn read(object: &Map<String, Value>, caller: &Caller, guard: &Guard) -> Result<Registration, Error> {
    let mut fields = Fields::new(object);
    let service = fields.required(field::SERVICE_NAME, ServiceName::parse);
    let endpoint = fields.required(field::ENDPOINT, |text| endpoint(text, guard));
    let health_endpoint = fields.text(field::HEALTH_ENDPOINT, health_path);
    let metadata = fields.metadata(field::METADATA).unwrap_or_default();
    let id = fields.text(field::INSTANCE_ID, InstanceId::parse);
    let ttl = fields.integer(field::TTL, bounds::TTL_S).map(Duration::from_secs);
    let weight = fields.integer(field::WEIGHT, bounds::WEIGHT).and_then(|weight| u16::try_from(weight).ok());
    let zone = fields.text(field::ZONE, |text| label(text, bounds::ZONE));
    let version = fields.text(field::VERSION, |text| label(text, bounds::VERSION));
    let tags = fields.texts(field::TAGS, bounds::TAGS, bounds::TAG);
    let status = fields.text(field::STATUS, super::renew::status);
    let (Some(service), Some(endpoint), true) = (service, endpoint, fields.errors.is_empty()) else {
        return Err(Error::fields(fields.errors));
    };
    let version =
        version.or_else(|| metadata.get("version").filter(|version| label(version, bounds::VERSION).is_ok()).cloned());
    Ok(Registration {
        service,
        id,
        registrant: caller.address,
        endpoint,
        resolved: None,
        health_endpoint: health_endpoint.map_or_else(|| DEFAULT_HEALTH_ENDPOINT.into(), Into::into),
        metadata,
        ttl,
        weight: weight.unwrap_or(bounds::WEIGHT_DEFAULT),
        zone: zone.map(Into::into),
        version: version.map(Into::into),
        tags,
        status: status.unwrap_or(Status::Healthy),
    })
}

fn endpoint(text: &str, guard: &Guard) -> Result<Endpoint, &'static str> {
    let endpoint = Endpoint::parse(text).map_err(|error| error.0)?;
    let refusal = match endpoint.host() {
        Host::Address(address) => guard.judge(SocketAddr::new(*address, endpoint.port())),
        Host::Name(_) => None,
    };
    refusal.map_or(Ok(endpoint), Err)
}
