//! Stored record ⇄ core. The only place that knows how an instance is written down.
//!
//! Records carry the version of their format, so that two versions of the gateway can share a store: fields may be added
//! (readers ignore what they do not know), and a format this reader does not know is refused, never guessed at.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use vertice_core::endpoint::Endpoint;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::status::Status;
use vertice_core::table::{Facts, Origin};

/// The format this program writes.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    service: String,
    id: String,
    by_address: bool,
    endpoint: String,
    health_endpoint: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    weight: u16,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    status: String,
    ttl_ms: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    resolved: Vec<IpAddr>,
    registered_wall_ms: u64,
    version_no: u64,
}

/// The key of an instance: service and id, with a byte between them that neither can contain.
#[must_use]
pub fn key(service: &ServiceName, id: &InstanceId) -> Vec<u8> {
    [service.as_str().as_bytes(), b"\0", id.as_str().as_bytes()].concat()
}

/// Writes an instance down.
#[must_use]
pub fn encode(facts: &Facts) -> Vec<u8> {
    let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
    let record = Record {
        format: FORMAT,
        service: facts.service.to_string(),
        id: facts.id.to_string(),
        by_address: facts.origin == Origin::RegisteredByAddress,
        endpoint: facts.endpoint.to_string(),
        health_endpoint: facts.health_endpoint.to_string(),
        metadata: facts.metadata.clone(),
        weight: facts.weight,
        zone: text(&facts.zone),
        version: text(&facts.version),
        tags: facts.tags.clone(),
        status: facts.status.as_str().to_owned(),
        ttl_ms: u64::try_from(facts.ttl.as_millis()).unwrap_or(u64::MAX),
        resolved: facts.resolved.clone(),
        registered_wall_ms: facts.registered_wall_ms,
        version_no: facts.version_no,
    };
    serde_json::to_vec(&record).unwrap_or_default()
}

/// Reads an instance.
///
/// # Errors
/// A sentence saying what cannot be understood.
pub fn decode(value: &[u8]) -> Result<Facts, String> {
    let record: Record = serde_json::from_slice(value).map_err(|error| format!("failed to read the record: {error}"))?;
    if record.format != FORMAT {
        return Err(format!("the record has format {}, this program reads {FORMAT}", record.format));
    }
    let origin = if record.by_address { Origin::RegisteredByAddress } else { Origin::Registered };
    Ok(Facts {
        service: ServiceName::parse(&record.service).map_err(|e| format!("service {:?} {e}", record.service))?,
        id: InstanceId::parse(&record.id).map_err(|e| format!("id {:?} {e}", record.id))?,
        origin,
        endpoint: Endpoint::parse(&record.endpoint).map_err(|e| format!("endpoint {:?} {e}", record.endpoint))?,
        health_endpoint: record.health_endpoint.into(),
        metadata: record.metadata,
        weight: record.weight,
        zone: record.zone.map(Into::into),
        version: record.version.map(Into::into),
        tags: record.tags,
        status: Status::parse(&record.status).ok_or_else(|| format!("status {:?} is unknown", record.status))?,
        ttl: Duration::from_millis(record.ttl_ms),
        resolved: record.resolved,
        registered_wall_ms: record.registered_wall_ms,
        version_no: record.version_no,
    })
}

/// The version of an instance that was written down, if this program can read it.
#[must_use]
pub fn version_no(value: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
        version_no: u64,
    }
    let version: Version = serde_json::from_slice(value).ok()?;
    (version.format == FORMAT).then_some(version.version_no)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            service: ServiceName::parse("nmap_service").unwrap(),
            id: InstanceId::parse("10.0.0.1:80").unwrap(),
            origin: Origin::RegisteredByAddress,
            endpoint: Endpoint::parse("https://[2001:db8::1]:8443/api").unwrap(),
            health_endpoint: "/health".into(),
            metadata: BTreeMap::from([("k".into(), "v\"\n".into())]),
            weight: 7,
            zone: Some("a".into()),
            version: None,
            tags: vec!["t".into()],
            status: Status::Draining,
            ttl: Duration::from_millis(5500),
            resolved: vec![[10, 0, 0, 7].into()],
            registered_wall_ms: 1,
            version_no: 9,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(decode(&encode(&facts())), Ok(facts()));
    }

    #[test]
    fn a_newer_writer_s_fields_are_ignored_and_a_newer_format_is_refused() {
        let text = String::from_utf8(encode(&facts())).unwrap();
        let more = text.replacen('{', "{\"since_next_year\":1,", 1);
        assert_eq!(decode(more.as_bytes()), Ok(facts()));
        let newer = text.replacen("\"format\":1", "\"format\":2", 1);
        assert!(decode(newer.as_bytes()).unwrap_err().contains("format 2"));
        assert!(decode(b"rubbish").is_err());
    }

    /// Written by the first version of this program; must stay readable.
    #[test]
    fn the_first_format_stays_readable() {
        let old = r#"{"format":1,"service":"abc","id":"a","by_address":false,"endpoint":"http://a:1","health_endpoint":"/h","weight":100,"status":"healthy","ttl_ms":60000,"registered_wall_ms":5,"version_no":3}"#;
        let facts = decode(old.as_bytes()).unwrap();
        assert_eq!((facts.service.as_str(), facts.version_no, facts.tags.len()), ("abc", 3, 0));
    }
}
