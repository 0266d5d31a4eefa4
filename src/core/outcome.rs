//! What an attempt at an instance says about that instance.

/// How one attempt ended, as the lane that moved the bytes saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The instance answered, and the answer was passed on completely.
    Answered {
        /// Its status code.
        status: u16,
    },
    /// No connection: refused, unreachable or timed out.
    ConnectFailed,
    /// The connection broke before the answer was complete.
    Reset,
    /// The answer was not HTTP.
    Invalid,
    /// The instance was silent for too long.
    TimedOut {
        /// Whether it had been given the whole request by then.
        request_sent: bool,
    },
    /// A pooled connection turned out to be dead before the first byte of an answer.
    StaleConnection,
    /// The client went away, sent rubbish or stalled.
    ClientGone,
    /// Something of ours ended it: a limit, an answer of our own, no local port left.
    Ours,
}

/// What a breaker makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The instance works.
    Success,
    /// The instance does not.
    Failure,
    /// Nothing was learned about the instance.
    Neutral,
}

impl Ending {
    /// A word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered { .. } => "answered",
            Self::ConnectFailed => "connect_failed",
            Self::Reset => "reset",
            Self::Invalid => "invalid",
            Self::TimedOut { .. } => "timed_out",
            Self::StaleConnection => "stale_connection",
            Self::ClientGone => "client_gone",
            Self::Ours => "ours",
        }
    }

    /// The verdict: connect errors, resets, timeouts, rubbish and 502/503/504 are failures; what the client or the gateway
    /// did is not held against the instance, nor is a timeout while the client was still uploading.
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::Answered { status: 502..=504 }
            | Self::ConnectFailed
            | Self::Reset
            | Self::Invalid
            | Self::TimedOut { request_sent: true } => Verdict::Failure,
            Self::Answered { .. } => Verdict::Success,
            Self::TimedOut { request_sent: false } | Self::StaleConnection | Self::ClientGone | Self::Ours => Verdict::Neutral,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        use Verdict::{Failure, Neutral, Success};
        for (ending, verdict) in [
            (Ending::Answered { status: 200 }, Success),
            (Ending::Answered { status: 404 }, Success),
            (Ending::Answered { status: 500 }, Success),
            (Ending::Answered { status: 501 }, Success),
            (Ending::Answered { status: 502 }, Failure),
            (Ending::Answered { status: 503 }, Failure),
            (Ending::Answered { status: 504 }, Failure),
            (Ending::Answered { status: 505 }, Success),
            (Ending::ConnectFailed, Failure),
            (Ending::Reset, Failure),
            (Ending::Invalid, Failure),
            (Ending::TimedOut { request_sent: true }, Failure),
            (Ending::TimedOut { request_sent: false }, Neutral),
            (Ending::StaleConnection, Neutral),
            (Ending::ClientGone, Neutral),
            (Ending::Ours, Neutral),
        ] {
            assert_eq!(ending.verdict(), verdict, "{ending:?}");
        }
    }
}
