//! Clients that watch the registry: they wait for one answer, or follow a stream of events.
//!
//! Meanwhile the connection is read, which ends when the client leaves; requests that it pipelined are kept. A client that
//! closes its sending side counts as gone, as it does while a service's answer is pending: of a client that is really gone
//! nothing else can be seen. One that does not take what it is sent within the write stall is cut off.

use super::local::{response_head, write, write_piecewise};
use crate::control::{Control, EventStream, LongPoll};
use crate::noticeboard::Kind;
use crate::proxy::ctx::Ctx;
use http::{Method, Response, Version};
use pingora::proxy::Session;
use pingora::{BError, Error, ErrorSource, ErrorType, Result};
use std::time::Duration;

/// Once the process is on its way out, a stream's client has this long to take what it is being sent.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// Answers when there is something to answer.
pub(super) async fn wait(control: &Control, session: &mut Session, ctx: &mut Ctx, poll: Box<LongPoll>) -> Result<()> {
    ctx.watches(Kind::LongPoll.as_str());
    let response = tokio::select! {
        // What is ready at once is also sent to a client that has closed its sending side.
        biased;
        response = poll.answer() => response,
        error = departure(session) => return Err(error),
    };
    if control.is_draining() {
        session.set_keepalive(None);
    }
    judged(control, write(session, response).await)
}

/// Sends events until either side has had enough.
pub(super) async fn follow(
    control: &Control,
    session: &mut Session,
    ctx: &mut Ctx,
    head: Response<()>,
    mut events: Box<EventStream>,
) -> Result<()> {
    ctx.watches(Kind::Stream.as_str());
    let mut head = response_head(&head.into_parts().0)?;
    let is_bodyless = session.req_header().method == Method::HEAD;
    match session.req_header().version {
        Version::HTTP_11 => head.insert_header("Transfer-Encoding", "chunked")?,
        // RFC 9112 §6.1: such a client knows no chunks; the end of the connection ends the body.
        Version::HTTP_10 => session.set_keepalive(None),
        _ => {}
    }
    judged(control, session.write_response_header(Box::new(head), is_bodyless).await)?;
    if is_bodyless {
        return Ok(());
    }
    loop {
        let piece = tokio::select! {
            biased;
            error = departure(session) => return Err(error),
            piece = events.next() => piece,
        };
        let Some(piece) = piece else { break };
        judged(control, in_time(control, write_piecewise(session, piece, false)).await)?;
    }
    judged(control, in_time(control, session.write_response_body(None, true)).await)
}

/// The same, unless the process is on its way out and the client takes too long. Other writes have the whole grace; but of a
/// stream that ends anyway nobody loses anything, and it must not hold up the process.
async fn in_time(control: &Control, writing: impl Future<Output = Result<()>>) -> Result<()> {
    let mut draining = control.draining.clone();
    let end = async {
        let _ = draining.wait_for(|is_draining| *is_draining).await;
        tokio::time::sleep(LAST_WRITE).await;
    };
    tokio::select! {
        biased;
        written = writing => written,
        () = end => Error::e_explain(ErrorType::WriteTimedout, "the watcher does not read, and the process ends"),
    }
}

/// Completes when the client has left.
async fn departure(session: &mut Session) -> BError {
    let error = match session.read_body_or_idle(true).await {
        Ok(_) => Error::explain(ErrorType::ConnectionClosed, "the watcher sent what nobody asked for"),
        Err(error) => error,
    };
    of_client(error)
}

/// Whatever goes wrong while writing is the client's; one that does not read is counted.
fn judged(control: &Control, written: Result<()>) -> Result<()> {
    written.map_err(|error| {
        if *error.etype() == ErrorType::WriteTimedout {
            control.metrics.watchers_cut.inc();
        }
        of_client(error)
    })
}

fn of_client(mut error: BError) -> BError {
    error.esource = ErrorSource::Downstream;
    error
}
