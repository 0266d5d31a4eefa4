//! The full lane: Pingora's proxy, phase by phase. The table of contents of a request; decisions are in `proxy/`, local
//! answers in `control/`.

mod again;
mod ending;
mod explain;
mod grpc;
mod local;
mod observer;
mod patient;
mod phase;
mod pooled;
mod sink;
mod spectator;

use crate::buffers::Buffer;
use crate::clock;
use crate::control::{Role, TOKEN_FIELDS};
use crate::lanes::Shared;
use crate::leash::Leash;
use crate::proxy::admit::{self, Asked, Way};
use crate::proxy::again::pause;
use crate::proxy::answer::{self, Framing};
use crate::proxy::attempt::Attempt;
use crate::proxy::ctx::{Ctx, Forward};
use crate::proxy::explain::EXPLAIN;
use crate::proxy::fail::Failure;
use crate::proxy::headers::{self, HopByHop};
use crate::proxy::outgoing::Outgoing;
use crate::proxy::rules::Rules;
use crate::proxy::watch::Watch;
use crate::random::random;
use crate::upstream;
use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderName;
pub use observer::Observer;
use patient::PatientConnector;
use phase::{done, over, phase, said};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use sink::Written;
use std::future::ready;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;
use vertice_core::decimal::decimal;
use vertice_core::reason::Reason;
use vertice_core::time::Moment;

/// One listener's proxy.
pub struct Edge {
    shared: Arc<Shared>,
    role: Role,
}

impl Edge {
    /// A proxy for the listener of that role.
    #[must_use]
    pub const fn new(shared: Arc<Shared>, role: Role) -> Self {
        Self { shared, role }
    }

