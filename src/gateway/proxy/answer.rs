//! What of an instance's answer is passed on: only what has one length and one meaning. And what the gateway adds to it.
//!
//! Pingora reads answers more leniently than this gateway reads requests: it collapses repeated lengths, takes any coding that
//! ends with `chunked`, and gives up a head at a megabyte. Whatever another reader may read otherwise is refused here, before
//! a byte of it has gone to the client, and the connection that it came on is closed: where such an answer ends, and the next
//! one begins, nobody can say.
//!
//! What Pingora has already made one reading of by then cannot be told any more, and is passed on as that reading: folded
//! fields and white space before a colon (RFC 9112 §5 lets a proxy repair both), bare line feeds (§2.2), and a length beside
//! chunks, of which the chunks count (§6.3). The client gets well-formed fields and one framing in each case.

use super::affinity;
use super::ctx::Ctx;
use super::fields::{Fields, Sink};
use crate::clock;
use crate::telemetry::metrics::Metrics;
use http::{StatusCode, Version};
use vertice_core::decimal::decimal;

/// Bytes of an answer's head: as many as a request's may have by default.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Fields of an answer's head.
const FIELDS_MAX: usize = 128;

/// Interim answers to one request. A service that reports progress for an hour, every minute, sends sixty.
const INTERIM_MAX: u16 = 100;

/// Why an answer is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Its framing is ambiguous, or contradicts its status.
    Ambiguous(&'static str),
    /// Its head is too large.
    Head,
    /// There were too many interim ones ahead of it.
    Interim,
}

impl Unfit {
    /// What was wrong, for the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ambiguous(what) => what,
            Self::Head => "the head is over the limit",
            Self::Interim => "too many interim answers",
        }
    }

    /// The same, once the limit that was hit has been counted, if it was one.
    #[must_use]
    pub fn counted(self, metrics: &Metrics) -> Self {
        self.limit().into_iter().for_each(|limit| metrics.limit_hit(limit));
        self
    }

    const fn limit(self) -> Option<&'static str> {
        match self {
            Self::Ambiguous(_) => None,
            Self::Head => Some("answer_head"),
            Self::Interim => Some("interim_answers"),
        }
    }
}

/// How the body of an answer ends, if it has one (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// The head does not say.
    Unsaid,
}

impl Framing {
    /// Whether nothing but the end of the connection ends it.
    #[must_use]
    pub fn ends_by_close(self, version: Version) -> bool {
        self == Self::Unsaid && version < Version::HTTP_2
    }
}

/// Checks the head of an answer, interim ones included, of which `interim` came before. How its body ends.
///
/// # Errors
/// Why it must not be passed on.
pub fn check(status: StatusCode, version: Version, fields: &impl Fields, interim: u16) -> Result<Framing, Unfit> {
    let (mut count, mut bytes) = (0, 0);
    let (mut length, mut is_chunked) = (Ok(None), Ok(false));
    for (name, value) in fields.each() {
        count += 1;
        bytes += name.len() + value.len() + 4;
        if name.eq_ignore_ascii_case(b"content-length") {
            length = length.and_then(|earlier| another_length(earlier, value));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            is_chunked = is_chunked.and_then(|earlier| another_coding(earlier, value));
        }
    }
    if count > FIELDS_MAX || bytes > HEAD_BYTES_MAX {
        return Err(Unfit::Head);
    }
    if status.is_informational() && interim >= INTERIM_MAX {
        return Err(Unfit::Interim);
    }
    let (length, is_chunked) = (length?, is_chunked?);
    if is_chunked && version < Version::HTTP_11 {
        return Err(Unfit::Ambiguous("Transfer-Encoding on HTTP/1.0"));
    }
    if is_chunked && length.is_some() {
        return Err(Unfit::Ambiguous("both Content-Length and Transfer-Encoding"));
    }
    let never_has_a_body = status.is_informational() || status == StatusCode::NO_CONTENT;
    if never_has_a_body && (is_chunked || length.is_some_and(|length| length > 0)) {
        return Err(Unfit::Ambiguous("a body where the status allows none"));
    }
    Ok(if is_chunked { Framing::Chunked } else { length.map_or(Framing::Unsaid, Framing::Length) })
}

fn another_length(earlier: Option<u64>, value: &[u8]) -> Result<Option<u64>, Unfit> {
    if earlier.is_some() {
        return Err(Unfit::Ambiguous("more than one Content-Length"));
    }
    decimal(value).map(Some).ok_or(Unfit::Ambiguous("Content-Length is not one decimal number"))
}

fn another_coding(earlier: bool, value: &[u8]) -> Result<bool, Unfit> {
    if earlier || !value.eq_ignore_ascii_case(b"chunked") {
        return Err(Unfit::Ambiguous("Transfer-Encoding is something other than chunked, once"));
    }
    Ok(true)
}

