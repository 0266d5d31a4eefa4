//! Checking a request head before anything else reads it.
//!
//! Pure: bytes in, verdict out. The grammar is RFC 9112 without its leniencies, because each leniency is a place where this
//! gateway and an upstream can disagree about where a request ends: a line ends with CRLF and nothing else, a body has exactly
//! one length, `Host` is there once. What passes here means the same to Pingora and to the upstream, byte for byte; what
//! Pingora would re-encode, drop or refuse without an answer of ours is refused.
//!
//! [`HeadReader`] may be fed as the bytes arrive. It looks at each byte once however small the pieces, and its verdict does
//! not depend on how the head was cut into pieces.

mod index;
mod options;

use std::ops::Range;

pub use index::FieldIndex;
use options::Options;
use vertice_core::decimal::decimal;
use vertice_core::grammar::{is_token_byte, is_value_byte};
use vertice_core::reason::Reason;

/// Longest method we read; longer ones are no method but noise (a TLS hello, another protocol).
const METHOD_BYTES_MAX: usize = 32;

/// A space, `HTTP/1.1` and a carriage return.
const VERSION_BYTES_MAX: usize = 10;

/// How a target in absolute-form starts.
const HTTP_SCHEMES: [&[u8]; 2] = [b"http://", b"https://"];

/// Fields that concern the connection or who stands in it (RFC 9110 §7.6.1, §10.1.1, §11.7), beside those with rules of their
/// own. The `match` over names in [`Fields::note`] knows their lengths.
const SPECIAL: [&[u8]; 8] = [
    b"te",
    b"expect",
    b"trailer",
    b"keep-alive",
    b"http2-settings",
    b"proxy-connection",
    b"proxy-authenticate",
    b"proxy-authorization",
];

/// What a head may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes from the first byte of the request to the end of the empty line.
    pub head_bytes: usize,
    /// Header fields.
    pub fields: usize,
    /// Bytes of the request target.
    pub uri_bytes: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { head_bytes: 65_536, fields: 128, uri_bytes: 16_384 }
    }
}

/// What is known about a head after the bytes seen so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No mistake yet, and no end either.
    NeedMore,
    /// No bytes that may follow can make this a request we serve.
    Refused(Refusal),
    /// The head is complete and well formed.
    Complete(Head),
}

/// Why a request was refused before it reached a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code.
    pub reason: Reason,
    /// What was wrong, for the person who reads the answer. Never contains bytes of the client.
    pub detail: &'static str,
}

/// How long the body is (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// Neither `Content-Length` nor `Transfer-Encoding`.
    None,
    /// `Content-Length`, in bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A complete, well formed request head. Ranges are byte offsets into the buffer that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes to skip before the request line: 2 when the client sent one empty line ahead (RFC 9112 §2.2), otherwise 0.
    pub head_start: usize,
    /// Offset just behind the empty line that ends the head.
    pub head_len: usize,
    /// The request target as sent.
    pub target: Range<usize>,
    /// The path and query inside [`Self::target`]: the whole of it for origin-form, the part behind the authority for
    /// absolute-form (may then be empty, or start with `?`).
    pub origin: Range<usize>,
    /// The body that follows.
    pub body: BodyLength,
    /// The client speaks HTTP/1.0.
    pub http10: bool,
    /// The client wants to upgrade to WebSocket: after a 101 the bytes that follow are no HTTP.
    pub websocket: bool,
    /// It is HTTP/1.1 with a path for its target, and no field but `Connection: close`, `Connection: keep-alive` and
    /// `Content-Length`, each at most once, is about the connection, the framing or the protocol.
    pub is_plain: bool,
    /// It says `Connection: close`.
    pub wants_close: bool,
}

impl Head {
    /// The method.
    #[must_use]
    pub fn method<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        head.get(self.head_start..self.target.start.saturating_sub(1)).unwrap_or_default()
    }

    /// The length that it gives its body, if it does.
    #[must_use]
    pub const fn length(&self) -> Option<u64> {
        match self.body {
            BodyLength::Length(length) => Some(length),
            BodyLength::None | BodyLength::Chunked => None,
        }
    }

    /// The request line's target in origin-form when the client sent another form, so that everything behind the accept app
    /// routes on one form only.
    #[must_use]
    pub fn rewritten_target(&self, head: &[u8]) -> Option<Vec<u8>> {
        if self.origin == self.target {
            return None;
        }
        let origin = head.get(self.origin.clone()).unwrap_or_default();
        let slash: &[u8] = if origin.first() == Some(&b'/') { b"" } else { b"/" };
        Some([slash, origin].concat())
    }
}

/// Checks a head that is in one piece. See [`HeadReader`] for one that arrives in several.
#[must_use]
pub fn check(buf: &[u8], limits: &HeadLimits) -> Verdict {
    HeadReader::new(*limits).advance(buf)
}

