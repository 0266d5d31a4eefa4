//! Numbers as HTTP writes them.

/// One or more digits (RFC 9110 §8.6): no sign, no white space, no list. Values above `i64::MAX` are refused because Pingora
/// counts bodies in an `i64`.
#[must_use]
pub fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_nothing_else() {
        assert_eq!(decimal(b"0042"), Some(42));
        assert_eq!(decimal(b"9223372036854775807"), Some(9_223_372_036_854_775_807));
        for other in [&b""[..], b"+1", b"-1", b" 1", b"1 ", b"0x1", b"1, 1", b"9223372036854775808"] {
            assert_eq!(decimal(other), None, "{other:?}");
        }
    }
}
