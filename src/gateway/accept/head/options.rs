//! What a client says about the connection itself: `Connection` and `Upgrade` (RFC 9110 §7.6.1, §7.8).
//!
//! Pingora drops the fields that `Connection` names before a request goes on. So a client could take away what the gateway or
//! whoever stands in front of it has put in, or decided by; fields that are meant for the service cannot be named.

use super::{Refusal, bad};
use vertice_core::grammar::is_token_byte;

/// Options in all `Connection` fields together; Pingora refuses more, but only once an instance has been connected to.
const OPTIONS_MAX: usize = 9;

/// Fields that frame, route or authorise a request, or say where it came from.
const NOT_TO_BE_NAMED: [&[u8]; 10] = [
    b"authorization",
    b"content-encoding",
    b"content-length",
    b"content-type",
    b"cookie",
    b"host",
    b"transfer-encoding",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
];

/// What `Connection` and `Upgrade` said so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    count: usize,
    names_upgrade: bool,
    names_close: bool,
    /// It says something else than whether the connection is kept.
    has_others: bool,
    upgrade: Upgrade,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Upgrade {
    #[default]
    None,
    /// To something that we do not pass on: the request is an ordinary one.
    Other,
    WebSocket,
}

impl Options {
    /// Takes in a `Connection` field.
    pub(super) fn note_connection(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|option| !option.is_empty()) {
            self.count += 1;
            if self.count > OPTIONS_MAX {
                return Err(bad("Connection has too many options"));
            }
            if !option.iter().copied().all(is_token_byte) {
                return Err(bad("Connection has an option that is not a token"));
            }
            if NOT_TO_BE_NAMED.iter().any(|name| option.eq_ignore_ascii_case(name)) {
                return Err(bad("Connection names a field that is not about the connection"));
            }
            self.names_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
            self.names_close |= option.eq_ignore_ascii_case(b"close");
            self.has_others |= !option.eq_ignore_ascii_case(b"close") && !option.eq_ignore_ascii_case(b"keep-alive");
        }
        Ok(())
    }

    /// Whether nothing was said but that the connection is kept, or not, once at most; and nothing of another protocol.
    pub(super) fn is_simple(&self) -> bool {
        self.count <= 1 && !self.has_others && self.upgrade == Upgrade::None
    }

    /// Whether the connection is to be closed.
    pub(super) const fn names_close(&self) -> bool {
        self.names_close
    }

    /// Takes in an `Upgrade` field.
    pub(super) fn note_upgrade(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let named = value.split(|byte| *byte == b',').any(|protocol| names_websocket(protocol.trim_ascii()));
        let this = match named {
            true if value.eq_ignore_ascii_case(b"websocket") => Upgrade::WebSocket,
            true => return Err(bad("Upgrade names more than websocket")),
            false => Upgrade::Other,
        };
        if self.upgrade != Upgrade::None && (self.upgrade == Upgrade::WebSocket || this == Upgrade::WebSocket) {
            return Err(bad("Upgrade names more than websocket"));
        }
        self.upgrade = this;
        Ok(())
    }

    /// Whether the request is the handshake of a WebSocket, once all fields are known.
    pub(super) fn wants_websocket(&self, method_is_get: bool, has_body: bool, http10: bool) -> Result<bool, Refusal> {
        match self.upgrade {
            Upgrade::None | Upgrade::Other => Ok(false),
            // RFC 9110 §7.8: not for HTTP/1.0.
            Upgrade::WebSocket if http10 => Ok(false),
            Upgrade::WebSocket if !self.names_upgrade => Err(bad("Upgrade to websocket without Connection: upgrade")),
            Upgrade::WebSocket if !method_is_get || has_body => Err(bad("Upgrade to websocket is a GET without a body")),
            Upgrade::WebSocket => Ok(true),
        }
    }
}

/// `websocket`, with or without a version behind it.
fn names_websocket(protocol: &[u8]) -> bool {
    protocol.get(..9).is_some_and(|name| name.eq_ignore_ascii_case(b"websocket"))
}
