//! Pingora's pooled connections, before a request is put on one that can be sent only once: see [`crate::proxy::pooled`].

use crate::proxy::pooled;
use crate::proxy::watch::Line;
use pingora::protocols::Digest;
use pingora::proxy::Session;
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, ErrorType, RetryType};
use std::os::fd::RawFd;

/// Whether the request cannot be sent again for sure.
pub(super) fn is_sent_once(session: &mut Session) -> bool {
    let has_body = !session.is_body_empty();
    pooled::is_sent_once(&session.req_header().method, has_body)
}

/// Whether the connection is one that the instance has closed, or may close at any moment. HTTP/2 announces its ends and is not
/// asked.
pub(super) fn is_spent(peer: &HttpPeer, digest: Option<&Digest>) -> bool {
    if peer.get_alpn().is_some_and(|alpn| alpn.get_max_http_version() > 1) {
        return false;
    }
    let socket = digest.and_then(|digest| digest.socket_digest.as_ref());
    let info = socket.and_then(|socket| socket.tcp_info());
    info.is_some_and(|info| pooled::is_spent(info.tcpi_state, info.tcpi_last_data_recv, peer.idle_timeout()))
}

/// How the watch finds the connection again. Its addresses are asked for once, when it is new; the pool keeps them.
pub(super) fn line(fd: RawFd, digest: Option<&Digest>) -> Option<Line> {
    let socket = digest?.socket_digest.as_ref().filter(|_| fd >= 0)?;
    Some(Line { fd, local: *socket.local_addr()?.as_inet()?, peer: *socket.peer_addr()?.as_inet()? })
}

/// The error that has another connection made.
pub(super) fn spent() -> Box<Error> {
    let mut error = Error::explain(ErrorType::ConnectionClosed, "the pooled connection was idle for too long").into_up();
    error.retry = RetryType::Decided(true);
    error
}
