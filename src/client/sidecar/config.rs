//! The sidecar's environment variables.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use vertice_core::endpoint::Endpoint;
use vertice_core::name::{InstanceId, ServiceName};

use crate::lifecycle::HealthGate;
use crate::registration::RegistrationConfig;
use crate::registry::{RegistryUrls, Token};
use crate::sidecar::launcher::Launch;
use crate::sidecar::supervisor::{Policy, Restart};
use crate::span;

/// Reads the configuration. `variable` gives the value of an environment variable; an empty one counts as not set, because
/// that is what `${X:-}` in a compose file makes of it.
///
/// # Errors
/// Every mistake at once.
pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<RegistrationConfig, Mistakes> {
    let mut reader = Reader { variable, mistakes: Vec::new() };
    let registration = registration(&mut reader);
    reader.finish(registration.map(|(registration, _)| registration))
}

/// The same with what `exec` needs to know.
///
/// # Errors
/// Every mistake at once.
pub fn read_launch(variable: impl Fn(&str) -> Option<String>) -> Result<Launch, Mistakes> {
    let mut reader = Reader { variable, mistakes: Vec::new() };
    let registration = registration(&mut reader);
    let restart = reader.value("SIDECAR_RESTART", restart).unwrap_or_default();
    let restarts_max = reader.value("SIDECAR_RESTART_MAX", |text| whole(text, 0, 1_000_000)).unwrap_or(0);
    let unhealthy_max = reader.value("SIDECAR_UNHEALTHY_RESTART", unhealthy_max).flatten();
    let stop_grace = reader.value_or("SIDECAR_STOP_GRACE", "10", |text| span::parse(text).map_err(|e| e.to_string()));
    let drain_wait = reader.value_or("SIDECAR_DRAIN_WAIT", "1", |text| span::parse(text).map_err(|e| e.to_string()));
    if restart == Restart::Never && unhealthy_max.is_some() {
        reader.mistakes.push(("SIDECAR_UNHEALTHY_RESTART", "must be 'off' where SIDECAR_RESTART is 'never'".to_owned()));
    }
    let launch = registration.zip(stop_grace).zip(drain_wait).map(|(((registration, port), stop_grace), drain_wait)| {
        let start_max = registration.initial_wait;
        let policy = Policy { restart, restarts_max, unhealthy_max, start_max, stop_grace, drain_wait };
        Launch { registration, port, policy }
    });
    reader.finish(launch)
}

/// What both ways of use have in common: the registration and the service's port. `None` when there are mistakes.
fn registration(reader: &mut Reader<impl Fn(&str) -> Option<String>>) -> Option<(RegistrationConfig, u16)> {
    let service_name = reader.required("SERVICE_NAME", |text| ServiceName::parse(text).map_err(|e| e.to_string()));
    let host = reader.required("SERVICE_HOST", host);
    let port = reader.value("SERVICE_PORT", port).unwrap_or(8080);
    let health_endpoint = reader.value("SERVICE_HEALTH_ENDPOINT", health_endpoint).unwrap_or_else(|| "/health".to_owned());
    let registry =
        reader.value_or("REGISTRY_URL", DEFAULT_REGISTRY, |text| RegistryUrls::parse(text).map_err(|e| e.to_string()));
    let heartbeat_interval = reader.value_or("HEARTBEAT_INTERVAL", "30", interval);
    let initial_wait = reader.value_or("INITIAL_WAIT_TIMEOUT", "60", |text| span::parse(text).map_err(|e| e.to_string()));
    let health_gate = reader.value("SIDECAR_HEALTH_GATE", health_gate).unwrap_or_default();
    let instance_id = reader.value("SIDECAR_INSTANCE_ID", instance_id);
    let token = reader.first(&Token::VARIABLES, |text| Token::parse(text).map_err(|e| e.to_string()));
    let ttl = reader.value("SERVICE_TTL", |text| whole(text, 5, 3600));
    let weight = reader.value("SERVICE_WEIGHT", |text| whole(text, 0, 1000));
    let zone = reader.first(&["SERVICE_ZONE", "ZONE"], words);
    let tags = reader.value("SERVICE_TAGS", |text| words(text).map(|text| tags(&text))).unwrap_or_default();

    let authority = host.map(|host| format!("{host}:{port}"));
    let instance_id = instance_id.or_else(|| reader.default_instance_id(authority.as_deref()));
    match (service_name, authority, registry, heartbeat_interval, initial_wait, instance_id) {
        (Some(service_name), Some(authority), Some(registry), Some(heartbeat_interval), Some(initial_wait), Some(id))
            if reader.mistakes.is_empty() =>
        {
            let endpoint = format!("http://{authority}");
            let config = RegistrationConfig {
                health_url: Some(format!("{endpoint}{health_endpoint}")),
                health_endpoint,
                instance_id: id,
                ttl,
                weight,
                zone,
                tags,
                token,
                heartbeat_interval,
                initial_wait,
                health_gate,
                ..RegistrationConfig::new(service_name, endpoint, registry)
            };
            Some((config, port))
        }
        _ => None,
    }
}

