//! One request of an HTTP/2 connection, as Pingora gets to see it.
//!
//! Pingora's own session waits for the request's body for ever, and tells nobody when the client takes a request back. This
//! one is the same but for that. It is one of Pingora's custom sessions, which for its proxy differ from HTTP/2 in one
//! thing: the request's authority is what `Host` says, and that has been checked by then.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::http::v2::server::HttpSession;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, OrErr, Result};
use tokio::time::timeout;
use vertice_core::pace::PaceLimit;

use super::http2::Streams;
use super::pacing::{Pacing, is_slow_body};
use crate::leash::Leash;

/// See the module.
pub(super) struct RequestStream {
    inner: HttpSession,
    streams: Arc<Streams>,
    leash: Arc<Leash>,
    /// How long the body may stall.
    read_timeout: Option<Duration>,
    pacing: Option<Pacing>,
}

impl RequestStream {
    pub(super) fn new(inner: HttpSession, streams: Arc<Streams>, pace: Option<PaceLimit>, leash: Arc<Leash>) -> Self {
        // A gRPC client may think before it says the next thing, and an instance before it answers the first.
        let pace = pace.filter(|_| !is_grpc(&inner.req_header().headers));
        Self { inner, streams, leash, read_timeout: None, pacing: pace.map(Pacing::new) }
    }

    /// The rest of the body, piece by piece. Until there is an answer the client has to send it in time; once there is one,
    /// both sides speak when they want.
    async fn read(&mut self) -> Result<Option<Bytes>> {
        let Some(patience) = self.read_timeout.filter(|_| self.inner.response_written().is_none()) else {
            return self.inner.read_body_bytes().await;
        };
        if let Some(pacing) = &mut self.pacing {
            pacing.wait();
        }
        let Ok(read) = timeout(patience, self.inner.read_body_bytes()).await else {
            return Error::e_explain(ErrorType::ReadTimedout, "the request's body stalls");
        };
        let bytes = read?;
        if let (Some(pacing), Some(bytes)) = (&mut self.pacing, &bytes) {
            pacing.came(bytes.len()).or_err(ErrorType::ReadError, "reading the request's body")?;
        }
        Ok(bytes)
    }

    /// Waits for the client to take the request back, or to leave.
    async fn departure(&mut self) -> Result<Option<Bytes>> {
        let departed = self.inner.read_body_or_idle(true).await;
        departed.map_err(|error| Error::because(ErrorType::ConnectionClosed, "the client took the request back", error))
    }

    /// What reading brings, unless the leash is pulled before.
    async fn unless_cut(&mut self, is_body_over: bool) -> Result<Option<Bytes>> {
        let leash = self.leash.clone();
        tokio::select! {
            biased;
            cut = poll_fn(|cx| leash.poll_pulled(cx)) => Err(io::Error::from(cut)).or_err(ErrorType::ReadError, "reading"),
            read = async { if is_body_over { self.departure().await } else { self.read().await } } => {
                if read.as_ref().is_err_and(|error| *error.etype() != ErrorType::ReadTimedout && !is_slow_body(error)) {
                    self.streams.note_reset();
                }
                read
            }
        }
    }
}

/// Whether a request over HTTP/2 is gRPC: a stream of messages in both directions, and no body that is sent as fast as can be.
#[must_use]
pub fn is_grpc(fields: &HeaderMap) -> bool {
    let kind = fields.get(http::header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let rest = kind.get(..16).filter(|start| start.eq_ignore_ascii_case(b"application/grpc")).map(|_| &kind[16..]);
    // gRPC-Web is another protocol.
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

#[async_trait]
impl Session for RequestStream {
    fn req_header(&self) -> &RequestHeader {
        self.inner.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.inner.req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.unless_cut(false).await
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        let is_body_over = no_body_expected || self.inner.is_body_done();
        self.unless_cut(is_body_over).await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.inner.drain_request_body().await
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.inner.write_response_header(head, end)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.inner.write_response_header_ref(head, end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.leash.set_writing(true);
        let written = self.inner.write_body(data, end).await;
        self.leash.set_writing(false);
        written
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.inner.write_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        self.leash.set_writing(true);
        let written = self.inner.response_duplex_vec(tasks).await;
        self.leash.set_writing(false);
        written
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.inner.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.inner.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.inner.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.inner.response_written()
    }

    async fn shutdown(&mut self, _code: u32, _context: &str) {
        self.inner.shutdown();
    }

    fn is_body_done(&mut self) -> bool {
        self.inner.is_body_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.inner.finish()
    }

    fn is_body_empty(&mut self) -> bool {
        self.inner.is_body_empty()
    }

    fn body_bytes_sent(&self) -> usize {
        self.inner.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.inner.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.inner.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.inner.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.inner.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.inner.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.inner.pseudo_raw_h1_request_header()
    }

    fn enable_retry_buffering(&mut self) {
        self.inner.enable_retry_buffering();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.inner.retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.inner.get_retry_buffer()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(&mut self) -> Option<MessageReader> {
        None
    }

    fn restore_custom_message_reader(&mut self, _reader: MessageReader) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}

/// Of a feature that HTTP/2 has not.
type MessageReader = Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn grpc_is_told_from_its_neighbours() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC; x=y", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
            ("application/grp", false),
        ] {
            let fields = HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(is_grpc(&fields), expected, "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
