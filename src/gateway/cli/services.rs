//! `services`: one line for each service.

use super::colour::Tone;
use super::failure::Failure;
use super::output::Output;
use super::reply::Reply;
use super::table::{Cell, Column, Table};
use std::collections::BTreeSet;
use vertice_api::{Instance, ServiceInfo, paths};
use vertice_client::RegistryClient;

/// Lists the services that pass the filters.
pub(super) fn list(
    client: &RegistryClient,
    filters: &[(&str, &str)],
    is_json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let reply = Reply::new("list the services", client.get(&paths::services_detailed(filters)))?;
    if is_json {
        return reply.print(output);
    }
    let mut services: Vec<ServiceInfo> = reply.read()?;
    if services.is_empty() {
        output.note(if filters.is_empty() { "no services registered" } else { "no services match" });
        return Ok(());
    }
    services.sort_by(|a, b| a.service_name.cmp(&b.service_name));
    output.table(&Table::new(&COLUMNS, services.iter().map(row).collect()))
}

/// Whether the instance says that it is healthy, and the gateway agrees.
pub(super) fn is_healthy(status: &str, breaker: &str) -> bool {
    status == "healthy" && breaker == "closed"
}

const COLUMNS: [Column; 5] = [
    Column::text("NAME"),
    Column::figure("INSTANCES"),
    Column::text("BEST ENDPOINT"),
    Column::word("STATUS"),
    Column::text("VERSION"),
];

fn row(service: &ServiceInfo) -> Vec<Cell> {
    let all = service.instances.len();
    let healthy = service.instances.iter().filter(|i| is_healthy(&i.status, &i.breaker)).count();
    let versions: BTreeSet<&str> = service.instances.iter().filter_map(|i| i.version.as_deref()).collect();
    let versions: Vec<&str> = versions.into_iter().collect();
    vec![
        Cell::plain(&service.service_name),
        Cell::toned(&format!("{healthy}/{all}"), if healthy < all { Tone::Warning } else { Tone::Plain }),
        Cell::plain(&service.endpoint),
        Cell::word(standing(&service.instances)),
        Cell::optional(Some(versions.join(", ").as_str())),
    ]
}

/// One word for all of them: what they agree on; else `degraded` when requests still get through, and `unhealthy` when not.
fn standing(instances: &[Instance]) -> &str {
    let mut words = instances.iter().map(word);
    let Some(first) = words.next() else { return "" };
    if words.clone().all(|word| word == first) {
        first
    } else if words.chain([first]).any(|word| matches!(word, "healthy" | "degraded")) {
        "degraded"
    } else {
        "unhealthy"
    }
}

fn word(instance: &Instance) -> &str {
    match (instance.breaker.as_str(), instance.status.as_str()) {
        ("open", _) => "unhealthy",
        ("half_open", "healthy") => "degraded",
        (_, status) => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn instances(words: &[(&str, &str)]) -> Vec<Instance> {
        let instance = |(status, breaker): &(&str, &str)| {
            let value = json!({
                "instance_id": "a:1", "endpoint": "http://a:1", "health_endpoint": "/", "weight": 100, "zone": null, "version": null,
                "status": status, "breaker": breaker, "registered_at": 1.0, "last_heartbeat": 1.0, "ttl_remaining": 60, "new": {}
            });
            serde_json::from_value(value).unwrap()
        };
        words.iter().map(instance).collect()
    }

    #[test]
    fn one_word_for_all() {
        for (words, one) in [
            (&[("healthy", "closed"), ("healthy", "closed")][..], "healthy"),
            (&[("healthy", "closed"), ("unhealthy", "closed")], "degraded"),
            (&[("healthy", "closed"), ("healthy", "open")], "degraded"),
            (&[("healthy", "half_open")], "degraded"),
            (&[("healthy", "open")], "unhealthy"),
            (&[("starting", "closed"), ("starting", "closed")], "starting"),
            (&[("starting", "closed"), ("draining", "closed")], "unhealthy"),
            (&[], ""),
        ] {
            assert_eq!(standing(&instances(words)), one, "{words:?}");
        }
    }
}
