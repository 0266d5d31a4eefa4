//! The service as a process: starting it, signalling its group, and burying the dead.
//!
//! **How does it die with us?** The kernel kills a process whose parent has died if the process asked for that
//! (`PR_SET_PDEATHSIG`). Asking between fork and exec takes unsafe code, so we start ourselves once more: that second self
//! asks, and then becomes the command. As PID 1 of a container the kernel ends everybody anyway.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{self, Command};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::supervisor::{Exit, NOT_EXECUTABLE, NOT_FOUND};

/// The first argument of the second self; the number of its parent and the command follow.
pub(super) const BECOME: &str = "exec-as-child-of";

/// The group of a service that was started.
#[derive(Debug)]
pub(super) struct Group {
    leader: Pid,
}

impl Group {
    /// Starts the command as leader of a process group of its own, with our environment and `variable`.
    ///
    /// It is buried by [`reap`]. To be called from the main thread: the kernel takes the end of the calling thread for the end of the parent.
    pub(super) fn start(command: &[OsString], variable: (&str, &str)) -> io::Result<Self> {
        let child = Command::new(OURSELVES)
            .arg0("vertice-sidecar")
            .args([BECOME, &process::id().to_string()])
            .args(command)
            .env(variable.0, variable.1)
            .process_group(0)
            .spawn()?;
        Ok(Self { leader: Pid::from_child(&child) })
    }

    pub(super) const fn leader(&self) -> Pid {
        self.leader
    }

    /// Sends a signal to everybody in the group. Having died in the meantime is no mistake.
    pub(super) fn signal(&self, signal: i32) {
        if let Some(signal) = Signal::from_named_raw(signal) {
            let _ = rustix::process::kill_process_group(self.leader, signal);
        }
    }

    /// Whether nobody is left in it.
    pub(super) fn is_empty(&self) -> bool {
        rustix::process::test_kill_process_group(self.leader) == Err(rustix::io::Errno::SRCH)
    }
}

/// Becomes the parent of whoever loses the own parent below us, so that we hear when the last one of a group ends.
pub(super) fn adopt_orphans() {
    // Where that is forbidden, only services that leave processes behind are waited for in vain.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Buries all children that have ended: ours and adopted ones.
pub(super) fn reap() -> Vec<(Pid, Exit)> {
    let mut dead = Vec::new();
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        dead.extend(exit(status).map(|exit| (pid, exit)));
    }
    dead
}

fn exit(status: WaitStatus) -> Option<Exit> {
    let code = status.exit_status().map(|code| Exit::Code(u8::try_from(code).unwrap_or(u8::MAX)));
    code.or_else(|| status.terminating_signal().map(Exit::Signal))
}

/// What the second self does: `arguments` are the number of its parent and the command. Returns only when that fails.
pub(super) fn become_command(arguments: &[OsString]) -> u8 {
    let [parent, program, rest @ ..] = arguments else { return NOT_EXECUTABLE };
    // A service that may survive us is better than none.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let present = rustix::process::getppid().map_or(0, Pid::as_raw_pid);
    if parent.to_str() != Some(present.to_string().as_str()) {
        // It died before we could ask; nobody is left to be told.
        return NOT_EXECUTABLE;
    }
    let error = Command::new(program).args(rest).exec();
    let _ = writeln!(io::stderr(), "vertice-sidecar: failed to start {}: {error}", program.to_string_lossy());
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
}

/// Our own program, even when its file was replaced in the meantime.
const OURSELVES: &str = "/proc/self/exe";
