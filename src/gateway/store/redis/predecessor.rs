//! The flat records of a predecessor of this program, `services:{name}`: one instance for each service, as texts.

use super::literal;
use super::record::{FIELDS_MAX, Misread};
use crate::upstream::Upstream;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vertice_core::bounds;
use vertice_core::endpoint::Endpoint;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::record::{Record, ReplicaId};
use vertice_core::status::Status;
use vertice_core::table::{Facts, Origin};
use vertice_core::time::Moment;

/// The fields that are read, in this order.
pub(super) const FIELDS: [&str; 5] = ["endpoint", "health_endpoint", "metadata", "registered_at", "last_heartbeat"];

/// A flat record as it was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Flat {
    pub(super) endpoint: Endpoint,
    pub(super) health_endpoint: String,
    pub(super) metadata: BTreeMap<String, String>,
    /// Microseconds since 1970, by the predecessor's clock.
    pub(super) registered_micros: u64,
    pub(super) last_heartbeat: f64,
    pub(super) left: Duration,
}

impl Flat {
    /// Reads the values of [`FIELDS`]. `left` is how long the key lives.
    pub(super) fn read(values: [Option<&str>; FIELDS.len()], left: Duration) -> Result<Self, Misread> {
        let [endpoint, health_endpoint, metadata, registered_at, last_heartbeat] = values;
        let damaged = |what: &str| ("damaged", what.to_owned());
        let endpoint = endpoint.ok_or_else(|| damaged("it has no endpoint"))?;
        let endpoint = Endpoint::parse(endpoint).map_err(|error| ("damaged", format!("its endpoint {error}")))?;
        let metadata = match metadata.map(str::trim).filter(|text| !text.is_empty()) {
            Some(text) => literal::dictionary(text).ok_or_else(|| damaged("its metadata is no dictionary"))?,
            None => BTreeMap::new(),
        };
        let seconds = |text: Option<&str>| text.and_then(|text| text.trim().parse::<f64>().ok()).filter(|s| s.is_finite());
        let registered = seconds(registered_at).unwrap_or(0.0);
        let health_endpoint = health_endpoint.filter(|path| path.starts_with('/') && path.len() <= bounds::HEALTH_ENDPOINT);
        Ok(Self {
            endpoint,
            health_endpoint: health_endpoint.unwrap_or("/health").to_owned(),
            metadata: metadata.into_iter().take(FIELDS_MAX).collect(),
            registered_micros: (registered.max(0.0) * 1e6) as u64,
            last_heartbeat: seconds(last_heartbeat).unwrap_or(registered),
            left,
        })
    }

    /// The id of the instance that it shows: `host:port`.
    pub(super) fn id(&self) -> Option<InstanceId> {
        InstanceId::parse(&self.endpoint.authority()).ok()
    }

    /// Whether a gateway wrote it, to show this instance, as far as can be told by it alone: nobody else registered the same
    /// endpoint in the same millisecond.
    pub(super) fn shows(&self, facts: &Facts) -> bool {
        self.endpoint == facts.endpoint && (self.registered_micros / 1000).abs_diff(facts.registered_wall_ms) <= 1
    }

    /// The instance that it shows, whose lease the predecessor holds. Its version is the time of its registration, so that
    /// every replica makes the same of it.
    pub(super) fn record(&self, service: &ServiceName, ttl: Duration, store_micros: u64) -> Option<Record> {
        let micros = self.registered_micros.min(store_micros);
        let facts = Facts {
            service: service.clone(),
            id: self.id()?,
            origin: Origin::Registered,
            endpoint: self.endpoint.clone(),
            health_endpoint: self.health_endpoint.as_str().into(),
            metadata: self.metadata.clone(),
            weight: bounds::WEIGHT_DEFAULT,
            zone: None,
            version: None,
            tags: Vec::new(),
            status: Status::Healthy,
            ttl,
            resolved: Vec::new(),
            registered_wall_ms: micros / 1000,
            version_no: micros << 10 | ReplicaId::PREDECESSOR.number(),
        };
        let left = self.left.min(ttl);
        Some(Record { facts: Arc::new(facts), left, holder: ReplicaId::PREDECESSOR, drain: None })
    }
}

/// What the predecessor is shown of a service.
pub(super) struct Shown {
    pub(super) service: ServiceName,
    /// Its best instance, and the version of it.
    pub(super) id: InstanceId,
    pub(super) version_no: u64,
    /// The values of [`FIELDS`].
    pub(super) values: [String; FIELDS.len()],
    /// For how long.
    pub(super) left: Duration,
}

/// What the predecessor is shown of a service's best instance. `None` when it shows that instance itself, or its lease is over.
pub(super) fn shown(best: &Upstream, now: Moment) -> Option<Shown> {
    let lease = &best.cells.lease;
    let left = lease.deadline().since(now);
    if lease.holder() == Some(ReplicaId::PREDECESSOR) || left < Duration::from_millis(1) {
        return None;
    }
    let facts = &best.facts;
    let metadata = serde_json::to_string(&facts.metadata).unwrap_or_else(|_| "{}".to_owned());
    let values = [
        facts.endpoint.to_string(),
        facts.health_endpoint.to_string(),
        metadata,
        seconds(facts.registered_wall_ms),
        seconds(lease.renewed_wall_ms()),
    ];
    Some(Shown { service: facts.service.clone(), id: facts.id.clone(), version_no: facts.version_no, values, left })
}

/// As Python reads and writes them.
fn seconds(wall_ms: u64) -> String {
    format!("{}.{:03}", wall_ms / 1000, wall_ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: [Option<&str>; 5]) -> Result<Flat, Misread> {
        Flat::read(values, Duration::from_secs(40))
    }

    #[test]
    fn a_record_that_the_predecessor_wrote() {
        let metadata = "{'version': '2', 'tags': ['a']}";
        let values =
            [Some("http://10.0.0.7:8047"), Some("/health"), Some(metadata), Some("1700000000.25"), Some("1700000030.5")];
        let flat = read(values).unwrap();
        let service = ServiceName::parse("nmap_service").unwrap();
        let record = flat.record(&service, Duration::from_secs(60), 1_800_000_000_000_000).unwrap();
        assert_eq!(record.facts.id.as_str(), "10.0.0.7:8047");
        assert_eq!((record.left, record.holder), (Duration::from_secs(40), ReplicaId::PREDECESSOR));
        assert_eq!(record.facts.metadata["tags"], "['a']");
        assert_eq!(record.facts.registered_wall_ms, 1_700_000_000_250);
        assert_eq!(vertice_core::version::micros_of(record.facts.version_no), 1_700_000_000_250_000);
        let early = flat.record(&service, Duration::from_secs(60), 5_000_000).unwrap();
        assert_eq!(vertice_core::version::micros_of(early.facts.version_no), 5_000_000, "never ahead of the store");
    }

    #[test]
    fn what_is_missing_is_made_up_and_what_is_wrong_is_refused() {
        let bare = read([Some("http://a:1"), None, None, None, None]).unwrap();
        assert_eq!((bare.health_endpoint.as_str(), bare.metadata.len(), bare.registered_micros), ("/health", 0, 0));
        let odd = read([Some("http://a:1"), Some("x"), Some(""), Some("nan"), Some("-5")]).unwrap();
        assert_eq!((odd.health_endpoint.as_str(), odd.registered_micros), ("/health", 0));
        for values in
            [[None; 5], [Some("nonsense"), None, None, None, None], [Some("http://a:1"), None, Some("[1]"), None, None]]
        {
            assert_eq!(read(values).unwrap_err().0, "damaged");
        }
    }
}
