//! `GET /services` and `GET /services/{name}`, read from the snapshot.

use super::error::Error;
use super::{Answer, Control, epoch_s, json_bytes, json_response, query, renew};
use crate::clock;
use crate::upstream::{Hung, Service, Upstream};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};
use std::sync::Arc;
use vertice_api::{FieldError, Instance, ServiceInfo, headers, paths};
use vertice_core::status::Status;
use vertice_core::time::{Moment, seconds_up};

/// The routing table at one generation.
pub(super) type Snapshot = vertice_core::table::Snapshot<Hung>;

pub(super) fn list(control: &Control, params: &str) -> Answer {
    let mut errors = Vec::new();
    let filter = Filter::read(params, &mut errors);
    if !errors.is_empty() {
        return Err(Error::fields(errors));
    }
    let table = control.table.load_full();
    let body = list_body(&table, query::is_on(params, paths::query::DETAIL), &filter)?;
    Ok(with_index(body, table.generation()))
}

pub(super) fn service(control: &Control, name: &str) -> Answer {
    let table = control.table.load_full();
    let index = table.generation();
    let service = listed(&table, name).ok_or_else(|| Error::not_found(name, index))?;
    Ok(with_index(service_body(service, index, &Filter::default())?, index))
}

/// The service, if it has a registered instance.
pub(super) fn listed<'t>(table: &'t Snapshot, name: &str) -> Option<&'t Arc<Service>> {
    table.get(name).filter(|service| !service.is_fallback)
}

/// The names, or with `detail` everything, of the services that have an instance which the filter accepts.
pub(super) fn list_body(table: &Snapshot, detail: bool, filter: &Filter) -> Result<Bytes, Error> {
    let wanted = |service: &&Arc<Service>| !service.is_fallback && filter.accepts_any(service);
    let mut services: Vec<&Arc<Service>> = table.iter().filter(wanted).collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    if detail {
        let infos: Vec<ServiceInfo> = services.iter().filter_map(|s| info(s, table.generation(), filter)).collect();
        json_bytes(&infos)
    } else {
        let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
        json_bytes(&names)
    }
}

/// Everything about a service, with those of its instances that the filter accepts.
pub(super) fn service_body(service: &Service, index: u64, filter: &Filter) -> Result<Bytes, Error> {
    let info = info(service, index, filter).ok_or_else(|| Error::not_found(service.name.as_str(), index))?;
    json_bytes(&info)
}

/// A body of the registry's state at `index`.
pub(super) fn with_index(body: Bytes, index: u64) -> Response<Bytes> {
    let mut response = json_response(body);
    response.headers_mut().insert(INDEX, HeaderValue::from(index));
    response
}

/// The contract's spelling is [`headers::INDEX`].
pub(super) const INDEX: HeaderName = HeaderName::from_static("x-vertice-index");
const _: () = assert!(headers::INDEX.len() == "x-vertice-index".len());

/// Which instances are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Filter {
    tag: Option<String>,
    version: Option<String>,
    zone: Option<String>,
    status: Option<Status>,
}

impl Filter {
    /// Reads the parameters; mistakes are noted.
    pub(super) fn read(params: &str, errors: &mut Vec<FieldError>) -> Self {
        let mut label = |name: &str| query::read(params, name, errors, |text| super::fields::label(text, 128));
        Self {
            tag: label(paths::query::TAG),
            version: label(paths::query::VERSION),
            zone: label(paths::query::ZONE),
            status: query::read(params, paths::query::STATUS, errors, renew::status),
        }
    }

    /// Whether the service has an instance that is wanted.
    pub(super) fn accepts_any(&self, service: &Service) -> bool {
        service.instances.iter().any(|upstream| self.accepts(upstream))
    }

    fn accepts(&self, upstream: &Upstream) -> bool {
        let facts = &upstream.facts;
        let is = |wanted: &Option<String>, has: Option<&str>| wanted.as_deref().is_none_or(|wanted| has == Some(wanted));
        self.tag.as_ref().is_none_or(|tag| facts.tags.contains(tag))
            && is(&self.version, facts.version.as_deref())
            && is(&self.zone, facts.zone.as_deref())
            && self.status.is_none_or(|status| upstream.status() == status)
    }
}

fn info(service: &Service, index: u64, filter: &Filter) -> Option<ServiceInfo> {
    let now = clock::mono();
    let best = service.best()?;
    let wanted = service.instances.iter().filter(|upstream| filter.accepts(upstream));
    Some(ServiceInfo {
        service_name: service.name.to_string(),
        endpoint: best.facts.endpoint.to_string(),
        health_endpoint: best.facts.health_endpoint.to_string(),
        metadata: best.facts.metadata.clone(),
        registered_at: epoch_s(best.facts.registered_wall_ms),
        last_heartbeat: epoch_s(best.cells.lease.renewed_wall_ms()),
        ttl_remaining: ttl_remaining(best, now),
        instances: wanted.map(|upstream| instance(upstream, now)).collect(),
        index,
    })
}

fn instance(upstream: &Upstream, now: Moment) -> Instance {
    let facts = &upstream.facts;
    Instance {
        instance_id: facts.id.to_string(),
        endpoint: facts.endpoint.to_string(),
        health_endpoint: facts.health_endpoint.to_string(),
        metadata: facts.metadata.clone(),
        weight: facts.weight,
        zone: facts.zone.as_deref().map(str::to_owned),
        version: facts.version.as_deref().map(str::to_owned),
        status: upstream.status().as_str().to_owned(),
        breaker: upstream.cells.breaker.load().phase(now).as_str().to_owned(),
        registered_at: epoch_s(facts.registered_wall_ms),
        last_heartbeat: epoch_s(upstream.cells.lease.renewed_wall_ms()),
        ttl_remaining: ttl_remaining(upstream, now),
    }
}

/// Seconds left, rounded up: a fresh lease of 60 s shows 60.
fn ttl_remaining(upstream: &Upstream, now: Moment) -> u64 {
    seconds_up(upstream.cells.lease.deadline().since(now)).into()
}
