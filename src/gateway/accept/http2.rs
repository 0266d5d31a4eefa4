//! The loop over the streams of one HTTP/2 connection.
//!
//! Pingora has such a loop, too, but it waits for the client's preface for ever, gives each connection one in-flight count
//! however many requests it carries, and does not notice a client that begins requests only to take them back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use h2::Reason as Code;
use h2::server::{Builder, Connection};
use http::header::{COOKIE, HOST};
use http::{HeaderValue, Response};
use pingora::apps::HttpServerApp;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Accept, HttpSession, default_h2_options, handshake};
use pingora::protocols::{Digest, Stream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::app::AcceptApp;
use super::decoded::Decoded;
use super::express::ExpressLane;
use super::head::Refusal;
use super::request_stream::RequestStream;
use crate::leash::Leash;

/// How much of one request's body is taken before somebody reads it.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;

/// The same for all requests of a connection together, which bounds what a connection can make us hold.
const CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;

/// How much of one answer is held for a client that does not take it.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Streams that the client has reset before we even looked at them.
const RESETS_PENDING_MAX: usize = 20;

/// Streams that we had to reset because the client broke the protocol.
const RESETS_OWN_MAX: usize = 128;

/// Requests of one connection that may be refused before it is closed.
const REFUSALS_MAX: usize = 32;

/// How long a client may take to close a connection that carries nothing any more, once it was told to.
const FAREWELL: Duration = Duration::from_secs(1);

/// Over what time requests that a client takes back are counted.
const RESETS_WINDOW: Duration = Duration::from_secs(1);

/// What one HTTP/2 connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Limits {
    /// Requests under way at once.
    pub streams_max: u32,
    /// Requests taken back within a second.
    pub resets_max: u32,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self { streams_max: 100, resets_max: 200 }
    }
}

/// The requests of a connection that are under way, and those that were taken back.
#[derive(Debug, Default)]
pub(super) struct Streams {
    under_way: AtomicUsize,
    resets: AtomicUsize,
    /// Told when a request ends, and when one is taken back.
    changed: Notify,
}

impl Streams {
    /// The client has taken a request back.
    pub(super) fn note_reset(&self) {
        self.resets.fetch_add(1, SeqCst);
        self.changed.notify_one();
    }

    /// A request that is taken back makes room for the next one at once, but nobody notices before its body is read, for which
    /// there must be an instance. Those that are left behind like that are bounded here.
    fn are_too_many(&self, told: &Http2Limits) -> bool {
        self.under_way.load(SeqCst) > (told.streams_max as usize).saturating_add(told.resets_max as usize)
    }

    async fn idle(&self, patience: Duration) {
        while self.under_way.load(SeqCst) != 0 {
            self.changed.notified().await;
        }
        sleep(patience).await;
    }
}

/// One request under way.
struct UnderWay(Arc<Streams>);

impl UnderWay {
    fn begin(streams: &Arc<Streams>) -> Self {
        streams.under_way.fetch_add(1, SeqCst);
        Self(streams.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, SeqCst);
        self.0.changed.notify_one();
    }
}

/// How often something may happen within a [`RESETS_WINDOW`].
struct Rate {
    began: Instant,
    before: usize,
}

impl Rate {
    fn is_exceeded(&mut self, total: usize, max: u32) -> bool {
        if self.began.elapsed() > RESETS_WINDOW {
            (self.began, self.before) = (Instant::now(), total);
        }
        total - self.before > max as usize
    }
}

