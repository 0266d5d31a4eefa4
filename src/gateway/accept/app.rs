//! The loop over the requests of one connection.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::Response;
use ipnet::IpNet;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::{ALPN, Stream};
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use vertice_core::pace::PaceLimit;
use vertice_core::reason::Reason;

use super::crowd::Full;
use super::drain::{Drain, InFlightGuard};
use super::gate::{Gate, Home};
use super::head::{Head, HeadLimits, HeadReader, Refusal, Verdict};
use super::http2::Http2Limits;
use super::tls::Tls;
use crate::leash::Leash;

/// How long a refused client is listened to after its answer, and how long writing that answer may take.
const LINGER: Duration = Duration::from_secs(1);

/// How long a connection that was made before the listeners closed may take to its first request: a client that has just
/// connected is about to ask.
const FIRST_WORD: Duration = Duration::from_millis(500);

/// How much of a refused client is listened to.
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a client may cost before its request is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptSettings {
    /// Limits of the request head.
    pub limits: HeadLimits,
    /// From the first byte of a head to its last.
    pub head_deadline: Duration,
    /// How long a connection may be silent before and between requests.
    pub idle_keepalive: Duration,
    /// Client connections on all listeners that share the [`Drain`].
    pub connections_max: usize,
    /// Connections from one address, or from one /64 of IPv6.
    pub connections_per_client: Option<usize>,
    /// Peers that speak for many clients, and so are not held to [`Self::connections_per_client`].
    pub proxies: Arc<[IpNet]>,
    /// Requests on one connection, after which it is closed.
    pub requests_per_connection: Option<u32>,
    /// How old a connection may be: the answer to a request that comes later is its last one.
    pub connection_age: Option<Duration>,
    /// How fast a request's body must come.
    pub body_pace: Option<PaceLimit>,
    /// How long a TLS handshake may take.
    pub tls_handshake: Duration,
    /// Limits of an HTTP/2 connection.
    pub h2: Http2Limits,
}

/// What a listener speaks.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// HTTP/1.
    Plain,
    /// HTTP/2 from the first byte on.
    H2c,
    /// TLS, and inside it what the client chooses.
    Tls(Tls),
}

impl Default for AcceptSettings {
    fn default() -> Self {
        Self {
            limits: HeadLimits::default(),
            head_deadline: Duration::from_secs(10),
            idle_keepalive: Duration::from_secs(75),
            connections_max: 65_536,
            connections_per_client: None,
            proxies: Arc::default(),
            requests_per_connection: None,
            connection_age: None,
            body_pace: None,
            tls_handshake: Duration::from_secs(10),
            h2: Http2Limits::default(),
        }
    }
}

/// What the accept room tells the rest of the gateway.
pub trait AcceptObserver: Send + Sync {
    /// A request was refused before it reached a lane. Returns the whole answer, status line and all, which must say
    /// `Connection: close` and carry its `Content-Length`.
    fn refused(&self, refusal: &Refusal, client: Option<SocketAddr>) -> Bytes;

    /// The same for a request of an HTTP/2 connection, which goes on.
    fn refused_stream(&self, refusal: &Refusal, client: Option<SocketAddr>) -> Response<Bytes>;

    /// A client ran into the limit of that name.
    fn limit_hit(&self, limit: &'static str) {
        let _ = limit;
    }

    /// A client has connected.
    fn connection_opened(&self) {}

    /// A client's connection has ended.
    fn connection_closed(&self) {}

    /// What `ProxyHttp::on_connection_reuse` is given for the first request of a connection. Later requests get what
    /// `persist_connection_context` left behind.
    fn connection_context(&self, client: Option<SocketAddr>) -> Option<Box<dyn Any + Send + Sync>> {
        let _ = client;
        None
    }
}

