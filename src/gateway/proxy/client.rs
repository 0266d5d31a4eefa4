//! Who the client is, and what we tell the instance about it.

use super::fields::Fields;
use http::{HeaderMap, HeaderValue};
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

/// The forwarding fields that the instance gets.
#[derive(Debug)]
pub struct Forwarding {
    /// `X-Forwarded-For`
    pub x_for: HeaderValue,
    /// `X-Forwarded-Proto`
    pub x_proto: HeaderValue,
    /// `X-Forwarded-Host`
    pub x_host: Option<HeaderValue>,
    /// `Forwarded` (RFC 7239)
    pub forwarded: HeaderValue,
}

impl Forwarding {
    /// From a trusted proxy, what came is kept and the proxy appended; from anybody else it is replaced, so that nobody can
    /// forge where a request came from. `scheme` and `host` are those of the request itself.
    #[must_use]
    pub fn make(client: &Client, headers: &HeaderMap, scheme: &'static str) -> Self {
        let kept = |name: &str| headers.get(name).filter(|_| client.is_trusted).cloned();
        let host = headers.get(http::header::HOST);
        let own = own_element(client.peer, host, scheme);
        Self {
            x_for: appended(headers, "x-forwarded-for", client.is_trusted, &client.peer.to_string()),
            x_proto: kept("x-forwarded-proto").unwrap_or(HeaderValue::from_static(scheme)),
            x_host: kept("x-forwarded-host").or_else(|| host.cloned()),
            forwarded: appended(headers, "forwarded", client.is_trusted, &own),
        }
    }
}

fn own_element(peer: IpAddr, host: Option<&HeaderValue>, scheme: &str) -> String {
    let node = match peer {
        IpAddr::V4(v4) => v4.to_string(),
        // RFC 7239 §6: IPv6 is bracketed and quoted.
        IpAddr::V6(v6) => format!("\"[{v6}]\""),
    };
    match host.and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\'])) {
        Some(host) => format!("for={node};host=\"{host}\";proto={scheme}"),
        None => format!("for={node};proto={scheme}"),
    }
}

fn appended(headers: &HeaderMap, name: &str, keep: bool, own: &str) -> HeaderValue {
    let mut value = Vec::new();
    for field in headers.get_all(name).iter().filter(|_| keep) {
        value.extend_from_slice(field.as_bytes());
        value.extend_from_slice(b", ");
    }
    value.extend_from_slice(own.as_bytes());
    HeaderValue::from_bytes(&value).unwrap_or(HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn trusted() -> Vec<IpNet> {
        vec!["10.0.0.0/8".parse().unwrap()]
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn strangers_cannot_forge() {
        let headers = headers(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("host", "h"),
        ]);
        let client = Client::find(ip("9.9.9.9"), &headers, &trusted());
        assert_eq!(client, Client { peer: ip("9.9.9.9"), address: ip("9.9.9.9"), is_trusted: false });
        let forwarding = Forwarding::make(&client, &headers, "http");
        assert_eq!(forwarding.x_for, "9.9.9.9");
        assert_eq!(forwarding.x_proto, "http");
        assert_eq!(forwarding.x_host.unwrap(), "h");
        assert_eq!(forwarding.forwarded, "for=9.9.9.9;host=\"h\";proto=http");
    }

    #[test]
    fn a_trusted_proxy_names_the_client() {
        let headers = headers(&[
            ("x-forwarded-for", "6.6.6.6, 1.1.1.1"),
            ("x-forwarded-for", "10.2.2.2"),
            ("x-forwarded-proto", "https"),
        ]);
        let client = Client::find(ip("::ffff:10.0.0.1"), &headers, &trusted());
        assert_eq!(client.address, ip("1.1.1.1"));
        let forwarding = Forwarding::make(&client, &headers, "http");
        assert_eq!(forwarding.x_for, "6.6.6.6, 1.1.1.1, 10.2.2.2, 10.0.0.1");
        assert_eq!(forwarding.x_proto, "https");
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
            let headers = headers(&[(field, value)]);
            assert_eq!(Client::find(ip("10.0.0.1"), &headers, &trusted()).address, ip(client), "{value}");
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
            let headers = headers(&[(field, value)]);
            assert_eq!(Client::find(ip("10.0.0.1"), &headers, &trusted()).address, ip("0.0.0.0"), "{value}");
        }
    }
}
