//! The rules of [`super::head`] for a head that arrived in HTTP/2 frames, where nothing separates fields but the framing
//! itself. Whatever passes here could have been written as a head that passes there.

use http::{HeaderMap, Method, Uri, header};
use vertice_core::decimal::decimal;
use vertice_core::reason::Reason;

use super::head::{HeadLimits, Refusal, bad, check_method, is_authority, is_target};

/// A request's head as HTTP/2 gives it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decoded<'a> {
    /// `:method`
    pub(super) method: &'a Method,
    /// `:path`, byte for byte.
    pub(super) path: &'a [u8],
    /// `:scheme` and `:authority` are in it.
    pub(super) uri: &'a Uri,
    /// The other fields.
    pub(super) fields: &'a HeaderMap,
}

impl Decoded<'_> {
    /// Whether the request is one that we serve.
    pub(super) fn check(&self, limits: &HeadLimits) -> Result<(), Refusal> {
        check_method(self.method.as_str().as_bytes())?;
        if self.path.len() > limits.uri_bytes {
            return Err(Refusal { reason: Reason::UriTooLong, detail: "the request target is over the limit" });
        }
        if self.fields.len() > limits.fields {
            return Err(Refusal { reason: Reason::HeadersTooLarge, detail: "too many header fields" });
        }
        if self.path.first() != Some(&b'/') {
            return Err(bad("the request target is not a path"));
        }
        if !is_target(self.path) {
            return Err(bad("a character in the request target that must be percent-encoded"));
        }
        self.check_authority()?;
        self.check_length()
    }

    fn check_authority(&self) -> Result<(), Refusal> {
        let mut hosts = self.fields.get_all(header::HOST).iter();
        let (host, authority) = (hosts.next().map(|host| host.as_bytes()), self.uri.authority());
        if hosts.next().is_some() {
            return Err(bad("more than one Host header field"));
        }
        if !matches!(self.uri.scheme_str(), Some("http" | "https")) {
            return Err(bad("the scheme is neither http nor https"));
        }
        let authority = authority.map(|authority| authority.as_str().as_bytes());
        match (authority, host) {
            (None, None) => return Err(bad("neither :authority nor Host")),
            (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
                return Err(bad(":authority differs from Host"));
            }
            _ => {}
        }
        let all_good = authority.iter().chain(&host).all(|name| is_authority(name));
        if all_good { Ok(()) } else { Err(bad(":authority or Host is not a host with an optional port")) }
    }

    fn check_length(&self) -> Result<(), Refusal> {
        let mut lengths = self.fields.get_all(header::CONTENT_LENGTH).iter();
        match (lengths.next(), lengths.next()) {
            (_, Some(_)) => Err(bad("more than one Content-Length header field")),
            (Some(length), None) if decimal(length.as_bytes()).is_none() => {
                Err(bad("Content-Length is not one decimal number"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const LIMITS: HeadLimits = HeadLimits { head_bytes: 400, fields: 4, uri_bytes: 20 };

    /// The path is checked as it came, which may be more than an URI takes.
    fn check(method: &str, target: &str, fields: &[(&'static str, &str)]) -> Result<(), Refusal> {
        let uri: Uri = target.replace('<', "").parse().unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let path =
            target.splitn(4, '/').nth(if target.starts_with('/') { 1 } else { 3 }).map(|rest| format!("/{rest}")).unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Decoded { method: &method, path: path.as_bytes(), uri: &uri, fields: &map }.check(&LIMITS)
    }

    #[test]
    fn ordinary_requests_pass() {
        for (uri, fields) in [
            ("https://a.example/x?y", &[][..]),
            ("http://a.example:8443/", &[("host", "A.example:8443"), ("content-length", "3")]),
            ("http://[::1]:80/%2F..//", &[("te", "trailers")]),
        ] {
            assert_eq!(check("POST", uri, fields), Ok(()), "{uri}");
        }
    }

    #[test]
    fn what_http_1_refuses_is_refused() {
        for (method, uri, fields, reason) in [
            ("CONNECT", "http://a/x", &[][..], Reason::BadRequest),
            ("TRACE", "http://a/x", &[], Reason::BadRequest),
            ("AMETHODOFMORETHANTHIRTYTWOLETTERS", "http://a/x", &[], Reason::BadRequest),
            ("GET", "http://a/x?<", &[], Reason::BadRequest),
            ("GET", "http://a/123456789012345678901234567890", &[], Reason::UriTooLong),
            ("GET", "http://a/", &[("host", "b")], Reason::BadRequest),
            ("GET", "http://a/", &[("host", "a"), ("host", "a")], Reason::BadRequest),
            ("GET", "http://u@a/", &[], Reason::BadRequest),
            ("GET", "ftp://a/", &[], Reason::BadRequest),
            ("GET", "/no-authority", &[], Reason::BadRequest),
            ("POST", "http://a/", &[("content-length", "1"), ("content-length", "1")], Reason::BadRequest),
            ("POST", "http://a/", &[("content-length", "+1")], Reason::BadRequest),
            ("POST", "http://a/", &[("content-length", "9223372036854775808")], Reason::BadRequest),
            ("GET", "http://a/", &[("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", "")], Reason::HeadersTooLarge),
        ] {
            let refusal = check(method, uri, fields).expect_err(uri);
            assert_eq!(refusal.reason, reason, "{method} {uri}: {}", refusal.detail);
        }
    }
}
