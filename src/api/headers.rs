//! Header names and media types, in the spelling of the contract. HTTP compares them without regard to case.

/// The registry token.
pub const REGISTRY_TOKEN: &str = "X-Registry-Token";
/// Another name for the registry token.
pub const REGISTRY_API_KEY: &str = "X-Registry-API-Key";
/// `Bearer <token>`: the third way to send the registry token.
pub const AUTHORIZATION: &str = "Authorization";
/// Why the gateway answered instead of a service: one stable word.
pub const REASON: &str = "X-Vertice-Reason";
/// The index of the registry at the time of the answer.
pub const INDEX: &str = "X-Vertice-Index";
/// What kind of answer is wanted.
pub const ACCEPT: &str = "Accept";
/// The index after which an event stream goes on.
pub const LAST_EVENT_ID: &str = "Last-Event-ID";
/// Names one request through all logs.
pub const REQUEST_ID: &str = "X-Request-ID";
/// Seconds after which another try makes sense.
pub const RETRY_AFTER: &str = "Retry-After";
/// Media type of a body.
pub const CONTENT_TYPE: &str = "Content-Type";
/// When the answer was made.
pub const DATE: &str = "Date";

/// Media type of requests and answers.
pub const JSON: &str = "application/json";
/// Media type of errors (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Media type of streams of events.
pub const EVENT_STREAM: &str = "text/event-stream";
/// Media type of `/metrics`.
pub const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
