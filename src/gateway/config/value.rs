//! What a written value means: one pure function per kind of value.
//!
//! Each refusal says what was given and what is allowed, and nothing of where: the reader adds the place.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use vertice_core::endpoint::Endpoint;
use vertice_core::name::ServiceName;

use super::raw::Value;

/// A duration: `"250ms"`, `"1m 30s"`, or a number of seconds.
pub(super) fn duration(value: &Value) -> Result<Duration, String> {
    let parsed = match value {
        Value::Integer(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
        Value::Float(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
        Value::Text(text) => duration_of_text(text.trim()),
        _ => None,
    };
    parsed.ok_or_else(|| {
        let given = given(value);
        format!("{given} is not a duration; give for example \"250ms\", \"1m 30s\" or a number of seconds")
    })
}

/// A whole number.
pub(super) fn integer(value: &Value) -> Result<u64, String> {
    let parsed = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    parsed.ok_or_else(|| format!("{} is not a whole number of 0 or more", given(value)))
}

/// A number of bytes: a whole number, or one with a unit such as `"64KiB"` or `"10MB"`.
pub(super) fn bytes(value: &Value) -> Result<u64, String> {
    let parsed = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::Text(text) => bytes_of_text(text.trim()),
        _ => None,
    };
    parsed.ok_or_else(|| format!("{} is not a size; give a number of bytes or for example \"64KiB\", \"10MB\"", given(value)))
}

/// A truth value.
pub(super) fn boolean(value: &Value) -> Result<bool, String> {
    let parsed = match value {
        Value::Boolean(truth) => Some(*truth),
        Value::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    };
    parsed.ok_or_else(|| format!("{} is neither true nor false", given(value)))
}

/// A text, without surrounding spaces.
pub(super) fn text(value: &Value) -> Result<&str, String> {
    match value {
        Value::Text(text) => Ok(text.trim()),
        Value::List(_) | Value::Other(_) => Err(format!("{} is not a text", given(value))),
        _ => Err(format!("{} is not a text; put it in quotes", given(value))),
    }
}

/// An address to bind or to call, `ip:port`.
pub(super) fn address(value: &Value) -> Result<SocketAddr, String> {
    text(value)?.parse().map_err(|_| {
        let given = given(value);
        format!("{given} is not an address; give ip:port, for example \"0.0.0.0:8000\" or \"[::1]:8000\"")
    })
}

/// The address of a DNS server, `ip` or `ip:port`.
pub(super) fn dns_server(value: &Value) -> Result<SocketAddr, String> {
    let text = text(value)?;
    let without_port = || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53));
    let parsed = text.parse().ok().or_else(without_port);
    parsed
        .filter(|address| address.port() != 0)
        .ok_or_else(|| format!("{} is not a DNS server; give ip or ip:port", given(value)))
}

/// A network, `10.0.0.0/8`, or one address.
pub(super) fn network(value: &Value) -> Result<IpNet, String> {
    let text = text(value)?;
    let one_address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let parsed = text.parse::<IpNet>().ok().map(|net| net.trunc()).or_else(one_address);
    parsed.ok_or_else(|| format!("{} is not a network; give for example \"10.0.0.0/8\" or \"192.0.2.7\"", given(value)))
}

/// A service's name.
pub(super) fn service_name(name: &str) -> Result<ServiceName, String> {
    ServiceName::parse(name).map_err(|why| format!("{} is not a service name: it {why}", shortened(name)))
}

/// A short label: a route's name, a zone, a replica's name.
pub(super) fn label(value: &Value) -> Result<String, String> {
    let text = text(value)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    if !text.is_empty() && text.len() <= 128 && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(format!("{} is not a name; 1 to 128 letters, digits, '.', '_', ':' and '-'", given(value)))
    }
}

/// A whole path: `/api/search`; with a slash at its end it is another one.
pub(super) fn path(value: &Value) -> Result<String, String> {
    let text = text(value)?;
    let sendable = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\".contains(&byte));
    let plain = !text.contains("//") && text.split('/').all(|part| part != "." && part != "..");
    if text.starts_with('/') && sendable && plain && text.len() <= 1024 {
        Ok(text.to_owned())
    } else {
        Err(format!("{} is not a path; it begins with one '/', and has no '//', '..', '?', '#' or spaces", given(value)))
    }
}

/// A path or the beginning of one: `/api/search`; a slash at the end does not count.
pub(super) fn path_prefix(value: &Value) -> Result<String, String> {
    let path = path(value)?;
    let trimmed = path.strip_suffix('/').unwrap_or(&path);
    Ok(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
}

/// The base URL of a service, `http://host[:port][/prefix]`. A refusal does not repeat it: it may hold a password.
pub(super) fn service_url(text: &str) -> Result<Endpoint, String> {
    Endpoint::parse(text).map_err(|why| format!("not a usable service URL: it {why}; give http://host[:port][/prefix]"))
}

/// Splits `host[:port]`; the host is a name, an IPv4 address or an IPv6 address in brackets.
pub(super) fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest.split_once(']')?;
            inside.parse::<std::net::Ipv6Addr>().ok()?;
            (&text[..inside.len() + 2], if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let named = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let well_formed = host.starts_with('[') || (!host.is_empty() && host.chars().all(named));
    let port = match port {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) => return None,
        None => None,
    };
    (well_formed && host.len() <= 255).then_some((host, port))
}