/// Checks a head while it arrives.
#[derive(Debug)]
pub struct HeadReader {
    limits: HeadLimits,
    /// Where the line begins that has not ended yet.
    line_start: usize,
    /// Up to where that line was searched for its end.
    searched: usize,
    /// Length of the empty line ahead of the request line.
    head_start: usize,
    request: Option<RequestLine>,
    fields: Fields,
    index: FieldIndex,
}

#[derive(Clone, Debug)]
struct RequestLine {
    is_get: bool,
    target: Range<usize>,
    form: Form,
    http10: bool,
}

#[derive(Clone, Debug)]
enum Form {
    Origin,
    Absolute { authority: Range<usize>, origin: Range<usize> },
}

/// What the field lines said so far.
#[derive(Clone, Debug, Default)]
struct Fields {
    count: usize,
    host: Option<Range<usize>>,
    content_length: Option<u64>,
    chunked: bool,
    options: Options,
    /// A field was there that concerns more than the service.
    is_special: bool,
}

impl HeadReader {
    /// A reader at the first byte of a request.
    #[must_use]
    pub fn new(limits: HeadLimits) -> Self {
        let (request, fields, index) = (None, Fields::default(), FieldIndex::new());
        Self { limits, line_start: 0, searched: 0, head_start: 0, request, fields, index }
    }

    /// Where the fields of the head stand, once it is complete.
    #[must_use]
    pub const fn index(&self) -> &FieldIndex {
        &self.index
    }

    /// Continues with `buf`, which holds the request from its first byte: everything given before, plus what arrived since.
    ///
    /// After a verdict other than [`Verdict::NeedMore`] the reader is used up.
    #[must_use]
    pub fn advance(&mut self, buf: &[u8]) -> Verdict {
        // Bytes beyond the limit are not looked at, so that the verdict is the same whether they are there yet or not.
        let window = &buf[..buf.len().min(self.limits.head_bytes)];
        loop {
            let end = find_byte(b'\n', window, self.searched);
            let line = window.get(self.line_start..end.unwrap_or(window.len())).unwrap_or_default();
            if let Err(refusal) = self.unfinished_line(line) {
                return Verdict::Refused(refusal);
            }
            let Some(end) = end else {
                self.searched = window.len();
                return if buf.len() < self.limits.head_bytes { Verdict::NeedMore } else { Verdict::Refused(HEAD_TOO_LARGE) };
            };
            match self.line(window, end) {
                Ok(None) => (self.line_start, self.searched) = (end + 1, end + 1),
                Ok(Some(head)) => return Verdict::Complete(head),
                Err(refusal) => return Verdict::Refused(refusal),
            }
        }
    }

    /// Refuses what can be refused before the line has ended, so that noise is not waited for. Each rule, once it holds for a
    /// part of a line, holds for every longer part: that makes the verdict independent of the pieces.
    fn unfinished_line(&self, line: &[u8]) -> Result<(), Refusal> {
        if self.request.is_some() {
            return Ok(());
        }
        match line {
            [] | [b'\r'] => return Ok(()),
            [b'\r', ..] => return Err(bad("a carriage return that ends no line")),
            [first, ..] if !is_token_byte(*first) => return Err(bad("the method is not a token; is this HTTP?")),
            _ => {}
        }
        let Some(method_end) = line.iter().take(METHOD_BYTES_MAX + 1).position(|byte| *byte == b' ') else {
            return if line.len() > METHOD_BYTES_MAX { Err(METHOD_TOO_LONG) } else { Ok(()) };
        };
        let target = &line[method_end + 1..];
        if target.len() <= self.limits.uri_bytes {
            return Ok(());
        }
        match find_byte(b' ', &target[..=self.limits.uri_bytes], 0) {
            None => return Err(Refusal { reason: Reason::UriTooLong, detail: "the request target is over the limit" }),
            // Also keeps a long target from being searched again for each byte of an endless version.
            Some(end) if target.len() - end > VERSION_BYTES_MAX => return Err(NO_REQUEST_LINE),
            Some(_) => {}
        }
        Ok(())
    }

    /// Takes the line that ends at `end`. The head, if it was the last one.
    fn line(&mut self, window: &[u8], end: usize) -> Result<Option<Head>, Refusal> {
        let Some(crlf) = end.checked_sub(1).filter(|at| *at >= self.line_start && window[*at] == b'\r') else {
            return Err(bad("a line ends with a bare line feed"));
        };
        let line = self.line_start..crlf;
        match (&self.request, line.is_empty()) {
            (None, true) if self.head_start == 0 => self.head_start = end + 1,
            (None, true) => return Err(bad("more than one empty line ahead of the request")),
            (None, false) => self.request = Some(request_line(window, line)?),
            (Some(_), false) => self.field(window, line)?,
            (Some(request), true) => return self.finish(request, window, end + 1).map(Some),
        }
        Ok(None)
    }

