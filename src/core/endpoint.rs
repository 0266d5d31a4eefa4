//! Where an instance listens, and which addresses nobody may register.

use crate::rule::BrokenRule;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Plain or encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// `http`, default port 80.
    Http,
    /// `https`, default port 443.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The host of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An address, whatever notation it came in.
    Address(IpAddr),
    /// A name in lower case, to be resolved off the request path.
    Name(Arc<str>),
}

/// An instance's URL: `http(s)://host[:port][/prefix]`, without userinfo, query and fragment.
///
/// Two spellings of the same endpoint are equal: host names are lower-cased, addresses and default ports normalised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    scheme: Scheme,
    host: Host,
    port: u16,
    prefix: Arc<str>,
}

impl Endpoint {
    /// The longest text that is read.
    pub const LENGTH_MAX: usize = 2048;

    /// What every endpoint looks like, as a regular expression. Not everything that looks so is one: ports end at 65535,
    /// prefixes have no dot segments, and some addresses are refused.
    pub const PATTERN: &str = r"^[Hh][Tt][Tt][Pp][Ss]?://(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(:[0-9]+)?(/[^?#]*)?$";

    /// Reads a URL.
    ///
    /// Only the syntax is judged here; [`refusal`] judges addresses, because names have none yet.
    ///
    /// # Errors
    /// A sentence naming what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, BrokenRule> {
        if text.len() > Self::LENGTH_MAX {
            return Err(BrokenRule("must not be longer than 2048 characters"));
        }
        let (scheme, rest) = split_scheme(text)?;
        if rest.contains(['?', '#']) {
            return Err(BrokenRule("must have no query and no fragment"));
        }
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(BrokenRule("must have no user information"));
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            None => scheme.default_port(),
            Some(port) => port,
        };
        Ok(Self { scheme, host: parse_host(host)?, port, prefix: parse_prefix(prefix)? })
    }

    /// Plain or encrypted.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Address or name.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The port; never 0.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What is prepended to every path: empty, or starting but not ending with `/`.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The name to resolve, if the host is one.
    #[must_use]
    pub const fn name(&self) -> Option<&Arc<str>> {
        match &self.host {
            Host::Name(name) => Some(name),
            Host::Address(_) => None,
        }
    }

    /// `host`, or `host:port` where the port is not the scheme's default: what goes into the `Host` field.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority(), self.prefix)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Why no instance may be reached at `address`: it would let a registrant aim the gateway at the host's own metadata
/// service, or at everybody (SSRF). `None` when it is fine.
///
/// Addresses that carry an IPv4 address inside (mapped, compatible, 6to4, NAT64) are judged by what they carry.
#[must_use]
pub fn refusal(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => refusal_v4(v4),
        IpAddr::V6(v6) => match embedded_v4(v6) {
            Some(v4) => refusal_v4(v4),
            None => refusal_v6(v6),
        },
    }
}

/// Whether `target` is one of the gateway's own listeners. The port alone never matches; `own` must list concrete addresses.
/// A listener on "all addresses" is listed besides what it is spelled out to, because it owns all of 127.0.0.0/8, too.
#[must_use]
pub fn is_own(target: SocketAddr, own: &[SocketAddr]) -> bool {
    let target_ip = target.ip().to_canonical();
    let is_at = |listener: IpAddr| listener == target_ip || (listener.is_unspecified() && target_ip.is_loopback());
    own.iter().any(|listener| listener.port() == target.port() && is_at(listener.ip().to_canonical()))
}

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any address of the block.
    pub address: IpAddr,
    /// How many leading bits count.
    pub prefix_len: u8,
}

impl Network {
    /// Whether `address` is in the block.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same_prefix(a.to_bits().into(), b.to_bits().into(), 32, self.prefix_len),
            (IpAddr::V6(a), IpAddr::V6(b)) => same_prefix(a.to_bits(), b.to_bits(), 128, self.prefix_len),
            _ => false,
        }
    }
}

fn same_prefix(a: u128, b: u128, width: u32, prefix_len: u8) -> bool {
    match width.saturating_sub(prefix_len.into()) {
        128.. => true,
        host_bits => a >> host_bits == b >> host_bits,
    }
}

