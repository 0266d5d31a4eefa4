//! The loop over the requests of one connection.

use std::any::Any;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::Response;
use ipnet::IpNet;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::{ALPN, Stream};
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use vertice_core::pace::PaceLimit;
use vertice_core::reason::Reason;

use super::connection::{Connection, READ_BYTES};
use super::crowd::Full;
use super::drain::Drain;
use super::express::{ExpressLane, Incoming, Served};
use super::gate::{Gate, Home};
use super::head::{Head, HeadLimits, HeadReader, Refusal, Verdict};
use super::http2::Http2Limits;
use super::tls::Tls;
use super::workers::Serve;
use crate::clock;
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

/// Reads and checks each request head, then has the request served: by `L`, the express lane, if that takes it, else by `P`,
/// Pingora's HTTP proxy. A clone is the same app.
pub struct AcceptApp<P, L = ()> {
    proxy: Arc<P>,
    express: Arc<L>,
    /// Those of now: each turn of each connection looks at them afresh.
    settings: Arc<ArcSwap<AcceptSettings>>,
    drain: Arc<Drain>,
    /// True while draining; Pingora's proxy closes each connection after its answer then.
    draining: ShutdownWatch,
    observer: Arc<dyn AcceptObserver>,
    protocol: Protocol,
}

impl<P, L> Clone for AcceptApp<P, L> {
    fn clone(&self) -> Self {
        Self {
            proxy: self.proxy.clone(),
            express: self.express.clone(),
            settings: self.settings.clone(),
            drain: self.drain.clone(),
            draining: self.draining.clone(),
            observer: self.observer.clone(),
            protocol: self.protocol.clone(),
        }
    }
}

/// Completes when a connection that has no request under way is given up, the limit on its silence aside. Kept from turn to
/// turn, so that waiting for it costs nothing once it waits.
type IdleEnd = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Turns true, and so long after that.
fn idle_end(mut over: ShutdownWatch, patience: Duration) -> IdleEnd {
    Box::pin(async move {
        // An error means that the drain is gone, which the app itself prevents.
        let _ = over.wait_for(|over| *over).await;
        if !patience.is_zero() {
            sleep(patience).await;
        }
    })
}

/// Why there is no request.
enum NoHead {
    /// What came is none.
    Refused(Refusal),
    /// The client has gone.
    Gone,
}

impl<P> AcceptApp<P> {
    /// An app in front of `proxy`. Apps that share `drain` share its end and its count of connections.
    #[must_use]
    pub fn new(proxy: Arc<P>, settings: AcceptSettings, drain: Arc<Drain>, observer: Arc<dyn AcceptObserver>) -> Self {
        let draining = drain.draining_watch();
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        Self { proxy, express: Arc::default(), settings, drain, draining, observer, protocol: Protocol::Plain }
    }

    /// The same app with an express lane.
    #[must_use]
    pub fn with_express<L>(self, express: Arc<L>) -> AcceptApp<P, L> {
        let Self { proxy, express: _, settings, drain, draining, observer, protocol } = self;
        AcceptApp { proxy, express, settings, drain, draining, observer, protocol }
    }
}

