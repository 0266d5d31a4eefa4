//! Fields of ours on their way into heads of Pingora's.

use crate::proxy::fields::Sink;
use bytes::Bytes;
use http::HeaderValue;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{ErrorType, OrErr, Result};

/// Values that share one allocation.
#[derive(Debug, Default)]
pub(super) struct Written {
    bytes: Vec<u8>,
    /// Names, and where their values end.
    fields: Vec<(&'static str, usize)>,
}

impl Written {
    /// With room for a request's.
    pub(super) fn with_room() -> Self {
        Self { bytes: Vec::with_capacity(512), fields: Vec::with_capacity(8) }
    }

    /// Puts them in the place of those that are there.
    pub(super) fn insert_into(self, head: &mut RequestHeader) -> Result<()> {
        self.values().try_for_each(|field| field.and_then(|(name, value)| head.insert_header(name, value)))
    }

    /// Puts them beside those that are there.
    pub(super) fn append_to(self, head: &mut ResponseHeader) -> Result<()> {
        self.values().try_for_each(|field| field.and_then(|(name, value)| head.append_header(name, value).map(drop)))
    }

    fn values(self) -> impl Iterator<Item = Result<(&'static str, HeaderValue)>> {
        let (bytes, mut start) = (Bytes::from(self.bytes), 0);
        self.fields.into_iter().map(move |(name, end)| {
            let value = bytes.slice(std::mem::replace(&mut start, end)..end);
            let value = HeaderValue::from_maybe_shared(value).or_err(ErrorType::InvalidHTTPHeader, "a field of ours")?;
            Ok((name, value))
        })
    }
}

impl Sink for Written {
    fn field(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.fields.push((name, self.bytes.len()));
    }
}
