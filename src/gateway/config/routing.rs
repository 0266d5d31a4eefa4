//! How names lead to services: the sections `routing` and `services`.

use std::collections::BTreeMap;

use vertice_core::endpoint::Endpoint;
use vertice_core::name::ServiceName;
use vertice_core::policy::Policy;

use super::policy::read_policy_of_service;
use super::reader::Reader;
use super::{rates, routes, value};

/// Old names that are shipped with their new ones.
const SHIPPED_ALIASES: [(&str, &str); 2] =
    [("ip_intelligence_service", "ip_intel_service"), ("active_immune_core", "active_immune_core_service")];

/// Section `routing`.
#[derive(Clone, Debug, PartialEq)]
pub struct RoutingSettings {
    /// Whether `{NAME}_URL` and its like tell where a service is that is not registered.
    pub env_fallback: bool,
    /// Old names and what they are called now. No alias leads to another one.
    pub aliases: BTreeMap<ServiceName, ServiceName>,
}

impl RoutingSettings {
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        Self { env_fallback: r.boolean("env_fallback", true), aliases: r.within("aliases", read_aliases) }
    }
}

/// Section `services.NAME`: what was decided about one service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSettings {
    /// Where it is when neither the registry nor the environment knows it.
    pub url: Option<Endpoint>,
    /// Its policy, complete: what the section does not say is as for every service.
    pub policy: Policy,
}

impl ServiceSettings {
    fn read(r: &mut Reader<'_>, base: &Policy) -> Self {
        Self { url: r.value("url", |value| value::service_url(value::text(value)?)), policy: read_policy_of_service(r, base) }
    }
}

/// The sections `services.NAME`, over the policy `base` of every service.
pub(super) fn read_services(r: &mut Reader<'_>, base: &Policy) -> BTreeMap<ServiceName, ServiceSettings> {
    r.within("services", |r| {
        let names = r.children();
        names.iter().filter_map(|name| r.within(name, |r| read_service(r, name, base))).collect()
    })
}

/// Asks for every key of a service, a route and an alias once.
pub(super) fn read_samples(r: &mut Reader<'_>, base: &Policy) {
    r.within("services", |r| r.within("*", |r| ServiceSettings::read(r, base)));
    routes::read_sample(r, base);
    rates::read_sample(r);
    r.within("routing", |r| r.within("aliases", |r| r.text("*")));
}

fn read_service(r: &mut Reader<'_>, name: &str, base: &Policy) -> Option<(ServiceName, ServiceSettings)> {
    match value::service_name(name) {
        Ok(service) => Some((service, ServiceSettings::read(r, base))),
        Err(message) => {
            r.refuse_section(message);
            None
        }
    }
}

/// The shipped aliases with those of the file over them; a name that leads to itself is none.
fn read_aliases(r: &mut Reader<'_>) -> BTreeMap<ServiceName, ServiceName> {
    let shipped = SHIPPED_ALIASES.into_iter().filter_map(|(old, new)| Some((name(old)?, name(new)?)));
    let mut aliases: BTreeMap<ServiceName, ServiceName> = shipped.collect();
    for old in r.names() {
        let new = r.value(&old, |value| value::service_name(value::text(value)?));
        match (value::service_name(&old), new) {
            (Ok(old), Some(new)) => drop(aliases.insert(old, new)),
            (Ok(_), None) => {}
            (Err(message), _) => r.refuse(&old, message),
        }
    }
    aliases.retain(|old, new| old != new);
    for (old, new) in &aliases {
        if let Some(next) = aliases.get(new) {
            r.refuse(
                old.as_str(),
                format!("{new:?} is an alias itself; write {next:?}", new = new.as_str(), next = next.as_str()),
            );
        }
    }
    aliases
}

fn name(text: &str) -> Option<ServiceName> {
    ServiceName::parse(text).ok()
}