/// Which addresses may be instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// The gateway's own listeners as concrete addresses: an instance there would be a loop.
    pub own: Vec<SocketAddr>,
    /// When not empty, instances must be in one of these.
    pub allow: Vec<Network>,
}

impl Guard {
    /// Why no instance may be at `target`, as the end of a sentence; `None` when it may.
    #[must_use]
    pub fn judge(&self, target: SocketAddr) -> Option<&'static str> {
        let plain = target.ip().to_canonical();
        if let Some(why) = refusal(target.ip()) {
            Some(why)
        } else if is_own(target, &self.own) {
            Some("is this gateway itself")
        } else if !self.allow.is_empty() && !self.allow.iter().any(|network| network.contains(plain)) {
            Some("is outside the networks that instances may be in")
        } else {
            None
        }
    }
}

fn refusal_v4(address: Ipv4Addr) -> Option<&'static str> {
    const ALIBABA_METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    const ORACLE_METADATA: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 192);
    if address.octets()[0] == 0 {
        Some("is an unspecified address")
    } else if address == Ipv4Addr::new(169, 254, 169, 254) || address == ALIBABA_METADATA || address == ORACLE_METADATA {
        Some("is a metadata address")
    } else if address.is_link_local() {
        Some("is a link-local address")
    } else if address.is_multicast() {
        Some("is a multicast address")
    } else if address.is_broadcast() {
        Some("is the broadcast address")
    } else {
        None
    }
}

fn refusal_v6(address: Ipv6Addr) -> Option<&'static str> {
    const EC2_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    if address.is_unspecified() {
        Some("is an unspecified address")
    } else if address == EC2_METADATA {
        Some("is a metadata address")
    } else if address.is_unicast_link_local() {
        Some("is a link-local address")
    } else if address.is_multicast() {
        Some("is a multicast address")
    } else {
        None
    }
}

/// RFC 4291 §2.5.5 (mapped, compatible), RFC 3056 (6to4), RFC 6052 (NAT64). `::` and `::1` carry nothing.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let tail = || {
        let o = address.octets();
        Ipv4Addr::new(o[12], o[13], o[14], o[15])
    };
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Some(tail()),
        [0x2002, high, low, ..] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

fn split_scheme(text: &str) -> Result<(Scheme, &str), BrokenRule> {
    let (scheme, rest) = text.split_once("://").ok_or(BrokenRule("must start with http:// or https://"))?;
    match scheme.to_ascii_lowercase().as_str() {
        "http" => Ok((Scheme::Http, rest)),
        "https" => Ok((Scheme::Https, rest)),
        _ => Err(BrokenRule("must start with http:// or https://")),
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), BrokenRule> {
    let host_end = if authority.starts_with('[') {
        authority.find(']').map(|at| at + 1).ok_or(BrokenRule("has an unclosed '['"))?
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at(host_end);
    if port.is_empty() {
        return Ok((host, None));
    }
    let digits = port.strip_prefix(':').ok_or(BrokenRule("must have the form host or host:port"))?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BrokenRule("has a port that is not a number"));
    }
    match digits.parse() {
        Ok(0) => Err(BrokenRule("must not have port 0")),
        Ok(port) => Ok((host, Some(port))),
        Err(_) => Err(BrokenRule("has a port above 65535")),
    }
}

fn parse_host(host: &str) -> Result<Host, BrokenRule> {
    if host.is_empty() {
        return Err(BrokenRule("must have a host"));
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| BrokenRule("has an invalid IPv6 address"))?;
        return Ok(Host::Address(IpAddr::V6(address)));
    }
    if ends_in_number(host) {
        let address = parse_loose_v4(host).ok_or(BrokenRule("has an invalid IPv4 address"))?;
        return Ok(Host::Address(IpAddr::V4(address)));
    }
    parse_host_name(host)
}

