//! A master, a replica and three Sentinels that watch them.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use super::process::Process;
use super::resp::{self, Reply};
use super::{PATIENCE, Redis, net, now};

/// What the Sentinels call the master.
pub(crate) const MASTER: &str = "maximus";

/// What the servers want to hear, unlike the Sentinels.
const PASSWORD: &str = "between replicas";

/// Everything that a fail-over needs.
pub(crate) struct Sentinels {
    /// Two servers: the master of the beginning comes first.
    pub(crate) servers: [Redis; 2],
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    addr: SocketAddr,
    _process: Process,
    _dir: TempDir,
}

impl Sentinels {
    /// Starts them and waits until they agree about everything.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let server = || Redis::builder().password(PASSWORD).arg("--masterauth", PASSWORD);
        let master = server().start();
        let replica = server().replica_of(&master).start();
        let sentinels = (0..3).map(|_| Sentinel::start(master.addr)).collect();
        let all = Self { servers: [master, replica], sentinels };
        all.wait("the Sentinels to know each other and the replica", |answer| {
            let number = |name| answer.field(name).is_some_and(|value| value == if name == "num-slaves" { "1" } else { "2" });
            number("num-slaves") && number("num-other-sentinels") && answer.field("flags").as_deref() == Some("master")
        });
        let in_step = |redis: &Redis| redis.info("master_link_status").as_deref() == Some("up");
        super::eventually("the replica to be in step", || in_step(&all.servers[1]));
        all
    }

    /// Their addresses, the master's name and the servers' password, as the predecessor's variables tell them.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let list = self.sentinels.iter().map(|sentinel| sentinel.addr.to_string()).collect::<Vec<_>>().join(",");
        [("REDIS_SENTINELS", list.as_str()), ("REDIS_SENTINEL_MASTER", MASTER), ("REDIS_PASSWORD", PASSWORD)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    /// Kills the master and waits until all Sentinels name the other one, and this one takes writes.
    #[track_caller]
    pub(crate) fn fail_over(&mut self) {
        self.servers[0].kill();
        self.wait_for_master(1);
    }

    /// Waits until every Sentinel says that the master is this one of the servers.
    #[track_caller]
    pub(crate) fn wait_for_master(&self, server: usize) {
        let wanted = self.servers[server].addr.port().to_string();
        self.wait("the fail-over", |answer| answer.field("port").as_deref() == Some(&wanted));
        super::eventually("the new master to be one", || {
            self.servers[server].cmd(&["ROLE"]).first().is_some_and(|role| role.text() == "master")
        });
    }

    /// Longer than other waits: a Sentinel that was stalled trusts nobody for 30 s.
    #[track_caller]
    fn wait(&self, what: &str, holds: impl Fn(&Reply) -> bool) {
        let start = now();
        while !self.sentinels.iter().all(|sentinel| sentinel.about_the_master().is_some_and(|answer| holds(&answer))) {
            assert!(start.elapsed() < 3 * PATIENCE, "waited in vain for {what}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

impl Sentinel {
    fn start(master: SocketAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let addr = net::closed();
        let (ip, port) = (addr.ip(), addr.port());
        let mut config = format!("port {port}\nbind {ip}\nsentinel announce-ip {ip}\nprotected-mode no\n");
        writeln!(config, "sentinel monitor {MASTER} {} {} 2", master.ip(), master.port()).unwrap();
        writeln!(config, "sentinel auth-pass {MASTER} \"{PASSWORD}\"").unwrap();
        writeln!(config, "sentinel down-after-milliseconds {MASTER} 700").unwrap();
        writeln!(config, "sentinel failover-timeout {MASTER} 3000").unwrap();
        // It writes into this file what it learns.
        let path = dir.path().join("sentinel.conf");
        fs::write(&path, config).unwrap();
        let mut command = Command::new("redis-sentinel");
        command.arg(&path);
        let process = Process::start(command, &[], "sentinel", dir.path());
        Self { addr, _process: process, _dir: dir }
    }

    fn about_the_master(&self) -> Option<Reply> {
        let answer = resp::ask(self.addr, None, &[b"SENTINEL", b"MASTER", MASTER.as_bytes()]).ok()?;
        matches!(answer, Reply::List(_)).then_some(answer)
    }
}