/// Takes in the head of an answer to the attempt under way: counts it if it is interim, or is refused for a limit. How the body
/// ends; none when the answer itself is still to come.
///
/// # Errors
/// Why it must not be passed on.
pub fn hear(
    ctx: &mut Ctx,
    status: StatusCode,
    version: Version,
    fields: &impl Fields,
    metrics: &Metrics,
) -> Result<Option<Framing>, Unfit> {
    let framing = check(status, version, fields, ctx.interim).map_err(|unfit| unfit.counted(metrics))?;
    if is_interim(status) {
        ctx.interim = ctx.interim.saturating_add(1);
        return Ok(None);
    }
    let asked_for_upgrade = ctx.forward.as_ref().is_some_and(|forward| forward.is_upgrade);
    if status == StatusCode::SWITCHING_PROTOCOLS && !asked_for_upgrade {
        // Passed on, its bytes would be taken for answers to whatever the client asks next.
        return Err(Unfit::Ambiguous("an upgrade nobody asked for"));
    }
    Ok(Some(framing))
}

/// Whether the answer is still to come (RFC 9110 §15.2). After 101 none comes: the bytes are another protocol's.
#[must_use]
pub fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// Writes what the gateway says itself in an answer of an instance with these `fields`.
pub fn add(ctx: &mut Ctx, status: StatusCode, fields: &impl Fields, sink: &mut impl Sink) {
    if is_interim(status) {
        return;
    }
    if let Some(forward) = &ctx.forward
        && let Some(attempt) = &forward.attempt
    {
        affinity::set_cookie(&forward.service, attempt.upstream(), &forward.preference, sink);
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    add_standing(ctx, sink);
    if !fields.has("x-request-id") {
        sink.field("X-Request-ID", |out| out.extend_from_slice(ctx.request_id.as_bytes()));
    }
}

/// What every final answer says, whoever makes it: how the request stands with its limits, and how it was decided if that was
/// asked.
pub(super) fn add_standing(ctx: &mut Ctx, sink: &mut impl Sink) {
    if let Some(quoted) = &ctx.quoted {
        quoted.write(sink);
    }
    let explanation = ctx.explanation.as_mut().and_then(|explanation| explanation.field(ctx.reason, clock::mono()));
    if let Some(explanation) = explanation {
        sink.field("X-Vertice-Explain", |out| out.extend_from_slice(explanation.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::fields::tests::Sent;
    use http::HeaderMap;

    fn verdict(status: u16, version: Version, fields: &[(&str, &str)]) -> Result<Framing, Unfit> {
        let (status, fields) = (StatusCode::from_u16(status).unwrap(), Sent(fields));
        let verdict = check(status, version, &fields, 0);
        assert_eq!(check(status, version, &fields.map(), 0), verdict, "a map and a list mean the same");
        verdict
    }

    #[test]
    fn one_length_or_chunks_or_the_end_of_the_connection() {
        for (fields, framing) in [
            (&[][..], Framing::Unsaid),
            (&[("content-length", "0")], Framing::Length(0)),
            (&[("Content-Length", "9223372036854775807")], Framing::Length(i64::MAX.unsigned_abs())),
            (&[("Transfer-Encoding", "Chunked")], Framing::Chunked),
        ] {
            assert_eq!(verdict(200, Version::HTTP_11, fields), Ok(framing), "{fields:?}");
        }
        assert!(Framing::Unsaid.ends_by_close(Version::HTTP_11) && !Framing::Unsaid.ends_by_close(Version::HTTP_2));
        for fields in [
            &[("content-length", "5"), ("content-length", "5")][..],
            &[("content-length", "5, 5")],
            &[("content-length", "+5")],
            &[("content-length", "")],
            &[("content-length", "9223372036854775808")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "identity")],
            &[("transfer-encoding", "")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "chunked"), ("content-length", "5")],
        ] {
            assert!(matches!(verdict(200, Version::HTTP_11, fields), Err(Unfit::Ambiguous(_))), "{fields:?}");
        }
        assert!(verdict(200, Version::HTTP_10, &[("transfer-encoding", "chunked")]).is_err());
        assert!(verdict(200, Version::HTTP_2, &[("content-length", "5")]).is_ok());
    }

    #[test]
    fn a_status_without_a_body_has_none() {
        for status in [103, 204] {
            assert_eq!(verdict(status, Version::HTTP_11, &[("content-length", "0")]), Ok(Framing::Length(0)));
            assert!(verdict(status, Version::HTTP_11, &[("content-length", "5")]).is_err(), "{status}");
            assert!(verdict(status, Version::HTTP_11, &[("transfer-encoding", "chunked")]).is_err(), "{status}");
        }
        // The length of what it stands for.
        assert_eq!(verdict(304, Version::HTTP_11, &[("content-length", "5")]), Ok(Framing::Length(5)));
    }

    #[test]
    fn heads_and_interim_answers_have_limits() {
        let large = "y".repeat(HEAD_BYTES_MAX);
        assert_eq!(verdict(200, Version::HTTP_11, &[("x", &large)]), Err(Unfit::Head));
        assert_eq!(verdict(200, Version::HTTP_11, &vec![("x", "y"); FIELDS_MAX]), Ok(Framing::Unsaid));
        assert_eq!(verdict(200, Version::HTTP_11, &vec![("x", "y"); FIELDS_MAX + 1]), Err(Unfit::Head));
        let after = |interim| check(StatusCode::PROCESSING, Version::HTTP_11, &HeaderMap::new(), interim);
        assert_eq!((after(99), after(100)), (Ok(Framing::Unsaid), Err(Unfit::Interim)));
        assert_eq!(
            check(StatusCode::OK, Version::HTTP_11, &HeaderMap::new(), 100),
            Ok(Framing::Unsaid),
            "the answer itself is none"
        );
    }
}
