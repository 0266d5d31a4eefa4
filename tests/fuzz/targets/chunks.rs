//! Chunked bodies: cut into pieces they end at the same byte, and a naive decoder agrees where that is.

use vertice_core::chunks::ChunkFraming;

/// Beyond this the limits on framing decide, which the naive reading does not know.
const BYTES_MAX: usize = 4000;

#[derive(Debug, PartialEq, Eq)]
enum End {
    At(usize),
    Open,
    Broken,
}

pub(crate) fn check(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(BYTES_MAX)];
    let whole = follow(bytes, &[0, bytes.len()]);
    assert_eq!(follow(bytes, &super::cuts(bytes)), whole, "cut into pieces");
    let each: Vec<usize> = (0..=bytes.len()).collect();
    assert_eq!(follow(bytes, &each), whole, "byte by byte");
    let reading = naive(bytes);
    assert!(whole == reading || reading == End::Open && whole == End::Broken, "{whole:?}, but naively {reading:?}");
    if let End::At(end) = whole {
        assert_eq!(follow(&bytes[..end], &[0, end]), whole, "what follows does not matter");
        assert_eq!(follow(&bytes[..end - 1], &[0, end - 1]), End::Open, "the last byte is needed");
    }
}

fn follow(bytes: &[u8], cuts: &[usize]) -> End {
    let mut framing = ChunkFraming::new();
    for (start, end) in cuts.iter().zip(&cuts[1..]) {
        let piece = &bytes[*start..*end];
        match framing.advance(piece) {
            Err(_) => return End::Broken,
            Ok(used) if framing.is_done() => return End::At(start + used),
            Ok(used) => assert_eq!(used, piece.len(), "everything belongs to a body that has not ended"),
        }
    }
    End::Open
}

/// Line by line. It finds what is broken only once the line is there, so it may still call open what is broken already.
fn naive(bytes: &[u8]) -> End {
    let mut at = 0;
    loop {
        let Some(line) = line(&bytes[at..]) else { return End::Open };
        let (digits, extension) = match line.iter().position(|byte| *byte == b';') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let size = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let size = size.filter(|text| (1..=15).contains(&text.len())).and_then(|text| u64::from_str_radix(text, 16).ok());
        let (Some(size), true) = (size, extension.iter().all(|byte| is_text(*byte))) else { return End::Broken };
        at += line.len() + 2;
        if size == 0 {
            return trailers(bytes, at);
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        match bytes[at..].get(size..).map(|rest| rest.get(..2)) {
            Some(Some(b"\r\n")) => at += size + 2,
            Some(Some(_)) => return End::Broken,
            _ => return End::Open,
        }
    }
}

fn trailers(bytes: &[u8], mut at: usize) -> End {
    loop {
        let Some(line) = line(&bytes[at..]) else { return End::Open };
        at += line.len() + 2;
        if line.is_empty() {
            return End::At(at);
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return End::Broken };
        let name_ok = colon > 0 && line[..colon].iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b));
        if !name_ok || !line[colon + 1..].iter().all(|byte| is_text(*byte)) {
            return End::Broken;
        }
    }
}

fn line(bytes: &[u8]) -> Option<&[u8]> {
    bytes.windows(2).position(|window| window == b"\r\n").map(|end| &bytes[..end])
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 127)
}
