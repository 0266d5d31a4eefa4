//! Child processes: a clean environment, output in files, signals, and an end that is always reached.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::clock::{breathe, eventually, now};

/// A child with its output.
pub(crate) struct Process {
    child: Child,
    name: &'static str,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts `command` with nothing in its environment but `PATH` and what was given. Output is appended to
    /// `<name>.out` and `<name>.err` in `dir`.
    pub(crate) fn start(mut command: Command, env: &[(String, String)], name: &'static str, dir: &Path) -> Self {
        let (out, err) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.err")));
        clean(&mut command, env);
        command.stdin(Stdio::null()).stdout(append(&out)).stderr(append(&err)).current_dir(dir);
        let child = command.spawn().unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
        Self { child, name, out, err }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Standard output so far.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap()).into_owned()
    }

    /// Standard error so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap()).into_owned()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {}", self.id())]).status().unwrap();
        assert!(sent.success(), "failed to send {signal} to {}", self.name);
    }

    /// Stops it, and waits until all of its threads stand still: a busy machine takes its time.
    #[track_caller]
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
        let tasks = PathBuf::from(format!("/proc/{}/task", self.id()));
        let is_stopped = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            status.is_empty() || status.contains("State:\tT")
        };
        eventually("all threads to stop", || fs::read_dir(&tasks).unwrap().all(|task| is_stopped(task.unwrap())));
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    /// Ends it without warning, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().unwrap();
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub(crate) fn exit_within(&mut self, limit: Duration) -> ExitStatus {
        let start = now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < limit, "{} did not end within {limit:?}", self.name);
            breathe();
        }
    }

    /// Memory that is really in use now, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- end of the standard error of {}:\n{}", self.name, tail(&self.stderr()));
        }
    }
}

/// What a program that ends by itself left behind.
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `command` to its end.
#[track_caller]
pub(crate) fn run(command: Command, env: &[(String, String)], limit: Duration) -> Finished {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(command, env, "command", dir.path());
    let code = process.exit_within(limit).code();
    Finished { code, stdout: process.stdout(), stderr: process.stderr() }
}

fn clean(command: &mut Command, env: &[(String, String)]) {
    command.env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs(env.iter().map(|(name, value)| (name, value)));
}

fn append(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