/// RFC 1123 §2.1 names, with the underscore that container names use.
fn parse_host_name(host: &str) -> Result<Host, BrokenRule> {
    let name = host.strip_suffix('.').unwrap_or(host);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let label = |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(allowed) && !l.starts_with('-') && !l.ends_with('-');
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(BrokenRule("has an invalid host name"));
    }
    Ok(Host::Name(name.to_ascii_lowercase().into()))
}

/// The "ends in a number" rule of the WHATWG URL standard: such a host is an IPv4 address or an error, never a name, because
/// resolvers read `0x7f.1` and `2130706433` as addresses.
fn ends_in_number(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or(host);
    !last.is_empty() && (last.bytes().all(|b| b.is_ascii_digit()) || parse_number(last).is_some())
}

/// `inet_aton` notation: one to four parts, decimal, octal (`0…`) or hex (`0x…`), the last part filling what is left.
fn parse_loose_v4(host: &str) -> Option<Ipv4Addr> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let parts: Vec<u64> = host.split('.').map(parse_number).collect::<Option<_>>()?;
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|&part| part > 255) {
        return None;
    }
    let width = 4 - u32::try_from(leading.len()).ok()?;
    if *last >= 1 << (8 * width) {
        return None;
    }
    let head = leading.iter().enumerate().map(|(i, part)| part << (24 - 8 * i)).sum::<u64>();
    u32::try_from(head + last).ok().map(Ipv4Addr::from)
}

fn parse_number(text: &str) -> Option<u64> {
    let (digits, radix) = if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        (if hex.is_empty() { "0" } else { hex }, 16)
    } else if text.len() > 1 && text.starts_with('0') {
        (&text[1..], 8)
    } else {
        (text, 10)
    };
    if digits.len() > 16 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

