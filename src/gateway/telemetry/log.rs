//! The log: structured lines on standard error.

use std::sync::OnceLock;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging at `level` (error, warn, info, debug or trace).
pub fn start(level: &str, format: Format) {
    let lines = fmt().with_env_filter(filter(level)).with_writer(std::io::stderr).with_target(false).with_ansi(false);
    let (started, set_level): (_, SetLevel) = match format {
        Format::Text => {
            let lines = lines.with_filter_reloading();
            let handle = lines.reload_handle();
            (lines.try_init(), Box::new(move |filter| handle.reload(filter).is_ok()))
        }
        Format::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            (lines.try_init(), Box::new(move |filter| handle.reload(filter).is_ok()))
        }
    };
    // A second start in the same process (tests) keeps the first one's settings.
    if started.is_ok() {
        let _ = SET_LEVEL.set(set_level);
    }
}

/// Logs at another level from now on.
pub fn set_level(level: &str) {
    if SET_LEVEL.get().is_some_and(|set_level| !set_level(filter(level))) {
        tracing::warn!(level, "failed to change the level of the log");
    }
}

/// Pingora's own records, which are about single requests, come as errors only, whatever the level; those about connections to
/// instances not at all, because each is a request that ends, or is tried again, before our eyes.
fn filter(level: &str) -> EnvFilter {
    let directives = format!(
        "{level},pingora=error,pingora_core=error,pingora_core::connectors=off,pingora_proxy=error,hickory_resolver=error,hickory_net=error"
    );
    EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse_lossy(directives)
}

/// Puts another filter in the place of the log's.
type SetLevel = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

static SET_LEVEL: OnceLock<SetLevel> = OnceLock::new();
