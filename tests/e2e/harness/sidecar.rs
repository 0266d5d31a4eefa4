//! The sidecar under test. It belongs to another package, so Cargo does not tell where it is: next to the gateway.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Upstream;
use super::process::Process;

/// Where the program is.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("vertice-sidecar");
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    path
}

/// The variables of a sidecar for `service`, which listens as `upstream` and registers at `registry`.
pub(crate) fn env(service: &str, upstream: &Upstream, registry: &str) -> Vec<(String, String)> {
    [
        ("SERVICE_NAME", service),
        ("SERVICE_HOST", &upstream.addr.ip().to_string()),
        ("SERVICE_PORT", &upstream.addr.port().to_string()),
        ("REGISTRY_URL", registry),
        ("HEARTBEAT_INTERVAL", "1"),
        ("INITIAL_WAIT_TIMEOUT", "60"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Starts a sidecar whose output goes to `dir`.
pub(crate) fn start(env: &[(String, String)], dir: &Path) -> Process {
    Process::start(Command::new(program()), env, "sidecar", dir)
}