/// Reads and checks each request head, then hands the request to `P`, Pingora's HTTP proxy. A clone is the same app.
pub struct AcceptApp<P> {
    proxy: Arc<P>,
    /// Those of now: each turn of each connection looks at them afresh.
    settings: Arc<ArcSwap<AcceptSettings>>,
    drain: Arc<Drain>,
    /// True while draining; Pingora's proxy closes each connection after its answer then.
    draining: ShutdownWatch,
    observer: Arc<dyn AcceptObserver>,
    protocol: Protocol,
}

impl<P> Clone for AcceptApp<P> {
    fn clone(&self) -> Self {
        Self {
            proxy: self.proxy.clone(),
            settings: self.settings.clone(),
            drain: self.drain.clone(),
            draining: self.draining.clone(),
            observer: self.observer.clone(),
            protocol: self.protocol.clone(),
        }
    }
}

/// When a connection that has no request under way is given up, the limit on its silence aside.
struct IdleEnd {
    /// Turns true.
    over: ShutdownWatch,
    /// So long after that.
    patience: Duration,
}

impl IdleEnd {
    async fn wait(&mut self) {
        // An error means that the drain is gone, which the app itself prevents.
        let _ = self.over.wait_for(|over| *over).await;
        if !self.patience.is_zero() {
            sleep(self.patience).await;
        }
    }
}

/// What to do with a connection next.
enum Turn<'a> {
    Serve(Head, InFlightGuard<'a>),
    Refuse(Refusal, InFlightGuard<'a>),
    Close,
}

impl<P> AcceptApp<P> {
    /// An app in front of `proxy`. Apps that share `drain` share its end and its count of connections.
    #[must_use]
    pub fn new(proxy: Arc<P>, settings: AcceptSettings, drain: Arc<Drain>, observer: Arc<dyn AcceptObserver>) -> Self {
        let draining = drain.draining_watch();
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        Self { proxy, settings, drain, draining, observer, protocol: Protocol::Plain }
    }

    /// The same app for listeners that speak `protocol`.
    #[must_use]
    pub fn speaking(&self, protocol: Protocol) -> Self {
        Self { protocol, ..self.clone() }
    }

    pub(super) fn proxy(&self) -> &Arc<P> {
        &self.proxy
    }

    /// As they are now.
    pub(super) fn settings(&self) -> arc_swap::Guard<Arc<AcceptSettings>> {
        self.settings.load()
    }

    /// What it was configured with, to be replaced while it serves.
    #[must_use]
    pub const fn replaceable_settings(&self) -> &Arc<ArcSwap<AcceptSettings>> {
        &self.settings
    }

    pub(super) fn drain(&self) -> &Arc<Drain> {
        &self.drain
    }

    pub(super) fn draining(&self) -> &ShutdownWatch {
        &self.draining
    }

    pub(super) fn observer(&self) -> &dyn AcceptObserver {
        &*self.observer
    }

    /// Waits for the next request, until `idle_end`, and reads its head.
    async fn next_turn(&self, gate: &mut Gate, idle_end: &mut IdleEnd) -> Turn<'_> {
        if gate.ahead().is_empty() && !self.first_byte(gate, idle_end).await {
            return Turn::Close;
        }
        let in_flight = self.drain.enter();
        let deadline = Instant::now() + self.settings().head_deadline;
        let mut reader = HeadReader::new(self.settings().limits);
        loop {
            match reader.advance(gate.ahead()) {
                Verdict::Complete(head) => return Turn::Serve(head, in_flight),
                Verdict::Refused(refusal) => return Turn::Refuse(refusal, in_flight),
                Verdict::NeedMore => {}
            }
            match timeout_at(deadline, gate.read_ahead()).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false) | Err(_)) => return Turn::Close,
                Err(_) => return Turn::Refuse(HEAD_TOO_SLOW, in_flight),
            }
        }
    }

    /// Waits for the first byte of a request. `false` when the connection is to be closed without a word.
    async fn first_byte(&self, gate: &mut Gate, idle_end: &mut IdleEnd) -> bool {
        let idle = self.settings().idle_keepalive;
        tokio::select! {
            // Bytes that are there already win: a request that crossed our decision to stop is still served.
            biased;
            read = timeout(idle, gate.read_ahead()) => matches!(read, Ok(Ok(true))),
            () = idle_end.wait() => false,
        }
    }

    /// The address whose connections are counted, and how many it may have.
    fn share_of(&self, client: Option<SocketAddr>) -> Option<(IpAddr, usize)> {
        let settings = self.settings();
        let (address, max) = (client?.ip().to_canonical(), settings.connections_per_client?);
        let is_proxy = settings.proxies.iter().any(|network| network.contains(&address));
        (!is_proxy).then_some((address, max))
    }

    /// Tells a client that there is no place for it, unless too many are being told already.
    async fn turn_away(&self, stream: Stream, full: Full, speaks_http2: bool) {
        let (limit, refusal) = match full {
            Full::Gateway => ("connections", TOO_MANY_CONNECTIONS),
            Full::Client => ("connections_per_client", TOO_MANY_OF_ONE),
        };
        self.observer.limit_hit(limit);
        // An answer in HTTP/1.1 means nothing to a client that was promised HTTP/2.
        let Some(_leaving) = self.drain.crowd().tell_off().filter(|_| !speaks_http2) else { return };
        self.refuse(stream, refusal).await;
    }

    async fn refuse(&self, stream: Stream, refusal: Refusal) {
        let client = client_of(&stream);
        let answer = self.observer.refused(&refusal, client);
        let mut stream = stream;
        let written = timeout(LINGER, async {
            stream.write_all(&answer).await?;
            stream.flush().await
        });
        if matches!(written.await, Ok(Ok(()))) {
            linger(stream).await;
        }
    }
}

