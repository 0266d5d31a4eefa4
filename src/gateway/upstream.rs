//! What hangs on services and instances in the routing table: connection templates and metric handles.

use crate::telemetry::metrics::Metrics;
use crate::telemetry::service::ServiceMetrics;
use arc_swap::ArcSwap;
use http::HeaderValue;
use pingora::protocols::TcpKeepalive;
use pingora::upstreams::peer::HttpPeer;
use sha2::{Digest, Sha256};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use vertice_core::endpoint::{Host, Scheme};
use vertice_core::name::ServiceName;
use vertice_core::policy::{Policy, Timeouts};
use vertice_core::table::{Attach, Facts};

/// Requests at once on one HTTP/2 connection; further ones make another.
const HTTP2_STREAMS: usize = 100;

/// How much of an answer is taken from an instance before the client has taken it.
const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;

/// The same for all answers on one connection: no bound for them, because one slow client must not hold up the others.
const HTTP2_CONNECTION_WINDOW: u32 = 100 * HTTP2_STREAM_WINDOW;

/// The routing table, as everybody reads it and only `registrar/publish.rs` stores it.
pub type Table = ArcSwap<vertice_core::table::Snapshot<Hung>>;
/// A service in the table.
pub type Service = vertice_core::table::Service<Hung>;
/// An instance in the table.
pub type Upstream = vertice_core::table::Upstream<Hung>;

/// Makes what hangs on services and instances.
#[derive(Clone, Debug)]
pub struct Hung {
    /// Where the handles come from.
    pub metrics: Arc<Metrics>,
    /// Names instances for their clients.
    pub naming: NamingKey,
}

/// Ready-made for every request to a service.
#[derive(Debug)]
pub struct Handles {
    /// What is counted.
    pub metrics: Arc<ServiceMetrics>,
    /// Whether every instance that takes traffic is asked in plain HTTP/1.1.
    pub is_plain: bool,
}

impl std::ops::Deref for Handles {
    type Target = ServiceMetrics;

    fn deref(&self) -> &ServiceMetrics {
        &self.metrics
    }
}

/// Ready-made for every attempt at an instance.
#[derive(Debug)]
pub struct Templates {
    /// One per address of the instance, in the same order.
    pub peers: Box<[HttpPeer]>,
    /// The `Host` it gets, unless the client's is kept.
    pub host: Option<HeaderValue>,
    /// Whether it is asked in HTTP/1.1 without TLS.
    pub is_plain: bool,
}

impl Attach for Hung {
    type Service = Handles;
    type Instance = Templates;

    fn service(&self, name: &ServiceName, usable: &[Arc<Upstream>], old: Option<&Handles>) -> Handles {
        let new = || Arc::new(ServiceMetrics::new(&self.metrics, name.as_str()));
        Handles {
            metrics: old.map_or_else(new, |old| old.metrics.clone()),
            is_plain: usable.iter().all(|upstream| upstream.x.is_plain),
        }
    }

    fn token(&self, facts: &Facts) -> u64 {
        self.naming.name(facts)
    }

    fn instance(&self, facts: &Facts, addresses: &[SocketAddr], policy: &Policy) -> Templates {
        Templates {
            peers: addresses.iter().map(|address| Self::peer(facts, *address, policy)).collect(),
            host: HeaderValue::from_str(&facts.endpoint.authority()).ok(),
            is_plain: facts.endpoint.scheme() == Scheme::Http && !speaks_http2(facts),
        }
    }
}

/// What instances' names in clients' cookies are made with.
#[derive(Clone, Copy)]
pub struct NamingKey([u8; 32]);

impl NamingKey {
    /// A key that all who know `secret` have; without one, a key that nobody else has.
    #[must_use]
    pub fn new(secret: Option<&str>) -> Self {
        let Some(secret) = secret else { return Self(unguessable()) };
        Self(Sha256::new().chain_update("vertice naming key").chain_update(secret).finalize().into())
    }

    /// What an instance is called: tells nothing of its id, and is the same wherever it is registered under that.
    fn name(&self, facts: &Facts) -> u64 {
        let parts = [facts.service.as_str(), "/", facts.id.as_str()];
        let hash = parts.iter().fold(Sha256::new().chain_update(self.0), |hash, part| hash.chain_update(part));
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(hash.finalize());
        u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1)
    }
}

/// Bytes from the standard library's own random keys, which come from the operating system.
fn unguessable() -> [u8; 32] {
    let mut bytes = [0; 32];
    for (part, word) in bytes.chunks_mut(8).zip(0u64..) {
        part.copy_from_slice(&RandomState::new().hash_one(word).to_be_bytes());
    }
    bytes
}

