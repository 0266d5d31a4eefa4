//! gRPC: failures of our own in the form that its clients read.
//!
//! A gRPC client looks at trailers, not at the HTTP status: an answer in any other form reaches its user as "unknown". The form
//! is a head without a body that ends the stream ("trailers-only"), with status 200.

use crate::proxy::fail::Failure;
use http::{HeaderMap, HeaderValue, Version};
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

fn is_grpc(fields: &HeaderMap) -> bool {
    let kind = fields.get(http::header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let rest = kind.get(..16).filter(|start| start.eq_ignore_ascii_case(b"application/grpc")).map(|_| &kind[16..]);
    // gRPC-Web is another protocol.
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// Answers with a failure.
pub(super) async fn fail(session: &mut Session, failure: &Failure, request_id: &HeaderValue) -> Result<()> {
    let mut head = ResponseHeader::build(200, Some(6))?;
    head.insert_header("content-type", "application/grpc")?;
    head.insert_header("grpc-status", failure.reason.grpc_status().to_string())?;
    head.insert_header("grpc-message", utf8_percent_encode(&failure.detail, ENCODED).to_string())?;
    head.insert_header("x-vertice-reason", failure.reason.as_str())?;
    head.insert_header("x-request-id", request_id.clone())?;
    if let Some(seconds) = failure.retry_after_s {
        head.insert_header("retry-after", seconds)?;
    }
    session.write_response_tasks(vec![HttpTask::Header(Box::new(head), true)]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
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
