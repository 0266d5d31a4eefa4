//! Health checks over HTTP.

use crate::upstream::Upstream;
use parking_lot::Mutex;
use pingora::connectors::http::v1::Connector;
use pingora::http::RequestHeader;
use std::sync::Arc;
use std::time::Duration;

/// Asks instances whether they are well.
pub struct Prober {
    connector: Connector,
    timeout: Mutex<Duration>,
}

impl Prober {
    /// A prober that waits at most `timeout` for an answer's head.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self { connector: Connector::new(None), timeout: Mutex::new(timeout) }
    }

    /// Waits so long from now on.
    pub fn set_timeout(&self, timeout: Duration) {
        *self.timeout.lock() = timeout;
    }

    /// The status of the instance's health endpoint; `None` when there was no answer in time. Each probe makes a connection
    /// of its own: whether one can be made is part of the question.
    pub async fn probe(&self, upstream: &Arc<Upstream>) -> Option<u16> {
        let timeout = *self.timeout.lock();
        let result = tokio::time::timeout(timeout, self.ask(upstream, timeout)).await;
        result.ok()?.map_err(|error| tracing::debug!(%error, "health check failed")).ok()
    }

    async fn ask(&self, upstream: &Upstream, timeout: Duration) -> pingora::Result<u16> {
        let at = upstream.cells.address.first(upstream.addresses.len());
        let Some(peer) = upstream.x.peers.get(at) else {
            return pingora::Error::e_explain(pingora::ErrorType::ConnectError, "no address");
        };
        let (mut session, _) = self.connector.get_http_session(peer).await?;
        session.read_timeout = Some(timeout);
        let path = format!("{}{}", upstream.facts.endpoint.prefix(), upstream.facts.health_endpoint);
        let mut request = RequestHeader::build("GET", path.as_bytes(), Some(4))?;
        if let Some(host) = &upstream.x.host {
            request.insert_header("host", host.clone())?;
        }
        request.insert_header("user-agent", concat!("vertice-gateway/", env!("CARGO_PKG_VERSION")))?;
        request.insert_header("accept", "*/*")?;
        request.insert_header("connection", "close")?;
        session.write_request_header(Box::new(request)).await?;
        session.read_response().await?;
        let status = session.resp_header().map_or(0, |head| head.status.as_u16());
        session.shutdown().await;
        Ok(status)
    }
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prober").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
