//! What can go wrong with Redis, in a bounded set of words.

use crate::store::StoreError;
use redis::{ErrorKind, RedisError, ServerErrorKind};
use std::fmt;
use std::io;

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// In a word, for metrics.
    pub(super) word: &'static str,
    /// In a sentence, for people. Never holds a password.
    pub(super) text: String,
}

impl Failure {
    /// A failure of our own making.
    pub(super) fn new(word: &'static str, text: impl Into<String>) -> Self {
        Self { word, text: text.into() }
    }

    /// A reply that makes no sense.
    pub(super) fn reply(what: &str) -> Self {
        Self::new("response", format!("failed to understand Redis: {what}"))
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match word(&error) {
            // The system's own words for it are no help.
            "timeout" => Self::new("timeout", "no answer in time"),
            word => Self::new(word, error.to_string()),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self::Away { word: failure.word, cause: failure.text }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn word(error: &RedisError) -> &'static str {
    if error.is_timeout() {
        return "timeout";
    }
    match error.kind() {
        ErrorKind::Io => io_word(error),
        ErrorKind::AuthenticationFailed => "auth",
        ErrorKind::InvalidClientConfig => "connect",
        ErrorKind::MasterNameNotFoundBySentinel | ErrorKind::EmptySentinelList => "sentinel",
        ErrorKind::Server(ServerErrorKind::ReadOnly) => "readonly",
        ErrorKind::Server(ServerErrorKind::BusyLoading) => "loading",
        ErrorKind::Server(ServerErrorKind::NoPerm) => "auth",
        _ => code_word(error.code().unwrap_or_default()),
    }
}

fn io_word(error: &RedisError) -> &'static str {
    use std::error::Error as _;
    let kind = error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kind {
        // What a socket's own timeout says.
        Some(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => "timeout",
        Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
            "connect"
        }
        _ if error.is_connection_refusal() => "connect",
        _ => "io",
    }
}

fn code_word(code: &str) -> &'static str {
    match code {
        "OOM" => "oom",
        "NOAUTH" | "WRONGPASS" => "auth",
        "MISCONF" => "misconf",
        "NOREPLICAS" => "noreplicas",
        "BUSY" => "busy",
        _ => "response",
    }
}
