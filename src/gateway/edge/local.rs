//! Answers that are not passed on: the control plane's, and failures. Translates between Pingora's session and plain
//! requests and responses.

use super::{content_length, grpc, spectator};
use crate::control::{BODY_MAX, Caller, Control, Outcome, Role, is_probe};
use crate::problem::customary;
use crate::proxy::ctx::Ctx;
use crate::proxy::fail::{self, Failure};
use crate::telemetry::metrics::Metrics;
use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{ErrorSource, Result};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use vertice_core::route::path_of;

/// A local body must be complete within this.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of a local answer that are written at once.
const PIECE: usize = 64 * 1024;

/// Has the control plane answer.
pub(super) async fn answer(control: &Arc<Control>, role: Role, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
    let caller = caller(role, ctx);
    ctx.is_probe = std::str::from_utf8(path_of(session.req_header().raw_path())).is_ok_and(is_probe);
    let outcome = match read_body(session).await? {
        Read::Complete(body) => control.handle(request(session, body), &caller).await,
        Read::TooLarge => {
            session.set_keepalive(None);
            Outcome::Answer(control.body_too_large(&caller))
        }
        Read::TooSlow => {
            session.set_keepalive(None);
            Outcome::Answer(control.body_too_slow(&caller))
        }
    };
    match outcome {
        Outcome::Answer(response) => write(session, response).await?,
        // On the heap, because the future of every request has room for these.
        Outcome::LongPoll(poll) => Box::pin(spectator::wait(control, session, ctx, poll)).await?,
        Outcome::Stream(head, events) => Box::pin(spectator::follow(control, session, ctx, head, events)).await?,
    }
    Ok(true)
}

/// Answers with a failure.
pub(super) async fn fail(session: &mut Session, ctx: &mut Ctx, metrics: &Metrics, failure: &Failure) -> Result<bool> {
    if grpc::is_asked_for(session.req_header()) {
        fail::note(ctx, failure, metrics);
        grpc::fail(session, failure, &ctx.request_id).await?;
        return Ok(true);
    }
    write(session, fail::response(ctx, failure, metrics)).await?;
    Ok(true)
}

fn caller(role: Role, ctx: &Ctx) -> Caller {
    let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Caller {
        address: ctx.client.map_or(unknown, |client| client.address),
        is_trusted_proxy: ctx.client.is_some_and(|client| client.is_trusted),
        role,
        request_id: ctx.request_id,
    }
}

enum Read {
    Complete(Bytes),
    TooLarge,
    TooSlow,
}

async fn read_body(session: &mut Session) -> Result<Read> {
    if content_length(session).is_some_and(|length| length > BODY_MAX as u64) {
        return Ok(Read::TooLarge);
    }
    let head = session.req_header();
    let expects = head.headers.get(http::header::EXPECT);
    // RFC 9110 §10.1.1: an HTTP/1.0 client's expectation is ignored.
    if head.version != http::Version::HTTP_10 && expects.is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        // It is no answer yet, and costs no connection.
        session.set_close_on_response_before_downstream_finish(false);
        session.write_continue_response().await?;
        session.set_close_on_response_before_downstream_finish(true);
    }
    tokio::time::timeout(BODY_DEADLINE, collect(session)).await.unwrap_or(Ok(Read::TooSlow))
}

async fn collect(session: &mut Session) -> Result<Read> {
    let mut body = BytesMut::new();
    loop {
        match session.read_request_body().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > BODY_MAX => return Ok(Read::TooLarge),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(Read::Complete(body.freeze())),
            Err(error) if *error.etype() == pingora::ErrorType::ReadTimedout => return Ok(Read::TooSlow),
            Err(mut error) => {
                error.esource = ErrorSource::Downstream;
                return Err(error);
            }
        }
    }
}

/// The head is copied: local requests are few.
fn request(session: &Session, body: Bytes) -> Request<Bytes> {
    let head = session.req_header();
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = http::Uri::try_from(head.raw_path()).unwrap_or_else(|_| http::Uri::from_static("/"));
    *request.headers_mut() = head.headers.clone();
    request
}

/// Writes a whole answer.
pub(super) async fn write(session: &mut Session, response: Response<Bytes>) -> Result<()> {
    let (parts, body) = response.into_parts();
    let mut head = response_head(&parts)?;
    head.insert_header("Content-Length", body.len())?;
    let is_bodyless = session.req_header().method == Method::HEAD || body.is_empty();
    session.write_response_header(Box::new(head), is_bodyless).await?;
    if !is_bodyless {
        write_piecewise(session, body, true).await?;
    }
    Ok(())
}

/// Writes bytes of the body, in pieces: the bound on how long a client may not read holds for each, so that a large answer
/// over a slow line gets through.
pub(super) async fn write_piecewise(session: &mut Session, mut bytes: Bytes, is_last: bool) -> Result<()> {
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(PIECE));
        session.write_response_body(Some(piece), is_last && bytes.is_empty()).await?;
    }
    Ok(())
}

pub(super) fn response_head(parts: &http::response::Parts) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(parts.status, Some(parts.headers.len() + 1))?;
    for (name, value) in &parts.headers {
        head.append_header(customary(name), value.clone())?;
    }
    Ok(head)
}
