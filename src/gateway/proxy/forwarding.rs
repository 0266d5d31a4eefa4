//! What the instance is told about the client: the forwarding fields.

use super::client::Client;
use super::fields::{self, Fields, Sink};
use std::io::Write;
use std::net::IpAddr;

/// The fields that services know by more than one spelling.
const SPELLED: [&str; 3] = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];

/// Made of the client's fields and what is known of it. From a trusted proxy, what came is kept and the proxy appended; from
/// anybody else it is replaced, so that nobody can forge where a request came from.
#[derive(Debug)]
pub struct Forwarding<'a, F> {
    /// Who sent the request.
    pub client: &'a Client,
    /// Its fields.
    pub fields: &'a F,
    /// What it came over.
    pub scheme: &'static str,
}

impl<'a, F: Fields> Forwarding<'a, F> {
    /// Whether the field of that name is one of them.
    #[must_use]
    pub fn names(name: &[u8]) -> bool {
        let is = |ours: &str| name.eq_ignore_ascii_case(ours.as_bytes());
        is("forwarded") || SPELLED.into_iter().any(is)
    }

    /// Whether it is one that is not written.
    #[must_use]
    pub fn lacks(&self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(b"x-forwarded-host") && self.host().is_none()
    }

    /// Writes them.
    pub fn write(&self, sink: &mut impl Sink) {
        let peer = self.client.peer;
        sink.field("X-Forwarded-For", |out| {
            self.write_kept("x-forwarded-for", out);
            write_address(peer, out);
        });
        let proto = self.kept("x-forwarded-proto").unwrap_or(self.scheme.as_bytes());
        sink.field("X-Forwarded-Proto", |out| out.extend_from_slice(proto));
        sink.field("Forwarded", |out| {
            self.write_kept("forwarded", out);
            self.write_own_element(out);
        });
        if let Some(host) = self.host() {
            sink.field("X-Forwarded-Host", |out| out.extend_from_slice(host));
        }
    }

    fn host(&self) -> Option<&'a [u8]> {
        self.kept("x-forwarded-host").or_else(|| self.fields.first("host"))
    }

    fn kept(&self, name: &str) -> Option<&'a [u8]> {
        if self.client.is_trusted { self.fields.first(name) } else { None }
    }

    fn write_kept(&self, name: &str, out: &mut Vec<u8>) {
        if !self.client.is_trusted {
            return;
        }
        for value in self.fields.all(name) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }

    /// Our element of `Forwarded` (RFC 7239 §4).
    fn write_own_element(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"for=");
        if self.client.peer.is_ipv6() {
            // RFC 7239 §6: IPv6 is bracketed and quoted.
            out.extend_from_slice(b"\"[");
            write_address(self.client.peer, out);
            out.extend_from_slice(b"]\"");
        } else {
            write_address(self.client.peer, out);
        }
        let host = self.fields.first("host").and_then(fields::text);
        if let Some(host) = host.filter(|host| !host.contains(['"', '\\'])) {
            out.extend_from_slice(b";host=\"");
            out.extend_from_slice(host.as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(b";proto=");
        out.extend_from_slice(self.scheme.as_bytes());
    }
}

fn write_address(address: IpAddr, out: &mut Vec<u8>) {
    let IpAddr::V4(v4) = address else {
        // Memory takes whatever is written to it.
        let _ = write!(out, "{address}");
        return;
    };
    // By hand, because nearly every request has two of them and formatting takes ten times as long.
    for (at, octet) in v4.octets().into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        for (least, unit) in [(100, 100), (10, 10), (0, 1)] {
            if octet >= least {
                out.push(b'0' + octet / unit % 10);
            }
        }
    }
}

/// Whether a service may take the field for a forwarding field, which we set: spelled with `_` for `-`. CGI and WSGI, which turn
/// both into `HTTP_X_FORWARDED_FOR`, cannot tell them apart, and only ours say where a request came from.
#[must_use]
pub fn is_lookalike(name: &[u8]) -> bool {
    let is_spelling_of = |ours: &str| {
        let same = |(byte, ours): (&u8, u8)| byte.to_ascii_lowercase() == ours || (*byte == b'_' && ours == b'-');
        ours.len() == name.len() && name.iter().zip(ours.bytes()).all(same)
    };
    name.contains(&b'_') && SPELLED.into_iter().any(is_spelling_of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::fields::tests::Sent;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    /// What the instance is told: the same, whoever holds the fields.
    fn lines(sent: &Sent<'_>, peer: IpAddr, is_trusted: bool) -> Vec<String> {
        fn written(client: &Client, fields: &impl Fields) -> String {
            let mut out = Vec::new();
            Forwarding { client, fields, scheme: "http" }.write(&mut out);
            String::from_utf8(out).unwrap()
        }
        let client = Client { peer, address: peer, is_trusted };
        let text = written(&client, sent);
        assert_eq!(text, written(&client, &sent.map()));
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn addresses_as_they_are_written() {
        for text in ["0.0.0.0", "1.20.100.255", "10.9.99.109", "2001:db8::1"] {
            let mut out = Vec::new();
            write_address(text.parse().unwrap(), &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }

    #[test]
    fn strangers_cannot_forge() {
        let sent = Sent(&[
            ("X-Forwarded-For", "1.1.1.1"),
            ("Forwarded", "for=1.1.1.1"),
            ("X-Forwarded-Proto", "https"),
            ("Host", "h"),
        ]);
        let expected = [
            "X-Forwarded-For: 10.0.0.1",
            "X-Forwarded-Proto: http",
            "Forwarded: for=10.0.0.1;host=\"h\";proto=http",
            "X-Forwarded-Host: h",
        ];
        assert_eq!(lines(&sent, PEER, false), expected);
        let expected =
            ["X-Forwarded-For: 2001:db8::1", "X-Forwarded-Proto: http", "Forwarded: for=\"[2001:db8::1]\";proto=http"];
        assert_eq!(lines(&Sent(&[]), "2001:db8::1".parse().unwrap(), false), expected);
    }

    #[test]
    fn what_a_trusted_proxy_says_is_kept() {
        let sent = Sent(&[
            ("x-forwarded-for", "6.6.6.6, 1.1.1.1"),
            ("x-forwarded-for", "10.2.2.2"),
            ("forwarded", "for=8.8.8.8"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "outside"),
            ("host", "a\"b"),
        ]);
        let expected = [
            "X-Forwarded-For: 6.6.6.6, 1.1.1.1, 10.2.2.2, 10.0.0.1",
            "X-Forwarded-Proto: https",
            "Forwarded: for=8.8.8.8, for=10.0.0.1;proto=http",
            "X-Forwarded-Host: outside",
        ];
        assert_eq!(lines(&sent, PEER, true), expected);
    }

    #[test]
    fn underscores_make_lookalikes() {
        for name in ["x_forwarded_for", "x-forwarded_proto", "X_Forwarded-Host"] {
            assert!(is_lookalike(name.as_bytes()), "{name}");
        }
        for name in ["x-forwarded-for", "x_request_id", "x_forwarded_fo", "x_forwarded_port"] {
            assert!(!is_lookalike(name.as_bytes()), "{name}");
        }
    }
}
