//! Lengths of time as text.

use std::fmt;
use std::time::Duration;

/// Shows a length of time in seconds: `30s`, `0.5s`.
#[derive(Clone, Copy, Debug)]
pub struct Seconds(pub Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0.as_secs_f64())
    }
}

/// Reads a length of time: plain seconds, whole or with a fraction, or a number with `ms`, `s`, `m` or `h`.
///
/// # Errors
/// A sentence saying what is accepted.
pub fn parse(text: &str) -> Result<Duration, SpanError> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit.trim_start() {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(SpanError),
    };
    let number: f64 = number.parse().map_err(|_| SpanError)?;
    // Whole nanoseconds of a rounded product: 0.1 s is 100 ms and not a hair less.
    let micros = (number * seconds * 1e6).round();
    if micros > LONGEST.as_micros() as f64 { Err(SpanError) } else { Ok(Duration::from_micros(micros as u64)) }
}

/// The text is not a length of time, or an absurd one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a number of seconds like 30 or 0.5, or a length of time like 500ms, 30s, 5m (at most 24h)")]
pub struct SpanError;

const LONGEST: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good() {
        for (text, millis) in [
            ("30", 30_000),
            ("0", 0),
            ("0.5", 500),
            (".5", 500),
            ("1.", 1000),
            (" 500ms ", 500),
            ("2s", 2000),
            ("2 s", 2000),
            ("0.1", 100),
            ("1.5m", 90_000),
            ("24h", 86_400_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn bad() {
        for text in
            ["", "s", ".", "-1", "+1", "1e3", "inf", "nan", "1.2.3", "30 seconds", "30S", "25h", "٣", "99999999999999999999"]
        {
            assert_eq!(parse(text), Err(SpanError), "{text}");
        }
    }

    #[test]
    fn shown() {
        assert_eq!(Seconds(Duration::from_secs(60)).to_string(), "60s");
        assert_eq!(Seconds(Duration::from_millis(500)).to_string(), "0.5s");
        assert_eq!(Seconds(Duration::ZERO).to_string(), "0s");
    }
}
