//! Why a request came to no complete answer, as the lane that moved its bytes saw it; and what that means for the instance, the
//! client and the operator.

use super::fail::Failure;
use crate::descriptors;
use std::io::{self, ErrorKind};
use vertice_core::outcome::Ending;
use vertice_core::reason::Reason;

/// What ended a request before its answer was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No connection: refused, unreachable, or no TLS.
    NoConnection,
    /// No connection in time.
    ConnectTimedOut,
    /// The gateway has no port or descriptor left for a connection.
    NoPort,
    /// The instance was silent, or took nothing, for too long; or the time of the whole request was over.
    TimedOut,
    /// The instance's connection broke, or with HTTP/2 the request's part of it.
    Reset,
    /// The answer is not HTTP, or not one that is passed on.
    Invalid,
    /// The body of the request is over its limit.
    BodyTooLarge,
    /// The body of the request is not framed as it should be.
    BodyMalformed,
    /// The body of the request came, but too slowly.
    BodyTooSlow,
    /// The client stopped in the middle of the request's body; or of its tunnel.
    BodyStalled,
    /// Something else about the request is malformed.
    RequestMalformed,
    /// The client took nothing of the answer for too long.
    WriteStalled,
    /// The client has left.
    ClientGone,
    /// Anything else, which is ours.
    Internal,
}

impl Cause {
    /// What it means that connecting to an instance failed so.
    #[must_use]
    pub fn of_connecting(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut => Self::ConnectTimedOut,
            ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse => Self::NoPort,
            _ if descriptors::are_used_up(error) => Self::NoPort,
            _ => Self::NoConnection,
        }
    }

    /// What it means for the instance that was tried, which had been given the whole request by then or not.
    #[must_use]
    pub const fn ending(self, request_sent: bool) -> Ending {
        match self {
            Self::NoConnection | Self::ConnectTimedOut => Ending::ConnectFailed,
            Self::TimedOut => Ending::TimedOut { request_sent },
            Self::Reset => Ending::Reset,
            Self::Invalid => Ending::Invalid,
            Self::NoPort | Self::BodyTooLarge | Self::Internal => Ending::Ours,
            Self::BodyMalformed
            | Self::BodyTooSlow
            | Self::BodyStalled
            | Self::RequestMalformed
            | Self::WriteStalled
            | Self::ClientGone => Ending::ClientGone,
        }
    }

    /// What the client is told, whose request was for `service`; `None` when there is nobody to tell.
    #[must_use]
    pub fn failure(self, service: &str) -> Option<Failure> {
        let of_client = |reason, detail| Some(Failure::new(reason, detail));
        match self {
            Self::NoConnection => Some(Failure::connect(service)),
            Self::ConnectTimedOut | Self::TimedOut => Some(Failure::timeout(service)),
            Self::NoPort => Some(Failure::new(Reason::Overloaded, "The gateway cannot make more connections.")),
            Self::Reset => Some(Failure::reset(service)),
            Self::Invalid => Some(Failure::invalid(service)),
            Self::BodyTooLarge => of_client(Reason::BodyTooLarge, "The body is larger than allowed."),
            Self::BodyMalformed => of_client(Reason::BadRequest, "The request's body is malformed."),
            Self::BodyTooSlow => of_client(Reason::RequestTimeout, "The request's body comes too slowly."),
            Self::BodyStalled => of_client(Reason::RequestTimeout, "The request's body did not arrive in time."),
            Self::RequestMalformed => of_client(Reason::BadRequest, "The request is malformed."),
            Self::WriteStalled | Self::ClientGone => None,
            Self::Internal => Some(Failure::new(Reason::Internal, "The gateway failed to serve the request.")),
        }
    }

    /// The limit that the client ran into, as its metric names it.
    #[must_use]
    pub const fn limit(self) -> Option<&'static str> {
        match self {
            Self::BodyTooLarge => Some("body_bytes"),
            Self::BodyTooSlow => Some("body_rate"),
            Self::BodyStalled => Some("body_stall"),
            Self::WriteStalled => Some("write_stall"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vertice_core::outcome::Verdict;

    #[test]
    fn what_the_client_did_is_not_held_against_the_instance() {
        use Cause::*;
        for cause in [BodyTooLarge, BodyMalformed, BodyTooSlow, BodyStalled, RequestMalformed, WriteStalled, ClientGone, NoPort]
        {
            assert_eq!(cause.ending(true).verdict(), Verdict::Neutral, "{cause:?}");
        }
        for cause in [NoConnection, ConnectTimedOut, TimedOut, Reset, Invalid] {
            assert_eq!(cause.ending(true).verdict(), Verdict::Failure, "{cause:?}");
        }
        assert_eq!(TimedOut.ending(false).verdict(), Verdict::Neutral, "the client was still uploading");
    }

    #[test]
    fn what_is_ours_is_not_held_against_the_instance() {
        use rustix::io::Errno;
        let of = |errno: Errno| Cause::of_connecting(&io::Error::from_raw_os_error(errno.raw_os_error()));
        for ours in [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::ADDRINUSE] {
            assert_eq!(of(ours), Cause::NoPort);
        }
        assert_eq!((of(Errno::CONNREFUSED), of(Errno::HOSTUNREACH)), (Cause::NoConnection, Cause::NoConnection));
        assert_eq!(of(Errno::TIMEDOUT), Cause::ConnectTimedOut);
    }

    #[test]
    fn who_is_still_there_is_told() {
        let told = |cause: Cause| cause.failure("svc").map(|failure| failure.reason.as_str());
        assert_eq!((told(Cause::ClientGone), told(Cause::WriteStalled)), (None, None));
        assert_eq!(
            (told(Cause::NoConnection), told(Cause::ConnectTimedOut)),
            (Some("upstream_connect"), Some("upstream_timeout"))
        );
        assert_eq!((told(Cause::BodyStalled), told(Cause::BodyTooLarge)), (Some("request_timeout"), Some("body_too_large")));
    }
}
