//! An instance that keeps every byte it gets, reads them by the strictest rules there are, and answers as it is told.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::harness::net;

/// One thing that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The head as it stood on the wire, with its empty line.
    pub(super) head: Vec<u8>,
    /// The body without its framing; of a tunnel, everything that came.
    pub(super) body: Vec<u8>,
    /// Whether the body was there to its end.
    pub(super) complete: bool,
    /// Which connection it came on, counted from 0.
    pub(super) connection: usize,
}

/// What is answered to the next request, once.
#[derive(Clone, Debug, Default)]
pub(super) struct Scripted {
    /// The bytes, one write each; an empty one is a moment of silence.
    pub(super) writes: Vec<Vec<u8>>,
    /// What becomes of the connection behind them.
    pub(super) end: End,
    /// The answer does not wait for the request's body, and nothing else is served on that connection.
    pub(super) early: bool,
    /// It has been given, and its connection been closed if that was said.
    pub(super) played: Arc<AtomicBool>,
}

/// What an instance does with its connection when it has answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    #[default]
    Keep,
    Close,
    Reset,
}

/// The running instance.
pub(super) struct Recorder {
    pub(super) addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    scripted: Mutex<Option<Scripted>>,
    /// Of the script that was set last.
    played: Mutex<Arc<AtomicBool>>,
    stopping: AtomicBool,
}

impl Recorder {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind((net::loopback(), 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let acceptor = std::thread::spawn({
            let shared = shared.clone();
            move || {
                for (connection, stream) in listener.incoming().flatten().enumerate() {
                    if shared.stopping.load(Ordering::SeqCst) {
                        break;
                    }
                    let shared = shared.clone();
                    // An error is the gateway's closing, which what was seen tells.
                    std::thread::spawn(move || serve(stream, connection, &shared));
                }
            }
        });
        Self { addr, shared, acceptor: Some(acceptor) }
    }

    /// What came since [`Self::forget`].
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(super) fn forget(&self) {
        self.shared.seen.lock().unwrap().clear();
    }

    /// Answers the next request like this.
    pub(super) fn answer_next(&self, scripted: Scripted) {
        *self.shared.played.lock().unwrap() = scripted.played.clone();
        *self.shared.scripted.lock().unwrap() = Some(scripted);
    }

    /// Whether the scripted answer has been given, and its connection been closed if that was said.
    pub(super) fn has_played(&self) -> bool {
        self.shared.played.lock().unwrap().load(Ordering::SeqCst)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        TcpStream::connect(self.addr).ok();
        self.acceptor.take().map(JoinHandle::join);
    }
}

fn serve(stream: TcpStream, connection: usize, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut wire = Wire { stream, buffer: Vec::new(), ended: false };
    loop {
        let Some(head_len) = wire.head()? else {
            let rest = std::mem::take(&mut wire.buffer);
            if !rest.is_empty() {
                shared.seen.lock().unwrap().push(Seen { head: rest, body: Vec::new(), complete: false, connection });
            }
            return Ok(());
        };
        let head: Vec<u8> = wire.buffer.drain(..head_len).collect();
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        if text.contains("\r\nupgrade:") && !text.starts_with("get /no-tunnel ") {
            wire.stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
            while wire.fill().unwrap_or(0) > 0 {}
            let body = std::mem::take(&mut wire.buffer);
            shared.seen.lock().unwrap().push(Seen { head, body, complete: true, connection });
            return Ok(());
        }
        if text.contains("\r\nexpect: 100-continue\r\n") {
            wire.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if shared.scripted.lock().unwrap().as_ref().is_some_and(|scripted| scripted.early) {
            return answer_early(wire, head, connection, shared);
        }
        let (body, complete) = wire.body(&text);
        shared.seen.lock().unwrap().push(Seen { head: head.clone(), body, complete, connection });
        if !complete {
            return Ok(());
        }
        let scripted = shared.scripted.lock().unwrap().take();
        match scripted {
            None => wire.stream.write_all(&plain_answer(&head))?,
            Some(scripted) => match wire.play(&scripted) {
                Some(rest) => wire = rest,
                None => return Ok(()),
            },
        }
    }
}

/// Answers first and reads the body then.
fn answer_early(wire: Wire, head: Vec<u8>, connection: usize, shared: &Shared) -> io::Result<()> {
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    shared.seen.lock().unwrap().push(Seen { head, body: Vec::new(), complete: false, connection });
    let Some(scripted) = shared.scripted.lock().unwrap().take() else { return Ok(()) };
    if let Some(mut wire) = wire.play(&scripted) {
        let (body, complete) = wire.body(&text);
        let mut seen = shared.seen.lock().unwrap();
        if let Some(seen) = seen.iter_mut().find(|seen| seen.connection == connection && !seen.complete) {
            (seen.body, seen.complete) = (body, complete);
        }
    }
    Ok(())
}

/// 200 with the request's target.
fn plain_answer(head: &[u8]) -> Vec<u8> {
    let mut words = head.split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", target.len()).into_bytes();
    if method != b"HEAD" {
        answer.extend_from_slice(target);
    }
    answer
}

struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    ended: bool,
}

impl Wire {
    /// Writes an answer. Gives the connection back when more may come on it.
    fn play(mut self, scripted: &Scripted) -> Option<Self> {
        let written = scripted.writes.iter().try_for_each(|bytes| {
            if bytes.is_empty() {
                // Only so that the kernel does not join the writes: nothing depends on it.
                std::thread::sleep(super::MOMENT);
            }
            self.stream.write_all(bytes)
        });
        let rest = match scripted.end {
            End::Keep => Some(self),
            // Closing with something unread would be a reset.
            End::Close if scripted.early => self.stream.shutdown(Shutdown::Write).ok().map(|()| self),
            End::Close => {
                self.stream.shutdown(Shutdown::Both).ok();
                None
            }
            End::Reset => {
                net::reset(self.stream);
                None
            }
        };
        scripted.played.store(true, Ordering::SeqCst);
        // An error is the gateway's closing.
        rest.filter(|_| written.is_ok())
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut space = [0; 16 * 1024];
        let read = self.stream.read(&mut space)?;
        self.buffer.extend_from_slice(&space[..read]);
        self.ended |= read == 0;
        Ok(read)
    }