impl<P: HttpServerApp + Send + Sync + 'static, L: ExpressLane> AcceptApp<P, L> {
    /// The requests of one HTTP/2 connection, side by side.
    pub(super) async fn streams(self: &Arc<Self>, stream: Stream) {
        let digest = Arc::new(Digest {
            ssl_digest: stream.get_ssl_digest(),
            timing_digest: stream.get_timing_digest(),
            proxy_digest: stream.get_proxy_digest(),
            socket_digest: stream.get_socket_digest(),
        });
        let told = self.settings().h2;
        let beginning = timeout(self.settings().head_deadline, handshake(stream, Some(self.h2_options())));
        let Ok(Ok(connection)) = beginning.await else { return };
        self.serve_streams(connection, digest, told).await;
    }

    /// `told` is what the client was told that it may do.
    async fn serve_streams(
        self: &Arc<Self>,
        mut connection: Connection<Stream, bytes::Bytes>,
        digest: Arc<Digest>,
        told: Http2Limits,
    ) {
        let streams = Arc::<Streams>::default();
        let mut resets = Rate { began: Instant::now(), before: 0 };
        let (mut draining, mut is_over, mut refusals) = (self.draining().clone(), false, 0);
        loop {
            let patience = if is_over { FAREWELL } else { self.settings().idle_keepalive };
            let accepted = tokio::select! {
                biased;
                () = async { let _ = draining.wait_for(|draining| *draining).await; }, if !is_over => {
                    connection.graceful_shutdown();
                    is_over = true;
                    continue;
                }
                // Also moves the bytes of all streams; nothing is lost when it is given up.
                accepted = HttpSession::from_h2_conn(&mut connection, digest.clone()) => accepted,
                () = streams.idle(patience) => {
                    if is_over {
                        return;
                    }
                    connection.graceful_shutdown();
                    is_over = true;
                    continue;
                }
            };
            let refused = match accepted {
                Ok(Some(H2Accept::Session(session))) => self.begin(session, &streams),
                Ok(Some(H2Accept::Rejected)) => true,
                Ok(None) | Err(_) => return,
            };
            refusals += usize::from(refused);
            let resets_over = resets.is_exceeded(streams.resets.load(SeqCst), self.settings().h2.resets_max);
            if resets_over || streams.are_too_many(&told) || refusals > REFUSALS_MAX {
                self.observer().limit_hit(if refusals > REFUSALS_MAX { "h2_refusals" } else { "h2_resets" });
                connection.abrupt_shutdown(Code::ENHANCE_YOUR_CALM);
                // Only sends what is to be sent; a client that does not take it is left.
                let _ = timeout(FAREWELL, connection.accept()).await;
                return;
            }
        }
    }

    /// Starts a request, or refuses it. `true` when it was refused.
    fn begin(self: &Arc<Self>, mut session: HttpSession, streams: &Arc<Streams>) -> bool {
        let under_way = UnderWay::begin(streams);
        if let Some(cookie) = cookie_of_crumbs(&session)
            && session.req_header_mut().insert_header(COOKIE, cookie).is_err()
        {
            return true;
        }
        let head = session.req_header();
        let decoded = Decoded { method: &head.method, path: head.raw_path(), uri: &head.uri, fields: &head.headers };
        if let Err(refusal) = decoded.check(&self.settings().limits) {
            let app = self.clone();
            tokio::spawn(async move { app.refuse_stream(session, refusal, under_way).await });
            return true;
        }
        if let Some(host) = host_of_authority(&session) {
            // Everything behind the room looks for the host in one place.
            let inserted = session.req_header_mut().insert_header(HOST, host);
            if inserted.is_err() {
                return true;
            }
        }
        let (app, streams) = (self.clone(), streams.clone());
        tokio::spawn(async move {
            let _under_way = under_way;
            let _in_flight = app.drain().enter();
            let leash = Arc::<Leash>::default();
            let session = RequestStream::new(session, streams, app.settings().body_pace, leash.clone());
            let session = ServerSession::new_custom(Box::new(session));
            leash.hold(app.proxy().process_new_http(session, app.draining())).await;
        });
        false
    }

    async fn refuse_stream(&self, mut session: HttpSession, refusal: Refusal, _under_way: UnderWay) {
        let client = session.client_addr().and_then(|address| address.as_inet()).copied();
        let answer = self.observer().refused_stream(&refusal, client);
        session.set_write_timeout(Some(FAREWELL));
        // A client that does not take its refusal has none.
        let _ = write_answer(&mut session, answer).await;
    }

    fn h2_options(&self) -> Builder {
        let settings = self.settings();
        let mut options = default_h2_options();
        options
            .max_concurrent_streams(settings.h2.streams_max)
            .max_header_list_size(u32::try_from(settings.limits.head_bytes).unwrap_or(u32::MAX))
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
            .max_local_error_reset_streams(Some(RESETS_OWN_MAX));
        options
    }
}

/// The cookie of a request that brings it in several fields, as HTTP/2 lets clients do and nobody else (RFC 9113 §8.2.3).
fn cookie_of_crumbs(session: &HttpSession) -> Option<HeaderValue> {
    let crumbs: Vec<&[u8]> = session.req_header().headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    (crumbs.len() > 1).then(|| HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).ok())?
}

/// The `Host` that a request without one has by its `:authority`.
fn host_of_authority(session: &HttpSession) -> Option<HeaderValue> {
    let head = session.req_header();
    let authority = head.uri.authority().filter(|_| !head.headers.contains_key(HOST))?;
    HeaderValue::from_str(authority.as_str()).ok()
}

async fn write_answer(session: &mut HttpSession, answer: Response<bytes::Bytes>) -> pingora::Result<()> {
    let (parts, body) = answer.into_parts();
    let mut head = ResponseHeader::build(parts.status, Some(parts.headers.len()))?;
    for (name, value) in &parts.headers {
        head.append_header(name.clone(), value.clone())?;
    }
    session.write_response_header(Box::new(head), false)?;
    session.write_body(body, true).await
}
