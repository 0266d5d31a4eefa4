//! Header rules that are not about the client's address.

use super::fields::Fields;
use crate::request_id::RequestId;
use http::{HeaderMap, StatusCode};

/// The client's request id when it is well-formed, else a new one.
#[must_use]
pub fn request_id(fields: &impl Fields) -> RequestId {
    fields.first("x-request-id").and_then(RequestId::of_client).unwrap_or_else(RequestId::random)
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
pub fn names_websocket(fields: &impl Fields) -> bool {
    fields.first("upgrade").is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
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
    use http::HeaderValue;

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
