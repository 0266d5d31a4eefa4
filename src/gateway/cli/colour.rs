//! Whether to use colour, and which.

use super::access::Environment;
use clap::ValueEnum;

/// What `--color` was told: by default colour is for terminals only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum When {
    Auto,
    Always,
    Never,
}

/// Whether colour is used. `NO_COLOR` (see no-color.org) and a terminal that knows none decide only what nobody asked for.
pub(super) fn is_wanted(when: When, env: &Environment, is_terminal: bool) -> bool {
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => {
            let is_off = env.get("NO_COLOR").is_some_and(|value| !value.is_empty());
            let is_dumb = env.get("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
            is_terminal && !is_off && !is_dumb
        }
    }
}

/// What a text says, beyond its words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// A heading.
    Heading,
    /// As it should be.
    Good,
    /// Worth a look.
    Warning,
    /// Not as it should be.
    Bad,
}

impl Tone {
    /// The tone of a status or of a breaker's state; of a word that we do not know, none.
    pub(super) fn of(word: &str) -> Self {
        match word {
            "healthy" | "closed" | "operational" => Self::Good,
            "degraded" | "starting" | "draining" | "half_open" => Self::Warning,
            "unhealthy" | "open" => Self::Bad,
            _ => Self::Plain,
        }
    }

    /// The escape sequence that turns it on.
    pub(super) const fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Heading => Some("\x1b[1m"),
            Self::Good => Some("\x1b[32m"),
            Self::Warning => Some("\x1b[33m"),
            Self::Bad => Some("\x1b[31m"),
        }
    }
}

/// Turns every tone off.
pub(super) const RESET: &str = "\x1b[0m";

/// Adds `text` in its tone.
pub(super) fn paint(line: &mut String, text: &str, tone: Tone, is_coloured: bool) {
    match tone.code().filter(|_| is_coloured && !text.is_empty()) {
        Some(code) => [code, text, RESET].into_iter().for_each(|part| line.push_str(part)),
        None => line.push_str(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_decides() {
        let env = |pairs: &[(&str, &str)]| -> Environment {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let usual = env(&[("TERM", "xterm")]);
        assert!(is_wanted(When::Auto, &usual, true));
        assert!(!is_wanted(When::Auto, &usual, false));
        assert!(is_wanted(When::Always, &usual, false));
        assert!(!is_wanted(When::Never, &usual, true));
        for (pairs, wanted) in [
            (&[("TERM", "xterm"), ("NO_COLOR", "1")][..], false),
            (&[("TERM", "xterm"), ("NO_COLOR", "")], true),
            (&[("TERM", "dumb")], false),
            (&[], false),
        ] {
            assert_eq!(is_wanted(When::Auto, &env(pairs), true), wanted, "{pairs:?}");
            assert!(is_wanted(When::Always, &env(pairs), true), "{pairs:?}");
        }
    }

    #[test]
    fn only_a_tone_costs_bytes() {
        let painted = |text, tone, is_coloured| {
            let mut line = String::new();
            paint(&mut line, text, tone, is_coloured);
            line
        };
        assert_eq!(painted("open", Tone::of("open"), true), "\x1b[31mopen\x1b[0m");
        assert_eq!(painted("open", Tone::of("open"), false), "open");
        assert_eq!(painted("a:80", Tone::Plain, true), "a:80");
        assert_eq!(painted("", Tone::Bad, true), "");
    }
}
