//! What the environment says: overrides of ours, the predecessor's variables, and where services can be found.
//!
//! Every variable this program reads is named in this file or has the form `VERTICE_…`.

use std::collections::BTreeMap;

use vertice_core::endpoint::Endpoint;
use vertice_core::name::ServiceName;

use super::raw::{Document, Item, Key, Origin, Value};
use super::settings::Config;
use super::value;

/// What our variables begin with. Only names with `__` in the rest are overrides; `VERTICE_REGISTRY_URL` and its like
/// belong to clients.
const PREFIX: &str = "VERTICE_";

/// The predecessor's variables and the keys they set.
const PREDECESSOR: [(&str, &[&str]); 10] = [
    ("REDIS_URL", &["store", "redis", "url"]),
    ("REDIS_HOST", &["store", "redis", "host"]),
    ("REDIS_PORT", &["store", "redis", "port"]),
    ("REDIS_PASSWORD", &["store", "redis", "password"]),
    ("REDIS_SENTINELS", &["store", "redis", "sentinels"]),
    ("REDIS_SENTINEL_MASTER", &["store", "redis", "master"]),
    ("REGISTRY_AUTH_TOKEN", &["registry", "token"]),
    ("GATEWAY_CACHE_TTL", &["health", "cache_ttl"]),
    ("REPLICA_ID", &["server", "replica_id"]),
    ("ZONE", &["server", "zone"]),
];

/// The predecessor's log level, which has names that ours does not have.
const LOG_LEVEL: (&str, &[&str]) = ("LOG_LEVEL", &["log", "level"]);

/// Where the predecessor sent its traces.
const JAEGER_ENDPOINT: &str = "JAEGER_ENDPOINT";

/// Which variables may tell where a service is, the first one winning.
const FALLBACKS: [&str; 3] = ["_URL", "_SERVICE_URL", "_ENDPOINT"];

/// Lays every override over `document`.
pub(super) fn overlay(document: &mut Document, env: &BTreeMap<String, String>) {
    for (name, key) in PREDECESSOR.iter().chain([&LOG_LEVEL]) {
        if let Some(text) = env.get(*name).filter(|text| is_meant_for_us(name, text)) {
            let origin = Origin::Predecessor((*name).to_owned());
            let key = key.iter().map(|segment| (*segment).to_owned()).collect();
            document.lay_over(key, predecessor_value(name, text, &origin), origin);
        }
    }
    for (name, text) in env {
        if let Some(key) = key_of(name) {
            document.lay_over(key, Value::Text(text.clone()), Origin::Variable(name.clone()));
        }
    }
}

/// Adds what only the environment can say.
pub(super) fn complete(config: &mut Config, env: &BTreeMap<String, String>) {
    if let Some(endpoint) = env.get(JAEGER_ENDPOINT).filter(|endpoint| !endpoint.is_empty()) {
        config.trace_endpoint = Some(endpoint.clone());
        config.warnings.push(format!("{JAEGER_ENDPOINT} is kept but not used: this version does not send traces"));
    }
    if config.routing.env_fallback {
        config.env_services = services(env, &mut config.warnings);
    }
}

/// The variable that overrides `key`.
pub(super) fn variable_of(key: &[String]) -> String {
    format!("{PREFIX}{}", key.join("__").replace('-', "_").to_uppercase())
}

/// The key that the variable `name` overrides, if it is one of ours.
fn key_of(name: &str) -> Option<Key> {
    let rest = name.strip_prefix(PREFIX).filter(|rest| rest.contains("__"))?;
    Some(rest.split("__").map(str::to_lowercase).collect())
}

/// Kubernetes sets `REDIS_PORT=tcp://…` for a service named redis; an empty variable is an unset one.
fn is_meant_for_us(name: &str, text: &str) -> bool {
    let kubernetes = name == "REDIS_PORT" && text.contains("://");
    !kubernetes && !text.trim().is_empty()
}

/// The predecessor had one token, which may contain a comma.
fn predecessor_value(name: &str, text: &str, origin: &Origin) -> Value {
    let value = Value::Text(text.to_owned());
    match name {
        "REGISTRY_AUTH_TOKEN" => Value::List(vec![Item { value, origin: origin.clone() }]),
        _ => value,
    }
}

