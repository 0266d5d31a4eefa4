//! Where a chunked body ends.
//!
//! Deliberately not a decoder: this only follows the framing (RFC 9112 §7.1) closely enough to know which byte is the last one
//! of a message, so that the bytes of the next one are never mistaken for it, and which bytes go further. It is strict: a line
//! ends with CRLF, a size is 1 to 15 hexadecimal digits without white space, extensions and trailers (which go no further) have
//! no control characters, and framing may not outweigh what it frames.

use crate::grammar::{is_token_byte, is_value_byte};

/// Digits of a chunk size: fifteen still fit an `i64`.
const SIZE_DIGITS_MAX: u8 = 15;

/// Bytes of one line of a size and its extensions.
const LINE_BYTES_MAX: u16 = 4096;

/// Bytes of trailers.
const TRAILER_BYTES_MAX: u16 = 16 * 1024;

/// How much more framing than data a body may have. What a chunk may have of its own is [`FREE_BYTES`] and twice its data: so
/// a small extension of a large chunk costs nothing, and a flood of framing that we read and drop ends here.
const EXCESS_BYTES_MAX: u64 = 16 * 1024;

/// Framing that each chunk may have, whatever its size.
const FREE_BYTES: u64 = 16;

/// The framing of a chunked body is broken, so nobody can say where the request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedChunk;

impl std::fmt::Display for MalformedChunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the chunked body is malformed")
    }
}

impl std::error::Error for MalformedChunk {}

/// Follows a chunked body from its first byte to its last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkFraming {
    state: State,
    /// Bytes of the line that has begun, or of all trailers.
    line: u16,
    /// Framing that no data has paid for.
    excess: u64,
    is_lenient: bool,
    data: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { digits: u8, size: u64 },
    Padding { size: u64 },
    Extension { size: u64 },
    SizeLineFeed { size: u64 },
    Data { left: u64 },
    DataCarriageReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

impl ChunkFraming {
    /// At the first byte of the body.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: State::Size { digits: 0, size: 0 }, line: 0, excess: 0, is_lenient: false, data: 0 }
    }

    /// At the first byte of an answer's body, with leniencies that leave no doubt where it ends: there are servers that pad their
    /// sizes with spaces, to write them in later, and nobody reads their extensions and trailers, which may be long and no fields.
    #[must_use]
    pub const fn of_answer() -> Self {
        Self { is_lenient: true, ..Self::new() }
    }

    /// The last byte of the body was seen.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How much of what came was the body's own.
    #[must_use]
    pub const fn data(&self) -> u64 {
        self.data
    }

    /// Follows `bytes` and returns how many of them belong to this body: all, unless the body ends among them.
    ///
    /// # Errors
    /// A byte that may not stand where it stands, or more framing than is allowed.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, MalformedChunk> {
        self.follow(bytes, |_| {})
    }

    /// The same, and appends to `kept` what goes further: everything but extensions, padding and trailers.
    ///
    /// # Errors
    /// As [`Self::advance`].
    pub fn sift(&mut self, bytes: &[u8], kept: &mut Vec<u8>) -> Result<usize, MalformedChunk> {
        self.follow(bytes, |part| kept.extend_from_slice(part))
    }

    /// Whether all of `bytes` go further as they are. Does not move on.
    #[must_use]
    pub fn keeps_all(&self, bytes: &[u8]) -> bool {
        let mut kept = 0;
        let followed = self.clone().follow(bytes, |part| kept += part.len());
        followed.is_ok_and(|_| kept == bytes.len())
    }

    fn follow(&mut self, bytes: &[u8], mut keep: impl FnMut(&[u8])) -> Result<usize, MalformedChunk> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            let start = at;
            if let State::Data { left } = self.state {
                at += usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.state = match left - (at - start) as u64 {
                    0 => State::DataCarriageReturn,
                    left => State::Data { left },
                };
                self.data += (at - start) as u64;
                keep(&bytes[start..at]);
            } else {
                let before = self.state;
                self.state = before.after(bytes[at], self.is_lenient).ok_or(MalformedChunk)?;
                self.count()?;
                at += 1;
                if self.state.keeps(before) {
                    keep(&bytes[start..at]);
                }
            }
        }
        Ok(at)
    }

    /// Holds the framing to its limits, behind each byte of it.
    fn count(&mut self) -> Result<(), MalformedChunk> {
        self.line += 1;
        let is_long = self.is_lenient || self.state.is_trailer();
        if self.line > if is_long { TRAILER_BYTES_MAX } else { LINE_BYTES_MAX } {
            return Err(MalformedChunk);
        }
        match self.state {
            State::Data { left } => {
                let own = FREE_BYTES.saturating_add(left.saturating_mul(2));
                self.excess = (self.excess + u64::from(self.line)).saturating_sub(own);
                self.line = 0;
            }
            State::DataLineFeed | State::Size { digits: 0, .. } => self.line = 0,
            _ => {}
        }
        if self.excess > EXCESS_BYTES_MAX { Err(MalformedChunk) } else { Ok(()) }
    }
}

