//! Checking a request head before anything else reads it.
//!
//! Pure: bytes in, verdict out. The grammar is RFC 9112 without its leniencies, because each leniency is a place where this
//! gateway and an upstream can disagree about where a request ends: a line ends with CRLF and nothing else, a body has exactly
//! one length, `Host` is there once. What passes here means the same to Pingora and to the upstream, byte for byte; what
//! Pingora would re-encode, drop or refuse without an answer of ours is refused.
//!
//! [`HeadReader`] may be fed as the bytes arrive. It looks at each byte once however small the pieces, and its verdict does
//! not depend on how the head was cut into pieces.

use std::ops::Range;

use vertice_core::reason::Reason;

/// Longest method we read; longer ones are no method but noise (a TLS hello, another protocol).
const METHOD_BYTES_MAX: usize = 32;

/// A space, `HTTP/1.1` and a carriage return.
const VERSION_BYTES_MAX: usize = 10;

/// How a target in absolute-form starts.
const HTTP_SCHEMES: [&[u8]; 2] = [b"http://", b"https://"];

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
}

impl Head {
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
}

#[derive(Clone, Debug)]
struct RequestLine {
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
    websocket: bool,
}

impl HeadReader {
    /// A reader at the first byte of a request.
    #[must_use]
    pub fn new(limits: HeadLimits) -> Self {
        Self { limits, line_start: 0, searched: 0, head_start: 0, request: None, fields: Fields::default() }
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
            return if line.len() > METHOD_BYTES_MAX { Err(bad("the method is too long; is this HTTP?")) } else { Ok(()) };
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
        let Some(colon) = bytes.iter().position(|byte| *byte == b':') else {
            return Err(bad("a header field without a colon"));
        };
        let name = &bytes[..colon];
        if matches!(name.last(), Some(b' ' | b'\t')) {
            return Err(bad("white space before the colon of a header field"));
        }
        if name.is_empty() || !name.iter().copied().all(is_token_byte) {
            return Err(bad("a header field name that is not a token"));
        }
        let value = trimmed(bytes, colon + 1);
        if !bytes[value.clone()].iter().copied().all(is_value_byte) {
            return Err(bad("a control character in a header field value"));
        }
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
        Ok(Head {
            head_start: self.head_start,
            head_len,
            target: request.target.clone(),
            origin,
            body,
            http10: request.http10,
            websocket: fields.websocket && !request.http10,
        })
    }
}

impl Fields {
    /// Takes in a field that decides about framing or routing. `value_at` is the value's offset in the buffer.
    fn note(&mut self, name: &[u8], value: &[u8], value_at: usize) -> Result<(), Refusal> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.note_host(value, value_at),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.websocket |= value.split(|byte| *byte == b',').any(|protocol| names_websocket(protocol.trim_ascii()));
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.note_content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.note_transfer_encoding(value),
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

const fn bad(detail: &'static str) -> Refusal {
    Refusal { reason: Reason::BadRequest, detail }
}

fn request_line(window: &[u8], line: Range<usize>) -> Result<RequestLine, Refusal> {
    let bytes = &window[line.clone()];
    let mut parts = bytes.splitn(3, |byte| *byte == b' ');
    let (Some(method), Some(target), Some(version)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NO_REQUEST_LINE);
    };
    if !method.iter().copied().all(is_token_byte) {
        return Err(bad("the method is not a token"));
    }
    if method == b"CONNECT" {
        return Err(bad("CONNECT is not served"));
    }
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
    Ok(RequestLine { target, form, http10 })
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
fn is_authority(bytes: &[u8]) -> bool {
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

/// One or more digits. Values above `i64::MAX` are refused because Pingora counts bodies in an `i64`.
fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok())
}

fn names_websocket(protocol: &[u8]) -> bool {
    protocol.get(..9).is_some_and(|name| name.eq_ignore_ascii_case(b"websocket"))
}

/// The value behind a colon without the white space around it, as a range in `bytes`.
fn trimmed(bytes: &[u8], from: usize) -> Range<usize> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = from + bytes[from..].iter().take_while(|byte| is_space(byte)).count();
    let end = bytes.len() - bytes[start..].iter().rev().take_while(|byte| is_space(byte)).count();
    start..end
}

