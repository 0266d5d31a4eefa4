//! Where a chunked body ends.
//!
//! Pure, and deliberately not a decoder: Pingora decodes. This only follows the framing (RFC 9112 §7.1) closely enough to
//! know which byte is the last one of a request, so that the bytes of the next request are never mistaken for it. It is
//! stricter than Pingora: a line ends with CRLF, a size is 1 to 15 hexadecimal digits without white space.

/// Digits of a chunk size: fifteen still fit an `i64`.
const SIZE_DIGITS_MAX: u8 = 15;

/// The framing of a chunked body is broken, so nobody can say where the request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunked body is malformed")]
pub(super) struct MalformedChunk;

/// Follows a chunked body from its first byte to its last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChunkFraming(State);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { digits: u8, size: u64 },
    Extension { size: u64 },
    SizeLineFeed { size: u64 },
    Data { left: u64 },
    DataCarriageReturn,
    DataLineFeed,
    TrailerStart,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

impl ChunkFraming {
    /// At the first byte of the body.
    pub(super) const fn new() -> Self {
        Self(State::Size { digits: 0, size: 0 })
    }

    /// The last byte of the body was seen.
    pub(super) fn is_done(&self) -> bool {
        self.0 == State::Done
    }

    /// Follows `bytes` and returns how many of them belong to this body: all, unless the body ends among them.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<usize, MalformedChunk> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            if let State::Data { left } = self.0 {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                at += here;
                self.0 = match left - here as u64 {
                    0 => State::DataCarriageReturn,
                    left => State::Data { left },
                };
            } else {
                self.0 = self.0.after(bytes[at]).ok_or(MalformedChunk)?;
                at += 1;
            }
        }
        Ok(at)
    }
}

impl State {
    /// The state after one byte of framing; none when the byte may not stand here.
    fn after(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Size { digits, size }, _) if byte.is_ascii_hexdigit() && digits < SIZE_DIGITS_MAX => {
                let digit = char::from(byte).to_digit(16).map(u64::from)?;
                Self::Size { digits: digits + 1, size: size * 16 + digit }
            }
            (Self::Size { digits: 1.., size }, b'\r') => Self::SizeLineFeed { size },
            (Self::Size { digits: 1.., size }, b';') => Self::Extension { size },
            (Self::Extension { size }, b'\r') => Self::SizeLineFeed { size },
            (Self::Extension { size }, _) if byte != b'\n' && byte != 0 => Self::Extension { size },
            (Self::SizeLineFeed { size: 0 }, b'\n') => Self::TrailerStart,
            (Self::SizeLineFeed { size }, b'\n') => Self::Data { left: size },
            (Self::DataCarriageReturn, b'\r') => Self::DataLineFeed,
            (Self::DataLineFeed, b'\n') => Self::Size { digits: 0, size: 0 },
            (Self::TrailerStart, b'\r') => Self::LastLineFeed,
            (Self::Trailer, b'\r') => Self::TrailerLineFeed,
            (Self::TrailerStart | Self::Trailer, _) if byte != b'\n' && byte != 0 => Self::Trailer,
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
        let broken: [&[u8]; 12] = [
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
        ];
        for body in broken {
            assert_eq!(follow(body), Err(MalformedChunk), "{}", body.escape_ascii());
        }
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
