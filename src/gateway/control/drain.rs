//! `POST /gateway/drain/{service}`: an operator takes instances out of rotation.

use super::error::Error;
use super::{Answer, Control, json, lookup, query};
use crate::registrar::AskError;
use http::StatusCode;
use std::time::Duration;
use vertice_api::gateway::Drained;
use vertice_api::{FieldError, paths};
use vertice_core::command::{Command, Draining, Refused, Reply};
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::reason::Reason;

/// Without `for`.
const DEFAULT: Duration = Duration::from_secs(30);
/// Longer than this, it is no drain but a decision: deregister, or weigh with 0.
const MAX: Duration = Duration::from_secs(24 * 3600);
/// So many instances are named to whoever named none of them.
const TOLD_MAX: usize = 10;

pub(super) async fn drain(control: &Control, name: &str, params: &str) -> Answer {
    let not_registered = || Error::of(AskError::Refused(Refused::NotRegistered), name);
    let service = ServiceName::parse(name).map_err(|_| not_registered())?;
    let mut errors = Vec::new();
    let id = query::read(params, paths::query::INSTANCE_ID, &mut errors, InstanceId::parse);
    let span = span(params, paths::query::FOR, &mut errors).unwrap_or(DEFAULT);
    if !errors.is_empty() {
        return Err(Error::fields(errors));
    }
    let ends = span.is_zero();
    let request = Draining { service: service.clone(), id: id.clone(), span: (!ends).then_some(span) };
    let applied = control.registrar.ask(Command::Drain(request)).await;
    let applied = applied.map_err(|error| match (error, id) {
        (AskError::Refused(Refused::NotRegistered), Some(id)) => no_instance(control, &service, &id),
        (error, _) => Error::of(error, service.as_str()),
    })?;
    let Reply::Draining(ids) = applied.reply else { return Err(not_registered()) };
    let body = Drained {
        message: if ends { Drained::ENDED } else { Drained::STARTED }.to_owned(),
        service_name: service.to_string(),
        instances: ids.iter().map(ToString::to_string).collect(),
        seconds: span.as_secs_f64(),
    };
    json(StatusCode::OK, &body)
}

/// Either the service is not registered, or it has other instances.
fn no_instance(control: &Control, service: &ServiceName, id: &InstanceId) -> Error {
    let table = control.table.load();
    let Some(known) = lookup::listed(&table, service.as_str()) else {
        return Error::of(AskError::Refused(Refused::NotRegistered), service.as_str());
    };
    let ids: Vec<&str> = known.instances.iter().take(TOLD_MAX).map(|upstream| upstream.facts.id.as_str()).collect();
    let more = if known.instances.len() > TOLD_MAX { ", …" } else { "" };
    Error::new(Reason::NotFound, format!("Service '{service}' has no instance '{id}'; it has {}{more}.", ids.join(", ")))
}

/// How long to drain, if the parameter is there.
pub(super) fn span(params: &str, parameter: &str, errors: &mut Vec<FieldError>) -> Option<Duration> {
    query::read(params, parameter, errors, |text| query::duration(text, MAX))
}
