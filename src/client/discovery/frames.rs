//! Takes an event stream (`text/event-stream`, WHATWG HTML §9.2) apart.
//!
//! **Invariant:** no I/O here, and never more than [`FRAME_MAX`] bytes are kept, whatever the other side sends.

use std::mem;

/// One event, or the news that the other side is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A comment: nothing happened, but somebody is there.
    KeepAlive,
    /// An event.
    Event {
        /// What kind; `message` when the stream does not say.
        kind: String,
        /// Its `id`, if it has one.
        id: Option<String>,
        /// Its data, lines joined by line feeds; empty for an event that only carries an id.
        data: Vec<u8>,
    },
}

/// The stream has a line or an event that is longer than [`FRAME_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {FRAME_MAX} bytes")]
pub struct TooLong;

/// Reads a stream that arrives in pieces.
#[derive(Debug, Default)]
pub struct Frames {
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// Whether the last byte was a carriage return: a line feed after it belongs to it.
    after_return: bool,
    kind: String,
    id: Option<String>,
    data: Vec<u8>,
    has_data: bool,
}

impl Frames {
    /// Takes bytes up to the end of the next frame. Returns how many were taken, and the frame if it has ended; without one
    /// all were taken.
    ///
    /// # Errors
    /// [`TooLong`]; the stream is of no use any more.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<Frame>), TooLong> {
        for (at, &byte) in bytes.iter().enumerate() {
            let second_half = byte == b'\n' && mem::take(&mut self.after_return);
            if second_half {
                continue;
            }
            self.after_return = byte == b'\r';
            if byte == b'\r' || byte == b'\n' {
                if let Some(frame) = self.end_of_line()? {
                    return Ok((at + 1, Some(frame)));
                }
            } else {
                self.fits(1)?;
                self.line.push(byte);
            }
        }
        Ok((bytes.len(), None))
    }

    fn end_of_line(&mut self) -> Result<Option<Frame>, TooLong> {
        let line = mem::take(&mut self.line);
        if line.is_empty() {
            return Ok(self.end_of_event());
        }
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
        let (field, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"" => return Ok(Some(Frame::KeepAlive)),
            b"event" => self.kind = text(value),
            // A NUL makes an id void.
            b"id" if !value.contains(&0) => self.id = Some(text(value)),
            b"data" => {
                self.fits(value.len() + 1)?;
                if mem::replace(&mut self.has_data, true) {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
            // Other fields, `retry` among them, mean nothing to us.
            _ => {}
        }
        Ok(None)
    }

    fn end_of_event(&mut self) -> Option<Frame> {
        let event = mem::take(self);
        let says_something = event.has_data || event.id.is_some() || !event.kind.is_empty();
        let kind = if event.kind.is_empty() { MESSAGE.to_owned() } else { event.kind };
        self.after_return = event.after_return;
        says_something.then_some(Frame::Event { kind, id: event.id, data: event.data })
    }

    fn fits(&self, more: usize) -> Result<(), TooLong> {
        if self.line.len() + self.data.len() + more > FRAME_MAX { Err(TooLong) } else { Ok(()) }
    }
}

/// The start of a kind or an id; nobody sends long ones.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(&value[..value.len().min(WORD_MAX)]).into_owned()
}

/// No event is longer: a service of 20 000 instances.
pub const FRAME_MAX: usize = 8 * 1024 * 1024;
const WORD_MAX: usize = 128;
const MESSAGE: &str = "message";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(frames: &mut Frames, mut bytes: &[u8]) -> Vec<Frame> {
        let mut seen = Vec::new();
        while !bytes.is_empty() {
            let (taken, frame) = frames.take(bytes).unwrap();
            assert!(taken == bytes.len() || frame.is_some(), "only a frame is a reason to stop");
            seen.extend(frame);
            bytes = &bytes[taken..];
        }
        seen
    }

    fn event(kind: &str, id: Option<&str>, data: &str) -> Frame {
        Frame::Event { kind: kind.into(), id: id.map(Into::into), data: data.into() }
    }

    #[test]
    fn a_stream() {
        let stream = "id: 7\n\n: keep-alive\n\nevent: change\nid: 8\ndata: {\"a\":1}\n\nevent:reset\nid:9\ndata:{}\n\n";
        assert_eq!(
            all(&mut Frames::default(), stream.as_bytes()),
            [
                event("message", Some("7"), ""),
                Frame::KeepAlive,
                event("change", Some("8"), "{\"a\":1}"),
                event("reset", Some("9"), "{}"),
            ]
        );
    }

    #[test]
    fn spellings() {
        for (stream, frame) in [
            ("data: a\ndata: b\n\n", event("message", None, "a\nb")),
            ("data\ndata\n\n", event("message", None, "\n")),
            ("data:  a\n\n", event("message", None, " a")),
            ("data: a\r\n\r\n", event("message", None, "a")),
            ("data: a\r\r", event("message", None, "a")),
            ("retry: 5\nnonsense\ndata: a\n\n", event("message", None, "a")),
            ("id: a\0b\ndata: a\n\n", event("message", None, "a")),
            ("event: x\n\n", event("x", None, "")),
        ] {
            assert_eq!(all(&mut Frames::default(), stream.as_bytes()), [frame], "{stream:?}");
        }
        assert_eq!(all(&mut Frames::default(), b"\n\r\n\n\n"), []);
    }

    #[test]
    fn what_never_ends_does_not_grow() {
        for piece in [&b"x"[..], b"data: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\n"] {
            let piece = piece.repeat(4096);
            let mut frames = Frames::default();
            let mut sent = 0;
            while frames.take(&piece).is_ok() {
                sent += piece.len();
                assert!(sent < 2 * FRAME_MAX, "a limit should have been hit");
            }
            assert!(frames.line.len() + frames.data.len() <= FRAME_MAX);
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            stream in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b' '), Just(b'd'), any::<u8>(),], 0..200),
            cut in 0usize..200,
        ) {
            let cut = cut.min(stream.len());
            let mut frames = Frames::default();
            let mut pieces = all(&mut frames, &stream[..cut]);
            pieces.extend(all(&mut frames, &stream[cut..]));
            prop_assert_eq!(pieces, all(&mut Frames::default(), &stream));
        }
    }
}
