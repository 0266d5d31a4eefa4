//! Small writes that leave as one.
//!
//! Pingora writes the head of an answer and its body one after the other and flushes behind both. Its own stream holds small
//! writes back only where its own listeners made it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::AsyncWrite;

use crate::buffers::Buffer;

/// So much is held back at most: a head, and a small body behind it.
const HELD_MAX: usize = 1460;

/// What is held, and a chunk with the lines around it. Of more parts, the rest is written later.
const PARTS_MAX: usize = 4;

/// What was written and waits for more, or for a flush. It takes no memory while nothing does.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    held: Buffer,
}

impl Gathering {
    /// Takes `bufs` in, or writes what is held and then of `bufs`, at once where `to` can do that.
    pub(super) fn poll_write<W>(
        &mut self,
        mut to: Pin<&mut W>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>>
    where
        W: AsyncWrite + ?Sized,
    {
        let bytes: usize = bufs.iter().map(|buf| buf.len()).sum();
        if self.held.len() + bytes <= HELD_MAX {
            if !self.held.is_lent() {
                self.held = Buffer::small();
            }
            bufs.iter().for_each(|buf| self.held.extend_from_slice(buf));
            return Poll::Ready(Ok(bytes));
        }
        while !self.held.is_empty() && to.is_write_vectored() {
            let mut all = [IoSlice::new(&[]); PARTS_MAX];
            let parts = std::iter::once(IoSlice::new(&self.held)).chain(bufs.iter().copied());
            all.iter_mut().zip(parts).for_each(|(slot, part)| *slot = part);
            let written = some(ready!(to.as_mut().poll_write_vectored(cx, &all))?)?;
            if let Some(of_bufs) = written.checked_sub(self.held.len()).filter(|of_bufs| *of_bufs > 0) {
                self.held = Buffer::default();
                return Poll::Ready(Ok(of_bufs));
            }
            self.sent(written);
        }
        ready!(self.poll_held(to.as_mut(), cx))?;
        match bufs {
            [buf] => to.poll_write(cx, buf),
            _ => to.poll_write_vectored(cx, bufs),
        }
    }

    /// Writes what is held, and has `to` flushed.
    pub(super) fn poll_flush<W>(&mut self, mut to: Pin<&mut W>, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + ?Sized,
    {
        ready!(self.poll_held(to.as_mut(), cx))?;
        to.poll_flush(cx)
    }

    /// Nobody will flush any more: writes what can be written now.
    pub(super) fn let_go<W: AsyncWrite + ?Sized>(&mut self, to: Pin<&mut W>) {
        // Who gives a connection up does not wait for it.
        let _ = self.poll_held(to, &mut Context::from_waker(Waker::noop()));
    }

    fn poll_held<W>(&mut self, mut to: Pin<&mut W>, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + ?Sized,
    {
        while !self.held.is_empty() {
            let written = some(ready!(to.as_mut().poll_write(cx, &self.held))?)?;
            self.sent(written);
        }
        Poll::Ready(Ok(()))
    }

    fn sent(&mut self, bytes: usize) {
        if bytes >= self.held.len() {
            self.held = Buffer::default();
        } else {
            self.held.drain(..bytes);
        }
    }
}

/// A writer that takes nothing will never take anything.
pub(super) fn some(written: usize) -> io::Result<usize> {
    if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes up to `most` bytes of a write, and keeps the writes.
    struct Writes {
        seen: Vec<Vec<u8>>,
        most: usize,
        is_vectored: bool,
    }

    impl AsyncWrite for Writes {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let taken = buf.len().min(self.most);
            self.seen.push(buf[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
            self.poll_write(cx, &bufs.iter().flat_map(|buf| buf.to_vec()).collect::<Vec<u8>>())
        }

        fn is_write_vectored(&self) -> bool {
            self.is_vectored
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes all of `parts` and flushes: the lengths that the writer saw, which are all bytes in order.
    fn lengths(parts: &[usize], most: usize, is_vectored: bool) -> Vec<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        let (mut gathering, mut to) = (Gathering::default(), Writes { seen: Vec::new(), most, is_vectored });
        let mut expected = Vec::new();
        for (n, length) in parts.iter().enumerate() {
            let part: Vec<u8> = (0..*length).map(|at| (n * 31 + at) as u8).collect();
            expected.extend_from_slice(&part);
            let mut rest = &part[..];
            while !rest.is_empty() {
                let Poll::Ready(Ok(written)) = gathering.poll_write(Pin::new(&mut to), &mut cx, &[IoSlice::new(rest)]) else {
                    panic!("stuck")
                };
                rest = &rest[written..];
            }
        }
        assert!(gathering.poll_flush(Pin::new(&mut to), &mut cx).is_ready() && gathering.held.capacity() == 0);
        assert!(to.seen.concat() == expected, "every byte, in order");
        to.seen.iter().map(Vec::len).collect()
    }

    #[test]
    fn head_and_body_leave_together() {
        for is_vectored in [true, false] {
            assert_eq!(lengths(&[174, 13], 1 << 20, is_vectored), [187]);
        }
        assert_eq!(lengths(&[174, 65536], 1 << 20, true), [65710]);
        assert_eq!(lengths(&[174, 65536], 1 << 20, false), [174, 65536]);
    }

    #[test]
    fn a_chunk_leaves_with_the_lines_around_it() {
        let mut cx = Context::from_waker(Waker::noop());
        let (mut gathering, mut to) = (Gathering::default(), Writes { seen: Vec::new(), most: 1 << 20, is_vectored: true });
        let chunk = [IoSlice::new(b"5dc\r\n"), IoSlice::new(&[b'x'; 1500]), IoSlice::new(b"\r\n")];
        for (bufs, taken) in [(&[IoSlice::new(b"head")][..], 4), (&chunk[..], 1507), (&chunk[..1], 5)] {
            let written = gathering.poll_write(Pin::new(&mut to), &mut cx, bufs);
            assert!(matches!(written, Poll::Ready(Ok(bytes)) if bytes == taken), "{written:?}");
        }
        assert_eq!(to.seen.iter().map(Vec::len).collect::<Vec<_>>(), [1511]);
    }

    #[test]
    fn a_writer_that_takes_little_loses_nothing() {
        for (most, is_vectored) in [(1, true), (7, true), (173, true), (174, true), (175, true), (7, false), (1460, false)] {
            let seen = lengths(&[174, 13, 0, 3000, 20], most, is_vectored);
            assert!(seen.iter().all(|length| (1..=most).contains(length)), "{seen:?}");
        }
    }
}
