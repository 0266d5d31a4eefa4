//! What of a request decides which instance takes it, and the cookie that keeps a client with its instance.
//!
//! The cookie's value is a number that only this gateway and its replicas can tie to an instance. Whoever makes one up chooses
//! an instance of a service that he may use anyway, or none.

use super::client::Client;
use super::fields::{Fields, Sink};
use crate::upstream::{Service, Upstream};
use std::borrow::Cow;
use std::net::IpAddr;
use vertice_core::balance::{Preference, ring};
use vertice_core::policy::{Algorithm, HashKey, SameSite, Sticky};

/// What the request says about who shall take it.
#[must_use]
pub fn preference(service: &Service, fields: &impl Fields, client: Option<&Client>) -> Preference {
    let balance = &service.policy.balance;
    let key = if balance.algorithm == Algorithm::ConsistentHash { key(&balance.hash_key, fields, client) } else { None };
    let sticky = &balance.sticky;
    let token = if sticky.enabled { cookie(fields, &name(sticky, service)).and_then(parse_token) } else { None };
    Preference { key, token: token.unwrap_or(0) }
}

/// Writes the field that makes the client stay with `upstream`, unless it does already.
pub fn set_cookie(service: &Service, upstream: &Upstream, preference: &Preference, sink: &mut impl Sink) {
    let sticky = &service.policy.balance.sticky;
    if !sticky.enabled || upstream.token == 0 || preference.token == upstream.token {
        return;
    }
    let mut field = format!("{}={:016x}; Path={}; HttpOnly", name(sticky, service), upstream.token, sticky.path);
    if let Some(ttl) = sticky.ttl {
        field.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    if sticky.secure {
        field.push_str("; Secure");
    }
    field.push_str(match sticky.same_site {
        SameSite::Lax => "; SameSite=Lax",
        SameSite::Strict => "; SameSite=Strict",
        SameSite::None => "; SameSite=None",
    });
    sink.field("Set-Cookie", |out| out.extend_from_slice(field.as_bytes()));
}

fn key(from: &HashKey, fields: &impl Fields, client: Option<&Client>) -> Option<u64> {
    match from {
        HashKey::Address => client.map(|client| match client.address {
            IpAddr::V4(address) => ring::place(&address.octets()),
            IpAddr::V6(address) => ring::place(&address.octets()),
        }),
        HashKey::Header(name) => fields.first(name).map(ring::place),
        HashKey::Cookie(name) => cookie(fields, name).map(ring::place),
    }
}

/// Services are often reached under one host: each has a cookie of its own.
fn name<'a>(sticky: &'a Sticky, service: &Service) -> Cow<'a, str> {
    sticky.cookie.as_deref().map_or_else(|| format!("vx_{}", service.name).into(), Cow::Borrowed)
}

/// The value of the first cookie of that name (RFC 6265 §5.4).
fn cookie<'a>(fields: &'a impl Fields, name: &str) -> Option<&'a [u8]> {
    let pairs = fields.all("cookie").flat_map(|field| field.split(|&byte| byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn parse_token(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let is_ours = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if is_ours { u64::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, header};

    fn headers(fields: &[&'static str]) -> HeaderMap {
        fields.iter().map(|field| (header::COOKIE, HeaderValue::from_static(field))).collect()
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let headers = headers(&["a=1; vx_svc=0123456789abcdef ;b=", "c=3"]);
        let found = |name| cookie(&headers, name).map(|value| String::from_utf8_lossy(value).into_owned());
        assert_eq!(found("vx_svc").as_deref(), Some("0123456789abcdef"));
        assert_eq!((found("a").as_deref(), found("b").as_deref(), found("c").as_deref()), (Some("1"), Some(""), Some("3")));
        assert_eq!((found("vx"), found("vx_sv"), found("svc"), found("")), (None, None, None, None));
    }

    #[test]
    fn only_what_we_could_have_written_names_an_instance() {
        assert_eq!(parse_token(b"0123456789abcdef"), Some(0x0123_4567_89ab_cdef));
        for bad in [&b""[..], b"1", b"0123456789abcdeF", b"+123456789abcdef", b"0123456789abcdef0", b"\xff123456789abcde"] {
            assert_eq!(parse_token(bad), None);
        }
    }

    #[test]
    fn a_key_is_a_field_a_cookie_or_the_client() {
        let mut fields = headers(&["user=ada"]);
        fields.insert("x-user", HeaderValue::from_static("ada"));
        let client = Client { peer: [10, 0, 0, 1].into(), address: [10, 9, 9, 9].into(), is_trusted: true };
        let key = |from: &HashKey| key(from, &fields, Some(&client));
        assert_eq!(key(&HashKey::Header("x-user".into())), key(&HashKey::Cookie("user".into())));
        assert_eq!(key(&HashKey::Address), Some(ring::place(&[10, 9, 9, 9])));
        assert_eq!((key(&HashKey::Header("x-none".into())), key(&HashKey::Cookie("none".into()))), (None, None));
    }
}
