//! The log: structured lines on standard error.

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

/// Starts logging at `level` (error, warn, info, debug or trace). Pingora's own records, which are about single requests,
/// come from `warn` up only, whatever the level.
pub fn start(level: &str, format: Format) {
    let directives =
        format!("{level},pingora=error,pingora_core=error,pingora_proxy=error,hickory_resolver=error,hickory_net=error");
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse_lossy(directives);
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).with_ansi(false);
    // A second start in the same process (tests) keeps the first one's settings.
    let _ = match format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
}
