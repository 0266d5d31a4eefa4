//! Health checks over HTTP.

use crate::upstream::Upstream;
use parking_lot::Mutex;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::{OrErr, Result};
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

    async fn ask(&self, upstream: &Upstream, timeout: Duration) -> Result<u16> {
        let at = upstream.cells.address.first(upstream.addresses.len());
        let Some(peer) = upstream.x.peers.get(at) else {
            return pingora::Error::e_explain(pingora::ErrorType::ConnectError, "no address");
        };
        let mut peer = peer.clone();
        // With HTTP/2, one that has no room for others is shared with nobody.
        peer.options.max_h2_streams = 1;
        let (mut session, _): (HttpSession, _) = self.connector.get_http_session(&peer).await?;
        session.set_read_timeout(Some(timeout));
        match &mut session {
            HttpSession::H2(session) => session.write_request_header(Box::new(shared_head(upstream, peer.is_tls())?), true)?,
            session => session.write_request_header(Box::new(head(upstream)?)).await?,
        }
        session.read_response_header().await?;
        let status = session.response_header().map_or(0, |head| head.status.as_u16());
        session.shutdown().await;
        Ok(status)
    }
}

fn path(upstream: &Upstream) -> String {
    format!("{}{}", upstream.facts.endpoint.prefix(), upstream.facts.health_endpoint)
}

fn head(upstream: &Upstream) -> Result<RequestHeader> {
    let mut request = RequestHeader::build("GET", path(upstream).as_bytes(), Some(4))?;
    if let Some(host) = &upstream.x.host {
        request.insert_header("host", host.clone())?;
    }
    request.insert_header("user-agent", concat!("vertice-gateway/", env!("CARGO_PKG_VERSION")))?;
    request.insert_header("accept", "*/*")?;
    request.insert_header("connection", "close")?;
    Ok(request)
}

/// The same for HTTP/2, where the host is in the target and nothing is said of the connection.
fn shared_head(upstream: &Upstream, is_tls: bool) -> Result<RequestHeader> {
    let mut request = head(upstream)?;
    request.remove_header("host");
    request.remove_header("connection");
    let target = http::Uri::builder()
        .scheme(if is_tls { "https" } else { "http" })
        .authority(upstream.facts.endpoint.authority())
        .path_and_query(path(upstream));
    request.set_uri(target.build().or_err(pingora::ErrorType::InvalidHTTPHeader, "no target of HTTP/2")?);
    Ok(request)
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prober").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
