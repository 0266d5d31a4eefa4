//! What the accept room tells: refusals before a request became one, and connections.

use crate::accept::{AcceptObserver, Refusal};
use crate::clock;
use crate::problem;
use crate::request_id::RequestId;
use crate::telemetry::access::{AccessLog, Entry};
use crate::telemetry::metrics::Metrics;
use bytes::Bytes;
use http::Response;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use vertice_core::reason::Reason;

/// Counts, logs and words the refusals.
#[derive(Debug)]
pub struct Observer {
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Access log.
    pub access: AccessLog,
}

impl AcceptObserver for Observer {
    fn refused(&self, refusal: &Refusal, client: Option<SocketAddr>) -> Bytes {
        let (id, time_ms) = self.note(refusal, client);
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(time_ms));
        problem::wire(&answer(refusal, &id), true, true, &date).into()
    }

    fn refused_stream(&self, refusal: &Refusal, client: Option<SocketAddr>) -> Response<Bytes> {
        let (id, _) = self.note(refusal, client);
        answer(refusal, &id)
    }

    fn limit_hit(&self, limit: &'static str) {
        self.metrics.limit_hit(limit);
    }

    fn connection_opened(&self) {
        self.metrics.connections.inc();
    }

    fn connection_closed(&self) {
        self.metrics.connections.dec();
    }
}

fn answer(refusal: &Refusal, id: &RequestId) -> Response<Bytes> {
    problem::response(refusal.reason, refusal.detail, refusal.reason.retry_after_s(), id, Vec::new())
}

impl Observer {
    /// Counts and logs a refusal. Its id, and when it was.
    fn note(&self, refusal: &Refusal, client: Option<SocketAddr>) -> (RequestId, u64) {
        self.metrics.answered(refusal.reason);
        match refusal.reason {
            Reason::RequestTimeout => self.metrics.limit_hit("head_deadline"),
            Reason::UriTooLong => self.metrics.limit_hit("uri_bytes"),
            Reason::HeadersTooLarge => self.metrics.limit_hit("head_size"),
            _ => {}
        }
        let (id, time_ms) = (RequestId::random(), clock::wall_ms());
        self.access.write(&Entry {
            time_ms,
            method: "-",
            path: b"-",
            version: "-",
            status: refusal.reason.status(),
            client: client.map(|client| client.ip().to_canonical()),
            bytes: 0,
            duration_us: 0,
            service: "",
            route: "",
            instance: "",
            retries: 0,
            watch: "",
            reason: refusal.reason.as_str(),
            request_id: id.as_str(),
            user_agent: b"",
            traceparent: b"",
        });
        (id, time_ms)
    }
}
