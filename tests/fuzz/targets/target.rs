//! Targets: what is taken apart is what was there, and what an instance gets loses and gains nothing but the prefix.

use vertice_core::route::{path_of, split_v2, write_target};

pub(crate) fn check(bytes: &[u8]) {
    let path = path_of(bytes);
    assert!(bytes.starts_with(path) && !path.contains(&b'?'));
    assert!(matches!(bytes.get(path.len()), None | Some(b'?')));
    let rest = match split_v2(bytes) {
        Some(v2) => {
            assert_eq!([b"/v2/", v2.service.as_bytes(), v2.rest].concat(), bytes);
            assert!(!v2.service.contains(['/', '?']));
            v2.rest
        }
        None => bytes,
    };
    for (prefix, head) in [("", ""), ("/api", ""), ("", "/new"), ("/api", "/new/"), ("/api/v1", "/")] {
        let mut out = Vec::new();
        write_target(&mut out, prefix, head, rest);
        assert!(out.starts_with(prefix.as_bytes()) && out.ends_with(rest), "{}", out.escape_ascii());
        assert!(
            out.starts_with(b"/") || !rest.is_empty() && !rest.starts_with(b"/") && !rest.starts_with(b"?") || !out.is_empty()
        );
        let added = out.len() - prefix.len() - rest.len();
        assert!(added <= head.len() + 1, "{} added {added}", out.escape_ascii());
        if rest.is_empty() || rest.starts_with(b"/") || rest.starts_with(b"?") {
            assert!(out.starts_with(b"/"), "a target begins with a slash: {}", out.escape_ascii());
        }
    }
}
