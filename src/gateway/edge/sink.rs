//! Fields of ours on their way into heads of Pingora's.

use crate::buffers::Buffer;
use crate::proxy::fields::Sink;
use bytes::Bytes;
use http::HeaderValue;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{ErrorType, OrErr, Result};

/// So many fields are usual; more take an allocation.
const USUAL: usize = 8;

/// Values that share one allocation.
#[derive(Debug, Default)]
pub(super) struct Written {
    bytes: Buffer,
    /// Names, and how long their values are.
    usual: [(&'static str, usize); USUAL],
    more: Vec<(&'static str, usize)>,
    count: usize,
}

impl Written {
    /// Puts them in the place of those that are there.
    pub(super) fn insert_into(&self, head: &mut RequestHeader) -> Result<()> {
        self.values().try_for_each(|field| field.and_then(|(name, value)| head.insert_header(name, value)))
    }

    /// Puts them beside those that are there.
    pub(super) fn append_to(&self, head: &mut ResponseHeader) -> Result<()> {
        self.values().try_for_each(|field| field.and_then(|(name, value)| head.append_header(name, value).map(drop)))
    }

    fn values(&self) -> impl Iterator<Item = Result<(&'static str, HeaderValue)>> {
        let mut bytes = Bytes::copy_from_slice(&self.bytes);
        self.usual.iter().chain(&self.more).take(self.count).map(move |(name, length)| {
            let value = HeaderValue::from_maybe_shared(bytes.split_to(*length))
                .or_err(ErrorType::InvalidHTTPHeader, "a field of ours")?;
            Ok((*name, value))
        })
    }
}

impl Sink for Written {
    fn field(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.bytes.is_lent() {
            self.bytes = Buffer::small();
        }
        let start = self.bytes.len();
        write(&mut self.bytes);
        let field = (name, self.bytes.len() - start);
        match self.usual.get_mut(self.count) {
            Some(free) => *free = field,
            None => self.more.push(field),
        }
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_beyond_the_usual_are_written_like_the_others() {
        let mut written = Written::default();
        for at in 0..USUAL + 3 {
            written.field("X-A", |out| out.extend_from_slice(at.to_string().as_bytes()));
        }
        let mut head = ResponseHeader::build(200, None).unwrap();
        written.append_to(&mut head).unwrap();
        let values: Vec<_> = head.headers.get_all("x-a").into_iter().map(|value| value.to_str().unwrap().to_owned()).collect();
        assert_eq!(values, (0..USUAL + 3).map(|at| at.to_string()).collect::<Vec<_>>());
    }
}
