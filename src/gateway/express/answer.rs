//! The head of an instance's answer, as it was sent.
//!
//! It is read by the same parser and with the same leniencies as in the full lane: white space before a colon, folded fields and
//! bare line feeds are repaired (RFC 9112 §2.2, §5), and chunks count where there is a length beside them (§6.3).

use super::body::Body;
use crate::proxy::answer::{Framing, Unfit};
use crate::proxy::fields::{Fields, write_line};
use crate::proxy::headers::{HopByHop, names_option};
use http::{StatusCode, Version};
use httparse::{Header, ParserConfig, Status};
use std::mem::MaybeUninit;
use vertice_core::chunks::ChunkFraming;

/// Fields that are read; `proxy::answer::check` allows one less.
const FIELDS_MAX: usize = 129;

/// Bytes that are waited for; what is longer is none of the heads that `proxy::answer::check` allows.
const HEAD_BYTES_MAX: usize = 80 * 1024;

/// Where the fields of a head that is being read are kept.
pub type Room<'b> = [MaybeUninit<Header<'b>>; FIELDS_MAX];

/// Room for the fields of a head.
pub const fn room<'b>() -> Room<'b> {
    [const { MaybeUninit::uninit() }; FIELDS_MAX]
}

/// A complete head.
#[derive(Debug)]
pub struct AnswerHead<'h, 'b> {
    /// How many bytes it has.
    pub len: usize,
    /// What it says of the request.
    pub status: StatusCode,
    /// What the instance speaks.
    pub version: Version,
    /// The words behind the status.
    pub reason: &'b str,
    /// What else it says.
    pub fields: Sent<'h, 'b>,
}

/// The fields of an answer. A length beside chunks is none of them.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'h, 'b> {
    headers: &'h [Header<'b>],
    hides_length: bool,
}

impl<'h, 'b> AnswerHead<'h, 'b> {
    /// Reads the head at the front of `bytes`; none when it is not complete.
    ///
    /// # Errors
    /// When it cannot become one that is passed on.
    pub fn read(bytes: &'b [u8], room: &'h mut Room<'b>) -> Result<Option<Self>, Unfit> {
        let mut parser = ParserConfig::default();
        parser.allow_spaces_after_header_name_in_responses(true);
        parser.allow_obsolete_multiline_headers_in_responses(true);
        let mut parsed = httparse::Response::new(&mut []);
        let len = match parser.parse_response_with_uninit_headers(&mut parsed, bytes, room) {
            Ok(Status::Complete(len)) => len,
            Ok(Status::Partial) if bytes.len() > HEAD_BYTES_MAX => return Err(Unfit::Head),
            Ok(Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Unfit::Head),
            Err(_) => return Err(Unfit::Ambiguous("the head is not HTTP")),
        };
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(Unfit::Ambiguous("the status is none"))?;
        let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
        let headers: &'h [Header<'b>] = parsed.headers;
        let hides_length = headers.iter().any(|header| header.name.eq_ignore_ascii_case("transfer-encoding"));
        let fields = Sent { headers, hides_length };
        Ok(Some(Self { len, status, version, reason: parsed.reason.unwrap_or_default(), fields }))
    }

    /// The body of an answer of which `proxy::answer::check` said so, to a request that asked for one or for the head alone.
    pub fn body(&self, framing: Framing, is_head_request: bool) -> Body {
        let has_none =
            matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || self.status.is_informational();
        match framing {
            _ if is_head_request || has_none => Body::NONE,
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(ChunkFraming::of_answer()),
            Framing::Unsaid => Body::UntilClose,
        }
    }

    /// Appends the status line and the fields that are passed on; the lane itself frames the body and says what becomes of the
    /// connection.
    pub fn write(&self, out: &mut Vec<u8>) {
        let code = self.status.as_str();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(code.as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.reason.as_bytes());
        out.extend_from_slice(b"\r\n");
        let hops = HopByHop::of(self.status, &self.fields);
        for (name, value) in self.fields.each() {
            let is_ours = name.eq_ignore_ascii_case(b"connection") || name.eq_ignore_ascii_case(b"transfer-encoding");
            if !is_ours && !hops.drops(name) {
                write_line(out, name, |out| write_value(out, value));
            }
        }
    }

    /// Whether it is dated.
    pub(super) fn has_date(&self) -> bool {
        self.fields.has("date")
    }

    /// Whether it says that its body is, or would be, chunked.
    pub(super) const fn is_chunked(&self) -> bool {
        self.fields.hides_length
    }

    /// Whether the instance keeps the connection (RFC 9112 §9.3).
    pub fn keeps_connection(&self) -> bool {
        let says = |option: &[u8]| names_option(&self.fields, option);
        !says(b"close") && (self.version == Version::HTTP_11 || says(b"keep-alive"))
    }
}

