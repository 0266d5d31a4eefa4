//! Waiting for many sockets at once, as cheaply as the kernel lets us: epoll, edge-triggered, each socket registered once.
//!
//! An edge comes only when something changes: whoever is told must read until a read is short, or until the end if that has
//! come, and write until a write is short.

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

pub(crate) use rustix::event::epoll::Event;

const EVENTS: usize = 512;

pub(crate) struct Reactor {
    epoll: OwnedFd,
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Events of it will carry the token. It is forgotten when it is closed.
    pub(crate) fn watch(&self, source: impl AsFd, token: usize) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, source, epoll::EventData::new_u64(token as u64), flags)?)
    }

    /// Replaces the events by the next ones; there are none when the time is over first.
    pub(crate) fn wait(&self, events: &mut Vec<Event>, patience: Option<Duration>) -> io::Result<()> {
        events.clear();
        events.reserve(EVENTS);
        let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
        match epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The token of what it happened to.
pub(crate) fn token(event: &Event) -> usize {
    event.data.u64() as usize
}

/// Whether the other side sends no more after what can be read.
pub(crate) fn is_ending(event: &Event) -> bool {
    let flags = event.flags;
    flags.intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
}

/// How much was moved; `None` when it has to wait.
pub(crate) fn unless_blocked(moved: io::Result<usize>) -> io::Result<Option<usize>> {
    match moved {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        moved => moved.map(Some),
    }
}
