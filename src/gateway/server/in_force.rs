//! What of the configuration is in force, as each room wants it: everything that a reload replaces.
//!
//! A key that is neither in here nor listed as fixed (`config/reload.rs`) would do nothing when it is changed. A test goes
//! through all keys.

use super::{accept_settings, access_rules, control_settings, edge_settings, fallbacks, guard, policies, terms};
use crate::accept::{AcceptSettings, DrainTimes};
use crate::aliases::Aliases;
use crate::config::{Config, Identity as TlsIdentity, LogLevel};
use crate::control::{self, Access, Role};
use crate::listeners::Addresses;
use crate::proxy::rules;
use crate::resolve;
use std::collections::BTreeMap;
use std::time::Duration;
use vertice_core::command::{Policies, Terms};
use vertice_core::endpoint::{Endpoint, Guard};
use vertice_core::limiter::RateLimit;
use vertice_core::name::ServiceName;
use vertice_core::record::ReplicaId;
use vertice_core::route::StaticRoute;

/// Who this process is, whatever is configured while it runs.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// To other replicas.
    pub(super) me: ReplicaId,
    /// To people.
    pub(super) replica_id: String,
    /// Where it listens.
    pub(super) addresses: Addresses,
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct InForce {
    pub(super) policies: Policies,
    pub(super) terms: Terms,
    pub(super) fallbacks: BTreeMap<ServiceName, Endpoint>,
    pub(super) guard: Guard,
    pub(super) lane: rules::Settings,
    pub(super) routes: Vec<StaticRoute>,
    pub(super) aliases: Aliases,
    pub(super) rate_limits: Vec<RateLimit>,
    pub(super) requests_max: Option<u32>,
    pub(super) accept: [(Role, AcceptSettings); 2],
    pub(super) control: control::Settings,
    pub(super) access: Access,
    pub(super) names: resolve::Settings,
    pub(super) health: Health,
    pub(super) watchers_max: usize,
    /// Of the data plane and of the registry.
    pub(super) certificates: [Option<TlsIdentity>; 2],
    pub(super) times: DrainTimes,
    pub(super) level: LogLevel,
    pub(super) watches_file: bool,
}

/// Health checks on demand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Health {
    pub(super) timeout: Duration,
    pub(super) cache_ttl: Duration,
    pub(super) cache_max: usize,
}