impl Fields for Sent<'_, '_> {
    fn each(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let is_hidden = |name: &str| self.hides_length && name.eq_ignore_ascii_case("content-length");
        let shown = self.headers.iter().filter(move |header| !is_hidden(header.name));
        shown.map(|header| (header.name.as_bytes(), header.value))
    }
}

/// Appends a value; one that was folded becomes one line.
fn write_value(out: &mut Vec<u8>, value: &[u8]) {
    if memchr::memchr2(b'\r', b'\n', value).is_none() {
        return out.extend_from_slice(value);
    }
    let lines = value.split(|byte| matches!(byte, b'\r' | b'\n')).map(<[u8]>::trim_ascii);
    for (at, line) in lines.filter(|line| !line.is_empty()).enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::answer;

    fn read<T>(bytes: &[u8], look: impl FnOnce(&AnswerHead<'_, '_>) -> T) -> Result<Option<T>, Unfit> {
        let mut room = room();
        AnswerHead::read(bytes, &mut room).map(|head| head.map(|head| look(&head)))
    }

    fn body(head: &str, is_head_request: bool) -> Body {
        let body = |head: &AnswerHead<'_, '_>| {
            let framing = answer::check(head.status, head.version, &head.fields, 0).unwrap();
            head.body(framing, is_head_request)
        };
        read(format!("{head}\r\n\r\n").as_bytes(), body).unwrap().unwrap()
    }

    #[test]
    fn where_a_body_ends() {
        let chunked = Body::Chunked(ChunkFraming::of_answer());
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 5", false), Body::Length(5));
        assert_eq!(body("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", false), chunked);
        assert_eq!(body("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5", false), chunked);
        assert_eq!(body("HTTP/1.0 200 OK", false), Body::UntilClose);
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 5", true), Body::NONE);
        assert_eq!(body("HTTP/1.1 304 Not Modified\r\nContent-Length: 5", false), Body::NONE);
        assert_eq!(body("HTTP/1.1 204 No Content", false), Body::NONE);
    }

    #[test]
    fn who_keeps_the_connection() {
        let keeps = |head: &str| read(format!("{head}\r\n\r\n").as_bytes(), |head| head.keeps_connection()).unwrap().unwrap();
        assert!(keeps("HTTP/1.1 200 OK") && keeps("HTTP/1.0 200 OK\r\nConnection: x, Keep-Alive"));
        assert!(!keeps("HTTP/1.0 200 OK") && !keeps("HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: CLOSE"));
    }

    #[test]
    fn what_is_no_head() {
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nA: b\r\n", |_| ()), Ok(None));
        assert!(read(b"SSH-2.0-OpenSSH\r\n", |_| ()).is_err());
        assert!(read(b"HTTP/1.1 099 OK\r\n\r\n", |_| ()).is_err());
        let endless = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &vec![b'x'; HEAD_BYTES_MAX]].concat();
        assert_eq!(read(&endless, |_| ()), Err(Unfit::Head));
        let many = ["HTTP/1.1 200 OK\r\n", &"A: b\r\n".repeat(FIELDS_MAX + 1), "\r\n"].concat();
        assert_eq!(read(many.as_bytes(), |_| ()), Err(Unfit::Head));
    }

    #[test]
    fn what_goes_on_to_the_client() {
        let written = |bytes: &[u8]| {
            let written = read(bytes, |head| {
                let mut out = Vec::new();
                head.write(&mut out);
                String::from_utf8(out).unwrap()
            });
            written.unwrap().unwrap()
        };
        let folded = b"HTTP/1.0 200 Fine\nA : b\r\n  c\r\n\td\nE: f\r\n\r\n";
        assert_eq!(written(folded), "HTTP/1.1 200 Fine\r\nA: b c d\r\nE: f\r\n");
        let emptily = b"HTTP/1.1 200 OK\r\nA: b\r\n \r\n c\r\n\t\r\n\r\n";
        assert_eq!(written(emptily), "HTTP/1.1 200 OK\r\nA: b c\r\n");
        let hops =
            b"HTTP/1.1 404 Nowhere\r\nConnection: x\r\nX: 1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\nY:\r\n\r\n";
        assert_eq!(written(hops), "HTTP/1.1 404 Nowhere\r\nY: \r\n");
    }
}