/// What was given, short enough for a line and without control characters.
pub(super) fn given(value: &Value) -> String {
    match value {
        Value::Text(text) => shortened(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        Value::List(_) => "a list".to_owned(),
        Value::Other(what) => (*what).to_owned(),
    }
}

/// `text` in quotes, cut off where it gets long.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{:?}", format!("{}…", &text[..end])),
        None => format!("{text:?}"),
    }
}

fn duration_of_text(text: &str) -> Option<Duration> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    }
}

fn bytes_of_text(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000 * 1000,
        "gb" => 1000 * 1000 * 1000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn durations_are_text_or_seconds() {
        let ms = |value: Value| duration(&value).unwrap().as_millis();
        assert_eq!(ms(written("250ms")), 250);
        assert_eq!(ms(written("1m 30s")), 90_000);
        assert_eq!(ms(written("1.5s")), 1500);
        assert_eq!(ms(written(" 0.5 ")), 500);
        assert_eq!(ms(written("5")), 5000);
        assert_eq!(ms(Value::Integer(2)), 2000);
        assert_eq!(ms(Value::Float(0.001)), 1);
        assert_eq!(ms(Value::Integer(0)), 0);
        for bad in ["", "fast", "-1s", "-1", "1 lightyear", "inf", "nan", "1e300", "99999999999999y"] {
            assert!(duration(&written(bad)).is_err(), "{bad}");
        }
        for bad in [Value::Integer(-1), Value::Float(f64::NAN), Value::Boolean(true)] {
            assert!(duration(&bad).is_err());
        }
    }

    #[test]
    fn sizes_have_units() {
        let size = |text: &str| bytes(&written(text)).ok();
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(size("64 kib"), Some(65_536));
        assert_eq!(size("10MB"), Some(10_000_000));
        assert_eq!(size("1GiB"), Some(1 << 30));
        assert_eq!(size("17"), Some(17));
        for bad in ["", "KiB", "1.5KiB", "-1", "1 parsec", "99999999999GiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn networks_may_be_one_address() {
        let net = |text: &str| network(&written(text)).map(|net| net.to_string()).ok();
        assert_eq!(net("10.1.2.3/8").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(net("192.0.2.7").as_deref(), Some("192.0.2.7/32"));
        assert_eq!(net("fc00::/7").as_deref(), Some("fc00::/7"));
        assert_eq!(net("10.0.0.0/33"), None);
    }

    #[test]
    fn addresses_need_a_port_and_no_name() {
        assert!(address(&written("0.0.0.0:0")).is_ok());
        assert!(address(&written("[::1]:8000")).is_ok());
        for bad in ["8000", ":8000", "localhost:8000", "0.0.0.0", "0.0.0.0:65536"] {
            assert!(address(&written(bad)).is_err(), "{bad}");
        }
        assert_eq!(dns_server(&written("9.9.9.9")).unwrap().to_string(), "9.9.9.9:53");
        assert_eq!(dns_server(&written("::1")).unwrap().to_string(), "[::1]:53");
        assert!(dns_server(&written("9.9.9.9:0")).is_err());
    }

    #[test]
    fn a_refused_url_is_not_repeated() {
        assert_eq!(service_url("http://A:80/x").unwrap().to_string(), "http://a/x");
        for bad in ["ftp://geheim", "http://u:geheim@a", "http://a?geheim", "geheim:80"] {
            let refusal = service_url(bad).unwrap_err();
            assert!(!refusal.contains("geheim"), "{refusal}");
        }
    }

    #[test]
    fn hosts_may_have_ports() {
        assert_eq!(host_and_port("redis-1"), Some(("redis-1", None)));
        assert_eq!(host_and_port("10.0.0.1:26379"), Some(("10.0.0.1", Some(26379))));
        assert_eq!(host_and_port("[::1]:1"), Some(("[::1]", Some(1))));
        assert_eq!(host_and_port("[::1]"), Some(("[::1]", None)));
        for bad in ["", ":1", "a:", "a:x", "a:+1", "a:65536", "a b", "::1", "[::1", "[zz]", "[::1]1"] {
            assert_eq!(host_and_port(bad), None, "{bad}");
        }
    }

    #[test]
    fn prefixes_are_plain_paths() {
        let prefix = |text: &str| path_prefix(&written(text)).ok();
        assert_eq!(prefix("/api/x/").as_deref(), Some("/api/x"));
        assert_eq!(prefix("/").as_deref(), Some("/"));
        assert_eq!(path(&written("/api/x/")).as_deref(), Ok("/api/x/"), "a whole path is kept");
        for bad in ["", "api", "//", "/a//b", "/a/../b", "/a?b", "/a b", "/ä", "/a\\b"] {
            assert_eq!(prefix(bad), None, "{bad}");
        }
    }
}
