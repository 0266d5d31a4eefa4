//! `GET /services` and `GET /services/{name}`, read from the snapshot.

use super::error::Error;
use super::{Answer, Control, epoch_s, json, query};
use crate::clock;
use crate::upstream::{Service, Upstream};
use http::{HeaderValue, StatusCode};
use std::sync::Arc;
use vertice_api::{Instance, ServiceInfo, headers, paths};
use vertice_core::time::Moment;

pub(super) fn list(control: &Control, params: &str) -> Answer {
    let table = control.table.load_full();
    let filter = Filter::read(params);
    let mut services: Vec<&Arc<Service>> =
        table.iter().filter(|service| !service.is_fallback && service.instances.iter().any(|i| filter.accepts(i))).collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    let mut response = if query::is_on(params, paths::query::DETAIL) {
        let infos: Vec<ServiceInfo> = services.iter().filter_map(|s| info(s, table.generation(), &filter)).collect();
        json(StatusCode::OK, &infos)?
    } else {
        let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
        json(StatusCode::OK, &names)?
    };
    response.headers_mut().insert(INDEX, HeaderValue::from(table.generation()));
    Ok(response)
}

pub(super) fn service(control: &Control, name: &str) -> Answer {
    let table = control.table.load_full();
    let service = table.get(name).filter(|service| !service.is_fallback).ok_or_else(|| Error::not_found(name))?;
    let info = info(service, table.generation(), &Filter::default()).ok_or_else(|| Error::not_found(name))?;
    let mut response = json(StatusCode::OK, &info)?;
    response.headers_mut().insert(INDEX, HeaderValue::from(table.generation()));
    Ok(response)
}

/// The contract's spelling is [`headers::INDEX`].
const INDEX: http::HeaderName = http::HeaderName::from_static("x-vertice-index");
const _: () = assert!(headers::INDEX.len() == "x-vertice-index".len());

/// Which instances are wanted.
#[derive(Default)]
struct Filter {
    tag: Option<String>,
    version: Option<String>,
    zone: Option<String>,
    status: Option<String>,
}

impl Filter {
    fn read(params: &str) -> Self {
        let value = |name: &str| query::value(params, name).map(std::borrow::Cow::into_owned);
        Self {
            tag: value(paths::query::TAG),
            version: value(paths::query::VERSION),
            zone: value(paths::query::ZONE),
            status: value(paths::query::STATUS),
        }
    }

    fn accepts(&self, upstream: &Upstream) -> bool {
        let facts = &upstream.facts;
        let is = |wanted: &Option<String>, has: Option<&str>| wanted.as_deref().is_none_or(|wanted| has == Some(wanted));
        self.tag.as_ref().is_none_or(|tag| facts.tags.contains(tag))
            && is(&self.version, facts.version.as_deref())
            && is(&self.zone, facts.zone.as_deref())
            && is(&self.status, Some(upstream.status().as_str()))
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
    let left = upstream.cells.lease.deadline().since(now).as_millis().div_ceil(1000);
    u64::try_from(left).unwrap_or(u64::MAX)
}
