//! Connections: where Redis is, who is the master, and how long to wait for it.
//!
//! A connection is made on a thread of its own, because looking up a name cannot be bounded. Whoever waits for it gives up in
//! time; the attempt goes on, is the only one, and is asked again.

use super::failure::Failure;
use crate::clock;
use crate::config::RedisSettings;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, TlsCertificates, Value};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::Duration;

/// So long each of the parts of connecting may take.
const CONNECT: Duration = Duration::from_millis(250);
/// How often one looks whether waiting is still wanted.
const GLANCE: Duration = Duration::from_millis(20);
/// How many Sentinels are asked.
const SENTINELS_MAX: usize = 16;

/// Host and port.
type Address = (String, u16);

/// A connection to the master.
pub(super) struct Link {
    /// The connection.
    pub(super) connection: redis::Connection,
    /// Where it leads, without a password.
    pub(super) address: String,
    /// How long an operation may take.
    timeout: Duration,
}

/// Makes connections, one at a time.
pub(super) struct Dialler {
    target: Target,
    pending: Option<Receiver<Result<Link, Failure>>>,
    asked: Option<Receiver<Result<Option<Address>, Failure>>>,
}

/// Where to connect, once it is known to make sense.
#[derive(Clone)]
struct Target {
    /// The server, or what a master found by Sentinels is connected to with.
    server: ConnectionInfo,
    certificates: Option<TlsCertificates>,
    sentinels: Vec<ConnectionInfo>,
    master: String,
    timeout: Duration,
}

impl Dialler {
    /// Connections to where the settings say.
    ///
    /// # Errors
    /// A URL that makes no sense.
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, Failure> {
        Ok(Self { target: Target::of(settings)?, pending: None, asked: None })
    }

    /// A connection to the master, for as long as `wanted` says that it is waited for, and as long as all its parts may take
    /// at most.
    pub(super) fn dial(&mut self, wanted: impl Fn() -> bool) -> Result<Link, Failure> {
        let bound = CONNECT * u32::try_from(2 + 2 * self.target.sentinels.len()).unwrap_or(2);
        let receiver = match self.pending.take() {
            Some(receiver) => receiver,
            None => self.attempt()?,
        };
        let deadline = clock::mono().plus(bound);
        loop {
            match receiver.recv_timeout(GLANCE) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::new("connect", "the connecting thread ended")),
                Err(RecvTimeoutError::Timeout) if clock::mono() < deadline && wanted() => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.pending = Some(receiver);
                    return Err(Failure::new("timeout", format!("no connection within {} ms", bound.as_millis())));
                }
            }
        }
    }

    /// Has the Sentinels asked who the master is, unless they are being asked.
    pub(super) fn ask_sentinels(&mut self) {
        if self.target.sentinels.is_empty() || self.asked.is_some() {
            return;
        }
        let (sender, receiver) = sync_channel(1);
        let target = self.target.clone();
        let work = move || {
            // Nobody may be waiting any more.
            let _ = sender.send(target.master());
        };
        let thread = std::thread::Builder::new().name("store-sentinel".into()).spawn(work);
        self.asked = thread.ok().map(|_| receiver);
    }

    /// Whether the link leads to the master, by what the Sentinels said last. That they cannot be asked says nothing.
    pub(super) fn check_answer(&mut self, link: &Link) -> Result<(), Failure> {
        let Some(asked) = &self.asked else { return Ok(()) };
        let answer = match asked.try_recv() {
            Ok(answer) => answer,
            Err(TryRecvError::Empty) => return Ok(()),
            Err(TryRecvError::Disconnected) => Ok(None),
        };
        self.asked = None;
        match answer {
            Ok(Some((host, port))) if format!("{host}:{port}") != link.address => {
                Err(Failure::new("sentinel", format!("the master is now {host}:{port}, no longer {}", link.address)))
            }
            _ => Ok(()),
        }
    }

    fn attempt(&self) -> Result<Receiver<Result<Link, Failure>>, Failure> {
        let (sender, receiver) = sync_channel(1);
        let target = self.target.clone();
        let work = move || {
            // Nobody may be waiting any more.
            let _ = sender.send(target.connect());
        };
        let thread = std::thread::Builder::new().name("store-connect".into()).spawn(work);
        thread.map(|_| receiver).map_err(|error| Failure::new("connect", format!("failed to start a thread: {error}")))
    }
}

