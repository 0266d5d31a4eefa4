//! Who the client is.

use super::fields::Fields;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The client behind a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Who sent the request: the peer, or whom a trusted proxy names.
    pub address: IpAddr,
    /// Whether the peer is a trusted proxy.
    pub is_trusted: bool,
}

impl Client {
    /// Finds the client: the right-most address of `X-Forwarded-For`, else of `Forwarded`, that is not a trusted proxy, if the
    /// peer is one. An entry that names no address hides the client: it is then [unspecified](Ipv4Addr::UNSPECIFIED), which no
    /// rule allows anything, and never the proxy in front of it.
    #[must_use]
    pub fn find(peer: IpAddr, fields: &impl Fields, trusted: &[IpNet]) -> Self {
        let peer = peer.to_canonical();
        let is_proxy = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
        if trusted.is_empty() || !is_proxy(peer) {
            return Self { peer, address: peer, is_trusted: false };
        }
        let mut address = peer;
        for hop in hops(fields).iter().rev() {
            address = parse_hop(hop).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            if !is_proxy(address) {
                break;
            }
        }
        Self { peer, address, is_trusted: true }
    }
}

/// The chain of hops as proxies wrote it down, the client first.
fn hops(fields: &impl Fields) -> Vec<String> {
    let lines = |name| fields.all(name).map(String::from_utf8_lossy);
    if fields.has("x-forwarded-for") {
        return lines("x-forwarded-for").flat_map(|field| field.split(',').map(str::to_owned).collect::<Vec<_>>()).collect();
    }
    let hop = |element: &str| forwarded_for(element).unwrap_or_default().to_owned();
    lines("forwarded").flat_map(|field| split_unquoted(&field, ',').map(hop).collect::<Vec<_>>()).collect()
}

/// The `for` parameter of one element of `Forwarded` (RFC 7239 §4). An element with a quoted string that does not end has
/// none: a client that opens one hides in it what the proxy appends.
fn forwarded_for(element: &str) -> Option<&str> {
    let mut quotes = Quotes::default();
    element.chars().for_each(|c| quotes.pass(c));
    if quotes.open {
        return None;
    }
    split_unquoted(element, ';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })
}

/// The parts of a field's value between separators. A separator in a quoted string is none: proxies quote what the client
/// chose, its `Host` for one.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quotes = Quotes::default();
    text.split(move |c| {
        quotes.pass(c);
        !quotes.open && c == separator
    })
}

/// Where quoted strings begin and end (RFC 9110 §5.6.4).
#[derive(Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    fn pass(&mut self, c: char) {
        let is_plain = !std::mem::take(&mut self.escaped);
        self.escaped = self.open && is_plain && c == '\\';
        self.open ^= is_plain && c == '"';
    }
}

/// `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]` or `[::1]:80`.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::fields::tests::Sent;

    fn trusted() -> Vec<IpNet> {
        vec!["10.0.0.0/8".parse().unwrap()]
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn strangers_cannot_forge() {
        let fields = Sent(&[("X-Forwarded-For", "1.1.1.1"), ("Forwarded", "for=1.1.1.1")]);
        let client = Client::find(ip("9.9.9.9"), &fields, &trusted());
        assert_eq!(client, Client { peer: ip("9.9.9.9"), address: ip("9.9.9.9"), is_trusted: false });
    }

    #[test]
    fn a_trusted_proxy_names_the_client() {
        let fields = Sent(&[("X-Forwarded-For", "6.6.6.6, 1.1.1.1"), ("X-Forwarded-For", "10.2.2.2")]);
        let client = Client::find(ip("::ffff:10.0.0.1"), &fields, &trusted());
        assert_eq!(client, Client { peer: ip("10.0.0.1"), address: ip("1.1.1.1"), is_trusted: true });
        assert_eq!(Client::find(ip("::ffff:10.0.0.1"), &fields.map(), &trusted()), client);
    }

    #[test]
    fn ports_brackets_and_forwarded_are_understood() {
        for (field, value, client) in [
            ("x-forwarded-for", "8.8.8.8:5555", "8.8.8.8"),
            ("x-forwarded-for", "[2001:db8::1]:80, 10.1.1.1", "2001:db8::1"),
            ("x-forwarded-for", "2001:db8::1", "2001:db8::1"),
            ("forwarded", "for=8.8.8.8;proto=http, For=\"[2001:db8::2]:4711\";by=10.1.1.1", "2001:db8::2"),
            ("forwarded", "for=8.8.8.8, for=10.3.3.3", "8.8.8.8"),
            // What a client wrote into its Host is a value, whatever it looks like.
            ("forwarded", "for=8.8.8.8;host=\"x,for=10.9.9.9\"", "8.8.8.8"),
            ("forwarded", "host=\"x;for=10.9.9.9\";for=8.8.8.8", "8.8.8.8"),
            ("forwarded", "host=\"\\\",for=10.9.9.9;x=\\\"\";for=8.8.8.8", "8.8.8.8"),
        ] {
            let fields = [(field, value)];
            assert_eq!(Client::find(ip("10.0.0.1"), &Sent(&fields), &trusted()).address, ip(client), "{value}");
        }
    }

    #[test]
    fn an_unreadable_entry_hides_the_client() {
        for (field, value) in [
            ("x-forwarded-for", "1.1.1.1, evil, 10.3.3.3"),
            ("x-forwarded-for", "unknown"),
            ("x-forwarded-for", "8.8.8.8, "),
            ("forwarded", "for=_hidden"),
            ("forwarded", "proto=https"),
            ("forwarded", "for=\"8.8.8.8"),
            ("forwarded", "for=8.8.8.8;host=\"x, for=10.9.9.9"),
        ] {
            let fields = [(field, value)];
            assert_eq!(Client::find(ip("10.0.0.1"), &Sent(&fields), &trusted()).address, ip("0.0.0.0"), "{value}");
        }
    }
}
