//! Who may change the registry.

use super::Caller;
use super::error::Error;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use subtle::ConstantTimeEq;
use vertice_core::reason::Reason;

/// The SHA-256 of a token: what is compared, whatever form it was configured in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenCheck([u8; 32]);

impl TokenCheck {
    /// For a token known in clear.
    #[must_use]
    pub fn of_token(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// For a token known by its hash only.
    #[must_use]
    pub const fn of_hash(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl std::fmt::Debug for TokenCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenCheck(…)")
    }
}

/// The rules for writes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// Networks that writes may come from.
    pub allow_from: Vec<IpNet>,
    /// Any of these tokens; none means that no token is needed.
    pub tokens: Vec<TokenCheck>,
}

impl Access {
    /// Whether the caller may write.
    ///
    /// # Errors
    /// 403 when it may not from where it is, 401 when its token is missing or wrong.
    pub fn check(&self, caller: &Caller, headers: &HeaderMap) -> Result<(), Error> {
        if claims_forwarding(headers) && !caller.is_trusted_proxy {
            let detail = "The request carries X-Forwarded-For or Forwarded, but does not come from a trusted proxy.";
            return Err(Error::new(Reason::Forbidden, detail));
        }
        if !self.allow_from.iter().any(|network| network.contains(&caller.address)) {
            return Err(Error::new(Reason::Forbidden, "Writes are not accepted from this address."));
        }
        if self.tokens.is_empty() || sent_tokens(headers).any(|token| self.knows(token)) {
            return Ok(());
        }
        Err(Error::new(Reason::Unauthorized, "Invalid registry token"))
    }

    /// Whether somebody may see how requests are decided: on this machine, or with a token. Not by `Authorization`, which is for
    /// the service that the request goes to.
    #[must_use]
    pub fn may_look_inside(&self, address: IpAddr, is_trusted_proxy: bool, headers: &HeaderMap) -> bool {
        let is_here = address.is_loopback() && (is_trusted_proxy || !claims_forwarding(headers));
        is_here || named_tokens(headers).any(|token| self.knows(token))
    }

    /// Compares with every token, so that the time taken tells nothing.
    fn knows(&self, token: &[u8]) -> bool {
        let sent: [u8; 32] = Sha256::digest(token).into();
        let equal = self.tokens.iter().fold(subtle::Choice::from(0), |any, token| any | sent.ct_eq(&token.0));
        equal.into()
    }
}

/// The fields that carry a registry token and nothing else.
pub const TOKEN_FIELDS: [&str; 2] = ["x-registry-token", "x-registry-api-key"];

fn claims_forwarding(headers: &HeaderMap) -> bool {
    headers.contains_key("x-forwarded-for") || headers.contains_key("forwarded")
}

fn named_tokens(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    TOKEN_FIELDS.into_iter().filter_map(|name| headers.get(name)).map(http::HeaderValue::as_bytes)
}

fn sent_tokens(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
    });
    named_tokens(headers).chain(bearer)
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;
    use crate::request_id::RequestId;
    use http::HeaderValue;

    fn caller(address: &str, is_trusted_proxy: bool) -> Caller {
        let (address, request_id) = (address.parse().unwrap(), RequestId::UNKNOWN);
        Caller { address, is_trusted_proxy, role: Role::Registry, request_id }
    }

    fn status(access: &Access, caller: &Caller, fields: &[(&'static str, &'static str)]) -> u16 {
        let headers = fields.iter().map(|(n, v)| ((*n).parse().unwrap(), HeaderValue::from_static(v))).collect();
        access.check(caller, &headers).map_or_else(|error| error.reason.status(), |()| 200)
    }

    #[test]
    fn where_from_then_which_token() {
        let open = Access { allow_from: vec!["10.0.0.0/8".parse().unwrap()], tokens: Vec::new() };
        assert_eq!(status(&open, &caller("10.1.1.1", false), &[]), 200);
        assert_eq!(status(&open, &caller("10.1.1.1", false), &[("x-registry-token", "ignored")]), 200);
        assert_eq!(status(&open, &caller("11.1.1.1", false), &[]), 403);
        assert_eq!(status(&open, &caller("10.1.1.1", false), &[("x-forwarded-for", "10.0.0.9")]), 403);
        assert_eq!(status(&open, &caller("10.1.1.1", true), &[("forwarded", "for=10.0.0.9")]), 200);

        let tokens = vec![TokenCheck::of_token("one"), TokenCheck::of_hash(Sha256::digest(b"two").into())];
        let closed = Access { tokens, ..open };
        for good in [("x-registry-token", "one"), ("x-registry-api-key", "two"), ("authorization", "Bearer two")] {
            assert_eq!(status(&closed, &caller("10.1.1.1", false), &[good]), 200, "{good:?}");
        }
        for bad in [("x-registry-token", "three"), ("authorization", "Basic one"), ("authorization", "x"), ("x-other", "one")] {
            assert_eq!(status(&closed, &caller("10.1.1.1", false), &[bad]), 401, "{bad:?}");
        }
    }
}