impl Target {
    fn of(settings: &RedisSettings) -> Result<Self, Failure> {
        let secret = |secret: &Option<crate::config::Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
        // The library's own message might repeat the URL.
        let unusable = |_| Failure::new("connect", "store.redis.url cannot be used");
        let mut server = match &settings.url {
            Some(url) => url.expose().trim().into_connection_info().map_err(unusable)?,
            None => {
                let host = settings.host.clone().unwrap_or_else(|| "localhost".to_owned());
                (host, settings.port).into_connection_info().map_err(unusable)?
            }
        };
        let mut access = server.redis_settings().clone().set_lib_name("vertice-gateway", env!("CARGO_PKG_VERSION"));
        if let (Some(password), None) = (secret(&settings.password), access.password()) {
            access = access.set_password(password);
        }
        if let (Some(username), None) = (&settings.username, access.username()) {
            access = access.set_username(username);
        }
        server = server.set_redis_settings(access);
        let certificates = settings
            .authorities
            .as_ref()
            .map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem.clone().into_bytes()) });
        let mut sentinel_access = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(password) = secret(&settings.sentinel_password) {
            sentinel_access = sentinel_access.set_password(password);
        }
        let sentinel = |text: &String| {
            let (host, port) = host_and_port(text)?;
            let info = (host, port).into_connection_info().ok()?;
            Some(info.set_redis_settings(sentinel_access.clone()))
        };
        Ok(Self {
            server,
            certificates,
            sentinels: settings.sentinels.iter().filter_map(sentinel).take(SENTINELS_MAX).collect(),
            master: settings.master.clone(),
            timeout: settings.timeout,
        })
    }

    /// Connects to the server, or to the one that the Sentinels call the master; either way it must say that it is one.
    fn connect(&self) -> Result<Link, Failure> {
        let info = match self.master()? {
            Some((host, port)) => self.server.clone().set_addr(moved(self.server.addr(), host, port)),
            None => self.server.clone(),
        };
        let address = info.addr().to_string();
        let client = match (&self.certificates, info.addr()) {
            (Some(certificates), ConnectionAddr::TcpTls { .. }) => Client::build_with_tls(info, certificates.clone()),
            _ => Client::open(info),
        };
        let connection = client?.get_connection_with_timeout(CONNECT).map_err(|error| connecting(error, &address))?;
        connection.set_read_timeout(Some(self.timeout))?;
        connection.set_write_timeout(Some(self.timeout))?;
        let mut link = Link { connection, address, timeout: self.timeout };
        link.check_role()?;
        Ok(link)
    }

    /// Where the Sentinels say that the master is; `None` without Sentinels.
    fn master(&self) -> Result<Option<Address>, Failure> {
        let mut trouble = None;
        for sentinel in &self.sentinels {
            match ask(sentinel, &self.master) {
                Ok(address) => return Ok(Some(address)),
                Err(failure) => trouble = Some(Failure::new("sentinel", format!("Sentinel {}: {failure}", sentinel.addr()))),
            }
        }
        trouble.map_or(Ok(None), Err)
    }
}

/// The address of the master, by one Sentinel.
fn ask(sentinel: &ConnectionInfo, master: &str) -> Result<Address, Failure> {
    let mut connection = Client::open(sentinel.clone())?.get_connection_with_timeout(CONNECT)?;
    connection.set_read_timeout(Some(CONNECT))?;
    connection.set_write_timeout(Some(CONNECT))?;
    let address: Option<Address> = redis::cmd("SENTINEL").arg("get-master-addr-by-name").arg(master).query(&mut connection)?;
    address.ok_or_else(|| Failure::new("sentinel", format!("it knows no master {master:?}")))
}

/// The same kind of address, elsewhere.
fn moved(like: &ConnectionAddr, host: String, port: u16) -> ConnectionAddr {
    match like {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    }
}

/// What fails before there is a connection has failed to connect, unless it says better.
fn connecting(error: redis::RedisError, address: &str) -> Failure {
    let failure = Failure::from(error);
    let word = if failure.word == "io" { "connect" } else { failure.word };
    Failure::new(word, format!("failed to connect to {address}: {failure}"))
}

fn host_and_port(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port.parse().ok()?))
}

impl Link {
    /// Whether the server says that it is the master: one that was, and came back, takes writes for seconds and loses them.
    pub(super) fn check_role(&mut self) -> Result<(), Failure> {
        let role: Vec<Value> = redis::cmd("ROLE").query(&mut self.connection)?;
        match role.first() {
            Some(Value::BulkString(role)) if role == b"master" => Ok(()),
            Some(Value::BulkString(role)) => {
                let role = String::from_utf8_lossy(role).chars().take(20).collect::<String>();
                Err(Failure::new("readonly", format!("{} is not the master but a {role}", self.address)))
            }
            _ => Err(Failure::reply("ROLE")),
        }
    }

    /// The next read may take so long in addition.
    pub(super) fn patient(&self, more: Duration) -> Result<(), Failure> {
        Ok(self.connection.set_read_timeout(Some(self.timeout + more))?)
    }

    /// Runs one operation under a shorter bound from now on.
    pub(super) fn hurry(&mut self, timeout: Duration) -> Result<(), Failure> {
        self.timeout = self.timeout.min(timeout);
        self.connection.set_read_timeout(Some(self.timeout))?;
        Ok(self.connection.set_write_timeout(Some(self.timeout))?)
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Dialler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialler").finish_non_exhaustive()
    }
}
