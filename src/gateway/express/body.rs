//! Where the body of an instance's answer ends, and how its bytes go on to the client.

use std::io::Write;
use vertice_core::chunks::{ChunkFraming, MalformedChunk};

/// What is left of an answer's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks; they go on as they are, without extensions and trailers.
    Chunked(ChunkFraming),
    /// Everything until the connection ends. Clients are sent chunks, so that the end of one means a whole body.
    UntilClose,
}

/// What of the bytes that came is to be sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The first so many as they are.
    AsIs(usize),
    /// What was put together instead, of the first so many.
    Rewritten(usize),
}

impl Piece {
    /// How many bytes of what came belong to the body.
    pub const fn taken(self) -> usize {
        match self {
            Self::AsIs(bytes) | Self::Rewritten(bytes) => bytes,
        }
    }
}

impl Body {
    /// No body.
    pub const NONE: Self = Self::Length(0);

    /// The whole body has come.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(framing) => framing.is_done(),
            Self::UntilClose => false,
        }
    }

    /// Follows bytes of the body; what has to be rewritten is appended to `out`.
    ///
    /// # Errors
    /// When the chunks are malformed.
    pub fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Piece, MalformedChunk> {
        match self {
            Self::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= here as u64;
                Ok(Piece::AsIs(here))
            }
            Self::Chunked(framing) if framing.keeps_all(bytes) => framing.advance(bytes).map(Piece::AsIs),
            Self::Chunked(framing) => framing.sift(bytes, out).map(Piece::Rewritten),
            Self::UntilClose => {
                if !bytes.is_empty() {
                    // Writing to a vector cannot fail.
                    let _ = write!(out, "{:x}\r\n", bytes.len());
                    out.extend_from_slice(bytes);
                    out.extend_from_slice(b"\r\n");
                }
                Ok(Piece::Rewritten(bytes.len()))
            }
        }
    }

    /// The instance has closed the connection. Whether that ends the body; what the client needs for it is appended to `out`.
    pub fn close(&mut self, out: &mut Vec<u8>) -> bool {
        let ends = matches!(self, Self::UntilClose);
        if ends {
            out.extend_from_slice(b"0\r\n\r\n");
            *self = Self::NONE;
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_takes_what_is_its_own() {
        let (mut body, mut out) = (Body::Length(5), Vec::new());
        assert_eq!(body.pass(b"abc", &mut out), Ok(Piece::AsIs(3)));
        assert!(!body.is_done() && !body.close(&mut out));
        assert_eq!(body.pass(b"dexyz", &mut out), Ok(Piece::AsIs(2)));
        assert!(body.is_done() && out.is_empty());
    }

    #[test]
    fn chunks_go_on_as_they_are_unless_they_say_more() {
        let (mut body, mut out) = (Body::Chunked(ChunkFraming::of_answer()), Vec::new());
        assert_eq!(body.pass(b"5\r\nhel", &mut out), Ok(Piece::AsIs(6)));
        assert_eq!(body.pass(b"lo\r\n2;x=1\r\nab\r\n0\r\nSum: 1\r\n\r\nHTTP/1.1", &mut out).map(Piece::taken), Ok(28));
        assert_eq!(out, b"lo\r\n2\r\nab\r\n0\r\n\r\n");
        assert!(body.is_done());
        assert!(Body::Chunked(ChunkFraming::of_answer()).pass(b"x", &mut out).is_err());
        assert!(!Body::Chunked(ChunkFraming::of_answer()).close(&mut out), "cut off");
    }

    #[test]
    fn what_only_the_end_ends_becomes_chunks() {
        let (mut body, mut out) = (Body::UntilClose, Vec::new());
        assert_eq!(body.pass(&[b'x'; 17], &mut out), Ok(Piece::Rewritten(17)));
        assert_eq!(body.pass(b"", &mut out), Ok(Piece::Rewritten(0)));
        assert!(!body.is_done() && body.close(&mut out) && body.is_done());
        assert_eq!(out, [&b"11\r\n"[..], &[b'x'; 17], b"\r\n0\r\n\r\n"].concat());
    }
}
