//! Paths and query parameters.

use std::fmt::Write;
use std::time::Duration;

/// `POST`: create or update a registration.
pub const REGISTER: &str = "/register";
/// `POST`: renew a registration.
pub const HEARTBEAT: &str = "/heartbeat";
/// `DELETE` below it, see [`deregister`].
pub const DEREGISTER: &str = "/deregister";
/// `GET`: the names of all services; below it one service, see [`service`].
pub const SERVICES: &str = "/services";
/// `GET`: how the process is.
pub const HEALTH: &str = "/health";
/// `GET`: 200 as long as the process answers at all.
pub const LIVEZ: &str = "/livez";
/// `GET`: 200 when traffic may be sent here.
pub const READYZ: &str = "/readyz";
/// `GET`: Prometheus text.
pub const METRICS: &str = "/metrics";
/// `GET`: what is in force.
pub const GATEWAY_STATUS: &str = "/gateway/status";
/// `GET` below it, see [`health_check`].
pub const GATEWAY_HEALTH_CHECK: &str = "/gateway/health-check";
/// `POST` below it, see [`drain`]: take instances out of rotation for a while.
pub const GATEWAY_DRAIN: &str = "/gateway/drain";
/// `POST`: read the configuration again.
pub const GATEWAY_RELOAD: &str = "/gateway/reload";
/// `GET`: the description of all these calls (OpenAPI).
pub const OPENAPI: &str = "/openapi.json";
/// Any method below it, see [`data_plane`].
pub const DATA_PLANE: &str = "/v2";

/// Names of query parameters.
pub mod query {
    /// Which instance a deregistration means.
    pub const INSTANCE_ID: &str = "instance_id";
    /// `1`: a deregistration means every instance of the service.
    pub const ALL: &str = "all";
    /// How long a deregistered instance may finish what it has before it goes.
    pub const DRAIN: &str = "drain";
    /// How long a drain lasts; `0` ends it.
    pub const FOR: &str = "for";
    /// `1`: the list of services holds objects instead of names.
    pub const DETAIL: &str = "detail";
    /// Keep only services with an instance that has this tag.
    pub const TAG: &str = "tag";
    /// Keep only services with an instance of this version.
    pub const VERSION: &str = "version";
    /// Keep only services with an instance in this zone.
    pub const ZONE: &str = "zone";
    /// Keep only services with an instance of this status.
    pub const STATUS: &str = "status";
    /// An index: the answer waits until something has changed after it.
    pub const WATCH: &str = "watch";
    /// How long a watch waits.
    pub const WAIT: &str = "wait";
    /// As the header [`crate::headers::LAST_EVENT_ID`], for clients that cannot set headers.
    pub const LAST_EVENT_ID: &str = "last_event_id";
}

/// `/deregister/{name}`, with `?instance_id=` when one is given.
#[must_use]
pub fn deregister(name: &str, instance_id: Option<&str>) -> String {
    let mut path = below(DEREGISTER, name);
    if let Some(id) = instance_id {
        path.push('?');
        path.push_str(query::INSTANCE_ID);
        path.push('=');
        push_encoded(&mut path, id);
    }
    path
}

/// `/services?detail=1`, of the services with an instance that has all of these.
#[must_use]
pub fn services_detailed(filters: &[(&str, &str)]) -> String {
    let mut path = format!("{SERVICES}?{}=1", query::DETAIL);
    filters.iter().for_each(|(name, value)| push_parameter(&mut path, name, Some(value)));
    path
}

/// `/services/{name}`.
#[must_use]
pub fn service(name: &str) -> String {
    below(SERVICES, name)
}

/// `/gateway/health-check/{name}`.
#[must_use]
pub fn health_check(name: &str) -> String {
    below(GATEWAY_HEALTH_CHECK, name)
}

/// `/gateway/drain/{name}`.
#[must_use]
pub fn drain(name: &str) -> String {
    below(GATEWAY_DRAIN, name)
}

/// [`drain`] of one instance, or of all, for that long; no time at all ends a drain.
#[must_use]
pub fn drain_for(name: &str, instance_id: Option<&str>, span: Duration) -> String {
    let mut path = drain(name);
    let (seconds, millis) = (span.as_secs(), span.as_millis());
    // Writing to a String cannot fail.
    let _ = if span.subsec_millis() == 0 {
        write!(path, "?{}={seconds}s", query::FOR)
    } else {
        write!(path, "?{}={millis}ms", query::FOR)
    };
    push_parameter(&mut path, query::INSTANCE_ID, instance_id);
    path
}

/// `/v2/{name}`: append the path that the service shall see.
#[must_use]
pub fn data_plane(name: &str) -> String {
    below(DATA_PLANE, name)
}

fn below(parent: &str, name: &str) -> String {
    let mut path = String::with_capacity(parent.len() + 1 + name.len());
    path.push_str(parent);
    path.push('/');
    push_encoded(&mut path, name);
    path
}

/// Adds a parameter that is not the first one.
fn push_parameter(path: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        path.push('&');
        path.push_str(name);
        path.push('=');
        push_encoded(path, value);
    }
}

/// Percent-encodes everything but RFC 3986 "unreserved" and `:`, which is harmless in a segment and in a query and keeps
/// `host:port` readable. The other side has to decode.
fn push_encoded(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_one_segment() {
        assert_eq!(service("nmap_service"), "/services/nmap_service");
        assert_eq!(service("a/../b?c=d#e"), "/services/a%2F..%2Fb%3Fc%3Dd%23e");
        assert_eq!(health_check("osint_service"), "/gateway/health-check/osint_service");
        assert_eq!(drain("osint_service"), "/gateway/drain/osint_service");
        assert_eq!(data_plane("osint_service"), "/v2/osint_service");
    }

    #[test]
    fn ids_become_one_parameter() {
        assert_eq!(deregister("abc", None), "/deregister/abc");
        assert_eq!(deregister("abc", Some("osint:8049")), "/deregister/abc?instance_id=osint:8049");
        assert_eq!(deregister("abc", Some("[::1]:80")), "/deregister/abc?instance_id=%5B::1%5D:80");
        assert_eq!(deregister("abc", Some("a&all=1")), "/deregister/abc?instance_id=a%26all%3D1");
        assert_eq!(drain_for("abc", None, Duration::ZERO), "/gateway/drain/abc?for=0s");
        let path = drain_for("abc", Some("a&b"), Duration::from_millis(1500));
        assert_eq!(path, "/gateway/drain/abc?for=1500ms&instance_id=a%26b");
        assert_eq!(services_detailed(&[]), "/services?detail=1");
        assert_eq!(services_detailed(&[(query::TAG, "a b"), (query::ZONE, "é")]), "/services?detail=1&tag=a%20b&zone=%C3%A9");
    }
}
