//! Header rules that are not about the client's address.

use crate::random::random;
use http::{HeaderMap, HeaderValue, StatusCode};

/// Longer request ids are replaced by one of ours.
const REQUEST_ID_MAX: usize = 128;

/// The client's request id when it is well-formed (at most 128 letters, digits, `.`, `_`, `-`), else a new one.
#[must_use]
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    let well_formed = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=REQUEST_ID_MAX).contains(&bytes.len()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
    };
    headers.get("x-request-id").filter(well_formed).cloned().unwrap_or_else(new_request_id)
}

/// A new request id: 128 random bits in hex.
#[must_use]
pub fn new_request_id() -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits = u128::from(random()) << 64 | u128::from(random());
    let digits: [u8; 32] = std::array::from_fn(|at| HEX[(bits >> (at * 4) & 15) as usize]);
    HeaderValue::from_bytes(&digits).unwrap_or(HeaderValue::from_static("-"))
}

/// Fields that a service may take for the forwarding fields which we set: those spelled with `_` for `-`. CGI and WSGI, which
/// turn both into `HTTP_X_FORWARDED_FOR`, cannot tell them apart, and only ours say where a request came from.
#[must_use]
pub fn forwarding_lookalikes(headers: &HeaderMap) -> Vec<http::HeaderName> {
    const OURS: [&str; 3] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
    let is_lookalike =
        |name: &&http::HeaderName| name.as_str().contains('_') && OURS.contains(&name.as_str().replace('_', "-").as_str());
    headers.keys().filter(is_lookalike).cloned().collect()
}

/// Whether a request that asks for an upgrade asks for the one that is passed on: to WebSocket, and to nothing beside it.
#[must_use]
pub fn names_websocket(headers: &HeaderMap) -> bool {
    headers.get(http::header::UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Fields of an answer that concern only the connection to the instance (RFC 9110 §7.6.1); `Connection` itself and
/// `Transfer-Encoding` are Pingora's business. `Upgrade` stays where it is the answer: the instance changes the protocol, or
/// insists on it. Anywhere else it offers what only the gateway could accept.
#[must_use]
pub fn hop_by_hop(status: StatusCode, headers: &HeaderMap) -> Vec<http::HeaderName> {
    const ALWAYS: [&str; 5] = ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authentication-info", "te"];
    let mut names: Vec<http::HeaderName> =
        ALWAYS.iter().filter(|name| headers.contains_key(**name)).map(|name| http::HeaderName::from_static(name)).collect();
    let is_about_upgrade = matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED);
    if !is_about_upgrade && headers.contains_key(http::header::UPGRADE) {
        names.push(http::header::UPGRADE);
    }
    for field in headers.get_all(http::header::CONNECTION) {
        let tokens = field.to_str().unwrap_or_default().split(',').map(str::trim);
        let nominated = tokens.filter_map(|token| http::HeaderName::from_bytes(token.as_bytes()).ok());
        names.extend(nominated.filter(|name| is_nominable(name) && headers.contains_key(name)));
    }
    names
}

/// An answer cannot nominate away what frames or upgrades it.
fn is_nominable(name: &http::HeaderName) -> bool {
    use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
    ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE].contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_kept_only_when_well_formed() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_str(value).unwrap());
            request_id(&headers)
        };
        assert_eq!(with("abc-1.2_3"), "abc-1.2_3");
        for bad in ["", "a b", "a\"b", &"x".repeat(129)] {
            let made = with(bad);
            assert_eq!(made.len(), 32, "{bad}");
        }
        assert_ne!(new_request_id(), new_request_id());
    }

    #[test]
    fn underscores_make_lookalikes() {
        let mut headers = HeaderMap::new();
        for name in ["x_forwarded_for", "x-forwarded_proto", "x-forwarded-for", "x_request_id", "x_forwarded_fo"] {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        assert_eq!(forwarding_lookalikes(&headers), ["x_forwarded_for", "x-forwarded_proto"]);
    }

    #[test]
    fn nominated_fields_go_framing_stays() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("x-hop, content-length, close"));
        headers.insert("x-hop", HeaderValue::from_static("1"));
        headers.insert("content-length", HeaderValue::from_static("1"));
        headers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
        headers.insert("upgrade", HeaderValue::from_static("h2,h2c"));
        assert_eq!(hop_by_hop(StatusCode::OK, &headers), ["keep-alive", "upgrade", "x-hop"]);
        assert_eq!(hop_by_hop(StatusCode::SWITCHING_PROTOCOLS, &headers), ["keep-alive", "x-hop"]);
        assert_eq!(hop_by_hop(StatusCode::UPGRADE_REQUIRED, &headers), ["keep-alive", "x-hop"]);
    }
}