/// What is wrong with the environment: the variable's name and the end of a sentence about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<(&'static str, String)>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to read the configuration: {} of the environment variables", self.0.len())?;
        f.write_str(if self.0.len() == 1 { " is wrong" } else { " are wrong" })?;
        self.0.iter().try_for_each(|(name, message)| write!(f, "\n  {name} {message}"))
    }
}

impl std::error::Error for Mistakes {}

struct Reader<V> {
    variable: V,
    mistakes: Vec<(&'static str, String)>,
}

impl<V: Fn(&str) -> Option<String>> Reader<V> {
    /// The value of a variable; `None` when it is not set, or when it is wrong (which is noted).
    fn value<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(name)?;
        parse(&text).map_err(|message| self.mistakes.push((name, message))).ok()
    }

    fn value_or<T>(&mut self, name: &'static str, default: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(name).unwrap_or_else(|| default.to_owned());
        parse(&text).map_err(|message| self.mistakes.push((name, message))).ok()
    }

    fn required<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        if self.text(name).is_none() {
            self.mistakes.push((name, "is required".to_owned()));
        }
        self.value(name, parse)
    }

    /// The first of several names that is set.
    fn first<T>(&mut self, names: &[&'static str], parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let name = names.iter().find(|name| self.text(name).is_some())?;
        self.value(name, parse)
    }

    fn finish<T>(self, read: Option<T>) -> Result<T, Mistakes> {
        read.filter(|_| self.mistakes.is_empty()).ok_or(Mistakes(self.mistakes))
    }

    fn default_instance_id(&mut self, authority: Option<&str>) -> Option<String> {
        match instance_id(authority?) {
            Ok(id) => Some(id),
            Err(message) => {
                let message = format!("is not set, and host:port of the service {message}");
                self.mistakes.push(("SIDECAR_INSTANCE_ID", message));
                None
            }
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        (self.variable)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }
}

/// A host as it stands in a URL: an IPv6 address gets its brackets.
fn host(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let host = if std::net::Ipv6Addr::from_str(bare).is_ok() { format!("[{bare}]") } else { text.to_owned() };
    let wrong = || "must be a host name or an address, without scheme, port and path".to_owned();
    if host.contains(['/', '@', '?', '#']) || (!host.starts_with('[') && host.contains(':')) {
        return Err(wrong());
    }
    match Endpoint::parse(&format!("http://{host}:80")) {
        Ok(_) => Ok(host),
        Err(error) => Err(format!("{} ({})", wrong(), error.0)),
    }
}

fn port(text: &str) -> Result<u16, String> {
    whole(text, 1, u16::MAX)
}

/// The rule of the registry for health paths, and nothing that would change the URL's meaning.
fn health_endpoint(text: &str) -> Result<String, String> {
    let odd = |b: u8| !b.is_ascii_graphic() || b"\"#<>\\^`{|}".contains(&b);
    if !text.starts_with('/') || text.starts_with("//") {
        Err("must start with one '/'".to_owned())
    } else if text.len() > 255 {
        Err("must not be longer than 255 characters".to_owned())
    } else if text.contains("..") {
        Err("must not contain '..'".to_owned())
    } else if text.bytes().any(odd) {
        Err("must consist of characters that may stand in a URL".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = span::parse(text).map_err(|error| error.to_string())?;
    if interval < SHORTEST_INTERVAL { Err("must be at least 100ms".to_owned()) } else { Ok(interval) }
}

fn health_gate(text: &str) -> Result<HealthGate, String> {
    match text {
        "report" => Ok(HealthGate::Report),
        "strict" => Ok(HealthGate::Strict),
        _ => Err("must be 'report' or 'strict'".to_owned()),
    }
}

fn restart(text: &str) -> Result<Restart, String> {
    match text {
        "always" => Ok(Restart::Always),
        "on-failure" => Ok(Restart::OnFailure),
        "never" => Ok(Restart::Never),
        _ => Err("must be 'always', 'on-failure' or 'never'".to_owned()),
    }
}

fn unhealthy_max(text: &str) -> Result<Option<Duration>, String> {
    match span::parse(text) {
        _ if text == "off" => Ok(None),
        Ok(time) if time >= SHORTEST_ILLNESS => Ok(Some(time)),
        _ => Err("must be 'off' or a length of time of at least 1s".to_owned()),
    }
}

fn instance_id(text: &str) -> Result<String, String> {
    InstanceId::parse(text).map(|id| id.as_str().to_owned()).map_err(|error| error.to_string())
}

fn whole<T: FromStr + PartialOrd + fmt::Display>(text: &str, least: T, most: T) -> Result<T, String> {
    match text.parse::<T>() {
        Ok(number) if number >= least && number <= most => Ok(number),
        _ => Err(format!("must be a whole number from {least} to {most}")),
    }
}

/// Text for people; the replacement character is what is left of a value that was no UTF-8.
fn words(text: &str) -> Result<String, String> {
    if text.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER) {
        Err("must be UTF-8 without control characters".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn tags(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

const DEFAULT_REGISTRY: &str = "http://vertice-register-lb:80";
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const SHORTEST_ILLNESS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn read_pairs(pairs: &[(&str, &str)]) -> Result<RegistrationConfig, Mistakes> {
        read(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn defaults() {
        let config = read_pairs(&[("SERVICE_NAME", "osint_service"), ("SERVICE_HOST", "vertice_osint"), ("ZONE", "")]).unwrap();
        assert_eq!(config.endpoint, "http://vertice_osint:8080");
        assert_eq!(config.instance_id, "vertice_osint:8080");
        assert_eq!(config.health_url.as_deref(), Some("http://vertice_osint:8080/health"));
        assert_eq!(config.registry.as_slice(), ["http://vertice-register-lb".to_owned()]);
        assert_eq!((config.heartbeat_interval.as_secs(), config.initial_wait.as_secs()), (30, 60));
        assert_eq!((config.health_gate, config.zone, config.token), (HealthGate::Report, None, None));
    }

    #[test]
    fn everything_set() {
        let config = read_pairs(&[
            ("SERVICE_NAME", "osint_service"),
            ("SERVICE_HOST", "::1"),
            ("SERVICE_PORT", "8049"),
            ("SERVICE_HEALTH_ENDPOINT", "/api/health?full=1"),
            ("REGISTRY_URL", "http://a:8888,http://b:8888"),
            ("HEARTBEAT_INTERVAL", "500ms"),
            ("INITIAL_WAIT_TIMEOUT", "0.25"),
            ("SIDECAR_HEALTH_GATE", "strict"),
            ("SIDECAR_INSTANCE_ID", "pod-1"),
            ("REGISTRY_AUTH_TOKEN", "second"),
            ("VERTICE_REGISTRY_TOKEN", "first"),
            ("SERVICE_TTL", "20"),
            ("SERVICE_WEIGHT", "0"),
            ("SERVICE_ZONE", "a"),
            ("ZONE", "b"),
            ("SERVICE_TAGS", "x, y,,"),
        ])
        .unwrap();
        assert_eq!(config.endpoint, "http://[::1]:8049");
        assert_eq!(config.health_url.as_deref(), Some("http://[::1]:8049/api/health?full=1"));
        assert_eq!(config.instance_id, "pod-1");
        assert_eq!(config.registry.as_slice().len(), 2);
        assert_eq!((config.heartbeat_interval.as_millis(), config.initial_wait.as_millis()), (500, 250));
        assert_eq!(config.health_gate, HealthGate::Strict);
        assert_eq!(config.token, Token::parse("first").ok());
        assert_eq!((config.ttl, config.weight, config.zone.as_deref()), (Some(20), Some(0), Some("a")));
        assert_eq!(config.tags, ["x", "y"]);
    }

    #[test]
    fn every_mistake_at_once() {
        let pairs = [
            ("SERVICE_HOST", "http://osint"),
            ("SERVICE_PORT", "0"),
            ("SERVICE_HEALTH_ENDPOINT", "health"),
            ("REGISTRY_URL", "https://a"),
            ("HEARTBEAT_INTERVAL", "0"),
            ("INITIAL_WAIT_TIMEOUT", "soon"),
            ("SIDECAR_HEALTH_GATE", "maybe"),
            ("SIDECAR_INSTANCE_ID", "a b"),
            ("VERTICE_REGISTRY_TOKEN", "a b"),
            ("SERVICE_TTL", "4"),
            ("SERVICE_WEIGHT", "1001"),
            ("ZONE", "a\u{fffd}"),
            ("SERVICE_TAGS", "a\u{1},b"),
        ];
        let mistakes = read_pairs(&pairs).unwrap_err();
        let names: Vec<_> = mistakes.0.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), 14, "{mistakes}");
        assert_eq!(names[0], "SERVICE_NAME");
        assert!(pairs.iter().all(|(name, _)| names.contains(name)), "{mistakes}");
        assert!(mistakes.to_string().starts_with("failed to read the configuration: 14 of"), "{mistakes}");
    }

    fn read_launch_pairs(pairs: &[(&str, &str)]) -> Result<Launch, Mistakes> {
        let usual = [("SERVICE_NAME", "osint_service"), ("SERVICE_HOST", "osint")];
        read_launch(|name| {
            let mut all = pairs.iter().chain(&usual);
            all.find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn launching() {
        let launch = read_launch_pairs(&[]).unwrap();
        assert_eq!(launch.port, 8080);
        let second = Duration::from_secs(1);
        let usual = Policy {
            restart: Restart::OnFailure,
            restarts_max: 0,
            unhealthy_max: None,
            start_max: 60 * second,
            stop_grace: 10 * second,
            drain_wait: second,
        };
        assert_eq!(launch.policy, usual);
        let launch = read_launch_pairs(&[
            ("SERVICE_PORT", "8049"),
            ("INITIAL_WAIT_TIMEOUT", "5"),
            ("SIDECAR_RESTART", "always"),
            ("SIDECAR_RESTART_MAX", "7"),
            ("SIDECAR_UNHEALTHY_RESTART", "2m"),
            ("SIDECAR_STOP_GRACE", "500ms"),
            ("SIDECAR_DRAIN_WAIT", "0"),
        ])
        .unwrap();
        assert_eq!((launch.port, launch.registration.endpoint.as_str()), (8049, "http://osint:8049"));
        let policy = launch.policy;
        assert_eq!((policy.restart, policy.restarts_max, policy.unhealthy_max), (Restart::Always, 7, Some(120 * second)));
        assert_eq!((policy.start_max, policy.stop_grace, policy.drain_wait), (5 * second, second / 2, Duration::ZERO));
    }

    #[test]
    fn every_mistake_in_launching_at_once() {
        let pairs = [
            ("SERVICE_PORT", "0"),
            ("SIDECAR_RESTART", "sometimes"),
            ("SIDECAR_RESTART_MAX", "-1"),
            ("SIDECAR_UNHEALTHY_RESTART", "0"),
            ("SIDECAR_STOP_GRACE", "a while"),
            ("SIDECAR_DRAIN_WAIT", "25h"),
        ];
        let mistakes = read_launch_pairs(&pairs).unwrap_err();
        let names: Vec<_> = mistakes.0.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, pairs.map(|(name, _)| name), "{mistakes}");

        let contradiction = [("SIDECAR_RESTART", "never"), ("SIDECAR_UNHEALTHY_RESTART", "30")];
        let mistakes = read_launch_pairs(&contradiction).unwrap_err();
        assert_eq!(mistakes.0.len(), 1, "{mistakes}");
        assert_eq!(mistakes.0[0].0, "SIDECAR_UNHEALTHY_RESTART");
    }

    #[test]
    fn hosts() {
        for good in ["osint", "10.0.0.1", "::1", "[::1]", "vertice_osint", "a.b.c"] {
            assert!(host(good).is_ok(), "{good}: {:?}", host(good));
        }
        for bad in ["http://a", "a:80", "a/b", "u@a", "a b", "[::1", "::1]", "[::1]:80", "a?b", "fe80::1%eth0"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn health_paths() {
        for bad in ["", "health", "//health", "/a/../b", "/a b", "/a\nb", "/é", "/a#b", &format!("/{}", "x".repeat(255))] {
            assert!(health_endpoint(bad).is_err(), "{bad}");
        }
        assert!(health_endpoint("/").is_ok());
    }

    #[test]
    fn a_name_without_an_identity_asks_for_one() {
        let long = format!("{0}.{0}.{0}", "x".repeat(50));
        let mistakes = read_pairs(&[("SERVICE_NAME", "osint_service"), ("SERVICE_HOST", &long)]).unwrap_err();
        assert_eq!(mistakes.0.len(), 1);
        assert_eq!(mistakes.0[0].0, "SIDECAR_INSTANCE_ID");
    }
}
