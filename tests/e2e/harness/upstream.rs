//! A scripted service: does to the gateway what the test says, and keeps what the gateway sent.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::http::{Headers, header, headers_all, parse_head};
use super::{eventually, net};

/// What becomes of the connection after an exchange.
pub(crate) enum After {
    KeepAlive,
    Close,
    Reset,
}

/// A script for one exchange; the request's head has been read, its body has not.
pub(crate) type Script = Arc<dyn Fn(&mut Exchange) -> io::Result<After> + Send + Sync>;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The head as text.
    pub(crate) head: String,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
    /// Which connection it came on, counted from 0.
    pub(crate) connection: usize,
    /// Which request of that connection it is, counted from 0.
    pub(crate) nth: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub(crate) fn headers_all(&self, name: &str) -> Vec<&str> {
        headers_all(&self.headers, name)
    }
}

/// One request and the connection it came on.
pub(crate) struct Exchange {
    pub(crate) seen: Seen,
    wire: Wire,
    shared: Arc<Shared>,
    index: usize,
}

impl Exchange {
    /// Reads the body to its end and notes it.
    pub(crate) fn read_body(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(piece) = self.read_piece()? {
            body.extend(piece);
        }
        Ok(body)
    }

    /// Reads the next piece of the body: a chunk, or what has arrived of a body of known length; `None` at its end.
    pub(crate) fn read_piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        let piece = if self.seen.header("transfer-encoding").is_some() {
            self.wire.chunk()?
        } else {
            let length: usize = self.seen.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
            self.wire.some(length - self.seen.body.len())?
        };
        self.seen.body.extend(&piece);
        self.shared.seen.lock().unwrap()[self.index].body.clone_from(&self.seen.body);
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// Reads and forgets the body, however large; gives its length and a checksum.
    pub(crate) fn swallow_body(&mut self) -> io::Result<(usize, u64)> {
        let mut sum = Checksum::default();
        let total: usize = self.seen.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        let chunked = self.seen.header("transfer-encoding").is_some();
        loop {
            let piece = if chunked { self.wire.chunk()? } else { self.wire.some(total - sum.length)? };
            if piece.is_empty() {
                return Ok((sum.length, sum.value));
            }
            sum.add(&piece);
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.stream.write_all(bytes.as_ref())
    }

    /// Sends a whole answer with its length.
    pub(crate) fn answer(&mut self, status: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut bytes = (head + "\r\n").into_bytes();
        if self.seen.method != "HEAD" {
            bytes.extend(body);
        }
        self.write(bytes)
    }

    /// Reads whatever comes next on the connection; empty when the gateway has closed it.
    pub(crate) fn read_raw(&mut self) -> io::Result<Vec<u8>> {
        self.wire.some(64 * 1024)
    }

    /// Waits until the gateway gives the connection up.
    pub(crate) fn hold(&mut self) -> io::Result<After> {
        while !self.read_raw()?.is_empty() {}
        Ok(After::Close)
    }
}

/// A sum over a stream's bytes that depends on their order.
#[derive(Default)]
pub(crate) struct Checksum {
    pub(crate) length: usize,
    pub(crate) value: u64,
}

impl Checksum {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        for byte in bytes {
            self.value = self.value.wrapping_mul(0x0100_0000_01b3) ^ u64::from(*byte);
        }
    }

    pub(crate) fn of(bytes: &[u8]) -> u64 {
        let mut sum = Self::default();
        sum.add(bytes);
        sum.value
    }
}

