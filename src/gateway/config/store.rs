//! Section `store`: where the registry is persisted.

use std::path::PathBuf;

use super::raw::Value;
use super::reader::Reader;
use super::secret::Secret;
use super::value;

/// Section `store`.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreSettings {
    /// Which store.
    pub kind: StoreKind,
    /// The directory of the embedded store; created when missing.
    pub path: PathBuf,
    /// Where Redis is, when the file or the environment says so.
    pub redis: Option<RedisSettings>,
}

/// Where registrations survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// In a local file.
    Embedded,
    /// Nowhere: they end with the process.
    Memory,
}

impl StoreSettings {
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let kinds = [("embedded", StoreKind::Embedded), ("memory", StoreKind::Memory)];
        let settings = Self {
            kind: r.choice("kind", StoreKind::Embedded, &kinds),
            path: r.text("path").unwrap_or_else(|| "./vertice-data".to_owned()).into(),
            redis: r.within("redis", RedisSettings::read),
        };
        if settings.redis.is_some() {
            let kept = match settings.kind {
                StoreKind::Embedded => "in the embedded store",
                StoreKind::Memory => "in memory",
            };
            r.warn(format!("Redis is configured but this version does not use it: registrations are kept {kept}"));
        }
        settings
    }
}

/// Section `store.redis`. Sentinels win over `url`, and `url` over `host` and `port`.
#[derive(Clone, Debug, PartialEq)]
pub struct RedisSettings {
    /// `redis://…` or `rediss://…`; secret because it may contain the password.
    pub url: Option<Secret>,
    /// The server's name or address.
    pub host: Option<String>,
    /// The server's port.
    pub port: u16,
    /// The server's password.
    pub password: Option<Secret>,
    /// `host:port` of each Sentinel.
    pub sentinels: Vec<String>,
    /// What the Sentinels call the master.
    pub master: String,
}

impl RedisSettings {
    /// `None` when nothing says where Redis is.
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let settings = Self {
            url: r.secret("url", redis_url),
            host: r.value("host", host).filter(|host| !host.is_empty()),
            port: r.integer("port", 6379u16, 1..=u16::MAX),
            password: r.secret("password", |_| Ok(())).filter(|password| !password.expose().is_empty()),
            sentinels: r.list("sentinels", sentinel).unwrap_or_default(),
            master: r.text("master").unwrap_or_else(|| "mymaster".to_owned()),
        };
        if settings.url.is_some() || settings.host.is_some() || !settings.sentinels.is_empty() {
            return Some(settings);
        }
        if ["url", "url_file", "host", "sentinels"].into_iter().any(|key| r.is_ours(key)) {
            return None;
        }
        // Left over in the environment of a machine that has Redis for something else, these mean nothing.
        let lost = ["port", "password", "password_file", "master"].into_iter().find(|key| r.is_ours(key));
        if let Some(key) = lost {
            r.refuse(key, "useless without url, host or sentinels, which tell where Redis is".to_owned());
        }
        None
    }
}

fn redis_url(text: &str) -> Result<(), String> {
    let rest = ["redis://", "rediss://", "unix://"].iter().find_map(|scheme| text.trim().strip_prefix(scheme));
    match rest {
        Some(rest) if !rest.is_empty() && !text.contains(char::is_whitespace) => Ok(()),
        _ => Err("not a Redis URL; give redis://[user:password@]host[:port][/database] or rediss://…".to_owned()),
    }
}

fn host(value: &Value) -> Result<String, String> {
    let text = value::text(value)?;
    let bare_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    match value::host_and_port(text) {
        Some((_, None)) => Ok(text.to_owned()),
        _ if text.is_empty() || bare_v6 => Ok(text.to_owned()),
        _ => Err(format!("{} is not a host name or address; the port is a key of its own", value::given(value))),
    }
}

fn sentinel(value: &Value) -> Result<String, String> {
    match value::host_and_port(value::text(value)?) {
        Some((host, Some(port))) if port != 0 => Ok(format!("{host}:{port}")),
        Some((host, None)) => Ok(format!("{host}:26379")),
        _ => Err(format!("{} is not a Sentinel; give host:port", value::given(value))),
    }
}
