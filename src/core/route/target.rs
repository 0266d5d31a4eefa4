//! Request targets: the parts that routing looks at, and what the instance is asked for.

/// A target under `/v2/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V2<'a> {
    /// The service as spelled by the client.
    pub service: &'a str,
    /// What follows it: empty, or starting with `/` or `?`.
    pub rest: &'a [u8],
}

/// Splits `/v2/<service>/rest?query`. `None` when the target is not under `/v2/`, or its service is not text.
#[must_use]
pub fn split_v2(target: &[u8]) -> Option<V2<'_>> {
    let tail = target.strip_prefix(b"/v2/")?;
    let end = tail.iter().position(|&b| b == b'/' || b == b'?').unwrap_or(tail.len());
    let (service, rest) = tail.split_at(end);
    let service = std::str::from_utf8(service).ok()?;
    Some(V2 { service, rest })
}

/// The path part of a target, without its query.
#[must_use]
pub fn path_of(target: &[u8]) -> &[u8] {
    let end = target.iter().position(|&b| b == b'?').unwrap_or(target.len());
    &target[..end]
}

/// Appends the target that the instance gets: its endpoint's prefix, then `head` (a rewritten prefix, or nothing), then
/// `rest`, with a `/` where the path would be empty.
pub fn write_target(out: &mut Vec<u8>, endpoint_prefix: &str, head: &str, rest: &[u8]) {
    out.extend_from_slice(endpoint_prefix.as_bytes());
    let head = if rest.starts_with(b"/") { head.trim_end_matches('/') } else { head };
    out.extend_from_slice(head.as_bytes());
    if !rest.starts_with(b"/") && head.is_empty() {
        out.push(b'/');
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(prefix: &str, head: &str, rest: &str) -> String {
        let mut out = b"GET ".to_vec();
        write_target(&mut out, prefix, head, rest.as_bytes());
        String::from_utf8(out.split_off(4)).unwrap()
    }

    #[test]
    fn v2_targets() {
        for (text, service, rest) in [
            ("/v2/svc", "svc", ""),
            ("/v2/svc?x=1", "svc", "?x=1"),
            ("/v2/svc/", "svc", "/"),
            ("/v2/svc/a%2Fb/../c?q=/", "svc", "/a%2Fb/../c?q=/"),
            ("/v2//x", "", "/x"),
        ] {
            assert_eq!(split_v2(text.as_bytes()), Some(V2 { service, rest: rest.as_bytes() }));
        }
        assert_eq!(split_v2(b"/v2"), None);
        assert_eq!(split_v2(b"/v3/x"), None);
    }

    #[test]
    fn targets_for_the_instance() {
        assert_eq!(target("", "", ""), "/");
        assert_eq!(target("", "", "?x=1"), "/?x=1");
        assert_eq!(target("", "", "/a//b?c"), "/a//b?c");
        assert_eq!(target("/api", "", ""), "/api/");
        assert_eq!(target("/api", "", "/x"), "/api/x");
        assert_eq!(target("", "/search/basic", ""), "/search/basic");
        assert_eq!(target("", "/search/basic", "?q=1"), "/search/basic?q=1");
        assert_eq!(target("", "/search/", "/x"), "/search/x");
        assert_eq!(target("", "/", "/x"), "/x");
        assert_eq!(target("/p", "/", ""), "/p/");
    }

    proptest! {
        #[test]
        fn splitting_never_panics_and_keeps_every_byte(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut target = b"/v2/".to_vec();
            target.extend(&bytes);
            if let Some(v2) = split_v2(&target) {
                prop_assert_eq!([b"/v2/", v2.service.as_bytes(), v2.rest].concat(), target.clone());
            }
        }
    }
}
