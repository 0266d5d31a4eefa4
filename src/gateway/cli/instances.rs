//! `instances`: one line for each instance.

use super::age;
use super::failure::Failure;
use super::output::Output;
use super::reply::Reply;
use super::table::{Cell, Column, Table};
use vertice_api::{Instance, ServiceInfo, paths};
use vertice_client::RegistryClient;

/// Lists the instances of one service, or of all.
pub(super) fn list(client: &RegistryClient, service: Option<&str>, is_json: bool, output: &mut Output) -> Result<(), Failure> {
    let (doing, path) = match service {
        Some(service) => (format!("list the instances of {service}"), paths::service(service)),
        None => ("list the instances".to_owned(), paths::services_detailed(&[])),
    };
    let reply = Reply::new(&doing, client.get(&path))?;
    if is_json {
        return reply.print(output);
    }
    let services: Vec<ServiceInfo> = if service.is_some() { vec![reply.read()?] } else { reply.read()? };
    let rows = rows(&services, reply.epoch_s());
    if rows.is_empty() {
        output.note("no instances registered");
        return Ok(());
    }
    output.table(&Table::new(&COLUMNS, rows))
}

const COLUMNS: [Column; 10] = [
    Column::text("SERVICE"),
    Column::text("INSTANCE"),
    Column::text("ENDPOINT"),
    Column::word("STATUS"),
    Column::word("BREAKER"),
    Column::figure("WEIGHT"),
    Column::text("ZONE"),
    Column::text("VERSION"),
    Column::figure("TTL LEFT"),
    Column::figure("LAST HEARTBEAT"),
];

fn rows(services: &[ServiceInfo], now_s: f64) -> Vec<Vec<Cell>> {
    let mut all: Vec<(&str, &Instance)> =
        services.iter().flat_map(|service| service.instances.iter().map(|i| (service.service_name.as_str(), i))).collect();
    all.sort_by(|(a, x), (b, y)| (a, &x.instance_id).cmp(&(b, &y.instance_id)));
    all.into_iter().map(|(service, instance)| row(service, instance, now_s)).collect()
}

fn row(service: &str, instance: &Instance, now_s: f64) -> Vec<Cell> {
    vec![
        Cell::plain(service),
        Cell::plain(&instance.instance_id),
        Cell::plain(&instance.endpoint),
        Cell::word(&instance.status),
        Cell::word(&instance.breaker),
        Cell::plain(&instance.weight.to_string()),
        Cell::optional(instance.zone.as_deref()),
        Cell::optional(instance.version.as_deref()),
        Cell::plain(&age::compact(instance.ttl_remaining as f64)),
        Cell::plain(&format!("{} ago", age::compact(now_s - instance.last_heartbeat))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sorted_aged_and_harmless() {
        let instance = |id: &str, zone: Option<&str>| {
            json!({
                "instance_id": id, "endpoint": "http://a:1", "health_endpoint": "/", "weight": 100, "zone": zone, "version": "1",
                "status": "healthy", "breaker": "closed", "registered_at": 1.0, "last_heartbeat": 1000.5, "ttl_remaining": 60
            })
        };
        let service = |name: &str, instances| -> ServiceInfo {
            let value = json!({
                "service_name": name, "endpoint": "http://a:1", "health_endpoint": "/", "registered_at": 1, "last_heartbeat": 1,
                "ttl_remaining": 60, "instances": instances
            });
            serde_json::from_value(value).unwrap()
        };
        let services = [
            service("b_service", vec![instance("z", None), instance("c", Some("\x1b[2J"))]),
            service("a_service", vec![instance("z", None)]),
        ];
        let lines: Vec<String> = Table::new(&COLUMNS, rows(&services, 1065.5)).lines(None, false).collect();
        let fields: Vec<Vec<&str>> =
            lines[1..].iter().map(|line| line.split("  ").filter(|f| !f.is_empty()).map(str::trim).collect()).collect();
        assert_eq!(fields[0], ["a_service", "z", "http://a:1", "healthy", "closed", "100", "-", "1", "1m", "1m5s ago"]);
        assert_eq!(fields[1][..2], ["b_service", "c"]);
        assert_eq!(fields[1][6], "\\u{1b}[2J");
        assert_eq!(fields[2][..2], ["b_service", "z"]);
    }
}