impl Default for ChunkFraming {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// Behind the last chunk.
    fn is_trailer(self) -> bool {
        use State::{Done, LastLineFeed, TrailerLineFeed, TrailerName, TrailerStart, TrailerValue};
        matches!(self, TrailerStart | TrailerName | TrailerValue | TrailerLineFeed | LastLineFeed | Done)
    }

    /// Whether the byte of framing that led here from `before` goes further.
    fn keeps(self, before: Self) -> bool {
        use State::{Extension, Padding, TrailerLineFeed, TrailerName, TrailerStart, TrailerValue};
        let is_of_trailer = before == TrailerLineFeed && self == TrailerStart;
        !is_of_trailer && !matches!(self, Extension { .. } | Padding { .. } | TrailerName | TrailerValue | TrailerLineFeed)
    }

    /// The state after one byte of framing; none when the byte may not stand here.
    fn after(self, byte: u8, is_lenient: bool) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Size { digits, size }, _) if byte.is_ascii_hexdigit() && digits < SIZE_DIGITS_MAX => {
                let digit = char::from(byte).to_digit(16).map(u64::from)?;
                Self::Size { digits: digits + 1, size: size * 16 + digit }
            }
            (Self::Size { digits: 1.., size } | Self::Padding { size }, b'\r') => Self::SizeLineFeed { size },
            (Self::Size { digits: 1.., size } | Self::Padding { size }, b';') => Self::Extension { size },
            (Self::Size { digits: 1.., size } | Self::Padding { size }, b' ' | b'\t') if is_lenient => Self::Padding { size },
            (Self::Extension { size }, b'\r') => Self::SizeLineFeed { size },
            (Self::Extension { size }, _) if is_value_byte(byte) => Self::Extension { size },
            (Self::SizeLineFeed { size: 0 }, b'\n') => Self::TrailerStart,
            (Self::SizeLineFeed { size }, b'\n') => Self::Data { left: size },
            (Self::DataCarriageReturn, b'\r') => Self::DataLineFeed,
            (Self::DataLineFeed, b'\n') => Self::Size { digits: 0, size: 0 },
            (Self::TrailerStart, b'\r') => Self::LastLineFeed,
            (Self::TrailerStart | Self::TrailerName, _) if is_token_byte(byte) => Self::TrailerName,
            (Self::TrailerName, b':') => Self::TrailerValue,
            (Self::TrailerName, b'\r') if is_lenient => Self::TrailerLineFeed,
            (Self::TrailerStart | Self::TrailerName, _) if is_lenient && is_value_byte(byte) => Self::TrailerValue,
            (Self::TrailerValue, b'\r') => Self::TrailerLineFeed,
            (Self::TrailerValue, _) if is_value_byte(byte) => Self::TrailerValue,
            (Self::TrailerLineFeed, b'\n') => Self::TrailerStart,
            (Self::LastLineFeed, b'\n') => Self::Done,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn follow(bytes: &[u8]) -> Result<(usize, bool), MalformedChunk> {
        let mut framing = ChunkFraming::new();
        let used = framing.advance(bytes)?;
        Ok((used, framing.is_done()))
    }

    #[test]
    fn a_body_ends_behind_its_trailers() {
        let complete: [&[u8]; 5] = [
            b"0\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            b"A;ext=\"v\"\r\n0123456789\r\n0;x\r\n\r\n",
            b"00000000000000f\r\n123456789012345\r\n0\r\nSum: 1\r\nOther:\r\n\r\n",
            b"3\r\n\r\n\r\r\n0\r\n\r\n",
        ];
        for body in complete {
            assert_eq!(follow(body), Ok((body.len(), true)), "{}", body.escape_ascii());
            let with_next = [body, b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(follow(&with_next), Ok((body.len(), true)), "{}", with_next.escape_ascii());
        }
    }

    #[test]
    fn broken_framing_is_an_error() {
        let broken: [&[u8]; 18] = [
            b"\r\n",
            b"x\r\n",
            b";a\r\n",
            b"5\nhello",
            b"5 \r\nhello",
            b"-1\r\n",
            b"0x5\r\nhello",
            b"5\r\nhello!",
            b"5\r\nhello\n0\r\n",
            b"5;a\nhello",
            b"0\r\nSum: 1\n",
            b"1000000000000000\r\n",
            b"5;a=\x0b\r\n",
            b"5;a\rb\r\n",
            b"0\r\nno colon\r\n",
            b"0\r\nSum : 1\r\n",
            b"0\r\nSum: 1\r\n folded\r\n",
            b"0\r\n: 1\r\n",
        ];
        for body in broken {
            assert_eq!(follow(body), Err(MalformedChunk), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn framing_may_not_outweigh_what_it_frames() {
        let line = |bytes: usize| [b"5;".to_vec(), vec![b'a'; bytes - 4], b"\r\n".to_vec()].concat();
        assert_eq!(follow(&line(4096)), Ok((4096, false)));
        assert_eq!(follow(&line(4097)), Err(MalformedChunk));

        let trailers = |count: usize| [b"0\r\n".to_vec(), b"a: 45678\r\n".repeat(count), b"\r\n".to_vec()].concat();
        assert!(follow(&trailers(1600)).is_ok());
        assert_eq!(follow(&trailers(1700)), Err(MalformedChunk));

        // 64 bytes around each byte of data: soon enough. The same around a kilobyte: for ever.
        let chunks = |data: usize, count: usize| {
            let one = format!("{data:x};{}\r\n{}\r\n", "a".repeat(60), "d".repeat(data));
            one.into_bytes().repeat(count)
        };
        assert!(follow(&chunks(1, 300)).is_ok());
        assert_eq!(follow(&chunks(1, 500)), Err(MalformedChunk));
        assert!(follow(&chunks(1024, 2000)).is_ok());
        // Without extensions a chunk may be as small as it likes.
        assert!(follow(&b"1\r\nd\r\n".repeat(50_000)).is_ok());
    }

    fn sifted(body: &[u8]) -> String {
        let mut kept = Vec::new();
        let mut framing = ChunkFraming::of_answer();
        assert_eq!(framing.sift(body, &mut kept), Ok(body.len()), "{}", body.escape_ascii());
        assert_eq!(ChunkFraming::of_answer().keeps_all(body), kept == body);
        kept.escape_ascii().to_string()
    }

    #[test]
    fn sizes_and_data_go_further_and_nothing_else_does() {
        assert_eq!(sifted(b"5\r\nhello\r\n0\r\n\r\n"), r"5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(sifted(b"5;a=\"b\"\r\nhello\r\n0;x\r\nSum: 1\r\nB:\r\n\r\n"), r"5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(sifted(b"5  \t\r\nhello\r\n0 ;a\r\n\r\n"), r"5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(sifted(b"0\r\nno colon\r\n folded\r\nbare\r\n\r\n"), r"0\r\n\r\n");
        assert_eq!(
            sifted(&[b"5;".as_slice(), &[b'a'; 10_000], b"\r\nhello\r\n0\r\n\r\n"].concat()),
            r"5\r\nhello\r\n0\r\n\r\n"
        );
        assert_eq!(ChunkFraming::of_answer().advance(b" 5\r\n"), Err(MalformedChunk));
        assert_eq!(ChunkFraming::of_answer().advance(b"5 5\r\n"), Err(MalformedChunk));
    }

    proptest! {
        #[test]
        fn pieces_mean_the_same_as_the_whole(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..5),
            noise in prop::collection::vec(any::<u8>(), 0..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut body: Vec<u8> = Vec::new();
            for chunk in &chunks {
                body.extend(format!("{:x}\r\n", chunk.len()).bytes());
                body.extend(chunk);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            let end = body.len();
            body.extend(noise);
            prop_assert_eq!(follow(&body), Ok((end, true)));

            let cut = cut.index(body.len());
            let mut framing = ChunkFraming::new();
            let first = framing.advance(&body[..cut]).unwrap();
            let second = framing.advance(&body[first..]).unwrap();
            prop_assert_eq!(first + second, end);
            prop_assert!(framing.is_done());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((used, done)) = follow(&bytes) {
                prop_assert!(used <= bytes.len() && (done || used == bytes.len()));
            }
        }
    }
}
