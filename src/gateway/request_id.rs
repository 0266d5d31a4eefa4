//! What a request is called: in its answer, in the service's request, in logs.

use crate::random::random;
use http::HeaderValue;

/// Longer ids of clients are replaced by one of ours.
const MAX: usize = 128;

/// A request's id: 1 to 128 letters, digits, `.`, `_` and `-`. Held in place, because each request has one.
#[derive(Clone, Copy)]
pub struct RequestId {
    bytes: [u8; MAX],
    length: u8,
}

impl RequestId {
    /// What stands for the id of a request that is not known yet.
    pub const UNKNOWN: Self = {
        let mut bytes = [0; MAX];
        bytes[0] = b'-';
        Self { bytes, length: 1 }
    };

    /// What a client calls its request; `None` when that is not well-formed.
    #[must_use]
    pub fn of_client(sent: &[u8]) -> Option<Self> {
        let is_well_formed = sent.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte));
        if sent.is_empty() || !is_well_formed {
            return None;
        }
        let mut bytes = [0; MAX];
        bytes.get_mut(..sent.len())?.copy_from_slice(sent);
        Some(Self { bytes, length: u8::try_from(sent.len()).ok()? })
    }

    /// A new one: 128 random bits in hex.
    #[must_use]
    pub fn random() -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut bytes = [0; MAX];
        let random = [random(), random()].map(u64::to_be_bytes);
        for (pair, byte) in bytes.chunks_exact_mut(2).zip(random.as_flattened()) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        Self { bytes, length: 32 }
    }

    /// As sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The same as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The value of `X-Request-ID`.
    #[must_use]
    pub fn to_value(&self) -> HeaderValue {
        HeaderValue::from_bytes(self.as_bytes()).unwrap_or(HeaderValue::from_static("-"))
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RequestId({})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_kept_only_when_well_formed() {
        let longest = "x".repeat(MAX);
        for good in ["abc-1.2_3", "0", &longest] {
            assert_eq!(RequestId::of_client(good.as_bytes()).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a\"b", "ä", &"x".repeat(MAX + 1)] {
            assert!(RequestId::of_client(bad.as_bytes()).is_none(), "{bad}");
        }
        assert_eq!(RequestId::UNKNOWN.to_value(), "-");
    }

    #[test]
    fn new_ones_are_32_hex_digits_and_no_two_the_same() {
        let (one, other) = (RequestId::random(), RequestId::random());
        assert_ne!(one.as_str(), other.as_str());
        assert!(one.as_str().len() == 32 && one.as_bytes().iter().all(u8::is_ascii_hexdigit), "{one:?}");
        assert_eq!(one.to_value().as_bytes(), one.as_bytes());
    }
}
