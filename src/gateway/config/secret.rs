//! Values that must never be printed.

use std::fmt;

/// A text that is never shown: its `Debug` is `Secret(…)` and it has no `Display`.
///
/// Equality is for comparing configurations; it is not constant-time, so it must not decide about access.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Every use is a place where it may leak.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A registry token that a writer may present.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// The token itself.
    Plain(Secret),
    /// Only the token's SHA-256 (written `sha256:<64 hex digits>`), so that the file holds nothing to steal.
    Sha256([u8; 32]),
}

impl Token {
    /// Reads a token as it stands in the configuration.
    ///
    /// The message of a refusal never repeats the token.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(hex) = text.strip_prefix("sha256:") {
            return sha256_of_hex(hex)
                .map(Self::Sha256)
                .ok_or_else(|| "a token's hash is sha256: followed by 64 hex digits".to_owned());
        }
        let sendable = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if text.is_empty() {
            Err("the token is empty; remove the key to run without a token".to_owned())
        } else if !sendable || text.trim() != text || text.len() > 512 {
            Err("a token is at most 512 printable ASCII characters without surrounding spaces".to_owned())
        } else {
            Ok(Self::Plain(Secret::new(text)))
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Token::Plain(…)",
            Self::Sha256(_) => "Token::Sha256(…)",
        })
    }
}

fn sha256_of_hex(hex: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16)).map(|d| d.map(|d| d as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = match digits.as_chunks::<2>() {
        (pairs, []) => pairs.iter().map(|[high, low]| high << 4 | low).collect(),
        _ => return None,
    };
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show_themselves() {
        let shown = format!("{:?} {:?}", Secret::new("hunter2"), Token::parse("hunter2").unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_hash_is_64_hex_digits() {
        let Token::Sha256(bytes) = Token::parse(&format!("sha256:{}Ff", "00".repeat(31))).unwrap() else {
            panic!("a hash was expected");
        };
        assert_eq!((bytes[0], bytes[31]), (0, 0xff));
        for bad in ["sha256:", "sha256:abc", &format!("sha256:{}", "g".repeat(64))] {
            assert!(Token::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refused_token_is_not_repeated() {
        for bad in [" geheim", "geheim\n", "gehéim", &"geheim".repeat(100)] {
            assert!(!Token::parse(bad).unwrap_err().contains("geh"), "{bad}");
        }
    }
}
