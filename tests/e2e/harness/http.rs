//! Requests and answers of HTTP/1.1, byte for byte.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::Conn;

/// Headers as they stood on the wire.
pub(crate) type Headers = Vec<(String, String)>;

/// The value of the first header called `name`.
pub(crate) fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// The values of all headers called `name`.
pub(crate) fn headers_all<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
}

/// Splits the lines of a head into the first one and the headers.
pub(crate) fn parse_head(head: &str) -> (String, Headers) {
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_owned(), value.trim().to_owned())
        })
        .collect();
    (first, headers)
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// As it stood on the wire, with its empty line.
    pub(crate) raw: Vec<u8>,
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) headers: Headers,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// The head as it stood on the wire, with its empty line.
    pub(crate) raw: Vec<u8>,
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
    /// Answers 1xx that came before.
    pub(crate) interim: Vec<Head>,
    /// Whether the body ended where its framing says.
    pub(crate) complete: bool,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub(crate) fn headers_all(&self, name: &str) -> Vec<&str> {
        headers_all(&self.headers, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; fails the test when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The stable word of an answer that the gateway made up itself.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.header("x-vertice-reason")
    }

    /// Checks the status and hands itself on.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.text());
        self
    }

    /// Checks that this is a complete problem document (SPEC §4) with this status and reason; gives the document.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, reason: &str) -> Value {
        assert_eq!((self.status, self.reason()), (status, Some(reason)), "{:?} {}", self.headers, self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["reason"], reason, "{problem}");
        for member in ["type", "title", "detail", "request_id"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member} in {problem}");
        }
        problem
    }
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    target: String,
    version: &'static str,
    host: Option<String>,
    headers: Headers,
    body: Option<Vec<u8>>,
    chunks: Option<Vec<Vec<u8>>>,
    source: Option<IpAddr>,
}

pub(crate) fn get(target: &str) -> Request {
    Request::new("GET", target)
}

pub(crate) fn head(target: &str) -> Request {
    Request::new("HEAD", target)
}

pub(crate) fn delete(target: &str) -> Request {
    Request::new("DELETE", target)
}

/// A `POST` of a JSON value.
pub(crate) fn post(target: &str, body: &Value) -> Request {
    Request::new("POST", target).json(body.to_string())
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            version: "HTTP/1.1",
            host: None,
            headers: Vec::new(),
            body: None,
            chunks: None,
            source: None,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    pub(crate) fn http10(mut self) -> Self {
        self.version = "HTTP/1.0";
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// A body that says it is JSON, whatever it is.
    pub(crate) fn json(self, body: impl Into<Vec<u8>>) -> Self {
        self.header("Content-Type", "application/json").body(body)
    }

    /// A chunked body.
    pub(crate) fn chunked(mut self, chunks: &[&[u8]]) -> Self {
        self.chunks = Some(chunks.iter().map(|chunk| chunk.to_vec()).collect());
        self
    }

    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// The target without its query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The body, however it is framed.
    pub(crate) fn whole_body(&self) -> Vec<u8> {
        self.body.clone().or_else(|| self.chunks.as_ref().map(|chunks| chunks.concat())).unwrap_or_default()
    }

    /// Sends from another of the machine's loopback addresses.
    pub(crate) fn from(mut self, source: impl Into<IpAddr>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The bytes on the wire.
    pub(crate) fn bytes(&self, host: &str) -> Vec<u8> {
        let host = self.host.as_deref().unwrap_or(host);
        let mut head = format!("{} {} {}\r\nHost: {host}\r\n", self.method, self.target, self.version);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        } else if self.chunks.is_some() {
            head.push_str("Transfer-Encoding: chunked\r\n");
        }
        let mut bytes = (head + "\r\n").into_bytes();
        bytes.extend(self.body.iter().flatten());
        if let Some(chunks) = &self.chunks {
            chunks.iter().for_each(|chunk| bytes.extend(one_chunk(chunk)));
            bytes.extend(b"0\r\n\r\n");
        }
        bytes
    }

    /// Sends it on a connection of its own and reads the answer.
    #[track_caller]
    pub(crate) fn send(&self, target: SocketAddr) -> Response {
        self.try_send(target).unwrap_or_else(|error| panic!("no answer from {target} to {self:?}: {error}"))
    }

    /// The same, for tests in which the answer may not come.
    pub(crate) fn try_send(&self, target: SocketAddr) -> std::io::Result<Response> {
        let mut conn = Conn::open_from(self.source, target)?;
        // An early answer may come with a closed door: read it nevertheless.
        let sent = conn.try_send(self.bytes(&target.to_string()));
        match conn.try_response(&self.method) {
            Err(error) => Err(sent.err().unwrap_or(error)),
            answer => answer,
        }
    }
}

/// One chunk of a chunked body.
pub(crate) fn one_chunk(data: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
    bytes.extend(data);
    bytes.extend(b"\r\n");
    bytes
}
