//! What of an instance's answer is passed on: only what has one length and one meaning.
//!
//! Pingora reads answers more leniently than this gateway reads requests: it collapses repeated lengths, takes any coding that
//! ends with `chunked`, and gives up a head at a megabyte. Whatever another reader may read otherwise is refused here, before
//! a byte of it has gone to the client, and the connection that it came on is closed: where such an answer ends, and the next
//! one begins, nobody can say.
//!
//! What Pingora has already made one reading of by then cannot be told any more, and is passed on as that reading: folded
//! fields and white space before a colon (RFC 9112 §5 lets a proxy repair both), bare line feeds (§2.2), and a length beside
//! chunks, of which the chunks count (§6.3). The client gets well-formed fields and one framing in each case.

use http::{HeaderMap, StatusCode, Version, header};
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

    /// The name of the limit that was hit, if it was one.
    #[must_use]
    pub const fn limit(self) -> Option<&'static str> {
        match self {
            Self::Ambiguous(_) => None,
            Self::Head => Some("answer_head"),
            Self::Interim => Some("interim_answers"),
        }
    }
}

/// Checks the head of an answer, interim ones included, of which `interim` came before.
///
/// # Errors
/// Why it must not be passed on.
pub fn check(status: StatusCode, version: Version, fields: &HeaderMap, interim: u16) -> Result<(), Unfit> {
    let bytes = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
    if fields.len() > FIELDS_MAX || bytes > HEAD_BYTES_MAX {
        return Err(Unfit::Head);
    }
    if status.is_informational() && interim >= INTERIM_MAX {
        return Err(Unfit::Interim);
    }
    let length = length(fields)?;
    let is_chunked = is_chunked(fields)?;
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
    Ok(())
}

/// Whether nothing but the end of the connection ends the body of an answer that passed [`check`], if it has one.
#[must_use]
pub fn ends_by_close(version: Version, fields: &HeaderMap) -> bool {
    version < Version::HTTP_2 && !fields.contains_key(header::CONTENT_LENGTH) && !fields.contains_key(header::TRANSFER_ENCODING)
}

fn length(fields: &HeaderMap) -> Result<Option<u64>, Unfit> {
    let mut values = fields.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Unfit::Ambiguous("more than one Content-Length"));
    }
    decimal(value.as_bytes()).map(Some).ok_or(Unfit::Ambiguous("Content-Length is not one decimal number"))
}

fn is_chunked(fields: &HeaderMap) -> Result<bool, Unfit> {
    let mut values = fields.get_all(header::TRANSFER_ENCODING).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(Unfit::Ambiguous("Transfer-Encoding is something other than chunked, once")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn verdict(status: u16, version: Version, fields: &[(&'static str, &str)]) -> Result<(), Unfit> {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        check(StatusCode::from_u16(status).unwrap(), version, &map, 0)
    }

    #[test]
    fn one_length_or_chunks_or_the_end_of_the_connection() {
        for fields in [
            &[][..],
            &[("content-length", "0")],
            &[("content-length", "9223372036854775807")],
            &[("transfer-encoding", "Chunked")],
        ] {
            assert_eq!(verdict(200, Version::HTTP_11, fields), Ok(()), "{fields:?}");
        }
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
            assert_eq!(verdict(status, Version::HTTP_11, &[("content-length", "0")]), Ok(()));
            assert!(verdict(status, Version::HTTP_11, &[("content-length", "5")]).is_err(), "{status}");
            assert!(verdict(status, Version::HTTP_11, &[("transfer-encoding", "chunked")]).is_err(), "{status}");
        }
        // The length of what it stands for.
        assert_eq!(verdict(304, Version::HTTP_11, &[("content-length", "5")]), Ok(()));
    }

    #[test]
    fn heads_and_interim_answers_have_limits() {
        let large = "y".repeat(HEAD_BYTES_MAX);
        assert_eq!(verdict(200, Version::HTTP_11, &[("x", &large)]), Err(Unfit::Head));
        assert_eq!(verdict(200, Version::HTTP_11, &vec![("x", "y"); FIELDS_MAX]), Ok(()));
        assert_eq!(verdict(200, Version::HTTP_11, &vec![("x", "y"); FIELDS_MAX + 1]), Err(Unfit::Head));
        let after = |interim| check(StatusCode::PROCESSING, Version::HTTP_11, &HeaderMap::new(), interim);
        assert_eq!((after(99), after(100)), (Ok(()), Err(Unfit::Interim)));
        assert_eq!(check(StatusCode::OK, Version::HTTP_11, &HeaderMap::new(), 100), Ok(()), "the answer itself is none");
    }
}