impl<P, L> AcceptApp<P, L> {
    /// The same app in front of another `proxy`.
    #[must_use]
    pub fn in_front_of(&self, proxy: Arc<P>) -> Self {
        Self { proxy, ..self.clone() }
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

    /// Reads the head of a request whose first bytes have come.
    async fn head(connection: &mut Connection, reader: &mut HeadReader, deadline: Duration) -> Result<Head, NoHead> {
        let mut has_waited = false;
        loop {
            match reader.advance(connection.ahead()) {
                Verdict::Complete(head) => return Ok(head),
                Verdict::Refused(refusal) => return Err(NoHead::Refused(refusal)),
                Verdict::NeedMore => {}
            }
            if !std::mem::replace(&mut has_waited, true) {
                connection.deadline().set(clock::mono().plus(deadline));
            }
            let read = poll_fn(|cx| match connection.poll_read_ahead(cx, READ_BYTES) {
                Poll::Ready(read) => Poll::Ready(Some(read)),
                Poll::Pending => connection.deadline().poll(cx).map(|()| None),
            });
            match read.await {
                Some(Ok(true)) => {}
                Some(Ok(false) | Err(_)) => return Err(NoHead::Gone),
                None => return Err(NoHead::Refused(HEAD_TOO_SLOW)),
            }
        }
    }

    /// Waits for the first byte of a request. `false` when the connection is to be closed without a word.
    async fn first_byte(&self, connection: &mut Connection, idle_end: &mut IdleEnd) -> bool {
        let idle = self.settings().idle_keepalive;
        let since = connection.latest_moment().unwrap_or_else(clock::mono);
        connection.deadline().set(since.plus(idle));
        poll_fn(|cx| {
            // Bytes that are there already win: a request that crossed our decision to stop is still served.
            if let Poll::Ready(read) = connection.poll_read_ahead(cx, READ_BYTES) {
                return Poll::Ready(matches!(read, Ok(true)));
            }
            let is_over = idle_end.as_mut().poll(cx).is_ready() || connection.deadline().poll(cx).is_ready();
            if is_over { Poll::Ready(false) } else { Poll::Pending }
        })
        .await
    }

    /// The address whose connections are counted, and how many it may have.
    fn share_of(&self, client: Option<SocketAddr>) -> Option<(IpAddr, usize)> {
        let settings = self.settings();
        let (address, max) = (client?.ip().to_canonical(), settings.connections_per_client?);
        let is_proxy = settings.proxies.iter().any(|network| network.contains(&address));
        (!is_proxy).then_some((address, max))
    }

    /// Tells a client that there is no place for it, unless too many are being told already.
    async fn turn_away(&self, connection: Connection, full: Full) {
        let (limit, refusal) = match full {
            Full::Gateway => ("connections", TOO_MANY_CONNECTIONS),
            Full::Client => ("connections_per_client", TOO_MANY_OF_ONE),
        };
        self.observer.limit_hit(limit);
        // An answer in HTTP/1.1 means nothing to a client that was promised HTTP/2.
        let is_plain = matches!(self.protocol, Protocol::Plain);
        let Some(_leaving) = self.drain.crowd().tell_off().filter(|_| is_plain) else { return };
        self.refuse(connection, refusal).await;
    }

    async fn refuse(&self, connection: Connection, refusal: Refusal) {
        let answer = self.observer.refused(&refusal, connection.client());
        let mut stream = connection.into_stream();
        let written = timeout(LINGER, async {
            stream.write_all(&answer).await?;
            stream.flush().await
        });
        if matches!(written.await, Ok(Ok(()))) {
            linger(stream).await;
        }
    }
}

impl<P: HttpServerApp + Send + Sync + 'static, L: ExpressLane> AcceptApp<P, L> {
    /// The requests of one HTTP/1 connection, one after the other.
    async fn requests(&self, mut connection: Connection) {
        let (old_at, mut left) = {
            let settings = self.settings();
            let old_at = settings.connection_age.and_then(|age| Instant::now().checked_add(age));
            (old_at, settings.requests_per_connection)
        };
        let mut full = None;
        // One that has not been used yet is kept while we listen, and a moment longer: to a load balancer that has not heard
        // of the drain, it is a request on its way.
        let mut idle_over = idle_end(self.drain.listening_over_watch(), FIRST_WORD);
        let mut first = true;
        loop {
            let is_pipelined = !connection.ahead().is_empty();
            if !is_pipelined && !self.first_byte(&mut connection, &mut idle_over).await {
                return;
            }
            let _in_flight = self.drain.enter();
            let (limits, deadline, body_pace) = {
                let settings = self.settings();
                (settings.limits, settings.head_deadline, settings.body_pace)
            };
            let mut reader = HeadReader::new(limits);
            let head = match Self::head(&mut connection, &mut reader, deadline).await {
                Ok(head) => head,
                Err(NoHead::Refused(refusal)) => return Box::pin(self.refuse(connection, refusal)).await,
                Err(NoHead::Gone) => return,
            };
            left = left.map(|left| left.saturating_sub(1));
            let is_last = left == Some(0) || old_at.is_some_and(|at| Instant::now() >= at);
            let request = Incoming { head: &head, fields: reader.index(), body_pace, is_pipelined, is_last };
            match self.express.serve(&mut connection, request).await {
                Served::Complete => {}
                Served::Ended { is_sending } if connection.wants_patience(is_sending) => {
                    return Box::pin(linger(connection.into_stream())).await;
                }
                Served::Ended { .. } => return,
                Served::Untouched => {
                    // A future of its own on the heap, and so gone while the connection idles: it is most of what a connection takes.
                    let full = full.get_or_insert_with(FullLane::default);
                    let serving = self.full_lane(connection, &head, full, is_last);
                    let returned = full.leash.clone().hold(serving).await;
                    let Some((stream, settings)) = returned.map(|returned| returned.consume()) else {
                        if let Some(connection) = full.home.take() {
                            Box::pin(linger(connection.into_stream())).await;
                        }
                        return;
                    };
                    full.kept = settings;
                    let Some(back) = Gate::close(stream) else { return };
                    connection = back;
                }
            }
            if first {
                (first, idle_over) = (false, idle_end(self.draining.clone(), Duration::ZERO));
            }
        }
    }