/// A running scripted service.
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Starts on an address of its own.
    pub(crate) fn start(script: Script) -> Self {
        Self::start_at(SocketAddr::from((net::loopback(), 0)), script)
    }

    /// Starts on this address.
    pub(crate) fn start_at(addr: SocketAddr, script: Script) -> Self {
        let listener = TcpListener::bind(addr).unwrap_or_else(|error| panic!("cannot listen on {addr}: {error}"));
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            seen: Mutex::default(),
            idle: Mutex::default(),
            stopping: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        let acceptor = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Self { addr, shared, acceptor: Some(acceptor) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Changes the script for the requests to come.
    pub(crate) fn set(&self, script: Script) {
        *self.shared.script.lock().unwrap() = script;
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many requests there were.
    pub(crate) fn count(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// The latest request.
    #[track_caller]
    pub(crate) fn last(&self) -> Seen {
        self.shared.seen.lock().unwrap().last().expect("the service was never asked").clone()
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many connections there are.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Goes away: answers what it is answering, closes its connections and listens no more.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.close();
        eventually("the service's connections to end", || self.open_connections() == 0);
    }

    fn close(&mut self) {
        if let Some(acceptor) = self.acceptor.take() {
            self.shared.stopping.store(true, Ordering::SeqCst);
            // Wakes the acceptor.
            let wake = TcpStream::connect(self.addr);
            acceptor.join().unwrap();
            drop(wake);
            for (_, stream) in self.shared.idle.lock().unwrap().drain(..) {
                stream.shutdown(Shutdown::Read).ok();
            }
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.close();
    }
}

struct Shared {
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    /// A second handle of each connection that has had an answer, to end it from outside.
    idle: Mutex<Vec<(usize, TcpStream)>>,
    stopping: AtomicBool,
    connections: AtomicUsize,
    open: AtomicUsize,
}

impl Shared {
    fn forget(&self, connection: usize) {
        self.idle.lock().unwrap().retain(|(other, _)| *other != connection);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        stream.map(|stream| start(stream, shared)).ok();
        if shared.stopping.load(Ordering::SeqCst) {
            break;
        }
    }
    // Whoever is connected already is still served, as an orderly service does.
    listener.set_nonblocking(true).unwrap();
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(false).unwrap();
        start(stream, shared);
    }
}

fn start(stream: TcpStream, shared: &Arc<Shared>) {
    stream.set_nodelay(true).ok();
    let connection = shared.connections.fetch_add(1, Ordering::SeqCst);
    shared.open.fetch_add(1, Ordering::SeqCst);
    let shared = shared.clone();
    std::thread::spawn(move || {
        // An error here means that the gateway closed the connection, or that we are stopping.
        let _ = serve(stream, connection, &shared);
        shared.forget(connection);
        shared.open.fetch_sub(1, Ordering::SeqCst);
    });
}

fn serve(stream: TcpStream, connection: usize, shared: &Arc<Shared>) -> io::Result<()> {
    let mut wire = Wire { stream, buffer: Vec::new() };
    for nth in 0.. {
        let Some(seen) = wire.head(connection, nth)? else { break };
        let index = {
            let mut all = shared.seen.lock().unwrap();
            all.push(seen.clone());
            all.len() - 1
        };
        let script = shared.script.lock().unwrap().clone();
        let mut exchange = Exchange { seen, wire, shared: shared.clone(), index };
        let after = script(&mut exchange);
        wire = exchange.wire;
        match after? {
            After::KeepAlive if nth == 0 => {
                let second = wire.stream.try_clone()?;
                shared.idle.lock().unwrap().push((connection, second));
                if shared.stopping.load(Ordering::SeqCst) {
                    break;
                }
            }
            After::KeepAlive if shared.stopping.load(Ordering::SeqCst) => break,
            After::KeepAlive => {}
            After::Close => break,
            After::Reset => {
                // Only the last handle's closing sends the reset.
                shared.forget(connection);
                net::reset(wire.stream);
                return Ok(());
            }
        }
    }
    wire.stream.shutdown(Shutdown::Both)
}

/// The service's end of a connection.
struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    fn head(&mut self, connection: usize, nth: usize) -> io::Result<Option<Seen>> {
        let Some(raw) = self.until(b"\r\n\r\n")? else { return Ok(None) };
        let head = String::from_utf8_lossy(&raw).into_owned();
        let (first, headers) = parse_head(&head);
        let mut words = first.split(' ').map(str::to_owned);
        let method = words.next().unwrap_or_default();
        let target = words.next().unwrap_or_default();
        Ok(Some(Seen { head, method, target, headers, body: Vec::new(), connection, nth }))
    }

    /// The bytes up to and including `end`, or `None` when the gateway closes before.
    fn until(&mut self, end: &[u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Ok(Some(self.buffer.drain(..at + end.len()).collect()));
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// What has arrived, at most `limit` bytes; empty for a limit of 0 or a closed connection.
    fn some(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() && limit > 0 {
            self.fill()?;
        }
        let length = self.buffer.len().min(limit);
        Ok(self.buffer.drain(..length).collect())
    }

    /// The next chunk; empty at the end of the body.
    fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.until(b"\r\n")?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let text = String::from_utf8_lossy(&line);
        let digits = text.trim_end().split(';').next().unwrap_or_default();
        let length = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
        while self.buffer.len() < length + 2 {
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let data = self.buffer.drain(..length).collect();
        if length == 0 {
            while self.until(b"\r\n")?.ok_or(io::ErrorKind::UnexpectedEof)? != b"\r\n" {}
        } else {
            self.buffer.drain(..2);
        }
        Ok(data)
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut space = [0; 64 * 1024];
        let length = self.stream.read(&mut space)?;
        self.buffer.extend(&space[..length]);
        Ok(length)
    }
}
