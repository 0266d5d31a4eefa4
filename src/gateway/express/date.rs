//! The date of answers whose instance gave none (RFC 9110 §6.6.1).

use crate::clock;
use std::cell::Cell;
use std::time::{Duration, UNIX_EPOCH};
use vertice_core::time::Moment;

/// How long it is good for: its resolution is a second, and an answer is not newer than it.
const GOOD: Duration = Duration::from_millis(500);

/// `Sun, 06 Nov 1994 08:49:37 GMT`
type Text = [u8; 29];

thread_local! {
    static LATEST: Cell<(Moment, Text)> = const { Cell::new((Moment::ZERO, [0; 29])) };
}

/// The present date, made twice a second at most. `now` is the moment it is.
pub(super) fn date(now: Moment) -> Text {
    LATEST.with(|latest| {
        let (until, text) = latest.get();
        if now < until {
            return text;
        }
        let text = format(clock::wall_ms());
        latest.set((now.plus(GOOD), text));
        text
    })
}

fn format(wall_ms: u64) -> Text {
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(wall_ms));
    text.as_bytes().try_into().unwrap_or([b' '; 29])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_as_http_writes_it() {
        assert_eq!(&format(784_111_777_000), b"Sun, 06 Nov 1994 08:49:37 GMT");
        let now = clock::mono();
        assert_eq!(date(now), date(now));
        assert!(httpdate::parse_http_date(std::str::from_utf8(&date(now)).unwrap()).is_ok());
    }
}
