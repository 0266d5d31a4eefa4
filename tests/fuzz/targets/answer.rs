//! Answers of instances: the express lane passes on what the full lane would, and what it takes for the whole body is that.

use http::Method;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::v1::client::HttpSession;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use vertice_gateway::express::answer::{AnswerHead, room};
use vertice_gateway::express::body::{Body, Piece};
use vertice_gateway::proxy::answer::{self, Framing};
use vertice_gateway::proxy::fields::Fields;
use vertice_gateway::proxy::headers::HopByHop;

/// More than an input has.
const ROOM: usize = 64 * 1024;

pub(crate) fn check(bytes: &[u8]) {
    for method in [Method::GET, Method::HEAD] {
        super::block_on(compare(bytes, &method));
    }
}

async fn compare(bytes: &[u8], method: &Method) {
    let (mut session, _instance) = asked(bytes, method).await;
    let read = session.read_response().await;
    let full = match (&read, session.resp_header()) {
        (Ok(end), Some(head)) => answer::check(head.status, head.version, &head.headers, 0).ok().map(|_| (*end, head.clone())),
        _ => None,
    };
    let mut room = room();
    let express = match AnswerHead::read(bytes, &mut room) {
        Ok(Some(head)) => answer::check(head.status, head.version, &head.fields, 0).ok().map(|framing| (head, framing)),
        Ok(None) | Err(_) => None,
    };
    match (express, full) {
        (None, None) => {}
        (Some((head, framing)), Some((end, full))) => {
            assert_eq!(head.len, end, "the end of the head");
            let early = super::cuts(bytes).into_iter().filter(|cut| *cut < end);
            early.for_each(|cut| {
                assert!(matches!(AnswerHead::read(&bytes[..cut], &mut self::room()), Ok(None)), "cut at {cut}")
            });
            assert_eq!((head.status, head.version), (full.status, full.version));
            assert_eq!(head.reason, full.get_reason_phrase().unwrap_or_default(), "the reason");
            assert_eq!(passed_on(&head), expected(&full), "the fields that are passed on");
            if !head.status.is_informational() {
                compare_bodies(&bytes[end..], &head, framing, method, session).await;
            }
        }
        (Some(_), None) => panic!("the express lane takes what the full lane refuses: {:?}", read.err()),
        (None, Some(_)) => panic!("the express lane refuses what the full lane takes"),
    }
}

/// A session that has sent its request, and will read `bytes` and then the end. The other side of it.
async fn asked(bytes: &[u8], method: &Method) -> (HttpSession, DuplexStream) {
    let (ours, mut instance) = duplex(ROOM);
    instance.write_all(bytes).await.unwrap();
    instance.shutdown().await.unwrap();
    let mut session = HttpSession::new(Box::new(ours));
    let request = RequestHeader::build(method.as_str(), b"/", None).unwrap();
    session.write_request_header(Box::new(request)).await.unwrap();
    (session, instance)
}

/// What the express lane writes.
fn passed_on(head: &AnswerHead<'_, '_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut written = Vec::new();
    head.write(&mut written);
    let lines = written.split(|byte| *byte == b'\n').skip(1).filter(|line| !line.is_empty());
    super::by_name(lines.map(|line| {
        let line = line.strip_suffix(b"\r").expect("a line ends with CRLF");
        let colon = line.windows(2).position(|window| window == b": ").expect("a colon and a space");
        (&line[..colon], &line[colon + 2..])
    }))
}

/// What the full lane leaves of what Pingora has read. How the body is framed and what becomes of the connection, each says itself.
fn expected(full: &ResponseHeader) -> Vec<(Vec<u8>, Vec<u8>)> {
    let hops = HopByHop::of(full.status, &full.headers);
    let is_ours = |name: &[u8]| name == b"connection" || name == b"transfer-encoding";
    super::by_name(super::pairs(&full.headers).filter(|(name, _)| !is_ours(name) && !hops.drops(name)))
}

async fn compare_bodies(rest: &[u8], head: &AnswerHead<'_, '_>, framing: Framing, method: &Method, mut session: HttpSession) {
    let body = || head.body(framing, *method == Method::HEAD);
    let whole = follow(body(), rest, &[0, rest.len()]);
    assert_eq!(follow(body(), rest, &super::cuts(rest)), whole, "cut into pieces");
    // Cut off or malformed, how much of it was passed on means nothing.
    let Some(Passed { data, taken }) = whole else { return };
    let mut read = Vec::new();
    loop {
        match session.read_body_bytes().await {
            Ok(Some(piece)) => read.extend_from_slice(&piece),
            Ok(None) => break,
            Err(error) => panic!("whole for the express lane, but not for Pingora: {error}"),
        }
    }
    assert_eq!(read, data, "the body");
    session.respect_keepalive();
    // Of several fields called Connection, Pingora looks at the first, and of lists it knows only some.
    let mut options = head.fields.all("connection");
    let is_one = |options: &[u8]| options.is_ascii() && !options.contains(&b',');
    let is_read = options.next().is_none_or(is_one) && options.next().is_none();
    let is_kept = is_read && head.keeps_connection() && body() != Body::UntilClose && taken == rest.len();
    assert!(!is_kept || session.reuse().await.is_some(), "the express lane keeps a connection that the full lane closes");
}

/// A whole body.
#[derive(Debug, PartialEq, Eq)]
struct Passed {
    data: Vec<u8>,
    /// So many bytes of what came were the body's.
    taken: usize,
}

/// What the express lane passes on of a body that comes in these pieces, behind which the connection ends; none when it is not whole.
fn follow(mut body: Body, bytes: &[u8], cuts: &[usize]) -> Option<Passed> {
    let is_framed = matches!(body, Body::Chunked(_) | Body::UntilClose);
    let (mut passed, mut taken) = (Vec::new(), 0);
    for (start, end) in cuts.iter().zip(&cuts[1..]) {
        if body.is_done() {
            break;
        }
        let piece = &bytes[*start..*end];
        let used = body.pass(piece, &mut passed).ok()?;
        if let Piece::AsIs(bytes) = used {
            passed.extend_from_slice(&piece[..bytes]);
        }
        assert!(used.taken() == piece.len() || body.is_done(), "everything belongs to a body that has not ended");
        taken += used.taken();
    }
    if !body.is_done() && !body.close(&mut passed) {
        return None;
    }
    Some(Passed { data: if is_framed { unchunked(&passed) } else { passed }, taken })
}

/// Chunks that are written by us alone, as data.
fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n").expect("a size");
        let digits = std::str::from_utf8(&bytes[..end]).expect("digits");
        let size = usize::from_str_radix(digits, 16).expect("nothing but a size");
        bytes = &bytes[end + 2..];
        if size == 0 {
            assert_eq!(bytes, b"\r\n", "no trailers");
            return data;
        }
        data.extend_from_slice(&bytes[..size]);
        assert_eq!(&bytes[size..size + 2], b"\r\n");
        bytes = &bytes[size + 2..];
    }
}
