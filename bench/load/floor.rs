//! The least that a proxy can cost: bytes are carried from one connection to another, and nobody looks at them.
//!
//! `bench-floor UPSTREAM [WORKERS]` prints the port it listens on and forwards to that port of this machine until it is ended.
//! Each client's connection has one of its own to the upstream. When either side closes, both do.

mod listen;
mod reactor;

use reactor::{Event, Reactor, is_ending, token, unless_blocked};
use rustix::event::{EventfdFlags, eventfd};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

const BUFFER_BYTES: usize = 256 * 1024;
/// Connections that may wait for a worker to take them.
const WAITING: usize = 4096;
const BELL: usize = usize::MAX;

/// A client's connection and the one to the upstream, and what could not be written at once to either.
struct Pair {
    streams: [TcpStream; 2],
    unsent: [Vec<u8>; 2],
}

struct Worker {
    pairs: SyncSender<Pair>,
    bell: Arc<OwnedFd>,
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1).map_while(|argument| argument.parse().ok());
    let upstream = arguments.next().ok_or_else(|| io::Error::other("usage: bench-floor UPSTREAM [WORKERS]"))?;
    let workers = (0..arguments.next().unwrap_or(1)).map(|_| Worker::start()).collect::<io::Result<Vec<_>>>()?;
    let listener = listen::listen()?;
    writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
    // Accepting is a thread of its own, so that every worker has as many connections as the others.
    for worker in workers.iter().cycle() {
        let (client, _) = listener.accept()?;
        worker.pairs.send(Pair::new(client, upstream)?).map_err(io::Error::other)?;
        rustix::io::write(&worker.bell, &1u64.to_ne_bytes())?;
    }
    Ok(())
}

impl Worker {
    fn start() -> io::Result<Self> {
        let (pairs, coming) = sync_channel(WAITING);
        let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let reactor = Reactor::new()?;
        reactor.watch(&bell, BELL)?;
        thread::spawn(move || forward(&reactor, &coming));
        Ok(Self { pairs, bell })
    }
}

fn forward(reactor: &Reactor, coming: &Receiver<Pair>) -> io::Result<()> {
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut free = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut events: Vec<Event> = Vec::new();
    loop {
        reactor.wait(&mut events, None)?;
        for event in &events {
            if token(event) == BELL {
                // The bell is never read: each ring is an edge.
                while let Ok(pair) = coming.try_recv() {
                    let at = free.pop().unwrap_or(pairs.len());
                    pairs.resize_with(pairs.len().max(at + 1), || None);
                    reactor.watch(&pair.streams[0], 2 * at)?;
                    reactor.watch(&pair.streams[1], 2 * at + 1)?;
                    pairs[at] = Some(pair);
                }
                continue;
            }
            let (at, side) = (token(event) / 2, token(event) % 2);
            if let Some(pair) = &mut pairs[at]
                && !pair.go_on(side, &mut buffer, is_ending(event)).unwrap_or(false)
            {
                pairs[at] = None;
                free.push(at);
            }
        }
    }
}

impl Pair {
    fn new(client: TcpStream, upstream: u16) -> io::Result<Self> {
        let streams = [client, TcpStream::connect((Ipv4Addr::LOCALHOST, upstream))?];
        for stream in &streams {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
        }
        Ok(Self { streams, unsent: [Vec::new(), Vec::new()] })
    }

    /// Something happened on that side: it has bytes, or room for those that wait. Tells whether both sides are still open.
    fn go_on(&mut self, side: usize, buffer: &mut [u8], ending: bool) -> io::Result<bool> {
        let had_room = self.unsent[side].is_empty();
        Ok(self.carry(side, buffer, ending)? && (had_room || self.carry(1 - side, buffer, false)?))
    }

    /// Moves what that side has to the other, until there is no more or no room.
    fn carry(&mut self, from: usize, buffer: &mut [u8], ending: bool) -> io::Result<bool> {
        let [mut source, mut sink] = [&self.streams[from], &self.streams[1 - from]];
        let unsent = &mut self.unsent[1 - from];
        while !unsent.is_empty() {
            match unless_blocked(sink.write(unsent))? {
                None => return Ok(true),
                Some(wrote) => drop(unsent.drain(..wrote)),
            }
        }
        loop {
            let Some(read) = unless_blocked(source.read(buffer))? else { return Ok(true) };
            if read == 0 {
                return Ok(false);
            }
            let wrote = unless_blocked(sink.write(&buffer[..read]))?.unwrap_or(0);
            if wrote < read {
                unsent.extend_from_slice(&buffer[wrote..read]);
                return Ok(true);
            }
            if read < buffer.len() && !ending {
                return Ok(true);
            }
        }
    }
}