impl InForce {
    /// What `config` puts in force.
    pub(super) fn of(config: &Config, identity: &Identity) -> Self {
        Self {
            policies: policies(config),
            terms: terms(config),
            fallbacks: fallbacks(config),
            guard: guard(config, &identity.addresses),
            lane: edge_settings(config),
            routes: config.routes.clone(),
            aliases: Aliases(config.routing.aliases.clone()),
            rate_limits: config.rate_limits.clone(),
            requests_max: config.limits.requests,
            accept: [Role::Gateway, Role::Registry].map(|role| (role, accept_settings(config, role))),
            control: control_settings(config, identity),
            access: access_rules(config),
            names: resolve::Settings {
                servers: config.dns.servers.clone(),
                refresh: config.dns.refresh,
                timeout: config.dns.timeout,
                concurrency: config.dns.concurrency,
            },
            health: Health {
                timeout: config.health.timeout,
                cache_ttl: config.health.cache_ttl,
                cache_max: config.limits.health_cache,
            },
            watchers_max: config.limits.watchers,
            certificates: [config.gateway.tls.identity.clone(), config.registry.tls.identity.clone()],
            times: DrainTimes { delay: config.shutdown.delay, grace: config.shutdown.grace },
            level: config.log.level,
            watches_file: config.server.watch_config,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigErrors, is_fixed, parse, sample_variables};
    use crate::random::random;

    /// Values for keys that take none of the usual ones.
    const OTHER: &[(&str, &str)] = &[
        ("gateway.listen", "127.0.0.1:1"),
        ("registry.listen", "127.0.0.1:2"),
        ("gateway.h2c_listen", "127.0.0.1:3"),
        ("rate_limits[n].name", "other"),
        ("rate_limits[n].rate", "3/s"),
        ("rate_limits[n].by", "service"),
        ("rate_limits[n].services", "other"),
        ("rate_limits[n].routes", "r"),
        ("routes[n].priority", "low"),
        ("priority", "low"),
        ("server.replica_id", "other"),
        ("server.secret", "another secret that is long"),
        ("server.zone", "other"),
        ("server.trusted_proxies", "10.0.0.0/8"),
        ("server.port_file", "/other"),
        ("registry.token", "other-token-that-is-long"),
        ("registry.allow_from", "10.0.0.0/8"),
        ("registry.endpoint_allow", "10.0.0.0/8"),
        ("dns.servers", "127.0.0.1:53"),
        ("store.kind", "memory"),
        ("store.path", "/other"),
        ("log.level", "debug"),
        ("log.format", "json"),
        ("log.access", "off"),
        ("balance.algorithm", "round_robin"),
        ("balance.hash_key", "header:other"),
        ("balance.sticky.path", "/other"),
        ("balance.sticky.same_site", "strict"),
        ("balance.zone", "prefer"),
        ("services.<name>.url", "http://other"),
        ("routing.aliases.<name>", "other"),
        ("routes[n].name", "other"),
        ("routes[n].prefix", "/other"),
        ("routes[n].host", "other"),
        ("routes[n].service", "other"),
        ("routes[n].methods", "PUT"),
        ("routes[n].rewrite", "/other"),
        ("routes[n].headers.<name>", "other"),
    ];

    /// Other spellings of keys that are tried.
    const ELSEWHERE: &[&str] = &[
        "registry.token_file",
        "server.secret_file",
        "routes[n].path",
        // Only together: a listener with TLS has a certificate and its key.
        "gateway.tls.listen",
        "registry.tls.listen",
        "gateway.tls.certificate",
        "gateway.tls.key",
        "registry.tls.certificate",
        "registry.tls.key",
    ];

    const BASE: &str = r#"
        [[routes]]
        name = "r"
        prefix = "/r"
        service = "svc"
        [services.sample]
        url = "http://svc"
        [[rate_limits]]
        name = "l"
        rate = "100/s"
        by = "client"
    "#;

    fn read(variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        let always = [("FROM_ENVIRONMENT_URL", "http://somewhere"), ("VERTICE_SERVER__ZONE", "here")];
        let variables = always.iter().chain(variables).map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        parse(BASE, "f", &variables.collect())
    }

    fn identity() -> Identity {
        let addresses = Addresses::default();
        Identity { me: ReplicaId::of(random()), replica_id: "r".to_owned(), addresses }
    }

    /// Tries a few values of the usual kinds until one is taken and differs.
    fn changed(base: &Config, key: &str, variable: &str) -> Option<Config> {
        // What a service can say is mostly what can be said of all.
        let general = key.strip_prefix("services.<name>.").unwrap_or(key);
        let given = OTHER.iter().filter(|(other, _)| *other == key || *other == general).map(|(_, value)| *value);
        let usual = ["7", "17", "1234", "37s", "true", "false", "45%", "3 KiB", "70 KiB", "0.5"];
        let read = |value: &str| read(&[(variable, value)]).ok();
        given.chain(usual).filter_map(read).find(|config| config != base)
    }

    /// What is wrong with a key, if anything.
    fn complaint(base: &Config, identity: &Identity, key: &str, variable: &str) -> Option<String> {
        let Some(changed) = changed(base, key, variable) else {
            return Some("is not tried: give it a value in OTHER".to_owned());
        };
        let revision = base.revised(changed);
        let takes_effect = InForce::of(&revision.config, identity) != InForce::of(base, identity);
        let waits = revision.waiting.iter().any(|waiting| key.starts_with(waiting));
        match (takes_effect, waits) {
            (true, false) | (false, true) if waits == is_fixed(key) => None,
            (true, true) => Some("takes effect although it is listed as fixed".to_owned()),
            _ => Some(format!("neither takes effect nor waits for a restart: {:?}", revision.waiting)),
        }
    }

    #[test]
    fn every_key_takes_effect_or_waits_for_a_restart() {
        let (identity, base) = (identity(), read(&[]).unwrap());
        // A store of another kind is fixed as a whole.
        let is_tried = |key: &str| !ELSEWHERE.contains(&key) && !key.starts_with("store.redis.");
        let keys = sample_variables();
        let tried = keys.iter().filter(|(key, _)| is_tried(key));
        let complain = |(key, variable): (&String, &String)| {
            complaint(&base, &identity, key, variable).map(|complaint| format!("{key} {complaint}"))
        };
        let complaints: Vec<String> = tried.filter_map(complain).collect();
        assert!(keys.len() > 100 && complaints.is_empty(), "{} keys\n{}", keys.len(), complaints.join("\n"));
        for fixed in ["store.redis.url", "gateway.tls.listen", "registry.tls.listen"] {
            assert!(is_fixed(fixed), "{fixed}");
        }
        assert!(!is_fixed("store_other"));
    }
}
