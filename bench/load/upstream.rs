//! A server that does as little as HTTP/1.1 allows: what is behind the proxies when they are measured.
//!
//! Prints the port it listens on, then answers until it is ended. What it answers hangs on how the path ends:
//!
//! | path | answer |
//! |---|---|
//! | `/1k`, `/64k`, `/1m` | so many bytes, with `Content-Length` |
//! | `/chunked/1k`, `/chunked/64k` | the same in chunks: one, or four |
//! | `/head` | the head of the request as it arrived |
//! | `/body` | the length of the request's body and its Adler-32: `1048576 1234567890` |
//! | anything else | 13 bytes |
//!
//! One thread, keep-alive, pipelining, one `write` per answer. It understands heads without leniency and bodies with
//! `Content-Length`, and answers when it has read all of one.

mod head;
mod listen;
mod reactor;

use reactor::{Event, Reactor, is_ending, token, unless_blocked};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// As large as a head that a gateway passes on, or attacks with large heads would be this program's failures.
const HEAD_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 256 * 1024;
const CHUNK_BYTES: usize = 16 * 1024;
const LISTENER: usize = usize::MAX;
const ADLER: u32 = 65521;

/// Ready-made answers.
struct Answers {
    small: Arc<[u8]>,
    others: Vec<(&'static [u8], Arc<[u8]>)>,
}

/// What a request will be answered with when all of it has arrived.
#[derive(Default)]
enum Wanted {
    #[default]
    Nothing,
    Ready(Arc<[u8]>),
    /// What is known of its body so far.
    Body {
        bytes: usize,
        low: u32,
        high: u32,
    },
}

struct Connection {
    stream: TcpStream,
    /// The beginning of a head.
    unread: Vec<u8>,
    wanted: Wanted,
    body_left: usize,
    answers: VecDeque<Arc<[u8]>>,
    /// Of the first answer.
    sent: usize,
}

fn main() -> io::Result<()> {
    let listener = listen::listen()?;
    writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
    listener.set_nonblocking(true)?;
    let reactor = Reactor::new()?;
    reactor.watch(&listener, LISTENER)?;
    let answers = Answers::new();
    let (mut connections, mut free) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; READ_BYTES];
    let mut events: Vec<Event> = Vec::new();
    loop {
        reactor.wait(&mut events, None)?;
        for event in &events {
            if token(event) == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    let at = free.pop().unwrap_or(connections.len());
                    connections.resize_with(connections.len().max(at + 1), || None);
                    connections[at] = Connection::new(stream, &reactor, at).ok();
                }
            } else if let Some(connection) = &mut connections[token(event)]
                && !connection.go_on(&answers, &mut buffer, is_ending(event)).unwrap_or(false)
            {
                // One that breaks is its client's affair.
                connections[token(event)] = None;
                free.push(token(event));
            }
        }
    }
}

impl Answers {
    fn new() -> Self {
        let [kib, large, huge] = [1024, 64 * 1024, 1024 * 1024].map(|length| vec![b'x'; length]);
        let others: Vec<(&'static [u8], _)> = vec![
            // The longer path is looked for first.
            (b"/chunked/1k", chunked(&kib)),
            (b"/chunked/64k", chunked(&large)),
            (b"/1k", whole(&kib)),
            (b"/64k", whole(&large)),
            (b"/1m", whole(&huge)),
        ];
        Self { small: whole(b"Hello, world\n"), others }
    }

    fn to(&self, head: &[u8]) -> Wanted {
        let target = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        if target.len() <= 2 || target.ends_with(b"/") {
            Wanted::Ready(self.small.clone())
        } else if target.ends_with(b"/head") {
            Wanted::Ready(whole(head))
        } else if target.ends_with(b"/body") {
            Wanted::Body { bytes: 0, low: 1, high: 0 }
        } else {
            let ready = self.others.iter().find(|(path, _)| target.ends_with(path));
            Wanted::Ready(ready.map_or(&self.small, |(_, answer)| answer).clone())
        }
    }
}

fn whole(body: &[u8]) -> Arc<[u8]> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat().into()
}

fn chunked(body: &[u8]) -> Arc<[u8]> {
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(CHUNK_BYTES) {
        answer.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        answer.extend_from_slice(chunk);
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"0\r\n\r\n");
    answer.into()
}

impl Connection {
    fn new(stream: TcpStream, reactor: &Reactor, at: usize) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        reactor.watch(&stream, at)?;
        let (unread, answers) = (Vec::new(), VecDeque::new());
        Ok(Self { stream, unread, wanted: Wanted::Nothing, body_left: 0, answers, sent: 0 })
    }

    /// Does what can be done now; tells whether there may be more later.
    fn go_on(&mut self, answers: &Answers, buffer: &mut [u8], ending: bool) -> io::Result<bool> {
        // Who does not take answers is not read from.
        while self.send()? {
            match unless_blocked(self.stream.read(buffer))? {
                None => return Ok(true),
                Some(0) => return Ok(false),
                Some(read) => {
                    self.take(&buffer[..read], answers)?;
                    if read < buffer.len() && !ending {
                        return self.send().map(|_| true);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Tells whether all was sent.
    fn send(&mut self) -> io::Result<bool> {
        while let Some(answer) = self.answers.front() {
            match unless_blocked(self.stream.write(&answer[self.sent..]))? {
                None => return Ok(false),
                Some(wrote) => self.sent += wrote,
            }
            if self.sent == answer.len() {
                self.answers.pop_front();
                self.sent = 0;
            }
        }
        Ok(true)
    }

    fn take(&mut self, bytes: &[u8], answers: &Answers) -> io::Result<()> {
        let joined;
        let mut rest = bytes;
        if !self.unread.is_empty() {
            joined = [&std::mem::take(&mut self.unread), bytes].concat();
            rest = &joined;
        }
        while !rest.is_empty() {
            if self.body_left == 0 {
                let Some(end) = head::end(rest) else {
                    self.unread = rest.to_vec();
                    let fits = rest.len() <= HEAD_MAX;
                    return if fits { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
                };
                let (head, after) = rest.split_at(end);
                self.wanted = answers.to(head);
                self.body_left = head::content_length(head).unwrap_or(0);
                rest = after;
            }
            let (body, after) = rest.split_at(self.body_left.min(rest.len()));
            self.wanted.note(body);
            self.body_left -= body.len();
            rest = after;
            if self.body_left == 0 {
                self.answers.extend(std::mem::take(&mut self.wanted).answer());
            }
        }
        Ok(())
    }
}

impl Wanted {
    /// More of the request's body.
    fn note(&mut self, body: &[u8]) {
        if let Self::Body { bytes, low, high } = self {
            *bytes += body.len();
            for byte in body {
                *low = (*low + u32::from(*byte)) % ADLER;
                *high = (*high + *low) % ADLER;
            }
        }
    }

    fn answer(self) -> Option<Arc<[u8]>> {
        match self {
            Self::Nothing => None,
            Self::Ready(answer) => Some(answer),
            Self::Body { bytes, low, high } => Some(whole(format!("{bytes} {}", high << 16 | low).as_bytes())),
        }
    }
}