impl<P: HttpServerApp + Send + Sync + 'static> AcceptApp<P> {
    /// The requests of one HTTP/1 connection, one after the other.
    async fn requests(&self, stream: Stream, client: Option<SocketAddr>) {
        let home = Home::default();
        let old_at = self.settings().connection_age.and_then(|age| Instant::now().checked_add(age));
        let mut gate = Box::new(Gate::new(stream, home.clone()));
        let mut kept: Option<HttpPersistentSettings> = None;
        // One that has not been used yet is kept while we listen, and a moment longer: to a load balancer that has not heard
        // of the drain, it is a request on its way.
        let mut idle_end = IdleEnd { over: self.drain.listening_over_watch(), patience: FIRST_WORD };
        let mut first = true;
        loop {
            let (head, _in_flight) = match self.next_turn(&mut gate, &mut idle_end).await {
                Turn::Serve(head, in_flight) => (head, in_flight),
                Turn::Refuse(refusal, _in_flight) => {
                    if let Some(stream) = gate.take_stream() {
                        self.refuse(stream, refusal).await;
                    }
                    return;
                }
                Turn::Close => return,
            };
            let leash = Arc::<Leash>::default();
            let mut session = self.session(gate, &head, kept, client, leash.clone());
            if old_at.is_some_and(|at| Instant::now() >= at) {
                session.set_keepalive_reuses_remaining(Some(0));
            }
            // On the heap, and so gone while the connection idles: it is most of what a connection takes.
            let returned = leash.hold(Box::pin(self.proxy.process_new_http(session, &self.draining))).await;
            let Some((stream, settings)) = returned.map(|returned| returned.consume()) else {
                if let Some(stream) = home.take() {
                    linger(stream).await;
                }
                return;
            };
            let Some(same) = Gate::from_stream(stream).filter(|gate| gate.at_boundary()) else { return };
            (gate, kept) = (same, settings);
            if first {
                (first, idle_end) = (false, IdleEnd { over: self.draining.clone(), patience: Duration::ZERO });
            }
        }
    }

    /// A session that finds exactly one request: its head as already read bytes, its body behind the gate.
    fn session(
        &self,
        mut gate: Box<Gate>,
        head: &Head,
        kept: Option<HttpPersistentSettings>,
        client: Option<SocketAddr>,
        leash: Arc<Leash>,
    ) -> ServerSession {
        let bytes = gate.open_for(head, self.settings().body_pace, leash);
        let mut session = ServerSession::new_http1(gate);
        match kept {
            Some(settings) => settings.apply_to_session(&mut session),
            None => {
                let more_requests = self.settings().requests_per_connection.map(|requests| requests.saturating_sub(1));
                session.set_keepalive_reuses_remaining(more_requests);
                session.set_connection_user_context(self.observer.connection_context(client));
            }
        }
        session.set_pipelined_prefix(bytes);
        session
    }
}

