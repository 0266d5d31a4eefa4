//! How requests and names lead to services: the sections `routing`, `routes` and `services`.

use std::collections::BTreeMap;
use std::sync::Arc;

use vertice_core::endpoint::Endpoint;
use vertice_core::name::ServiceName;
use vertice_core::policy::Policy;
use vertice_core::route::StaticRoute;

use super::policy::{read_policy_of_service, read_timeouts};
use super::raw::Value;
use super::reader::Reader;
use super::value;

/// Paths that the gateway answers itself. A route inside one of them could never be reached.
const OWN_PATHS: [&str; 11] = [
    "/v2",
    "/gateway",
    "/health",
    "/livez",
    "/readyz",
    "/metrics",
    "/register",
    "/heartbeat",
    "/deregister",
    "/services",
    "/openapi.json",
];

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
    fn read(r: &mut Reader<'_>, base: Policy) -> Self {
        Self { url: r.value("url", |value| value::service_url(value::text(value)?)), policy: read_policy_of_service(r, base) }
    }
}

/// The sections `services.NAME`, over the policy `base` of every service.
pub(super) fn read_services(r: &mut Reader<'_>, base: Policy) -> BTreeMap<ServiceName, ServiceSettings> {
    r.within("services", |r| {
        let names = r.children();
        names.iter().filter_map(|name| r.within(name, |r| read_service(r, name, base))).collect()
    })
}

/// The sections `[[routes]]`; a route takes what it does not say itself from its service.
pub(super) fn read_routes(
    r: &mut Reader<'_>,
    base: Policy,
    services: &BTreeMap<ServiceName, ServiceSettings>,
) -> Vec<StaticRoute> {
    let policy_of = |service: &ServiceName| services.get(service).map_or(base, |settings| settings.policy);
    r.within("routes", |r| {
        let (indices, mut taken) = (r.children(), Taken::default());
        let read = |index: &String| r.within(index, |r| read_listed_route(r, index, policy_of, &mut taken));
        indices.iter().filter_map(read).collect()
    })
}

/// Asks for every key of a service, a route and an alias once.
pub(super) fn read_samples(r: &mut Reader<'_>, base: Policy) {
    r.within("services", |r| r.within("*", |r| ServiceSettings::read(r, base)));
    r.within("routes", |r| r.within("*", |r| read_route(r, |_| base, &mut Taken::default())));
    r.within("routing", |r| r.within("aliases", |r| r.text("*")));
}

fn read_service(r: &mut Reader<'_>, name: &str, base: Policy) -> Option<(ServiceName, ServiceSettings)> {
    match value::service_name(name) {
        Ok(service) => Some((service, ServiceSettings::read(r, base))),
        Err(message) => {
            r.refuse_section(message);
            None
        }
    }
}

/// What earlier routes have, because no two may have the same.
#[derive(Default)]
struct Taken {
    names: Vec<String>,
    prefixes: Vec<String>,
}

fn read_listed_route(
    r: &mut Reader<'_>,
    index: &str,
    policy_of: impl Fn(&ServiceName) -> Policy,
    taken: &mut Taken,
) -> Option<StaticRoute> {
    if index.parse::<u64>().is_err() {
        r.refuse_section("routes is a list without names: write [[routes]]".to_owned());
        return None;
    }
    read_route(r, policy_of, taken)
}

fn read_route(r: &mut Reader<'_>, policy_of: impl Fn(&ServiceName) -> Policy, taken: &mut Taken) -> Option<StaticRoute> {
    let name = required(r, "name", value::label);
    let prefix = required(r, "prefix", free_prefix);
    let service = required(r, "service", |value| value::service_name(value::text(value)?));
    let rewrite = read_rewrite(r);
    let preserve_host = r.optional_boolean("preserve_host");
    let base = service.as_ref().map_or_else(Policy::default, policy_of).timeouts;
    let timeouts = r.within("timeouts", |r| read_timeouts(r, base));
    check_unique(r, "name", name.as_ref(), &mut taken.names);
    check_unique(r, "prefix", prefix.as_ref(), &mut taken.prefixes);
    if name.as_deref() == Some("v2") {
        r.refuse("name", "\"v2\" is the name of the built-in route".to_owned());
    }
    Some(StaticRoute {
        name: name?.into(),
        prefix: prefix?.into(),
        service: service?,
        rewrite,
        timeouts: (timeouts != base).then_some(timeouts),
        preserve_host,
    })
}

fn required<T>(r: &mut Reader<'_>, key: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
    if r.is_absent(key) {
        r.refuse(key, "missing".to_owned());
    }
    r.value(key, parse)
}

/// `strip` is a rewrite to nothing, which as a path is `/`.
fn read_rewrite(r: &mut Reader<'_>) -> Option<Arc<str>> {
    let strip = r.boolean("strip", false);
    let rewrite = r.value("rewrite", value::path_prefix);
    match rewrite {
        Some(_) if strip => {
            r.refuse("strip", "strip and rewrite exclude each other".to_owned());
            None
        }
        Some(rewrite) => Some(rewrite.into()),
        None => strip.then(|| "/".into()),
    }
}

fn free_prefix(value: &Value) -> Result<String, String> {
    let prefix = value::path_prefix(value)?;
    let inside = |own: &&str| prefix.strip_prefix(*own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match OWN_PATHS.into_iter().find(|own| inside(own)) {
        Some(own) => Err(format!("{prefix:?} cannot be routed: the gateway answers {own} itself")),
        None => Ok(prefix),
    }
}

/// Refuses the value of `key` when an earlier route has it too.
fn check_unique(r: &mut Reader<'_>, key: &str, value: Option<&String>, taken: &mut Vec<String>) {
    let Some(value) = value else { return };
    if taken.contains(value) {
        r.refuse(key, format!("{value:?} is the {key} of an earlier route too"));
    }
    taken.push(value.clone());
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
