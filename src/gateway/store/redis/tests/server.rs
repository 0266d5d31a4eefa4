//! A Redis server of one's own.

use crate::config::{RedisSettings, Secret};
use crate::store::redis::Settings;
use crate::store::redis::connect::Dialler;
use crate::store::redis::shelf::Shelf;
use crate::store::redis::skipped::Skipped;
use crate::telemetry::metrics::Metrics;
use redis::{Commands, FromRedisValue};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use vertice_core::record::ReplicaId;

/// Ends with the test.
pub(super) struct Server {
    process: Child,
    port: u16,
    dir: tempfile::TempDir,
    pub(super) metrics: Arc<Metrics>,
}

impl Server {
    pub(super) fn start() -> Self {
        Self::start_as(None)
    }

    /// A Sentinel that watches one master, and is enough to say who it is.
    pub(super) fn sentinel(master: &Self) -> Self {
        Self::start_as(Some(master.port))
    }

    fn start_as(watches: Option<u16>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Somebody else may take a free port before the server does: then another one is tried.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut process = spawn(watches, port, dir.path());
            for _ in 0..500 {
                if is_up(&process, port) {
                    return Self { process, port, dir, metrics: metrics() };
                }
                if process.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = process.kill();
            process.wait().unwrap();
        }
        panic!("redis-server does not start");
    }

    /// As a crash would.
    pub(super) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// On the same port, without what it held.
    pub(super) fn restart(&mut self) {
        self.process = spawn(None, self.port, self.dir.path());
        while !is_up(&self.process, self.port) {
            assert!(self.process.try_wait().unwrap().is_none(), "the port was taken");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// A port where every answer comes so much later.
    pub(super) fn slow(&self, by: Duration) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (at, port) = (listener.local_addr().unwrap().port(), self.port);
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let far = TcpStream::connect(("127.0.0.1", port)).unwrap();
                pass(near.try_clone().unwrap(), far.try_clone().unwrap(), Duration::ZERO);
                pass(far, near, by);
            }
        });
        at
    }

    pub(super) fn settings(&self, number: u64) -> Settings {
        Settings {
            redis: RedisSettings {
                url: None,
                host: Some("127.0.0.1".to_owned()),
                port: self.port,
                password: None::<Secret>,
                sentinels: Vec::new(),
                master: "mymaster".to_owned(),
                username: None,
                sentinel_password: None,
                authorities: None,
                // Longer than in the product, for machines that have much else to do.
                timeout: Duration::from_secs(2),
                reconcile: Duration::from_secs(30),
            },
            me: ReplicaId::of(number),
            replica_id: format!("replica-{number}"),
            zone: None,
            lease_ttl: Duration::from_secs(60),
        }
    }

    pub(super) fn shelf(&self, number: u64) -> Shelf {
        let settings = self.settings(number);
        let mut dialler = Dialler::new(&settings.redis).unwrap();
        // A busy machine may need more than one attempt.
        let link = (0..20).find_map(|_| dialler.dial(|| true).ok()).unwrap();
        let skipped = Arc::new(Skipped::new(self.metrics.clone()));
        Shelf { link, me: settings.me, lease_ttl: settings.lease_ttl, metrics: self.metrics.clone(), skipped }
    }

    pub(super) fn connection(&self) -> redis::Connection {
        connection(self.port).unwrap()
    }

    /// Runs a command.
    pub(super) fn run<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        command.query(&mut self.connection()).unwrap()
    }

    pub(super) fn field(&self, key: &str, field: &str) -> Option<String> {
        self.connection().hget(key, field).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(super) fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().unwrap())
}

/// Whether this very process answers on the port: another test's may have been quicker to take it.
fn is_up(process: &Child, port: u16) -> bool {
    let about =
        connection(port).and_then(|mut connection| redis::cmd("INFO").arg("server").query::<String>(&mut connection).ok());
    about.is_some_and(|about| about.lines().any(|line| line == format!("process_id:{}", process.id())))
}

fn connection(port: u16) -> Option<redis::Connection> {
    let client = redis::Client::open(("127.0.0.1", port)).unwrap();
    let mut connection = client.get_connection_with_timeout(Duration::from_secs(5)).ok()?;
    let pong: String = redis::cmd("PING").query(&mut connection).ok()?;
    (pong == "PONG").then_some(connection)
}

fn spawn(watches: Option<u16>, port: u16, dir: &std::path::Path) -> Child {
    let path = dir.join("conf");
    let mut conf = format!("bind 127.0.0.1\nport {port}\ndir {}\n", dir.display());
    match watches {
        Some(master) => conf += &format!("sentinel monitor mymaster 127.0.0.1 {master} 1\n"),
        None => conf += "save \"\"\nappendonly no\n",
    }
    std::fs::write(&path, conf).unwrap();
    let mut command = Command::new("redis-server");
    command.arg(&path).args(watches.map(|_| "--sentinel"));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("redis-server is needed for these tests")
}

fn pass(mut from: TcpStream, mut to: TcpStream, by: Duration) {
    std::thread::spawn(move || {
        let mut bytes = vec![0; 1 << 20];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            std::thread::sleep(by);
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}

/// Waits until something is so.
pub(super) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}
