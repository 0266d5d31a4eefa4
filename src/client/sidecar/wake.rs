//! What wakes the launcher: signals and the results of health probes. It sleeps in one `read` until then.

use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::{flag, low_level::pipe};
use vertice_core::status::Status;

/// Signals that tell us to end.
pub(super) const STOP: [i32; 2] = [SIGTERM, SIGINT];

/// Signals that only concern the service.
pub(super) const FORWARD: [i32; 7] = [SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGTSTP, SIGCONT];

/// Gets a byte with each thing that happens; what it was stands in the flags, so a full pipe loses nothing.
#[derive(Debug)]
pub(super) struct Wake {
    bell: UnixStream,
    rope: UnixStream,
    signals: Vec<(i32, Arc<AtomicBool>)>,
    health: Arc<Mutex<Option<Status>>>,
}

impl Wake {
    /// Listens to signals from now on.
    pub(super) fn new() -> io::Result<Self> {
        let (bell, rope) = UnixStream::pair()?;
        rope.set_nonblocking(true)?;
        let mut signals = Vec::new();
        for signal in STOP.into_iter().chain(FORWARD).chain([SIGCHLD]) {
            let raised = Arc::new(AtomicBool::new(false));
            // The flag first: whoever hears the bell finds it set.
            flag::register(signal, Arc::clone(&raised))?;
            pipe::register(signal, rope.try_clone()?)?;
            signals.push((signal, raised));
        }
        Ok(Self { bell, rope, signals, health: Arc::default() })
    }

    /// Something to call with the result of a health probe. Results of earlier hearers are forgotten.
    pub(super) fn health_hearer(&mut self) -> io::Result<Box<dyn FnMut(Status) + Send>> {
        self.health = Arc::default();
        let (health, rope) = (Arc::clone(&self.health), self.rope.try_clone()?);
        Ok(Box::new(move |status| {
            *health.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
            let _ = io::Write::write(&mut &rope, &[1]);
        }))
    }

    /// Sleeps until something happens, at most this long.
    pub(super) fn sleep(&mut self, at_most: Duration) -> io::Result<()> {
        self.bell.set_read_timeout(Some(at_most.max(SHORTEST)))?;
        // What was read does not matter, only that something was.
        match self.bell.read(&mut [0; 64]).map(drop) {
            Err(error) if !matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// The signals that came since the last time.
    pub(super) fn take_signals(&self) -> Vec<i32> {
        let raised = self.signals.iter().filter(|(_, raised)| raised.swap(false, Ordering::SeqCst));
        raised.map(|(signal, _)| *signal).collect()
    }

    /// What the last health probe found, if there was one since the last time.
    pub(super) fn take_health(&self) -> Option<Status> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A timeout of zero would mean forever.
const SHORTEST: Duration = Duration::from_millis(1);
