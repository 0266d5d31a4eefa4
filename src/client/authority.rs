//! The identity of an instance that nobody gave one.

/// `host:port` of a URL, with the scheme's port where it names none.
pub(crate) fn of(endpoint: &str) -> String {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("http", endpoint));
    let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    match (has_port, scheme) {
        (true, _) => authority.to_owned(),
        (false, "https") => format!("{authority}:443"),
        (false, _) => format!("{authority}:80"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn identity_is_host_and_port() {
        for (endpoint, id) in [
            ("http://osint:8049", "osint:8049"),
            ("http://osint/prefix", "osint:80"),
            ("https://osint", "osint:443"),
            ("http://[::1]:8080/x", "[::1]:8080"),
            ("http://[::1]", "[::1]:80"),
        ] {
            assert_eq!(super::of(endpoint), id);
        }
    }
}
