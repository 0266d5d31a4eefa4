//! Query parameters.

use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::time::Duration;
use vertice_api::FieldError;

/// The first value of a parameter, decoded; `Some("")` when it stands without one.
pub(super) fn value<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key)? == name).then(|| decode(value)).flatten()
    })
}

/// Whether a switch is on: present, and not `0` or `false`.
pub(super) fn is_on(query: &str, name: &str) -> bool {
    value(query, name).is_some_and(|value| !matches!(&*value, "0" | "false"))
}

/// The first value of a parameter, read by `parse`; a mistake is noted.
pub(super) fn read<T, E: ToString>(
    query: &str,
    name: &str,
    errors: &mut Vec<FieldError>,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Option<T> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, raw) = pairs.find(|(key, _)| decode(key).is_some_and(|key| key == name))?;
    let parsed = match decode(raw) {
        Some(text) => parse(&text).map_err(|error| error.to_string()),
        None => Err("is not UTF-8".to_owned()),
    };
    parsed.map_err(|message| errors.push(FieldError::new(name, message))).ok()
}

/// A length of time: `30s`, `500ms`, `2m`, or a number of seconds.
pub(super) fn duration(text: &str, max: Duration) -> Result<Duration, String> {
    let seconds = || text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let duration = seconds().or_else(|| humantime::parse_duration(text).ok()).filter(|duration| *duration <= max);
    let rule = || format!("must be a duration such as 30s, 500ms or 2m, at most {}", humantime::format_duration(max));
    duration.ok_or_else(rule)
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(text).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let query = "a=1&instance_id=%5B%3A%3A1%5D%3A80&all&b=%FF";
        assert_eq!(value(query, "instance_id").as_deref(), Some("[::1]:80"));
        assert_eq!(value(query, "all").as_deref(), Some(""));
        assert_eq!(value(query, "b"), None);
        assert_eq!(value(query, "c"), None);
        let mut errors = Vec::new();
        assert_eq!(read(query, "a", &mut errors, str::parse::<u8>), Some(1));
        assert_eq!(read(query, "c", &mut errors, str::parse::<u8>), None);
        assert!(errors.is_empty());
        assert_eq!(read(query, "b", &mut errors, str::parse::<u8>), None);
        assert_eq!(read(query, "all", &mut errors, str::parse::<u8>), None);
        let told: Vec<_> = errors.iter().map(|error| format!("{} {}", error.field, error.message)).collect();
        assert_eq!(told, ["b is not UTF-8", "all cannot parse integer from empty string"]);
        assert!(is_on(query, "all") && is_on("all=1", "all") && !is_on("all=0", "all") && !is_on("", "all"));
    }
    #[test]
    fn durations() {
        let max = Duration::from_secs(600);
        for (text, ms) in
            [("30s", 30_000), ("500ms", 500), ("2m", 120_000), ("1m 30s", 90_000), ("7", 7000), ("0.25", 250), ("0", 0)]
        {
            assert_eq!(duration(text, max), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "-1", "-1s", "601", "11m", "1e300", "inf", "NaN", "abc", "5 parsecs", "99999999999999999999s"] {
            assert!(duration(bad, max).is_err_and(|message| message.contains("at most 10m")), "{bad}");
        }
    }
}