#[async_trait]
impl<P: HttpServerApp + Send + Sync + 'static> ServerApp for AcceptApp<P> {
    async fn process_new(self: &Arc<Self>, stream: Stream, _shutdown: &ShutdownWatch) -> Option<Stream> {
        let _connection = self.drain.connect();
        let _told = Told::new(&*self.observer);
        let client = client_of(&stream);
        match self.drain.crowd().admit(self.settings().connections_max, self.share_of(client)) {
            Err(full) => self.turn_away(stream, full, !matches!(self.protocol, Protocol::Plain)).await,
            Ok(_place) => {
                if let Some(stream) = self.secured(stream).await {
                    self.converse(stream, client).await;
                }
            }
        }
        None
    }
}

impl<P: HttpServerApp + Send + Sync + 'static> AcceptApp<P> {
    /// The connection, with TLS where the listener asks for it; nothing when the client has not shaken hands.
    async fn secured(&self, stream: Stream) -> Option<Stream> {
        let Protocol::Tls(tls) = &self.protocol else { return Some(stream) };
        let patience = self.settings().tls_handshake;
        // On the heap, because the future of every connection has room for this one.
        let shaken = Box::pin(timeout(patience, tls.shake_hands(stream))).await;
        shaken.unwrap_or_else(|_| {
            self.observer.limit_hit("tls_handshake");
            None
        })
    }

    async fn converse(self: &Arc<Self>, stream: Stream, client: Option<SocketAddr>) {
        let speaks_h2 = matches!(self.protocol, Protocol::H2c) || matches!(stream.selected_alpn_proto(), Some(ALPN::H2));
        if speaks_h2 {
            // On the heap, because the future of every connection has room for this one.
            Box::pin(self.streams(stream)).await;
        } else {
            self.requests(stream, client).await;
        }
    }
}

/// Tells the observer of a connection's beginning and, however it comes, its end.
struct Told<'a>(&'a dyn AcceptObserver);

impl<'a> Told<'a> {
    fn new(observer: &'a dyn AcceptObserver) -> Self {
        observer.connection_opened();
        Self(observer)
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.connection_closed();
    }
}

const HEAD_TOO_SLOW: Refusal = Refusal { reason: Reason::RequestTimeout, detail: "the request head did not arrive in time" };

const TOO_MANY_CONNECTIONS: Refusal = Refusal { reason: Reason::Overloaded, detail: "too many connections" };

const TOO_MANY_OF_ONE: Refusal =
    Refusal { reason: Reason::Overloaded, detail: "too many connections from one client; close some or reuse them" };

fn client_of(stream: &Stream) -> Option<SocketAddr> {
    stream.get_socket_digest()?.peer_addr()?.as_inet().copied()
}

/// Ends our side and listens on for a moment: closing at once while the client still sends would reset the connection, and a
/// reset can overtake the answer.
async fn linger(mut stream: Stream) {
    let farewell = async {
        pingora::protocols::Shutdown::shutdown(&mut *stream).await;
        let mut heard = 0;
        // On the heap, because the future of every connection has room for this one.
        let mut noise = vec![0; 2048];
        while heard < LINGER_BYTES_MAX {
            match stream.read(&mut noise).await {
                Ok(0) | Err(_) => break,
                Ok(bytes) => heard += bytes,
            }
        }
    };
    // Running into the time-out is one of the normal ends.
    let _ = timeout(LINGER, farewell).await;
}

#[cfg(test)]
mod tests;