fn parse_prefix(prefix: &str) -> Result<Arc<str>, BrokenRule> {
    let prefix = prefix.trim_end_matches('/');
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&b);
    if !prefix.bytes().all(allowed) {
        return Err(BrokenRule("has a path with characters that are not allowed in one"));
    }
    if prefix.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(BrokenRule("has a path with dot segments"));
    }
    Ok(prefix.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> IpAddr {
        match Endpoint::parse(text).unwrap().host() {
            Host::Address(address) => *address,
            Host::Name(name) => panic!("{text} gave the name {name}"),
        }
    }

    #[test]
    fn good_endpoints_have_one_spelling() {
        for (text, canonical) in [
            ("http://10.0.0.1:8080", "http://10.0.0.1:8080"),
            ("HTTP://Nmap_Service:80/", "http://nmap_service"),
            ("https://a.example.:443", "https://a.example"),
            ("http://a:443", "http://a:443"),
            ("http://[2001:DB8::1]:9/api/", "http://[2001:db8::1]:9/api"),
            ("http://vertice-osint:8049", "http://vertice-osint:8049"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.to_string(), canonical);
            assert_eq!(Endpoint::parse(canonical).unwrap(), endpoint);
        }
    }

    #[test]
    fn bad_endpoints_say_what_is_wrong() {
        for (text, says) in [
            ("", "must start with"),
            ("ftp://a", "must start with"),
            ("a:80", "must start with"),
            ("http://", "must have a host"),
            ("http://:80", "must have a host"),
            ("http://a:0", "port 0"),
            ("http://a:65536", "above 65535"),
            ("http://a:", "not a number"),
            ("http://a:+80", "not a number"),
            ("http://u:p@a", "user information"),
            ("http://a?x", "no query"),
            ("http://a/#f", "no fragment"),
            ("http://[::1", "unclosed"),
            ("http://[::g]", "invalid IPv6"),
            ("http://[fe80::1%25eth0]", "invalid IPv6"),
            ("http://1.2.3.4.5", "invalid IPv4"),
            ("http://1.2.3.256", "invalid IPv4"),
            ("http://099.1", "invalid IPv4"),
            ("http://a..b", "invalid host name"),
            ("http://-a", "invalid host name"),
            ("http://a b", "invalid host name"),
            ("http://a/x y", "not allowed"),
            ("http://a/../b", "dot segments"),
        ] {
            let error = Endpoint::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn loose_notations_are_addresses() {
        for text in ["http://2130706433", "http://0x7f.1", "http://0177.0.0.1", "http://127.1", "http://0x7f000001"] {
            assert_eq!(address(text), IpAddr::V4(Ipv4Addr::LOCALHOST), "{text}");
        }
    }

    #[test]
    fn refused_addresses() {
        for text in [
            "http://169.254.169.254",
            "http://0xa9fea9fe",
            "http://2852039166",
            "http://0251.0376.0251.0376",
            "http://[::ffff:169.254.169.254]",
            "http://[::ffff:a9fe:a9fe]",
            "http://[64:ff9b::a9fe:a9fe]",
            "http://[2002:a9fe:a9fe::]",
            "http://169.254.1.1",
            "http://[fe80::1]",
            "http://[fd00:ec2::254]",
            "http://0.0.0.0",
            "http://0",
            "http://[::]",
            "http://224.0.0.1",
            "http://[ff02::1]",
            "http://255.255.255.255",
        ] {
            assert!(refusal(address(text)).is_some(), "{text}");
        }
        for text in ["http://127.0.0.1", "http://10.1.2.3", "http://[::1]", "http://[fd00::1]", "http://8.8.8.8"] {
            assert_eq!(refusal(address(text)), None, "{text}");
        }
    }

    #[test]
    fn own_listeners_by_address_and_port() {
        let own = ["127.0.0.1:8000".parse().unwrap(), "[::1]:8000".parse().unwrap()];
        assert!(is_own("127.0.0.1:8000".parse().unwrap(), &own));
        assert!(is_own("[::ffff:127.0.0.1]:8000".parse().unwrap(), &own));
        assert!(!is_own("127.0.0.1:8001".parse().unwrap(), &own));
        assert!(!is_own("127.0.0.2:8000".parse().unwrap(), &own));
        assert!(is_own("127.0.0.2:8000".parse().unwrap(), &["0.0.0.0:8000".parse().unwrap()]));
        assert!(!is_own("10.0.0.1:8000".parse().unwrap(), &["0.0.0.0:8000".parse().unwrap()]));
        assert!(!is_own("10.0.0.1:8000".parse().unwrap(), &own));
    }

    #[test]
    fn the_guard_knows_networks_and_itself() {
        let network = |text: &str, prefix_len| Network { address: text.parse().unwrap(), prefix_len };
        let guard =
            Guard { own: vec!["10.0.0.1:8000".parse().unwrap()], allow: vec![network("10.0.0.0", 8), network("fd00::", 8)] };
        let judge = |text: &str| guard.judge(text.parse().unwrap());
        assert_eq!(judge("10.9.9.9:80"), None);
        assert_eq!(judge("[::ffff:10.9.9.9]:80"), None);
        assert_eq!(judge("[fd12::1]:80"), None);
        assert_eq!(judge("10.0.0.1:8000"), Some("is this gateway itself"));
        assert_eq!(judge("11.0.0.1:80"), Some("is outside the networks that instances may be in"));
        assert_eq!(judge("[fd00:ec2::254]:80"), Some("is a metadata address"));
        assert!(network("0.0.0.0", 0).contains("1.2.3.4".parse().unwrap()));
        assert!(network("::", 0).contains("::1".parse().unwrap()));
        assert!(!network("1.2.3.4", 32).contains("1.2.3.5".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_is_stable(text in "(https?://)?\\PC{0,60}") {
            if let Ok(endpoint) = Endpoint::parse(&text) {
                prop_assert_eq!(Endpoint::parse(&endpoint.to_string()), Ok(endpoint));
            }
        }

        #[test]
        fn any_notation_of_an_address_is_that_address(bits: u32) {
            let [a, b, c, d] = bits.to_be_bytes();
            let expected = IpAddr::V4(Ipv4Addr::from(bits));
            for text in [
                format!("http://{bits}"),
                format!("http://{bits:#x}"),
                format!("http://0{bits:o}"),
                format!("http://{a}.{b}.{c}.{d}"),
                format!("http://{a:#x}.0{b:o}.{}", u32::from(c) << 8 | u32::from(d)),
            ] {
                prop_assert_eq!(address(&text), expected, "{}", text);
            }
        }
    }
}
