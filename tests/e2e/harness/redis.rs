//! A real Redis server of the test's own: on an address of its own, with a directory that goes with it.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::Process;
use super::resp::{self, Reply};
use super::{certificate, net, wait_for};

/// What a server shall be started with. Without anything said it keeps what it acknowledged through a crash, as its
/// append-only file is written before the answer.
#[derive(Clone)]
pub(crate) struct Builder {
    args: Vec<String>,
    password: Option<String>,
    with_tls: bool,
}

impl Builder {
    /// Asks for this password.
    pub(crate) fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.arg("--requirepass", password)
    }

    /// Follows this server.
    pub(crate) fn replica_of(self, master: &Redis) -> Self {
        let place = format!("{} {}", master.addr.ip(), master.addr.port());
        self.arg("--replicaof", &place)
    }

    /// Speaks TLS as well, on a port of its own.
    pub(crate) fn tls(mut self) -> Self {
        self.with_tls = true;
        self
    }

    /// Any other setting.
    pub(crate) fn arg(mut self, name: &str, value: &str) -> Self {
        self.args.extend([name.to_owned(), value.to_owned()]);
        self
    }

    #[track_caller]
    pub(crate) fn start(mut self) -> Redis {
        let dir = tempfile::tempdir().unwrap();
        let addr = net::closed();
        let tls = self.with_tls.then(|| {
            let (port, files) = (net::closed_at(addr.ip()).port(), certificate::issue(addr.ip(), dir.path()));
            let text = |path: &Path| path.to_str().unwrap().to_owned();
            for (name, value) in [
                ("--tls-port", port.to_string()),
                ("--tls-cert-file", text(&files.certificate)),
                ("--tls-key-file", text(&files.key)),
                ("--tls-ca-cert-file", text(&files.authority)),
                ("--tls-auth-clients", "no".to_owned()),
            ] {
                self.args.extend([name.to_owned(), value]);
            }
            Tls { addr: SocketAddr::new(addr.ip(), port), authority: files.authority }
        });
        let process = self.launch(dir.path(), addr);
        let redis = Redis { process, addr, tls, dir, builder: self };
        redis.wait_until_ready();
        redis
    }

    fn launch(&self, dir: &Path, addr: SocketAddr) -> Process {
        let mut command = Command::new("redis-server");
        let (ip, port) = (addr.ip().to_string(), addr.port().to_string());
        for (name, value) in [("--bind", &ip), ("--port", &port), ("--replica-announce-ip", &ip)] {
            command.args([name, value]);
        }
        // Everybody here is on loopback; snapshots on disk only where a test asks for them.
        command.args(["--protected-mode", "no", "--save", "", "--appendonly", "yes"]);
        // A replica is in step at once instead of five seconds later.
        command.args(["--repl-diskless-sync-delay", "0"]).args(&self.args);
        Process::start(command, &[], "redis", dir)
    }
}

/// A running server.
pub(crate) struct Redis {
    pub(crate) process: Process,
    pub(crate) addr: SocketAddr,
    pub(crate) tls: Option<Tls>,
    dir: TempDir,
    builder: Builder,
}

/// Where a server speaks TLS.
pub(crate) struct Tls {
    pub(crate) addr: SocketAddr,
    /// The file of the authority that vouches for the server.
    pub(crate) authority: PathBuf,
}

impl Redis {
    pub(crate) fn builder() -> Builder {
        Builder { args: Vec::new(), password: None, with_tls: false }
    }

    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::builder().start()
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.addr.ip()
    }

    /// The variables by which the predecessor's deployments tell a gateway where Redis is.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let mut env = vec![("REDIS_HOST", self.ip().to_string()), ("REDIS_PORT", self.addr.port().to_string())];
        env.extend(self.builder.password.iter().map(|password| ("REDIS_PASSWORD", password.clone())));
        env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Ends it without warning, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, where it was and with what it had, after it ended.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.process = self.builder.launch(self.dir.path(), self.addr);
        self.wait_until_ready();
    }

    /// Starts it again with nothing in it.
    #[track_caller]
    pub(crate) fn start_again_empty(&mut self) {
        fs::remove_dir_all(self.dir.path().join("appendonlydir")).unwrap();
        self.start_again();
    }

    /// Stops the process: its connections stay open and nothing is answered.
    pub(crate) fn freeze(&self) {
        self.process.signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.process.signal("CONT");
    }

    /// The answer to a command.
    #[track_caller]
    pub(crate) fn cmd<A: AsRef<[u8]>>(&self, command: &[A]) -> Reply {
        self.try_cmd(command).unwrap_or_else(|error| panic!("no answer from Redis: {error}"))
    }

    /// The same, for a server that may be away.
    pub(crate) fn try_cmd<A: AsRef<[u8]>>(&self, command: &[A]) -> io::Result<Reply> {
        let command: Vec<&[u8]> = command.iter().map(AsRef::as_ref).collect();
        resp::ask(self.addr, self.builder.password.as_deref(), &command)
    }

    /// Sets what can be set while it runs.
    #[track_caller]
    pub(crate) fn config(&self, name: &str, value: &str) {
        assert_eq!(self.cmd(&["CONFIG", "SET", name, value]), Reply::Text("OK".to_owned()));
    }

    /// Whether there is such a key.
    #[track_caller]
    pub(crate) fn has(&self, key: &str) -> bool {
        self.cmd(&["EXISTS", key]).number() == 1
    }

    /// A field of what `INFO` says.
    #[track_caller]
    pub(crate) fn info(&self, name: &str) -> Option<String> {
        let info = self.cmd(&["INFO"]).text().to_owned();
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned()))
    }

    /// A directory for whatever a test wants to put there.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    #[track_caller]
    fn wait_until_ready(&self) {
        let pong = Reply::Text("PONG".to_owned());
        wait_for("Redis to answer", || self.try_cmd(&["PING"]).is_ok_and(|answer| answer == pong).then_some(()));
    }
}
