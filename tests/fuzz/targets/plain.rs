//! Plain requests: whatever the express lane reads of one, Pingora reads of the same bytes.

use std::io::Cursor;

use http::Version;
use pingora::protocols::http::v1::server::HttpSession;
use vertice_gateway::accept::head::{BodyLength, Head, HeadLimits, HeadReader, Verdict};

pub(crate) fn check(bytes: &[u8]) {
    let mut reader = HeadReader::new(HeadLimits::default());
    let Verdict::Complete(head) = reader.advance(bytes) else { return };
    if head.is_plain && reader.index().is_complete() {
        let fields: Vec<(&[u8], &[u8])> = reader.index().fields(bytes).collect();
        super::block_on(compare(bytes, &head, &fields));
    }
}

async fn compare(bytes: &[u8], head: &Head, fields: &[(&[u8], &[u8])]) {
    // From where the full lane hands it over.
    let mut session = HttpSession::new(Box::new(Cursor::new(bytes[head.head_start..].to_vec())));
    let end = session.read_request().await.unwrap_or_else(|error| panic!("plain, but Pingora refuses it: {error}"));
    assert_eq!(end, Some(head.head_len - head.head_start), "the end of the head");
    let read = session.req_header();
    assert_eq!(read.method.as_str().as_bytes(), head.method(bytes), "the method");
    assert_eq!(read.raw_path(), &bytes[head.target.clone()], "the target");
    assert_eq!(read.version, Version::HTTP_11);
    assert_eq!(super::by_name(fields.iter().copied()), super::by_name(super::pairs(&read.headers)), "the fields");
    assert!(!session.is_upgrade_req(), "an upgrade is not plain");
    // Of several fields called Connection, Pingora looks at the first.
    assert!(head.wants_close || session.will_keepalive(), "kept by the express lane, but not by Pingora");
    let length = match head.body {
        BodyLength::None => 0,
        BodyLength::Length(length) => length,
        BodyLength::Chunked => panic!("chunks are not plain"),
    };
    let rest = &bytes[head.head_len..];
    let here = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
    let is_whole = here as u64 == length;
    let mut body = Vec::new();
    let read_whole = loop {
        match session.read_body_bytes().await {
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    assert_eq!((body.as_slice(), read_whole), (&rest[..here], is_whole), "the body");
}