    /// The way to a service, if the request is for one.
    fn way<'r>(&self, rules: &'r Rules, session: &Session) -> Option<Way<'r>> {
        let head = session.req_header();
        let asked = Asked { target: head.raw_path(), method: &head.method, fields: &head.headers };
        if self.role == Role::Gateway { rules.routing.find(&asked) } else { None }
    }

    /// Finds the service and takes the request in.
    fn admit(&self, rules: &Rules, way: Way<'_>, session: &Session, ctx: &mut Ctx) -> Result<(), Failure> {
        let head = session.req_header();
        let plan = rules.routing.plan(way, head.raw_path(), &self.shared.table.load())?;
        let admitted = admit::admit(ctx, plan, &head.headers, content_length(session), &self.shared.metrics);
        if let Some(forward) = &mut ctx.forward {
            forward.is_upgrade = session.is_upgrade_req() && headers::names_websocket(&head.headers);
            if forward.allows_half_close {
                Leash::current().iter().for_each(|leash| leash.allow_half_close());
            }
        }
        admitted
    }

    /// Begins the next attempt.
    fn next_peer(ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        ctx.begin(clock::mono());
        let peer = ctx.forward.as_mut().and_then(Self::peer);
        peer.ok_or_else(|| Error::explain(ErrorType::InternalError, "nobody to try"))
    }

    fn peer(forward: &mut Forward) -> Option<Box<HttpPeer>> {
        let attempt = forward.attempt.as_mut()?;
        let mut peer = Box::new(attempt.upstream().x.peers.get(attempt.address())?.clone());
        if forward.route.as_ref().is_some_and(|route| route.timeouts.is_some()) {
            upstream::set_timeouts(&mut peer, &forward.timeouts);
        }
        if forward.timeouts.request.is_some() {
            upstream::connect_by(&mut peer, forward.end.since(clock::mono()));
        }
        if attempt.wants_fresh_connection || forward.is_upgrade {
            // No pooled connection has this key.
            peer.group_key = random() | 1;
        }
        if forward.is_upgrade {
            upstream::set_http1(&mut peer);
            let (connector, socket) = PatientConnector::new(forward.timeouts.connect);
            peer.options.custom_l4 = Some(Arc::new(connector));
            attempt.tunnel_socket = Some(socket);
        }
        Some(peer)
    }

    /// Refuses an answer that could be read in two ways. How the body ends; none when the answer itself is still to come.
    fn hear(&self, head: &ResponseHeader, ctx: &mut Ctx) -> Result<Option<Framing>> {
        let heard = answer::hear(ctx, head.status, head.version, &head.headers, &self.shared.metrics);
        heard.map_err(|unfit| Error::explain(ErrorType::InvalidHTTPHeader, unfit.as_str()).into_up())
    }

    /// The whole request has been handed over: now the instance is to answer.
    fn sent(ctx: &mut Ctx) {
        let now = clock::mono();
        ctx.forward.iter_mut().for_each(|forward| forward.sent(now));
        Self::expect(ctx, now, |forward| forward.timeouts.first_byte);
    }

    /// The next bytes are the instance's to send: within the tunnel's bound, or that of an answer.
    fn expect_more(ctx: &Ctx, now: Moment) {
        let within = |forward: &Forward| {
            if forward.is_tunnel { forward.timeouts.tunnel_idle } else { forward.timeouts.silence }
        };
        Self::expect(ctx, now, within);
    }

    /// More of the body must come from the client within the one bound and be taken by the instance within the other; who breaks
    /// the first is refused by then. Pingora has a bound on the second, too, but then waits for an answer without any.
    fn expect_more_taken(ctx: &Ctx, now: Moment) {
        let body_stall = ctx.rules.settings.body_stall;
        Self::expect(ctx, now, |forward| body_stall.saturating_add(forward.service.policy.connections.write_stall));
    }

    fn expect(ctx: &Ctx, now: Moment, within: impl FnOnce(&Forward) -> Duration) {
        if let (Some(watch), Some(forward)) = (watch(ctx), &ctx.forward) {
            watch.expect_by(now.plus(within(forward)));
        }
    }
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::new(clock::mono(), self.shared.rules.load_full(), self.shared.metrics.request_starts())
    }

    /// No modules: compression is the services' own business, and its module costs 5 % of a request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    phase! {
        fn early_request_filter<'a, 'b, 'c>(
            &'a self,
            session: &'b mut Session,
            ctx: &'c mut Ctx,
        ) -> Result<()> {
            done(|| {
                let settings = &ctx.rules.settings;
                // None means that the client wants the connection closed, or speaks HTTP/1.0.
                if session.get_keepalive().is_some() {
                    session.set_keepalive(Some(settings.idle_keepalive.as_secs().max(1)));
                }
                session.set_read_timeout(Some(settings.body_stall));
                // RFC 9110 §15.2: an HTTP/1.0 client knows no interim answers.
                let is_old = session.req_header().version == http::Version::HTTP_10;
                session.set_ignore_info_resp(is_old);
                session.set_write_timeout(Some(settings.write_stall));
                session.set_total_drain_timeout(Some(settings.body_stall));
                let peer = session.client_addr().and_then(|address| address.as_inet()).map(std::net::SocketAddr::ip);
                ctx.identify(peer, &session.req_header().headers);
                Ok(())
            })
        }
    }

    phase! {
        fn request_filter<'a, 'b, 'c>(&'a self, session: &'b mut Session, ctx: &'c mut Ctx) -> Result<bool> {
            let rules = ctx.rules.clone();
            let Some(way) = self.way(&rules, session) else {
                return Box::pin(async move { local::answer(&self.shared.control.load_full(), self.role, session, ctx).await });
            };
            self.explain(session, ctx);
            let admitted = self.admit(&rules, way, session, ctx);
            ctx.forward.iter().for_each(|forward| forward.service.x.full_lane.inc());
            let Err(failure) = admitted else {
                if let Some(forward) = ctx.forward.as_ref().filter(|_| grpc::is_asked_for(session.req_header())) {
                    session.set_read_timeout(Some(forward.timeouts.tunnel_idle));
                }
                return said(false);
            };
            Box::pin(async move { local::fail(session, ctx, &self.shared.metrics, &failure).await })
        }
    }

    phase! {
        fn proxy_upstream_filter<'a, 'b, 'c>(&'a self, _session: &'b mut Session, _ctx: &'c mut Ctx) -> Result<bool> {
            said(true)
        }
    }

    phase! {
        fn upstream_peer<'a, 'b, 'c>(&'a self, _session: &'b mut Session, ctx: &'c mut Ctx) -> Result<Box<HttpPeer>> {
            let Some(pause) = ctx.forward.as_ref().and_then(pause) else { return Box::pin(ready(Self::next_peer(ctx))) };
            Box::pin(async move {
                tokio::time::sleep(pause).await;
                Self::next_peer(ctx)
            })
        }
    }

    phase! {
        fn connected_to_upstream<'a, 'b, 'c, 'd, 'e>(
            &'a self,
            session: &'b mut Session,
            reused: bool,
            peer: &'c HttpPeer,
            fd: RawFd,
            digest: Option<&'d Digest>,
            ctx: &'e mut Ctx,
        ) -> Result<()> {
            done(|| {
                ctx.connected(reused, clock::mono());
                let Some(forward) = &mut ctx.forward else { return Ok(()) };
                // Until the request has been sent the client's own limits apply, and the bound on the whole request.
                let end = forward.end;
                if let Some(attempt) = &mut forward.attempt {
                    let tunnel_socket = attempt.tunnel_socket.take().and_then(|socket| socket.lock().take());
                    let watchdog = &self.shared.watchdog;
                    let leash = Leash::current().unwrap_or_default();
                    attempt.watch = Some(match tunnel_socket {
                        Some(socket) => watchdog.watch_socket(socket, leash, end),
                        None if upstream::is_shared(peer) => watchdog.watch_shared(leash, end),
                        None => watchdog.watch(pooled::line(fd, digest), leash, end),
                    });
                }
                if reused && pooled::is_sent_once(session) && pooled::is_spent(peer, digest) {
                    return Err(pooled::spent());
                }
                Ok(())
            })
        }
    }

    phase! {
        fn upstream_request_filter<'a, 'b, 'c, 'd>(
            &'a self,
            session: &'b mut Session,
            upstream_request: &'c mut RequestHeader,
            ctx: &'d mut Ctx,
        ) -> Result<()> {
            done(|| {
                let client = session.req_header();
                let Some(outgoing) = Outgoing::of(ctx, &client.headers, scheme(session)) else { return Ok(()) };
                let mut target = Buffer::small();
                outgoing.write_target(client.raw_path(), &mut target);
                upstream_request.set_raw_path(&target)?;
                let withheld = client.headers.keys().filter(|name| outgoing.withholds(name.as_str().as_bytes()));
                withheld.for_each(|name| drop(upstream_request.remove_header(name)));
                let mut own = Written::default();
                outgoing.write(&mut own);
                own.insert_into(upstream_request)?;
                if ctx.explanation.is_some() {
                    // They came with the question.
                    TOKEN_FIELDS.into_iter().for_each(|name| drop(upstream_request.remove_header(name)));
                }
                let is_shared = upstream_request.version == http::Version::HTTP_2;
                if is_shared && session.req_header().headers.get("te").is_some_and(|te| te == "trailers") {
                    // The only one HTTP/2 knows, which gRPC insists on.
                    upstream_request.insert_header("te", "trailers")?;
                }
                let is_upgrade = ctx.forward.as_ref().is_some_and(|forward| forward.is_upgrade);
                let is_handshake = is_upgrade && content_length(session).is_none();
                if is_handshake || (is_shared && session.as_mut().is_body_empty()) {
                    // Complete with its head; what follows a handshake is the tunnel's.
                    Self::sent(ctx);
                }
                Ok(())
            })
        }
    }

    phase! {
        fn request_body_filter<'a, 'b, 'c, 'd>(
            &'a self,
            session: &'b mut Session,
            body: &'c mut Option<Bytes>,
            end_of_stream: bool,
            ctx: &'d mut Ctx,
        ) -> Result<()> {
            done(|| {
                ctx.body_bytes += body.as_ref().map_or(0, |body| body.len() as u64);
                if ctx.forward.as_ref().and_then(Forward::body_limit).is_some_and(|limit| ctx.body_bytes > limit) {
                    ctx.reason = Some(Reason::BodyTooLarge);
                    return Error::e_explain(ErrorType::HTTPStatus(Reason::BodyTooLarge.status()), "body over the limit");
                }
                let Some(forward) = &mut ctx.forward else { return Ok(()) };
                forward.body_started |= body.is_some();
                let has_answer = forward.attempt.as_ref().is_some_and(Attempt::has_answer);
                if end_of_stream && !forward.request_sent {
                    Self::sent(ctx);
                }
                if has_answer {
                    Self::expect_more(ctx, clock::mono());
                } else if !end_of_stream && !grpc::is_asked_for(session.req_header()) {
                    Self::expect_more_taken(ctx, clock::mono());
                }
                Ok(())
            })
        }
    }

    phase! {
        fn upstream_response_filter<'a, 'b, 'c, 'd>(
            &'a self,
            session: &'b mut Session,
            upstream_response: &'c mut ResponseHeader,
            ctx: &'d mut Ctx,
        ) -> Result<()> {
            done(|| {
                let status = upstream_response.status;
                let Some(framing) = self.hear(upstream_response, ctx)? else { return Ok(()) };
                let is_tunnel = status == http::StatusCode::SWITCHING_PROTOCOLS;
                let Some(forward) = &mut ctx.forward else { return Ok(()) };
                let now = clock::mono();
                forward.is_tunnel = is_tunnel;
                forward.ends_by_close = !is_tunnel && framing.ends_by_close(upstream_response.version);
                if let Some(explanation) = &mut ctx.explanation {
                    explanation.answered(status.as_u16(), now);
                }
                if self.after_answer(session, status, ctx, now) {
                    return Err(Error::explain(ErrorType::HTTPStatus(status.as_u16()), "another instance is asked").into_up());
                }
                let Some(forward) = &mut ctx.forward else { return Ok(()) };
                forward.answered(status, &upstream_response.headers, now);
                if let (true, Some(watch)) = (is_tunnel, watch(ctx)) {
                    watch.lift_end();
                }
                Self::expect_more(ctx, now);
                Ok(())
            })
        }
    }

    /// Bytes came from the instance. How long the client takes them is not the instance's business.
    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        if !end_of_stream {
            Self::expect_more(ctx, clock::mono());
        } else if let Some(watch) = watch(ctx) {
            if watch.has_fired() && ctx.forward.as_ref().is_some_and(|forward| forward.ends_by_close) {
                // It is we who closed: the client must not take what came so far for the whole.
                return Err(Error::explain(ErrorType::ReadTimedout, "the instance stopped in the middle").into_up());
            }
            watch.pause();
        }
        Ok(None)
    }

    phase! {
        fn response_filter<'a, 'b, 'c, 'd>(
            &'a self,
            session: &'b mut Session,
            upstream_response: &'c mut ResponseHeader,
            ctx: &'d mut Ctx,
        ) -> Result<()> {
            done(|| {
                // An interim answer would else count as one that came before the body was read, and cost the connection.
                session.set_close_on_response_before_downstream_finish(!upstream_response.status.is_informational());
                if self.shared.drain.is_draining() {
                    session.set_keepalive(None);
                }
                if upstream_response.version < http::Version::HTTP_11 {
                    // RFC 9110 §6.2: the version in a message is its sender's, and that is us. Chunks in HTTP/1.0 would be none.
                    upstream_response.set_version(http::Version::HTTP_11);
                }
                if session.req_header().version == http::Version::HTTP_10 && !upstream_response.status.is_informational() {
                    // RFC 9112 §6.1: such a client knows no chunks; the end of the connection ends the body.
                    if upstream_response.remove_header(&http::header::TRANSFER_ENCODING).is_some() {
                        session.set_keepalive(None);
                    }
                }
                if let Some(forward) = ctx.forward.as_ref().filter(|forward| forward.is_tunnel) {
                    session.set_read_timeout(Some(forward.timeouts.tunnel_idle));
                }
                let hop = HopByHop::of(upstream_response.status, &upstream_response.headers);
                let dropped = upstream_response.headers.keys().filter(|name| hop.drops(name.as_str().as_bytes()));
                let dropped: Vec<HeaderName> = dropped.cloned().collect();
                dropped.iter().for_each(|name| drop(upstream_response.remove_header(name)));
                if answer::is_interim(upstream_response.status) {
                    // In an answer itself Pingora says what becomes of our connection; here it would pass on what the instance said of its.
                    upstream_response.remove_header(&http::header::CONNECTION);
                }
                if ctx.explanation.is_some() {
                    upstream_response.remove_header(EXPLAIN);
                }
                let mut own = Written::default();
                answer::add(ctx, upstream_response.status, &upstream_response.headers, &mut own);
                own.append_to(upstream_response)
            })
        }
    }

    fn fail_to_connect(&self, session: &mut Session, _peer: &HttpPeer, ctx: &mut Ctx, mut e: Box<Error>) -> Box<Error> {
        e.as_up();
        let retry = self.after_no_connection(session, &e, ctx);
        e.set_retry(retry);
        e
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut e: Box<Error>,
        ctx: &mut Ctx,
        client_reused: bool,
    ) -> Box<Error> {
        let retry = self.after_failure(session, &e, client_reused, ctx);
        e.set_retry(retry);
        e
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Ctx) -> FailToProxy {
        let failure = ending::failure(e, ctx);
        let mut error_code = 0;
        if let Some(failure) = failure
            && session.response_written().is_none_or(|head| answer::is_interim(head.status))
        {
            error_code = failure.reason.status();
            session.set_keepalive(None);
            if let Err(error) = local::fail(session, ctx, &self.shared.metrics, &failure).await {
                tracing::debug!(%error, "failed to tell the client");
            }
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Ctx, _error: &Error) -> bool {
        // The access log and the metrics tell; a line per failed request is a cliff under attack.
        true
    }

    fn suppress_proxy_warn_log(&self, _session: &Session, _ctx: &Ctx, _error: &Error, _context: ProxyWarnLogContext) -> bool {
        // Retries are counted, and the access log has them.
        true
    }

    phase! {
        fn logging<'a, 'b, 'c, 'd>(
            &'a self,
            session: &'b mut Session,
            e: Option<&'c Error>,
            ctx: &'d mut Ctx,
        ) -> () {
            ending::conclude(&self.shared, session, e, ctx);
            over()
        }
    }
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edge").field("role", &self.role).finish_non_exhaustive()
    }
}

fn watch(ctx: &Ctx) -> Option<&Watch> {
    ctx.forward.as_ref()?.attempt.as_ref()?.watch.as_deref()
}

/// What the client spoke to us over.
fn scheme(session: &Session) -> &'static str {
    if session.digest().is_some_and(|digest| digest.ssl_digest.is_some()) { "https" } else { "http" }
}

fn content_length(session: &Session) -> Option<u64> {
    decimal(session.req_header().headers.get(http::header::CONTENT_LENGTH)?.as_bytes())
}