    /// Has Pingora's proxy serve the request.
    fn full_lane<'a>(
        &'a self,
        connection: Connection,
        head: &Head,
        full: &mut FullLane,
        is_last: bool,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'a>> {
        Leash::renew(&mut full.leash);
        self.proxy.process_new_http(self.session(connection, head, full, is_last), &self.draining)
    }

    /// A session that finds exactly one request: its head as already read bytes, its body behind the gate.
    fn session(&self, connection: Connection, head: &Head, full: &mut FullLane, is_last: bool) -> ServerSession {
        let client = connection.client();
        let (leash, home) = (full.leash.clone(), full.home.clone());
        let (gate, bytes) = Gate::open(connection.for_pingora(), head, self.settings().body_pace, leash, home);
        let mut session = ServerSession::new_http1(gate);
        match full.kept.take() {
            Some(settings) => settings.apply_to_session(&mut session),
            None => session.set_connection_user_context(self.observer.connection_context(client)),
        }
        session.set_keepalive_reuses_remaining(is_last.then_some(0));
        session.set_pipelined_prefix(bytes);
        session
    }

    async fn welcome(self: &Arc<Self>, connection: Connection) {
        let _connection = self.drain.connect();
        let _told = Told::new(&*self.observer);
        let client = connection.client();
        match self.drain.crowd().admit(self.settings().connections_max, self.share_of(client)) {
            Err(full) => Box::pin(self.turn_away(connection, full)).await,
            Ok(_place) => match &self.protocol {
                Protocol::Plain => self.requests(connection).await,
                Protocol::H2c => Box::pin(self.streams(connection.into_stream())).await,
                Protocol::Tls(tls) => Box::pin(self.secured(tls, connection.into_stream())).await,
            },
        }
    }

    /// Shakes hands, and then speaks what the client chose.
    async fn secured(self: &Arc<Self>, tls: &Tls, stream: Stream) {
        // Kept until its end was counted: dropping it closes the connection.
        let mut shaking = pin!(timeout(self.settings().tls_handshake, tls.shake_hands(stream)));
        match shaking.as_mut().await {
            Err(_) => self.observer.limit_hit("tls_handshake"),
            Ok(Some(stream)) if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) => self.streams(stream).await,
            Ok(Some(stream)) => self.requests(Connection::over_pingora(stream)).await,
            Ok(None) => {}
        }
    }
}

#[async_trait]
impl<P: HttpServerApp + Send + Sync + 'static, L: ExpressLane> ServerApp for AcceptApp<P, L> {
    async fn process_new(self: &Arc<Self>, stream: Stream, _shutdown: &ShutdownWatch) -> Option<Stream> {
        self.welcome(Connection::over_pingora(stream)).await;
        None
    }
}

impl<P: HttpServerApp + Send + Sync + 'static, L: ExpressLane> Serve for AcceptApp<P, L> {
    async fn serve(self: Arc<Self>, socket: TcpStream) {
        self.welcome(Connection::accepted(socket)).await;
    }

    fn limit_hit(&self, limit: &'static str) {
        self.observer.limit_hit(limit);
    }
}

/// What a connection keeps for its requests in the full lane.
#[derive(Default)]
struct FullLane {
    /// What Pingora remembers from one request to the next.
    kept: Option<HttpPersistentSettings>,
    leash: Arc<Leash>,
    home: Home,
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
