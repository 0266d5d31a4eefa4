//! Which bytes may stand where in a header field.

/// `tchar` (RFC 9110 §5.6.2).
#[must_use]
pub const fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// `field-vchar`, `SP`, `HTAB` and `obs-text` (RFC 9110 §5.5).
#[must_use]
pub const fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        let is_sign = matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        table[byte as usize] = byte.is_ascii_alphanumeric() || is_sign;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_and_controls_are_no_token_bytes() {
        let outside = (0..=255).filter(|byte| !is_token_byte(*byte) && byte.is_ascii_graphic()).map(char::from);
        assert_eq!(outside.collect::<String>(), "\"(),/:;<=>?@[\\]{}");
        assert!((128..=255).chain(0..=32).chain([127]).all(|byte| !is_token_byte(byte)));
        assert!((0..=255).filter(|byte| !is_value_byte(*byte)).eq((0..9).chain(10..32).chain([127])));
    }
}
