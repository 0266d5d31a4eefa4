//! Section `store`: where the registry is persisted.

use std::path::PathBuf;
use std::time::Duration;

use redis::IntoConnectionInfo;

use super::raw::Value;
use super::reader::Reader;
use super::secret::Secret;
use super::tls::authorities;
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
    /// In Redis, which several replicas may share.
    Redis,
    /// Nowhere: they end with the process.
    Memory,
}

impl StoreSettings {
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let redis = r.within("redis", RedisSettings::read);
        let kinds = [("embedded", StoreKind::Embedded), ("redis", StoreKind::Redis), ("memory", StoreKind::Memory)];
        let default = if redis.is_some() { StoreKind::Redis } else { StoreKind::Embedded };
        let kind = r.choice("kind", default, &kinds);
        match (kind, &redis) {
            (StoreKind::Redis, None) => {
                r.refuse("kind", "redis needs one of store.redis.url, host and sentinels, which tell where it is".to_owned());
            }
            (StoreKind::Embedded | StoreKind::Memory, Some(_)) => {
                r.warn("Redis is configured, but store.kind says otherwise: it is not used".to_owned());
            }
            _ => {}
        }
        Self { kind, path: r.text("path").unwrap_or_else(|| "./vertice-data".to_owned()).into(), redis }
    }
}

/// No request waits longer for the store.
const OPERATION_MAX: Duration = Duration::from_millis(250);

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
    /// The server's user, where it has several.
    pub username: Option<String>,
    /// The Sentinels' own password.
    pub sentinel_password: Option<Secret>,
    /// Certificates (PEM) that sign the server's, in place of the well-known ones.
    pub authorities: Option<String>,
    /// How long an operation may take.
    pub timeout: Duration,
    /// How often everything is compared with what the store has.
    pub reconcile: Duration,
}

/// What means nothing as long as nothing says where Redis is.
const LOST_WITHOUT_A_PLACE: [&str; 9] = [
    "port",
    "password",
    "password_file",
    "master",
    "username",
    "sentinel_password",
    "sentinel_password_file",
    "ca_file",
    "timeout",
];

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
            username: r.text("username").filter(|username| !username.is_empty()),
            sentinel_password: r.secret("sentinel_password", |_| Ok(())).filter(|password| !password.expose().is_empty()),
            authorities: r.text("ca_file").and_then(|_| r.file("ca_file", authorities)),
            timeout: r.duration("timeout", OPERATION_MAX, Duration::from_millis(10)..=OPERATION_MAX),
            reconcile: r.duration("reconcile", Duration::from_secs(30), Duration::from_secs(1)..=Duration::from_secs(3600)),
        };
        if settings.url.is_some() || settings.host.is_some() || !settings.sentinels.is_empty() {
            if settings.authorities.is_some() && !settings.is_tls() {
                r.warn("store.redis.ca_file is not used: only a URL that begins with rediss:// asks for TLS".to_owned());
            }
            return Some(settings);
        }
        if ["url", "url_file", "host", "sentinels"].into_iter().any(|key| r.is_ours(key)) {
            return None;
        }
        // Left over in the environment of a machine that has Redis for something else, these mean nothing.
        let lost = LOST_WITHOUT_A_PLACE.into_iter().find(|key| r.is_ours(key));
        if let Some(key) = lost {
            r.refuse(key, "useless without url, host or sentinels, which tell where Redis is".to_owned());
        }
        None
    }

    fn is_tls(&self) -> bool {
        self.url.as_ref().is_some_and(|url| url.expose().trim().starts_with("rediss://"))
    }
}

fn redis_url(text: &str) -> Result<(), String> {
    let rest = ["redis://", "rediss://", "unix://"].iter().find_map(|scheme| text.trim().strip_prefix(scheme));
    match rest {
        Some(rest) if !rest.is_empty() && !text.contains(char::is_whitespace) => usable(text.trim()),
        _ => Err("not a Redis URL; give redis://[user:password@]host[:port][/database] or rediss://…".to_owned()),
    }
}

/// Whether those who connect will understand the URL.
fn usable(url: &str) -> Result<(), String> {
    url.into_connection_info().map(drop).map_err(|error| {
        // Only what is the same for every URL: behind the dash there may be a piece of this one.
        let message = error.to_string();
        format!("a Redis URL that cannot be used: {}", message.split(" - ").next().unwrap_or_default())
    })
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