    fn field(&mut self, window: &[u8], line: Range<usize>) -> Result<(), Refusal> {
        self.fields.count += 1;
        if self.fields.count > self.limits.fields {
            return Err(Refusal { reason: Reason::HeadersTooLarge, detail: "too many header fields" });
        }
        let bytes = &window[line.clone()];
        if matches!(bytes.first(), Some(b' ' | b'\t')) {
            return Err(bad("a folded header field"));
        }
        // The first byte that belongs into no name.
        let colon = bytes.iter().position(|byte| !is_token_byte(*byte)).filter(|at| *at > 0 && bytes[*at] == b':');
        let Some(colon) = colon else { return Err(misnamed(bytes)) };
        let value = trimmed(bytes, colon + 1);
        // Without an early end, which lets the compiler look at many bytes at a time.
        if bytes[value.clone()].iter().fold(false, |found, byte| found | !is_value_byte(*byte)) {
            return Err(bad("a control character in a header field value"));
        }
        let name = &bytes[..colon];
        self.index.add(line.start..line.start + colon, line.start + value.start..line.start + value.end);
        self.fields.note(name, &bytes[value.clone()], line.start + value.start)
    }

    /// The rules that need the whole head.
    fn finish(&self, request: &RequestLine, window: &[u8], head_len: usize) -> Result<Head, Refusal> {
        let fields = &self.fields;
        let host = fields.host.clone().map(|range| &window[range]);
        if host.is_none() && !request.http10 {
            return Err(bad("no Host header field"));
        }
        let origin = match &request.form {
            Form::Origin => request.target.clone(),
            Form::Absolute { authority, origin } => {
                if !host.is_some_and(|host| host.eq_ignore_ascii_case(&window[authority.clone()])) {
                    return Err(bad("the authority of the request target differs from Host"));
                }
                origin.clone()
            }
        };
        if fields.chunked && request.http10 {
            return Err(bad("Transfer-Encoding on HTTP/1.0"));
        }
        let body = match (fields.chunked, fields.content_length) {
            (true, Some(_)) => return Err(bad("both Content-Length and Transfer-Encoding")),
            (true, None) => BodyLength::Chunked,
            (false, Some(length)) => BodyLength::Length(length),
            (false, None) => BodyLength::None,
        };
        let has_body = !matches!(body, BodyLength::None | BodyLength::Length(0));
        let websocket = fields.options.wants_websocket(request.is_get, has_body, request.http10)?;
        let is_plain = !request.http10 && matches!(request.form, Form::Origin) && !fields.chunked && !fields.is_special;
        Ok(Head {
            head_start: self.head_start,
            head_len,
            target: request.target.clone(),
            origin,
            body,
            http10: request.http10,
            websocket,
            is_plain: is_plain && fields.options.is_simple(),
            wants_close: fields.options.names_close(),
        })
    }
}

impl Fields {
    /// Takes in a field that decides about framing or routing. `value_at` is the value's offset in the buffer.
    fn note(&mut self, name: &[u8], value: &[u8], value_at: usize) -> Result<(), Refusal> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.note_host(value, value_at),
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.options.note_upgrade(value),
            10 if name.eq_ignore_ascii_case(b"connection") => self.options.note_connection(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.note_content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.note_transfer_encoding(value),
            2 | 6 | 7 | 10 | 14 | 16 | 18 | 19 => {
                self.is_special |= SPECIAL.iter().any(|special| name.eq_ignore_ascii_case(special));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn note_host(&mut self, value: &[u8], value_at: usize) -> Result<(), Refusal> {
        if self.host.replace(value_at..value_at + value.len()).is_some() {
            return Err(bad("more than one Host header field"));
        }
        if is_authority(value) { Ok(()) } else { Err(bad("Host is not a host with an optional port")) }
    }

    fn note_content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.content_length.is_some() {
            return Err(bad("more than one Content-Length header field"));
        }
        self.content_length = Some(decimal(value).ok_or(bad("Content-Length is not one decimal number"))?);
        Ok(())
    }

    fn note_transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(bad("Transfer-Encoding is something other than chunked, once"));
        }
        self.chunked = true;
        Ok(())
    }
}

const HEAD_TOO_LARGE: Refusal = Refusal { reason: Reason::HeadersTooLarge, detail: "the request head is over the limit" };

const NO_REQUEST_LINE: Refusal = bad("the request line is not: method, target, version");

const METHOD_TOO_LONG: Refusal = bad("the method is too long; is this HTTP?");

