//! Query parameters.

use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// The first value of a parameter, decoded; `Some("")` when it stands without one.
pub(super) fn value<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key)? == name).then(|| decode(value)).flatten()
    })
}

/// Whether a switch is on: present, and not `0` or `false`.
pub(super) fn is_on(query: &str, name: &str) -> bool {
    value(query, name).is_some_and(|value| !matches!(&*value, "0" | "false"))
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(text).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let query = "a=1&instance_id=%5B%3A%3A1%5D%3A80&all&b=%FF";
        assert_eq!(value(query, "instance_id").as_deref(), Some("[::1]:80"));
        assert_eq!(value(query, "all").as_deref(), Some(""));
        assert_eq!(value(query, "b"), None);
        assert_eq!(value(query, "c"), None);
        assert!(is_on(query, "all") && is_on("all=1", "all") && !is_on("all=0", "all") && !is_on("", "all"));
    }
}
