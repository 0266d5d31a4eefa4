//! One connection of a client: half-sent requests, keep-alive, and answers read piece by piece.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::http::{Head, Response, header, parse_head};
use super::{PATIENCE, Request, net};

/// How a body ends.
enum Framing {
    Length(usize),
    Chunked,
    Close,
}

/// A connection, with what was received and not looked at yet.
pub(crate) struct Conn {
    stream: TcpStream,
    buffer: Vec<u8>,
    peer: SocketAddr,
}

impl Conn {
    #[track_caller]
    pub(crate) fn open(target: SocketAddr) -> Self {
        Self::open_from(None, target).unwrap_or_else(|error| panic!("no connection to {target}: {error}"))
    }

    pub(crate) fn open_from(source: Option<IpAddr>, target: SocketAddr) -> io::Result<Self> {
        Self::over(net::connect(source, target)?)
    }

    /// Speaks over a connection that exists.
    pub(crate) fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let peer = stream.peer_addr()?;
        Ok(Self { stream, buffer: Vec::new(), peer })
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: &Request) -> Response {
        self.send(request.bytes(&self.peer.to_string()));
        self.response(&request.method)
    }

    /// Sends the request and leaves the answer for later.
    #[track_caller]
    pub(crate) fn start(&mut self, request: &Request) {
        self.send(request.bytes(&self.peer.to_string()));
    }

    /// Reads the answer to a request with this method, past any 1xx.
    #[track_caller]
    pub(crate) fn response(&mut self, method: &str) -> Response {
        self.try_response(method).unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    pub(crate) fn try_response(&mut self, method: &str) -> io::Result<Response> {
        let mut interim = Vec::new();
        let head = loop {
            let head = self.try_head()?;
            if !(100..200).contains(&head.status) || head.status == 101 {
                break head;
            }
            interim.push(head);
        };
        let (body, complete) = self.body_of(&head, method);
        let Head { raw, version, status, headers } = head;
        Ok(Response { raw, version, status, headers, body, interim, complete })
    }

    /// Reads one head, 1xx or not.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Head {
        self.try_head().unwrap_or_else(|error| panic!("no head: {error}"))
    }

    pub(crate) fn try_head(&mut self) -> io::Result<Head> {
        let raw = self.until(b"\r\n\r\n")?;
        let (first, headers) = parse_head(&String::from_utf8_lossy(&raw));
        let mut words = first.split(' ');
        let version = words.next().unwrap_or_default().to_owned();
        let status = words.next().and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {first:?}")))?;
        Ok(Head { raw, version, status, headers })
    }

    /// The bytes up to and including `end`.
    pub(crate) fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Ok(self.buffer.drain(..at + end.len()).collect());
            }
            if self.fill()? == 0 {
                let kind = io::ErrorKind::UnexpectedEof;
                return Err(io::Error::new(kind, format!("closed after {:?}", String::from_utf8_lossy(&self.buffer))));
            }
        }
    }

    /// Exactly `length` bytes.
    pub(crate) fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// The next chunk of a chunked body; empty at its end.
    pub(crate) fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.until(b"\r\n")?;
        let text = String::from_utf8_lossy(&line);
        let digits = text.trim_end().split(';').next().unwrap_or_default();
        let length = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
        let data = self.exactly(length)?;
        if length > 0 {
            self.exactly(2)?;
        } else {
            while self.until(b"\r\n")? != b"\r\n" {}
        }
        Ok(data)
    }

    /// Everything until the other side closes; tells whether it closed in order.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, bool) {
        loop {
            match self.fill() {
                Ok(0) => return (std::mem::take(&mut self.buffer), true),
                Ok(_) => {}
                Err(_) => return (std::mem::take(&mut self.buffer), false),
            }
        }
    }

    /// Whether the other side closes within `limit` without sending anything more.
    pub(crate) fn closes_within(&mut self, limit: Duration) -> bool {
        self.stream.set_read_timeout(Some(limit)).unwrap();
        let outcome = self.fill();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match outcome {
            Ok(received) => received == 0 && self.buffer.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// Whether something has arrived, be it the end.
    pub(crate) fn has_news(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).ok();
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        net::reset(self.stream);
    }

    /// A second handle, for another thread.
    pub(crate) fn stream(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    fn body_of(&mut self, head: &Head, method: &str) -> (Vec<u8>, bool) {
        let length = header(&head.headers, "content-length").and_then(|value| value.parse().ok());
        let chunked = header(&head.headers, "transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
        let framing = match length {
            _ if method == "HEAD" || matches!(head.status, 101 | 204 | 304) => Framing::Length(0),
            _ if chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::Close,
        };
        match framing {
            Framing::Length(length) => match self.exactly(length) {
                Ok(body) => (body, true),
                Err(_) => (std::mem::take(&mut self.buffer), false),
            },
            Framing::Chunked => self.all_chunks(),
            Framing::Close => self.rest(),
        }
    }

    fn all_chunks(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            match self.chunk() {
                Ok(chunk) if chunk.is_empty() => return (body, true),
                Ok(chunk) => body.extend(chunk),
                Err(_) => {
                    // A chunk that has begun is no part of what arrived.
                    self.buffer.clear();
                    return (body, false);
                }
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut space = [0; 16 * 1024];
        let length = self.stream.read(&mut space)?;
        self.buffer.extend(&space[..length]);
        Ok(length)
    }
}