pub(super) const fn bad(detail: &'static str) -> Refusal {
    Refusal { reason: Reason::BadRequest, detail }
}

/// What is wrong with the name of a field.
fn misnamed(line: &[u8]) -> Refusal {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return bad("a header field without a colon") };
    match line[..colon].last() {
        Some(b' ' | b'\t') => bad("white space before the colon of a header field"),
        _ => bad("a header field name that is not a token"),
    }
}

fn request_line(window: &[u8], line: Range<usize>) -> Result<RequestLine, Refusal> {
    let bytes = &window[line.clone()];
    let mut parts = bytes.splitn(3, |byte| *byte == b' ');
    let (Some(method), Some(target), Some(version)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NO_REQUEST_LINE);
    };
    check_method(method)?;
    if !is_target(target) {
        return Err(bad("a character in the request target that must be percent-encoded"));
    }
    let http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err(bad("the version is neither HTTP/1.0 nor HTTP/1.1")),
    };
    let start = line.start + method.len() + 1;
    let target = start..start + target.len();
    let form = target_form(window, target.clone())?;
    Ok(RequestLine { is_get: method == b"GET", target, form, http10 })
}

/// Whether requests with that method are served.
pub(super) fn check_method(method: &[u8]) -> Result<(), Refusal> {
    if !method.iter().copied().all(is_token_byte) {
        return Err(bad("the method is not a token"));
    }
    match method {
        b"CONNECT" => Err(bad("CONNECT is not served")),
        // RFC 9110 §9.3.8: the answer would show what the gateway and its neighbours added to the request.
        b"TRACE" => Err(bad("TRACE is not served")),
        _ if method.len() > METHOD_BYTES_MAX => Err(METHOD_TOO_LONG),
        _ => Ok(()),
    }
}

fn target_form(window: &[u8], target: Range<usize>) -> Result<Form, Refusal> {
    let bytes = &window[target.clone()];
    if bytes.first() == Some(&b'/') {
        return Ok(Form::Origin);
    }
    let starts_with = |scheme: &&&[u8]| bytes.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let Some(scheme_len) = HTTP_SCHEMES.iter().find(starts_with).map(|scheme| scheme.len()) else {
        return Err(bad("the request target is neither a path nor an http URL"));
    };
    let rest = &bytes[scheme_len..];
    let authority_len = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    if !is_authority(&rest[..authority_len]) {
        return Err(bad("the authority of the request target is not a host with an optional port"));
    }
    let authority_start = target.start + scheme_len;
    let origin_start = authority_start + authority_len;
    Ok(Form::Absolute { authority: authority_start..origin_start, origin: origin_start..target.end })
}

/// `host [":" port]` without user information (RFC 3986 §3.2.2, §3.2.3), not empty.
pub(super) fn is_authority(bytes: &[u8]) -> bool {
    let (host_ok, rest) = if bytes.first() == Some(&b'[') {
        let Some(close) = bytes.iter().position(|byte| *byte == b']') else { return false };
        let inside = std::str::from_utf8(&bytes[1..close]).unwrap_or_default();
        (inside.parse::<std::net::Ipv6Addr>().is_ok(), &bytes[close + 1..])
    } else {
        let end = bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len());
        (end > 0 && bytes[..end].iter().copied().all(is_reg_name_byte), &bytes[end..])
    };
    let port_ok = match rest {
        [] | [b':'] => true,
        [b':', port @ ..] => decimal(port).is_some_and(|port| port <= u64::from(u16::MAX)),
        _ => false,
    };
    host_ok && port_ok
}

/// The value behind a colon without the white space around it, as a range in `bytes`.
fn trimmed(bytes: &[u8], from: usize) -> Range<usize> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = from + bytes[from..].iter().take_while(|byte| is_space(byte)).count();
    let end = bytes.len() - bytes[start..].iter().rev().take_while(|byte| is_space(byte)).count();
    start..end
}

fn find_byte(byte: u8, bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr(byte, bytes.get(from..)?).map(|at| from + at)
}

/// Whether Pingora and the `http` crate keep each byte of the target. That is more than RFC 3986 allows (`|`, `{`, `\\`), as
/// clients do send it, but only visible ASCII, and not `#`: Pingora would drop a fragment silently.
pub(super) fn is_target(target: &[u8]) -> bool {
    let path_len = find_byte(b'?', target, 0).unwrap_or(target.len());
    let (path, query) = target.split_at(path_len);
    let all_kept = |part: &[u8], lost: &[u8]| part.iter().all(|byte| byte.is_ascii_graphic() && !lost.contains(byte));
    all_kept(path, b"#<>`") && all_kept(query, b"#<>\"")
}

/// `reg-name` (RFC 3986 §3.2.2); an IPv4 address is one too.
fn is_reg_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte)
}

#[cfg(test)]
mod tests;