    /// The length of the head, once it is there; `None` when the gateway closes before.
    fn head(&mut self) -> io::Result<Option<usize>> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                return Ok(Some(at + 4));
            }
            if self.fill().unwrap_or(0) == 0 {
                return Ok(None);
            }
        }
    }

    /// The body of a request with this head in lower case, and whether it was complete. Where the head leaves a doubt about
    /// the framing, everything is body and nothing complete.
    fn body(&mut self, head: &str) -> (Vec<u8>, bool) {
        let all = |name: &str| head.split("\r\n").filter_map(|line| line.strip_prefix(name)).map(str::trim).collect::<Vec<_>>();
        match (all("content-length:").as_slice(), all("transfer-encoding:").as_slice()) {
            ([], []) => (Vec::new(), true),
            ([length], []) => match length.parse() {
                Ok(length) => self.exactly(length),
                Err(_) => self.doubtful(),
            },
            ([], ["chunked"]) => self.chunks(),
            _ => self.doubtful(),
        }
    }

    fn doubtful(&mut self) -> (Vec<u8>, bool) {
        while self.fill().unwrap_or(0) > 0 {}
        (std::mem::take(&mut self.buffer), false)
    }

    fn exactly(&mut self, length: usize) -> (Vec<u8>, bool) {
        while self.buffer.len() < length {
            if self.fill().unwrap_or(0) == 0 {
                return (std::mem::take(&mut self.buffer), false);
            }
        }
        (self.buffer.drain(..length).collect(), true)
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line = self.buffer.drain(..at).collect();
                self.buffer.drain(..2);
                return Some(line);
            }
            if self.fill().unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Only what the gateway itself may write: sizes in plain hexadecimal, no extensions, no trailers.
    fn chunks(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let Some(line) = self.line() else { return (body, false) };
            let size = std::str::from_utf8(&line).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
            let Some(size) = size else { return (body, false) };
            if size > 0 {
                let (data, complete) = self.exactly(size);
                body.extend_from_slice(&data);
                if !complete {
                    return (body, false);
                }
            }
            if self.line().as_deref() != Some(b"") {
                return (body, false);
            }
            if size == 0 {
                return (body, true);
            }
        }
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