impl std::fmt::Debug for NamingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NamingKey(…)")
    }
}

impl Hung {
    fn peer(facts: &Facts, address: SocketAddr, policy: &Policy) -> HttpPeer {
        let is_tls = facts.endpoint.scheme() == Scheme::Https;
        let sni = match facts.endpoint.host() {
            Host::Name(name) if is_tls => name.to_string(),
            Host::Address(address) if is_tls => address.to_string(),
            _ => String::new(),
        };
        let mut peer = HttpPeer::new(address, is_tls, sni);
        set_timeouts(&mut peer, &policy.timeouts);
        peer.options.write_timeout = Some(policy.connections.write_stall);
        peer.options.idle_timeout = Some(policy.connections.keepalive);
        if speaks_http2(facts) {
            set_http2(&mut peer);
        }
        peer
    }
}

/// Whether the instance is asked in HTTP/2: its metadata say so.
fn speaks_http2(facts: &Facts) -> bool {
    let protocol = facts.metadata.get("protocol");
    protocol.is_some_and(|protocol| ["h2", "h2c", "grpc"].iter().any(|name| name.eq_ignore_ascii_case(protocol.trim())))
}

fn set_http2(peer: &mut HttpPeer) {
    peer.options.set_http_version(2, 2);
    peer.options.max_h2_streams = HTTP2_STREAMS;
    peer.options.h2_stream_window_size = Some(HTTP2_STREAM_WINDOW);
    peer.options.h2_connection_window_size = Some(HTTP2_CONNECTION_WINDOW);
    // HTTP/2 has pings for this, but servers take them for an attack when they come more often than every few minutes.
    peer.options.tcp_keepalive = Some(TcpKeepalive {
        idle: Duration::from_secs(15),
        interval: Duration::from_secs(5),
        count: 3,
        user_timeout: Duration::from_secs(30),
    });
}

/// Asks for an upgrade, which only HTTP/1.1 has; what speaks HTTP/2 usually understands that, too.
pub fn set_http1(peer: &mut HttpPeer) {
    peer.options.set_http_version(1, 1);
}

/// Whether requests share the connection to the instance.
#[must_use]
pub fn is_shared(peer: &HttpPeer) -> bool {
    peer.options.alpn.get_min_http_version() == 2
}

/// How long Pingora waits for the connection. For bytes of an answer it waits as long as `proxy::watch` lets it, which knows
/// whether the instance's turn has come, and ends the attempt; a bound of Pingora's own would cost a timer for each read.
pub fn set_timeouts(peer: &mut HttpPeer, timeouts: &Timeouts) {
    let handshakes = if peer.is_tls() { 3 } else { 1 };
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect * handshakes);
    peer.options.read_timeout = None;
}

/// Bounds what the connection may take by what is left of the whole request.
pub fn connect_by(peer: &mut HttpPeer, left: Duration) {
    let left = left.max(Duration::from_millis(1));
    let options = &mut peer.options;
    options.connection_timeout = options.connection_timeout.map(|usual| usual.min(left));
    options.total_connection_timeout = options.total_connection_timeout.map(|usual| usual.min(left));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite::facts;
    use vertice_core::endpoint::Endpoint;

    #[test]
    fn a_service_is_plain_when_all_who_take_traffic_are() {
        let hung = Hung { metrics: Arc::new(Metrics::new().unwrap()), naming: NamingKey::new(None) };
        let upstream = |endpoint: &str, protocol: &str| {
            let mut facts = facts("service-a", "a", 1);
            facts.endpoint = Endpoint::parse(endpoint).unwrap();
            facts.metadata.insert("protocol".to_owned(), protocol.to_owned());
            let x = hung.instance(&facts, &[], &Policy::default());
            let (facts, addresses, cells) = (Arc::new(facts), Arc::default(), Arc::default());
            Arc::new(Upstream { facts, addresses, cells, is_draining: false, is_leaving: false, token: 0, x })
        };
        let (plain, tls, h2) =
            (upstream("http://10.0.0.1:80", ""), upstream("https://10.0.0.2", ""), upstream("http://10.0.0.3:80", "H2C"));
        let name = plain.facts.service.clone();
        let is_plain = |usable: &[&Arc<Upstream>]| {
            let usable: Vec<_> = usable.iter().map(|upstream| Arc::clone(upstream)).collect();
            let before = hung.service(&name, &[], None);
            hung.service(&name, &usable, Some(&before)).is_plain
        };
        assert!(is_plain(&[&plain]) && is_plain(&[&plain, &plain]));
        assert!(!is_plain(&[&plain, &tls]) && !is_plain(&[&h2, &plain]) && !is_plain(&[&tls]));
    }
}
