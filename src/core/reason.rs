//! The stable codes of answers that the gateway makes up itself.

/// Why the gateway answered instead of a service. The word is the same in `X-Vertice-Reason`, metric labels and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The request is malformed.
    BadRequest,
    /// A token is needed and none, or a wrong one, was sent.
    Unauthorized,
    /// The client may not do this.
    Forbidden,
    /// No route for the path, or no such registration.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The request needs one more word to be unambiguous.
    Conflict,
    /// The body is over the limit.
    BodyTooLarge,
    /// The request target is over the limit.
    UriTooLong,
    /// The content type or encoding is not one we read.
    UnsupportedMediaType,
    /// Fields are missing, mistyped or refused.
    Unprocessable,
    /// Too many requests.
    RateLimited,
    /// The head is over a limit.
    HeadersTooLarge,
    /// A panic of ours, caught.
    Internal,
    /// No connection to the instance could be made.
    UpstreamConnect,
    /// The instance closed or reset the connection before its answer was complete.
    UpstreamReset,
    /// The instance's answer is not HTTP.
    UpstreamInvalid,
    /// The service is unknown after the whole resolution order.
    NoRoute,
    /// The service is known, but none of its instances may take traffic.
    NoInstance,
    /// All usable instances have an open breaker.
    BreakerOpen,
    /// A limit of the gateway itself is reached.
    Overloaded,
    /// The gateway is shutting down.
    Draining,
    /// The instance was silent for too long.
    UpstreamTimeout,
}

impl Reason {
    /// Every reason, for metrics and documentation.
    pub const ALL: [Self; 23] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::Conflict,
        Self::BodyTooLarge,
        Self::UriTooLong,
        Self::UnsupportedMediaType,
        Self::Unprocessable,
        Self::RateLimited,
        Self::HeadersTooLarge,
        Self::Internal,
        Self::UpstreamConnect,
        Self::UpstreamReset,
        Self::UpstreamInvalid,
        Self::NoRoute,
        Self::NoInstance,
        Self::BreakerOpen,
        Self::Overloaded,
        Self::Draining,
        Self::UpstreamTimeout,
    ];

    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::Conflict => "conflict",
            Self::BodyTooLarge => "body_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Unprocessable => "unprocessable",
            Self::RateLimited => "rate_limited",
            Self::HeadersTooLarge => "headers_too_large",
            Self::Internal => "internal",
            Self::UpstreamConnect => "upstream_connect",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamInvalid => "upstream_invalid",
            Self::NoRoute => "no_route",
            Self::NoInstance => "no_instance",
            Self::BreakerOpen => "breaker_open",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
            Self::UpstreamTimeout => "upstream_timeout",
        }
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::Conflict => 409,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::UnsupportedMediaType => 415,
            Self::Unprocessable => 422,
            Self::RateLimited => 429,
            Self::HeadersTooLarge => 431,
            Self::Internal => 500,
            Self::UpstreamConnect | Self::UpstreamReset | Self::UpstreamInvalid => 502,
            Self::NoRoute | Self::NoInstance | Self::BreakerOpen | Self::Overloaded | Self::Draining => 503,
            Self::UpstreamTimeout => 504,
        }
    }

    /// The status that a gRPC client is given instead; it sees no other. What may pass by itself is `UNAVAILABLE`, which clients
    /// try again.
    #[must_use]
    pub const fn grpc_status(self) -> u8 {
        match self {
            // DEADLINE_EXCEEDED
            Self::RequestTimeout | Self::UpstreamTimeout => 4,
            // PERMISSION_DENIED
            Self::Forbidden => 7,
            // RESOURCE_EXHAUSTED
            Self::BodyTooLarge | Self::UriTooLong | Self::HeadersTooLarge | Self::RateLimited => 8,
            // UNIMPLEMENTED
            Self::NotFound | Self::MethodNotAllowed => 12,
            // INTERNAL
            Self::BadRequest
            | Self::Conflict
            | Self::UnsupportedMediaType
            | Self::Unprocessable
            | Self::Internal
            | Self::UpstreamInvalid => 13,
            // UNAVAILABLE
            Self::UpstreamConnect
            | Self::UpstreamReset
            | Self::NoRoute
            | Self::NoInstance
            | Self::BreakerOpen
            | Self::Overloaded
            | Self::Draining => 14,
            // UNAUTHENTICATED
            Self::Unauthorized => 16,
        }
    }

    /// A short title for people; the same for every occurrence (RFC 9457 §3.1.3).
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad request",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::RequestTimeout => "Request timeout",
            Self::Conflict => "Conflict",
            Self::BodyTooLarge => "Body too large",
            Self::UriTooLong => "URI too long",
            Self::UnsupportedMediaType => "Unsupported media type",
            Self::Unprocessable => "Unprocessable content",
            Self::RateLimited => "Too many requests",
            Self::HeadersTooLarge => "Request header fields too large",
            Self::Internal => "Internal error",
            Self::UpstreamConnect => "Service not reachable",
            Self::UpstreamReset => "Service closed the connection",
            Self::UpstreamInvalid => "Service gave an invalid response",
            Self::NoRoute => "No such service",
            Self::NoInstance => "No usable instance",
            Self::BreakerOpen => "Circuit breaker open",
            Self::Overloaded => "Overloaded",
            Self::Draining => "Shutting down",
            Self::UpstreamTimeout => "Service timed out",
        }
    }

    /// Seconds after which a retry makes sense, for conditions that end by themselves and know no better figure.
    #[must_use]
    pub const fn retry_after_s(self) -> Option<u32> {
        match self {
            Self::RateLimited | Self::Overloaded | Self::Draining => Some(1),
            Self::NoRoute | Self::NoInstance | Self::BreakerOpen => Some(5),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn words_are_distinct_and_every_503_says_when_to_come_back() {
        let words: BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            let says_when = reason.retry_after_s().is_some();
            assert_eq!(says_when, matches!(reason.status(), 503 | 429), "{reason:?}");
        }
    }
}