fn find_byte(byte: u8, bytes: &[u8], from: usize) -> Option<usize> {
    bytes.get(from..)?.iter().position(|candidate| *candidate == byte).map(|at| from + at)
}

/// `tchar` (RFC 9110 §5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `field-vchar`, `SP`, `HTAB` and `obs-text` (RFC 9110 §5.5).
fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Whether Pingora and the `http` crate keep each byte of the target. That is more than RFC 3986 allows (`|`, `{`, `\\`), as
/// clients do send it, but only visible ASCII, and not `#`: Pingora would drop a fragment silently.
fn is_target(target: &[u8]) -> bool {
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: HeadLimits = HeadLimits { head_bytes: 400, fields: 4, uri_bytes: 60 };

    fn head(request: &str) -> Head {
        match check(request.as_bytes(), &LIMITS) {
            Verdict::Complete(head) => head,
            other => panic!("{request:?}: {other:?}"),
        }
    }

    fn refusal(request: &[u8]) -> Refusal {
        match check(request, &LIMITS) {
            Verdict::Refused(refusal) => refusal,
            other => panic!("{}: {other:?}", request.escape_ascii()),
        }
    }

    #[test]
    fn bodies_have_the_length_the_head_says() {
        let body_of = |fields: &str| head(&format!("POST /p HTTP/1.1\r\nHost: x\r\n{fields}\r\n")).body;
        assert_eq!(body_of(""), BodyLength::None);
        assert_eq!(body_of("Content-Length: 0\r\n"), BodyLength::Length(0));
        assert_eq!(body_of("content-length:\t12 \r\n"), BodyLength::Length(12));
        assert_eq!(body_of("Content-Length: 9223372036854775807\r\n"), BodyLength::Length(i64::MAX as u64));
        assert_eq!(body_of("Transfer-Encoding: Chunked\r\n"), BodyLength::Chunked);
    }

    #[test]
    fn the_head_ends_at_its_empty_line() {
        let request = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
        let surplus = format!("{request}GET /b HTTP/1.1\r\n");
        assert_eq!(head(&surplus).head_len, request.len());

        let led = head(&format!("\r\n{request}"));
        assert_eq!((led.head_start, led.head_len), (2, request.len() + 2));
        assert_eq!(led.target, 6..8);
    }

    #[test]
    fn old_and_upgrading_clients_are_recognised() {
        assert!(head("GET / HTTP/1.0\r\n\r\n").http10, "HTTP/1.0 needs no Host");
        let upgrade = |version: &str, protocol: &str| {
            head(&format!("GET / HTTP/{version}\r\nHost: x\r\nUpgrade: {protocol}\r\n\r\n")).websocket
        };
        assert!(upgrade("1.1", "WebSocket"));
        assert!(upgrade("1.1", "h2c, websocket"));
        assert!(!upgrade("1.1", "h2c"));
        assert!(!upgrade("1.0", "websocket"));
    }

    #[test]
    fn an_absolute_target_becomes_a_path() {
        let rewritten = |target: &str, host: &str| {
            let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            head(&request).rewritten_target(request.as_bytes()).map(|target| String::from_utf8(target).unwrap())
        };
        assert_eq!(rewritten("/a%2Fb?q=%00", "x"), None);
        assert_eq!(rewritten("http://x/a?b", "x").as_deref(), Some("/a?b"));
        assert_eq!(rewritten("HTTP://X:80/a", "x:80").as_deref(), Some("/a"));
        assert_eq!(rewritten("https://[::1]:8000", "[::1]:8000").as_deref(), Some("/"));
        assert_eq!(rewritten("http://x?q", "x").as_deref(), Some("/?q"));
    }

    #[test]
    fn each_mistake_is_refused_with_its_name() {
        let with_fields = |fields: &str| format!("GET / HTTP/1.1\r\n{fields}\r\n");
        let with_line = |line: &str| format!("{line}\r\nHost: x\r\n\r\n");
        let cases: Vec<(String, &str)> = vec![
            ("GET / HTTP/1.1\nHost: x\n\n".into(), "bare line feed"),
            ("GET / HTTP/1.1\r\nHost: x\n".into(), "bare line feed"),
            ("\nGET".into(), "bare line feed"),
            ("\r\n\r\n".into(), "empty line ahead"),
            ("\rGET".into(), "carriage return"),
            (" GET / HTTP/1.1\r\n".into(), "is this HTTP"),
            ("\u{16}\u{3}\u{1}".into(), "is this HTTP"),
            ("a".repeat(33), "is this HTTP"),
            ("GET\r\n".into(), "request line"),
            ("GET /\r\n".into(), "request line"),
            ("GE\u{7f}T / HTTP/1.1\r\n".into(), "method"),
            ("GET  / HTTP/1.1\r\n".into(), "version"),
            (with_line("CONNECT x:80 HTTP/1.1"), "CONNECT"),
            (with_line("OPTIONS * HTTP/1.1"), "neither a path"),
            (with_line("GET x HTTP/1.1"), "neither a path"),
            (with_line("GET ?q HTTP/1.1"), "neither a path"),
            (with_line("GET ftp://x/ HTTP/1.1"), "neither a path"),
            (with_line("GET http:/x HTTP/1.1"), "neither a path"),
            (with_line("GET http:///a HTTP/1.1"), "authority"),
            (with_line("GET http://u@x/ HTTP/1.1"), "authority"),
            (with_line("GET http://y/ HTTP/1.1"), "differs from Host"),
            (with_line("GET /a#b HTTP/1.1"), "percent-encoded"),
            (with_line("GET /\u{e4} HTTP/1.1"), "percent-encoded"),
            (with_line("GET /<a> HTTP/1.1"), "percent-encoded"),
            (with_line("GET /a b HTTP/1.1"), "version"),
            (with_line("GET / HTTP/2.0"), "version"),
            (with_line("GET / HTTP/0.9"), "version"),
            (with_line("GET / http/1.1"), "version"),
            (with_line("GET / HTTP/1.1 "), "version"),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), "version"),
            (with_fields(""), "no Host"),
            (with_fields("Host: x\r\nHost: x\r\n"), "more than one Host"),
            (with_fields("Host:\r\n"), "Host is not"),
            (with_fields("Host: a b\r\n"), "Host is not"),
            (with_fields("Host: u@x\r\n"), "Host is not"),
            (with_fields("Host: x:65536\r\n"), "Host is not"),
            (with_fields("Host: x/y\r\n"), "Host is not"),
            (with_fields("Host: [::1\r\n"), "Host is not"),
            (with_fields("Host: x\r\n folded: y\r\n"), "folded"),
            (with_fields("Host: x\r\nA : y\r\n"), "before the colon"),
            (with_fields("Host: x\r\nA\u{b}: y\r\n"), "not a token"),
            (with_fields("Host: x\r\n: y\r\n"), "not a token"),
            (with_fields("Host: x\r\nA\r\n"), "without a colon"),
            (with_fields("Host: x\r\nA: \0\r\n"), "control character"),
            (with_fields("Host: x\r\nA: b\rc\r\n"), "control character"),
            (with_fields("Host: x\r\nA: b\r\r\n"), "control character"),
            (with_fields("Host: x\r\nA: \u{7f}\r\n"), "control character"),
            (with_fields("Host: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n"), "more than one Content-Length"),
            (with_fields("Host: x\r\nContent-Length: 1, 1\r\n"), "one decimal number"),
            (with_fields("Host: x\r\nContent-Length: +1\r\n"), "one decimal number"),
            (with_fields("Host: x\r\nContent-Length: -1\r\n"), "one decimal number"),
            (with_fields("Host: x\r\nContent-Length: 0x1\r\n"), "one decimal number"),
            (with_fields("Host: x\r\nContent-Length:\r\n"), "one decimal number"),
            (with_fields("Host: x\r\nContent-Length: 9223372036854775808\r\n"), "one decimal number"),
            (with_fields("Host: x\r\nTransfer-Encoding: gzip, chunked\r\n"), "other than chunked"),
            (with_fields("Host: x\r\nTransfer-Encoding: identity\r\n"), "other than chunked"),
            (with_fields("Host: x\r\nTransfer-Encoding: chunked, chunked\r\n"), "other than chunked"),
            (with_fields("Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), "other than chunked"),
            (with_fields("Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n"), "both"),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), "on HTTP/1.0"),
        ];
        for (request, words) in cases {
            let refusal = refusal(request.as_bytes());
            assert_eq!(refusal.reason, Reason::BadRequest, "{request:?}");
            assert!(refusal.detail.contains(words), "{request:?}: {}", refusal.detail);
        }
    }

    #[test]
    fn each_limit_has_its_own_reason_and_is_exact() {
        let uri = |len: usize| format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", "/".repeat(len));
        assert_eq!(head(&uri(60)).target, 4..64);
        assert_eq!(refusal(uri(61).as_bytes()).reason, Reason::UriTooLong);
        assert_eq!(refusal(&uri(500).as_bytes()[..65]).reason, Reason::UriTooLong, "known before the line has ended");

        let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a:b\r\n".repeat(count));
        assert_eq!(head(&fields(3)).body, BodyLength::None);
        assert_eq!(refusal(fields(4).as_bytes()).reason, Reason::HeadersTooLarge);

        let sized = |size: usize| {
            let mut request = b"GET / HTTP/1.1\r\nHost: x\r\na:".to_vec();
            request.resize(size - 4, b'b');
            [request, b"\r\n\r\n".to_vec()].concat()
        };
        assert!(matches!(check(&sized(400), &LIMITS), Verdict::Complete(_)));
        assert_eq!(refusal(&sized(401)).reason, Reason::HeadersTooLarge);
        assert_eq!(check(&sized(401)[..399], &LIMITS), Verdict::NeedMore);
        assert_eq!(refusal(&sized(401)[..400]).reason, Reason::HeadersTooLarge);
    }

    #[test]
    fn an_endless_version_is_refused_soon() {
        let request = [b"GET ".to_vec(), vec![b'/'; 60], vec![b' '; 12]].concat();
        assert_eq!(refusal(&request).detail, NO_REQUEST_LINE.detail);
    }

    /// Heads that are right or nearly so, which arbitrary bytes never are.
    fn nearly_a_head() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            "GET",
            "POST",
            " ",
            "/",
            "/a?b",
            "http://x/",
            "*",
            "HTTP/1.1",
            "HTTP/1.0",
            "\r\n",
            "\r\n",
            "\r\n\r\n",
            "\r",
            "\n",
            "GET / HTTP/1.1\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\n",
            "Host: x\r\n",
            "Content-Length: 3\r\n",
            "Content-Length",
            "Transfer-Encoding: chunked\r\n",
            ":",
            "a:b\r\n",
            "\0",
            "\u{e4}",
            "Upgrade: websocket\r\n",
            "GET ////////////////////////////////////////////////////////////////////////",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "a: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = check(&bytes, &LIMITS);
        }

        #[test]
        fn pieces_mean_the_same_as_the_whole(bytes in nearly_a_head(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4)) {
            let whole = check(&bytes, &LIMITS);
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([bytes.len()]).collect();
            ends.sort_unstable();
            let mut reader = HeadReader::new(LIMITS);
            let mut verdict = Verdict::NeedMore;
            for end in ends {
                if verdict == Verdict::NeedMore {
                    verdict = reader.advance(&bytes[..end]);
                }
            }
            prop_assert_eq!(verdict, whole);
        }

        #[test]
        fn byte_by_byte_means_the_same_as_the_whole(bytes in nearly_a_head()) {
            let mut reader = HeadReader::new(LIMITS);
            let verdict = (0..=bytes.len()).map(|end| reader.advance(&bytes[..end])).find(|verdict| *verdict != Verdict::NeedMore);
            prop_assert_eq!(verdict.unwrap_or(Verdict::NeedMore), check(&bytes, &LIMITS));
        }

        /// What we accept means the same to the parser that Pingora uses.
        #[test]
        fn httparse_agrees_with_what_is_accepted(bytes in nearly_a_head()) {
            if let Verdict::Complete(head) = check(&bytes, &LIMITS) {
                let mut fields = [httparse::EMPTY_HEADER; 8];
                let mut request = httparse::Request::new(&mut fields);
                prop_assert_eq!(request.parse(&bytes), Ok(httparse::Status::Complete(head.head_len)));
                prop_assert_eq!(request.path.map(str::as_bytes), Some(&bytes[head.target]));
                prop_assert_eq!(request.version, Some(u8::from(!head.http10)));
            }
        }
    }
}
