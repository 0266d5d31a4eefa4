//! `status`: how the gateway is, in a dozen lines.

use super::age;
use super::colour::Tone;
use super::failure::Failure;
use super::json;
use super::output::Output;
use super::reply::Reply;
use super::services::is_healthy;
use super::table::{Cell, Column, Table};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::process::ExitCode;
use vertice_api::{Component, paths};
use vertice_client::RegistryClient;

/// Shows it. The exit code tells whether the gateway serves.
pub(super) fn show(client: &RegistryClient, is_json: bool, output: &mut Output) -> Result<ExitCode, Failure> {
    let mut answer = client.get(paths::HEALTH).map_err(|error| Failure::call(DOING, &error))?;
    let serves = answer.status != UNAVAILABLE;
    if !serves {
        // The same object as that of a 200, and worth showing.
        answer.status = 200;
    }
    let url = answer.url.clone();
    let health = Reply::new(DOING, Ok(answer))?;
    // An older gateway has no such page, a dying one may be gone by now: what is known is shown.
    let status = Reply::new(DOING, client.get(paths::GATEWAY_STATUS)).ok();
    if is_json {
        let status = status.as_ref().map_or(Ok("null"), Reply::document)?;
        let url = serde_json::Value::from(url);
        output.line(&json::pretty(&format!("{{\"url\":{url},\"health\":{},\"status\":{status}}}", health.document()?)))?;
    } else {
        let status: Option<Status> = status.map(|reply| reply.read()).transpose()?;
        output.table(&Table::new(&COLUMNS, rows(&url, serves, &health.read()?, status.as_ref())))?;
    }
    Ok(if serves { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const DOING: &str = "show the status";
/// What `/health` answers while the gateway drains or cannot serve.
const UNAVAILABLE: u16 = 503;
const COLUMNS: [Column; 2] = [Column::word(""), Column::text("")];
/// So many open breakers are named.
const NAMED_MAX: usize = 5;
/// A replica is worth a word when nothing was heard of it for so long.
const SILENT_AFTER_S: f64 = 10.0;

/// What is shown of `GET /health`. Other versions may have other fields.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Health {
    status: String,
    active_services: u64,
    uptime_seconds: f64,
    components: BTreeMap<String, Component>,
}

/// What is shown of `GET /gateway/status`. Other versions may have other fields.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    version: String,
    build: String,
    services: Vec<Service>,
    store: Store,
    replicas: Vec<Replica>,
    snapshot: Snapshot,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Service {
    service_name: String,
    instances: Vec<Instance>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Instance {
    instance_id: String,
    status: String,
    breaker: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Store {
    kind: String,
    path: Option<String>,
    redis: Option<Redis>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Redis {
    address: Option<String>,
    following: bool,
    pending: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Replica {
    replica_id: String,
    zone: Option<String>,
    seen_seconds_ago: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Snapshot {
    generation: u64,
}

type Row = Vec<Cell>;

fn rows(url: &str, serves: bool, health: &Health, status: Option<&Status>) -> Vec<Row> {
    let row = |name: &str, cell| vec![Cell::plain(name), cell];
    let gateway = if serves { ("serving at", Tone::Good) } else { ("not serving at", Tone::Bad) };
    let mut rows = vec![row("gateway", Cell::toned(&format!("{} {url}", gateway.0), gateway.1))];
    if let Some(status) = status {
        rows.push(row("version", Cell::plain(&format!("{}, build {}", status.version, status.build))));
    }
    rows.push(row("uptime", Cell::plain(&age::compact(health.uptime_seconds))));
    rows.push(row("health", Cell::word(&health.status)));
    rows.extend(health.components.iter().map(|(name, component)| component_row(name, component)));
    match status {
        Some(status) => rows.extend(table_rows(status)),
        None => rows.push(row("services", Cell::plain(&health.active_services.to_string()))),
    }
    rows
}

fn component_row(name: &str, component: &Component) -> Row {
    let text = match &component.detail {
        Some(detail) => format!("{}: {detail}", component.status),
        None => component.status.clone(),
    };
    vec![Cell::plain(&format!("  {name}")), Cell::toned(&text, Tone::of(&component.status))]
}

fn table_rows(status: &Status) -> [Row; 5] {
    let row = |name: &str, cell| vec![Cell::plain(name), cell];
    let instances = || status.services.iter().flat_map(|service| &service.instances);
    let healthy = instances().filter(|i| is_healthy(&i.status, &i.breaker)).count();
    let counts = format!("{}, with {} instances, {healthy} of them healthy", status.services.len(), instances().count());
    let replica = |replica: &Replica| {
        let zone = replica.zone.as_ref().map(|zone| format!(" in {zone}")).unwrap_or_default();
        let is_silent = replica.seen_seconds_ago >= SILENT_AFTER_S;
        let silent =
            if is_silent { format!(" (silent for {})", age::compact(replica.seen_seconds_ago)) } else { String::new() };
        format!("{}{zone}{silent}", replica.replica_id)
    };
    [
        row("services", Cell::plain(&counts)),
        row("breakers", breakers(&status.services)),
        row("store", store(&status.store)),
        row("replicas", Cell::plain(&status.replicas.iter().map(replica).collect::<Vec<_>>().join(", "))),
        row("index", Cell::plain(&status.snapshot.generation.to_string())),
    ]
}

fn store(store: &Store) -> Cell {
    let Some(redis) = &store.redis else {
        let place = store.path.as_ref().map(|path| format!(" at {path}")).unwrap_or_default();
        return Cell::plain(&format!("{}{place}", store.kind));
    };
    let place = redis.address.as_ref().map_or_else(|| ", away".to_owned(), |address| format!(" at {address}"));
    let waiting = if redis.pending > 0 { format!(", {} changes wait for it", redis.pending) } else { String::new() };
    let tone = if redis.following { Tone::Good } else { Tone::Bad };
    Cell::toned(&format!("{}{place}{waiting}", store.kind), tone)
}

fn breakers(services: &[Service]) -> Cell {
    let open: Vec<String> = services
        .iter()
        .flat_map(|service| service.instances.iter().map(move |instance| (service, instance)))
        .filter(|(_, instance)| instance.breaker == "open")
        .map(|(service, instance)| format!("{} {}", service.service_name, instance.instance_id))
        .collect();
    if open.is_empty() {
        return Cell::toned("none open", Tone::Good);
    }
    let named = open[..open.len().min(NAMED_MAX)].join(", ");
    let more = if open.len() > NAMED_MAX { ", …" } else { "" };
    Cell::toned(&format!("{} open: {named}{more}", open.len()), Tone::Bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(serves: bool, health: &str, status: Option<&str>) -> Vec<String> {
        let (health, status) = (serde_json::from_str(health).unwrap(), status.map(|text| serde_json::from_str(text).unwrap()));
        let rows = rows("http://a:8888", serves, &health, status.as_ref());
        Table::new(&COLUMNS, rows).lines(None, false).collect()
    }

    #[test]
    fn everything_in_a_dozen_lines() {
        let health = r#"{"status":"degraded","uptime_seconds":125.5,"components":{"store":{"status":"degraded","detail":"disk is full"},"dns":{"status":"healthy"}}}"#;
        let instance =
            |id: usize, breaker: &str| format!(r#"{{"instance_id":"{id}","status":"healthy","breaker":"{breaker}"}}"#);
        let instances: Vec<String> = (0..8).map(|id| instance(id, if id < 6 { "open" } else { "closed" })).collect();
        let status = format!(
            r#"{{"version":"0.1.0","build":"abc","services":[{{"service_name":"x","instances":[{}]}}],"store":{{"kind":"embedded","path":"/d"}},
                 "replicas":[{{"replica_id":"r1","zone":"z"}}],"snapshot":{{"generation":7}},"of a later version":[]}}"#,
            instances.join(",")
        );
        assert_eq!(
            shown(true, health, Some(&status)),
            [
                "gateway   serving at http://a:8888",
                "version   0.1.0, build abc",
                "uptime    2m5s",
                "health    degraded",
                "  dns     healthy",
                "  store   degraded: disk is full",
                "services  1, with 8 instances, 2 of them healthy",
                "breakers  6 open: x 0, x 1, x 2, x 3, x 4, …",
                "store     embedded at /d",
                "replicas  r1 in z",
                "index     7",
            ]
        );
    }

    #[test]
    fn the_store_that_is_shared_and_with_whom() {
        let lines = |redis: &str| {
            let replicas = r#"[{"replica_id":"r1"},{"replica_id":"r2","zone":"z","seen_seconds_ago":1.5},{"replica_id":"r3","seen_seconds_ago":25}]"#;
            let status = format!(r#"{{"store":{{"kind":"redis","path":null,"redis":{redis}}},"replicas":{replicas}}}"#);
            shown(true, "{}", Some(&status))[6..8].to_vec()
        };
        let there = lines(r#"{"address":"redis:6379","following":true,"pending":0,"compared_seconds_ago":3.5}"#);
        assert_eq!(there, ["store     redis at redis:6379", "replicas  r1, r2 in z, r3 (silent for 25s)"]);
        let away = lines(r#"{"address":null,"following":false,"pending":2,"compared_seconds_ago":null}"#);
        assert_eq!(away[0], "store     redis, away, 2 changes wait for it");
    }

    #[test]
    fn a_gateway_that_tells_less_is_shown_as_far_as_it_tells() {
        assert_eq!(
            shown(false, r#"{"status":"degraded","active_services":3}"#, None),
            ["gateway   not serving at http://a:8888", "uptime    0s", "health    degraded", "services  3"]
        );
        assert_eq!(shown(true, "{}", Some("{}")).len(), 9);
    }
}
