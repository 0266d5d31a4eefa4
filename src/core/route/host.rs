//! Hosts: what a route may say about them, and the look-up's first step.

use super::path::Paths;
use super::{Incoming, Map, Match, StaticRoute, new_map};
use crate::rule::BrokenRule;
use foldhash::quality::FixedState;
use std::fmt;
use std::sync::Arc;

/// No host is longer (RFC 1035 §2.3.4). A request for a longer one matches only routes for any host.
pub const HOST_BYTES_MAX: usize = 253;

/// Which hosts match. Compared without regard to case, port and a dot at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostPattern {
    /// This one.
    Exact(Arc<str>),
    /// Every name below a domain: `.example.com` is that of `*.example.com`, which matches `a.example.com` and
    /// `a.b.example.com`, not `example.com`.
    Below(Arc<str>),
}

impl HostPattern {
    /// Reads a name, an IP address (IPv6 in brackets), or `*.` and a domain.
    ///
    /// # Errors
    /// A sentence naming the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, BrokenRule> {
        let lower = text.to_ascii_lowercase();
        let bare = lower.strip_suffix('.').unwrap_or(&lower);
        if bare.len() > HOST_BYTES_MAX {
            return Err(BrokenRule("must be at most 253 characters long"));
        }
        if let Some(inside) = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address = inside.parse::<std::net::Ipv6Addr>();
            return address
                // In the one spelling that clients are to use (RFC 5952).
                .map(|address| Self::Exact(format!("[{address}]").into()))
                .map_err(|_| BrokenRule("must be an IPv6 address in its brackets"));
        }
        if bare.contains(':') {
            return Err(BrokenRule(
                "must have no port, as requests match whatever theirs is; an IPv6 address is put in brackets",
            ));
        }
        let (domain, is_wildcard) = bare.strip_prefix("*.").map_or((bare, false), |domain| (domain, true));
        if domain.contains('*') {
            return Err(BrokenRule("may have '*' only as its whole first label, as in *.example.com"));
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if domain.split('.').any(|label| !(1..=63).contains(&label.len()) || !label.bytes().all(allowed)) {
            return Err(BrokenRule("must be labels of 1 to 63 letters, digits, '-' and '_' with dots between them"));
        }
        if !is_wildcard {
            return Ok(Self::Exact(bare.into()));
        }
        if domain.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
            return Err(BrokenRule("must have a name behind '*.', not an address"));
        }
        Ok(Self::Below(bare[1..].into()))
    }

    /// A host that matches, for messages.
    pub(super) fn example(&self) -> String {
        match self {
            Self::Exact(host) => host.to_string(),
            Self::Below(domain) => format!("any{domain}"),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Below(domain) => write!(f, "*{domain}"),
        }
    }
}

/// The routes by host.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    exact: Map<Paths>,
    /// By what the wildcard leaves: `.example.com`.
    below: Map<Paths>,
    /// The bytes of the longest key of `below`.
    below_longest: usize,
    any: Paths,
}

impl Hosts {
    pub(super) fn new(hash: &FixedState) -> Self {
        Self { exact: new_map(hash), below: new_map(hash), below_longest: 0, any: Paths::new(hash) }
    }

    pub(super) fn insert(&mut self, route: &Arc<StaticRoute>) {
        let hash = self.exact.hasher().clone();
        if route.pattern.hosts.is_empty() {
            self.any.insert(route);
        }
        for host in &route.pattern.hosts {
            let (map, key) = match host {
                HostPattern::Exact(host) => (&mut self.exact, host.as_bytes()),
                HostPattern::Below(domain) => {
                    self.below_longest = self.below_longest.max(domain.len());
                    (&mut self.below, domain.as_bytes())
                }
            };
            map.entry(key.into()).or_insert_with(|| Paths::new(&hash)).insert(route);
        }
    }

    /// The exact host, then the wildcards from the longest to the shortest, then any host.
    pub(super) fn find(&self, request: &impl Incoming) -> Option<Match<'_>> {
        if self.exact.is_empty() && self.below.is_empty() {
            return self.any.find(request);
        }
        let mut buffer = [0; HOST_BYTES_MAX];
        let host = comparable(request.host(), &mut buffer);
        let exact = || self.exact.get(host)?.find(request);
        let below = || {
            // A label must be left for the wildcard.
            let start = host.len().saturating_sub(self.below_longest).max(1);
            let dots = (start..host.len()).filter(|at| host[*at] == b'.');
            dots.filter_map(|dot| self.below.get(&host[dot..])).find_map(|paths| paths.find(request))
        };
        exact().or_else(below).or_else(|| self.any.find(request))
    }
}

/// A request's host as the maps have it: in lower case, without a port, without a dot at the end. Empty when there is none
/// or it is longer than any.
fn comparable<'b>(sent: &[u8], buffer: &'b mut [u8; HOST_BYTES_MAX]) -> &'b [u8] {
    let end = match sent.first() {
        Some(b'[') => sent.iter().position(|&b| b == b']').map(|at| at + 1),
        _ => sent.iter().position(|&b| b == b':'),
    };
    let host = &sent[..end.unwrap_or(sent.len())];
    let host = host.strip_suffix(b".").unwrap_or(host);
    let Some(lower) = buffer.get_mut(..host.len()) else { return &[] };
    lower.copy_from_slice(host);
    lower.make_ascii_lowercase();
    lower
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_names_addresses_and_wildcards() {
        for (text, shown) in [
            ("Shop.Example.COM", "shop.example.com"),
            ("shop.example.com.", "shop.example.com"),
            ("*.example.com", "*.example.com"),
            ("*.com", "*.com"),
            ("localhost", "localhost"),
            ("my_host", "my_host"),
            ("10.0.0.1", "10.0.0.1"),
            ("[::1]", "[::1]"),
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
            ("[2001:DB8:0::0A]", "[2001:db8::a]"),
        ] {
            assert_eq!(HostPattern::parse(text).map(|host| host.to_string()).as_deref(), Ok(shown));
        }
        let long = format!("{}.com", ["a"; 126].join("."));
        for bad in [
            "",
            ".",
            "*",
            "*.",
            "*.*.com",
            "a.*.com",
            "a*.com",
            "shop:80",
            "::1",
            "[::1",
            "[x]",
            "[::1]:80",
            "a..b",
            ".a",
            "a b",
            "ä.de",
            "a/b",
            "*.0.0.1",
            &long,
            &"a".repeat(64),
        ] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_are_compared_without_case_port_and_final_dot() {
        let mut buffer = [0; HOST_BYTES_MAX];
        for (sent, host) in [
            ("Shop.Example:8000", "shop.example"),
            ("shop.example.:80", "shop.example"),
            ("shop.example.", "shop.example"),
            ("shop.example:", "shop.example"),
            ("[::1]:80", "[::1]"),
            ("[::A]", "[::a]"),
            ("[", "["),
            ("", ""),
            (":80", ""),
            (".", ""),
        ] {
            assert_eq!(comparable(sent.as_bytes(), &mut buffer), host.as_bytes(), "{sent}");
        }
        assert_eq!(comparable(&[b'a'; 253], &mut buffer).len(), 253);
        assert_eq!(comparable(&[b'a'; 254], &mut buffer), b"");
    }
}
