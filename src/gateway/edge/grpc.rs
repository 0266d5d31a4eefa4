//! gRPC: failures of our own in the form that its clients read.
//!
//! A gRPC client looks at trailers, not at the HTTP status: an answer in any other form reaches its user as "unknown". The form
//! is a head without a body that ends the stream ("trailers-only"), with status 200.

use crate::accept::is_grpc;
use crate::proxy::fail::Failure;
use crate::request_id::RequestId;
use http::Version;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::HttpTask;
use pingora::proxy::Session;

/// What `grpc-message` must have encoded, beside everything that is not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Whether the client speaks gRPC. Only HTTP/2 carries its trailers.
pub(super) fn is_asked_for(head: &RequestHeader) -> bool {
    head.version == Version::HTTP_2 && is_grpc(&head.headers)
}

/// Answers with a failure.
pub(super) async fn fail(session: &mut Session, failure: &Failure, request_id: &RequestId) -> Result<()> {
    let mut head = ResponseHeader::build(200, Some(6))?;
    head.insert_header("content-type", "application/grpc")?;
    head.insert_header("grpc-status", failure.reason.grpc_status().to_string())?;
    head.insert_header("grpc-message", utf8_percent_encode(&failure.detail, ENCODED).to_string())?;
    head.insert_header("x-vertice-reason", failure.reason.as_str())?;
    head.insert_header("x-request-id", request_id.to_value())?;
    if let Some(seconds) = failure.retry_after_s {
        head.insert_header("retry-after", seconds)?;
    }
    session.write_response_tasks(vec![HttpTask::Header(Box::new(head), true)]).await?;
    Ok(())
}
