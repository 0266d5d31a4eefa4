//! Names: what services and instances are called, and how other spellings of a service's name lead to it.

use crate::rule::BrokenRule;
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A service's name, see [`ServiceName::PATTERN`]. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The same rule as a regular expression.
    pub const PATTERN: &str = "^[a-z0-9][a-z0-9_-]{2,63}$";

    /// Reads a name.
    ///
    /// # Errors
    /// A sentence naming the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, BrokenRule> {
        if !(3..=64).contains(&text.len()) {
            return Err(BrokenRule("must be 3 to 64 characters long"));
        }
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(BrokenRule("must be lower case"));
        }
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if !text.bytes().all(inner) {
            return Err(BrokenRule("may contain only a-z, 0-9, '_' and '-'"));
        }
        if text.starts_with(['_', '-']) {
            return Err(BrokenRule("must start with a letter or a digit"));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An instance's identity within its service, see [`InstanceId::PATTERN`]. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(Arc<str>);

impl InstanceId {
    /// The same rule as a regular expression.
    pub const PATTERN: &str = r"^[A-Za-z0-9._:\[\]-]{1,128}$";

    /// Reads an id.
    ///
    /// # Errors
    /// A sentence naming the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, BrokenRule> {
        if !(1..=128).contains(&text.len()) {
            return Err(BrokenRule("must be 1 to 128 characters long"));
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:[]-".contains(&b);
        if !text.bytes().all(allowed) {
            return Err(BrokenRule("may contain only letters, digits and . _ : [ ] -"));
        }
        Ok(Self(text.into()))
    }

    /// The identity of a registrant that sent none: its address. An IPv4 peer of a dual-stack listener (`::ffff:10.0.0.1`)
    /// is the same registrant as `10.0.0.1`.
    #[must_use]
    pub fn of_registrant(address: std::net::IpAddr) -> Self {
        Self(address.to_canonical().to_string().into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for InstanceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Turns an environment-style spelling into the service's name: `MAXIMUS_CORE_SERVICE_URL` → `maximus_core_service`.
///
/// Only a text with an upper-case letter is touched, so that a service called `short_url` keeps its name. `None` when the
/// text is already in normal form, or has no normal form.
#[must_use]
pub fn normalise(text: &str) -> Option<ServiceName> {
    if !text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let stem = ["_url", "_endpoint"].iter().find_map(|suffix| lower.strip_suffix(suffix)).unwrap_or(&lower);
    ServiceName::parse(stem).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn service_names() {
        for good in ["abc", "nmap_service", "a-b", "0ab", &"x".repeat(64)] {
            assert!(ServiceName::parse(good).is_ok(), "{good}");
        }
        for (bad, says) in [
            ("ab", "3 to 64"),
            ("", "3 to 64"),
            (&"x".repeat(65), "3 to 64"),
            ("Nmap", "lower case"),
            ("a.b.c", "only a-z"),
            ("a b c", "only a-z"),
            ("naïve", "only a-z"),
            ("_abc", "start"),
            ("-abc", "start"),
        ] {
            let error = ServiceName::parse(bad).unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn instance_ids() {
        for good in ["a", "10.0.0.1:80", "[::1]:80", "pod-1_A.b", &"x".repeat(128)] {
            assert!(InstanceId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "é", &"x".repeat(129), "a\n"] {
            assert!(InstanceId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn environment_spellings() {
        let name = |text: &str| normalise(text).map(|n| n.as_str().to_owned());
        assert_eq!(name("MAXIMUS_CORE_SERVICE_URL").as_deref(), Some("maximus_core_service"));
        assert_eq!(name("NMAP_SERVICE_ENDPOINT").as_deref(), Some("nmap_service"));
        assert_eq!(name("Nmap_Service").as_deref(), Some("nmap_service"));
        assert_eq!(name("short_url"), None);
        assert_eq!(name("A"), None);
    }

    proptest! {
        #[test]
        fn the_parser_is_the_pattern(text in "\\PC{0,70}") {
            let first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            let matches = (3..=64).contains(&text.len())
                && first(text.as_bytes()[0])
                && text.bytes().all(|b| first(b) || b == b'_' || b == b'-');
            prop_assert_eq!(ServiceName::parse(&text).is_ok(), matches);
        }
    }
}