/// Where services are, by the variables `{NAME}_URL`, `{NAME}_SERVICE_URL` and `{NAME}_ENDPOINT`.
///
/// `NMAP_SERVICE_URL` tells where `nmap_service` is, and also where `nmap` is unless `NMAP_URL` tells that.
fn services(env: &BTreeMap<String, String>, warnings: &mut Vec<String>) -> BTreeMap<ServiceName, Endpoint> {
    let mut found = BTreeMap::new();
    let candidates: Vec<(&str, Endpoint)> = env
        .iter()
        .filter(|(name, text)| may_name_service(name) && is_http(text))
        .filter_map(|(name, text)| match value::service_url(text.trim()) {
            Ok(endpoint) => Some((name.as_str(), endpoint)),
            Err(why) => {
                warnings.push(format!("environment variable {name} is no fallback for a service: {why}"));
                None
            }
        })
        .collect();
    for suffix in FALLBACKS {
        for (name, endpoint) in &candidates {
            let service = name.strip_suffix(suffix).map(str::to_lowercase);
            if let Some(service) = service.and_then(|service| ServiceName::parse(&service).ok()) {
                found.entry(service).or_insert_with(|| endpoint.clone());
            }
        }
    }
    found
}

/// Whether `name` has the form of a fallback and is no variable that this program reads itself.
///
/// `OTEL_…` is reserved for the exporters of telemetry, which must not become reachable as services.
fn may_name_service(name: &str) -> bool {
    let upper = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    let own = name.starts_with(PREFIX)
        || name.starts_with("OTEL_")
        || name == "REGISTRY_URL"
        || name == JAEGER_ENDPOINT
        || PREDECESSOR.iter().any(|(own, _)| *own == name);
    upper && !own && FALLBACKS.iter().any(|suffix| name.ends_with(suffix))
}

fn is_http(text: &str) -> bool {
    let scheme = text.trim().split("://").next().unwrap_or_default();
    text.contains("://") && (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let env = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let mut warnings = Vec::new();
        let services = services(&env, &mut warnings);
        (services.iter().map(|(name, endpoint)| format!("{name} {endpoint}")).collect(), warnings)
    }

    #[test]
    fn one_variable_serves_both_spellings_of_a_name() {
        let (services, _) = found(&[("NMAP_SERVICE_URL", "http://a:1")]);
        assert_eq!(services, ["nmap http://a:1", "nmap_service http://a:1"]);
    }

    #[test]
    fn the_url_beats_the_service_url_and_that_the_endpoint() {
        let all = [("NMAP_URL", "http://a"), ("NMAP_SERVICE_URL", "http://b"), ("NMAP_ENDPOINT", "http://c")];
        let nmap = |pairs: &[(&str, &str)]| found(pairs).0.remove(0);
        assert_eq!(nmap(&all), "nmap http://a");
        assert_eq!(nmap(&all[1..]), "nmap http://b");
        assert_eq!(nmap(&all[2..]), "nmap http://c");
        assert_eq!(nmap(&[("NMAP_URL", "redis://a"), all[2]]), "nmap http://c");
    }

    #[test]
    fn what_this_program_reads_names_no_service() {
        let own = [
            "REGISTRY_URL",
            "REDIS_URL",
            "JAEGER_ENDPOINT",
            "VERTICE_REGISTRY_URL",
            "VERTICE_X__Y_URL",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ];
        for name in own {
            assert_eq!(found(&[(name, "http://a")]), (vec![], vec![]), "{name}");
        }
    }

    #[test]
    fn only_usable_http_urls_count() {
        for (name, text) in
            [("DB_MAIN_URL", "postgres://u:p@a"), ("nmap_url", "http://a"), ("A_URL", "http://a"), ("_URL", "http://a")]
        {
            assert_eq!(found(&[(name, text)]), (vec![], vec![]), "{name}");
        }
        let (services, warnings) = found(&[("NMAP_URL", "http://u:geheim@a")]);
        assert!(services.is_empty());
        assert!(warnings[0].contains("NMAP_URL") && !warnings[0].contains("geheim"), "{warnings:?}");
    }

    #[test]
    fn variables_and_keys_are_two_spellings() {
        let key = key_of("VERTICE_SERVICES__NMAP_SERVICE__TIMEOUTS__FIRST_BYTE").unwrap();
        assert_eq!(key, ["services", "nmap_service", "timeouts", "first_byte"]);
        assert_eq!(variable_of(&key), "VERTICE_SERVICES__NMAP_SERVICE__TIMEOUTS__FIRST_BYTE");
        for foreign in ["VERTICE_REGISTRY_URL", "VERTICE_CONFIG", "OTHER_A__B", "VERTICE_"] {
            assert_eq!(key_of(foreign), None, "{foreign}");
        }
    }
}
