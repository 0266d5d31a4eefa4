//! A kept-alive HTTP/1.1 connection that blocks, with each wait bounded; one thread drives one.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Connects when it is first asked, and again when the server closed the connection.
pub(crate) struct Client {
    pub(crate) port: u16,
    stream: Option<TcpStream>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

/// Why there is no answer.
pub(crate) enum Broken {
    /// Nobody listens: nothing was sent.
    Refused,
    /// The request was sent, at least in part.
    Cut(io::Error),
}

impl Client {
    pub(crate) fn new(port: u16) -> Self {
        Self { port, stream: None }
    }

    pub(crate) fn ask(&mut self, request: &str) -> Result<Answer, Broken> {
        let mut stream = self.connection().map_err(|_| Broken::Refused)?;
        let answer = exchange(&mut stream, request).map_err(Broken::Cut)?;
        if !answer.field("connection").eq_ignore_ascii_case("close") {
            self.stream = Some(stream);
        }
        Ok(answer)
    }

    fn connection(&mut self) -> io::Result<TcpStream> {
        if let Some(stream) = self.stream.take().filter(is_idle) {
            return Ok(stream);
        }
        let stream = connect(self.port)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

impl Answer {
    /// A header field's value; empty when it is absent.
    pub(crate) fn field(&self, name: &str) -> &str {
        let pairs = self.head.lines().filter_map(|line| line.split_once(':'));
        pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next_back().unwrap_or_default()
    }
}

/// A connection to whoever listens.
pub(crate) fn connect(port: u16) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)
}

/// Whether the server has neither closed the connection nor said something unasked.
fn is_idle(stream: &TcpStream) -> bool {
    let would_block = |result: io::Result<usize>| result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
    stream.set_nonblocking(true).is_ok() && would_block(stream.peek(&mut [0])) && stream.set_nonblocking(false).is_ok()
}

/// One request and its answer, which has a `Content-Length`.
fn exchange(stream: &mut TcpStream, request: &str) -> io::Result<Answer> {
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::with_capacity(1024);
    let head_len = loop {
        if let Some(at) = bytes.windows(HEAD_END.len()).position(|window| window == HEAD_END) {
            break at + HEAD_END.len();
        }
        fill(stream, &mut bytes)?;
    };
    let head = String::from_utf8_lossy(&bytes[..head_len]).into_owned();
    let status = head.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let mut answer = Answer { status, head, body: String::new() };
    let length = head_len + answer.field("content-length").parse::<usize>().map_err(io::Error::other)?;
    while bytes.len() < length {
        fill(stream, &mut bytes)?;
    }
    answer.body = String::from_utf8_lossy(&bytes[head_len..]).into_owned();
    Ok(answer)
}

fn fill(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; 4096];
    match stream.read(&mut piece)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => {
            bytes.extend_from_slice(&piece[..read]);
            Ok(())
        }
    }
}
