//! Header rules that are not about the client's address.

use super::fields::Fields;
use crate::request_id::RequestId;
use http::StatusCode;

/// The client's request id when it is well-formed, else a new one.
#[must_use]
pub fn request_id(fields: &impl Fields) -> RequestId {
    fields.first("x-request-id").and_then(RequestId::of_client).unwrap_or_else(RequestId::random)
}

/// Whether a request that asks for an upgrade asks for the one that is passed on: to WebSocket, and to nothing beside it.
#[must_use]
pub fn names_websocket(fields: &impl Fields) -> bool {
    fields.first("upgrade").is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}

/// Which fields of an answer concern only the connection to the instance (RFC 9110 §7.6.1) and are not passed on. `Connection`
/// itself and `Transfer-Encoding` are the lane's business. `Upgrade` stays where it is the answer: the instance changes the
/// protocol, or insists on it. Anywhere else it offers what only the gateway could accept.
#[derive(Debug)]
pub struct HopByHop<'a, F> {
    fields: &'a F,
    is_about_upgrade: bool,
    /// Whether fields may be nominated by name.
    has_connection: bool,
}

impl<'a, F: Fields> HopByHop<'a, F> {
    /// Those of an answer with this status and these fields.
    pub fn of(status: StatusCode, fields: &'a F) -> Self {
        let is_about_upgrade = matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED);
        Self { fields, is_about_upgrade, has_connection: fields.has("connection") }
    }

    /// Whether the field of that name is one.
    #[must_use]
    pub fn drops(&self, name: &[u8]) -> bool {
        const ALWAYS: [&str; 5] = ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authentication-info", "te"];
        if name.eq_ignore_ascii_case(b"upgrade") {
            return !self.is_about_upgrade;
        }
        is_one_of(name, &ALWAYS) || (self.has_connection && is_nominable(name) && names_option(self.fields, name))
    }
}

/// Whether `Connection` names that option (RFC 9110 §7.6.1).
#[must_use]
pub fn names_option(fields: &impl Fields, option: &[u8]) -> bool {
    let options = fields.all("connection").flat_map(|field| field.split(|byte| *byte == b','));
    options.map(<[u8]>::trim_ascii).any(|named| named.eq_ignore_ascii_case(option))
}

/// An answer cannot nominate away what frames or upgrades it.
fn is_nominable(name: &[u8]) -> bool {
    !is_one_of(name, &["connection", "content-length", "transfer-encoding", "upgrade"])
}

fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::fields::tests::Sent;

    #[test]
    fn ids_are_kept_only_when_well_formed() {
        let id = |value: &str| request_id(&Sent(&[("X-Request-ID", value)]));
        assert_eq!(id("abc-1.2_3").as_str(), "abc-1.2_3");
        assert_ne!(id("a b").as_str(), "a b");
    }

    #[test]
    fn nominated_fields_go_framing_stays() {
        let sent = Sent(&[
            ("Connection", "x-hop, content-length ,close"),
            ("X-Hop", "1"),
            ("X-Other", "1"),
            ("Content-Length", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Upgrade", "h2,h2c"),
        ]);
        fn gone(status: StatusCode, fields: &impl Fields) -> Vec<String> {
            let hop = HopByHop::of(status, fields);
            let names = fields.each().map(|(name, _)| name).filter(|name| hop.drops(name));
            names.map(|name| String::from_utf8_lossy(name).to_ascii_lowercase()).collect()
        }
        assert_eq!(gone(StatusCode::OK, &sent), ["x-hop", "keep-alive", "upgrade"]);
        assert_eq!(gone(StatusCode::OK, &sent.map()), ["x-hop", "keep-alive", "upgrade"]);
        assert_eq!(gone(StatusCode::SWITCHING_PROTOCOLS, &sent), ["x-hop", "keep-alive"]);
        assert_eq!(gone(StatusCode::UPGRADE_REQUIRED, &sent), ["x-hop", "keep-alive"]);
    }
}
