//! Header fields as the rules see them: a list of names and values, whoever holds it, and a place to write new ones.
//!
//! One lane has parsed a head into a map, the other leaves it where it was read and knows only where its fields begin and end.
//! A rule is told neither; it is compiled for both, and costs no allocation to ask.

use http::{HeaderMap, HeaderValue};

/// The header fields of a message.
///
/// The names that are asked for are in lower case; those of the fields have any.
pub trait Fields {
    /// Every field in the order of the message, as far as its holder knows it.
    fn each(&self) -> impl Iterator<Item = (&[u8], &[u8])>;

    /// The values of the fields of that name, one for each line.
    fn all<'f>(&'f self, name: &str) -> impl Iterator<Item = &'f [u8]> {
        self.each().filter(move |(sent, _)| sent.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The value of the first of them.
    fn first<'f>(&'f self, name: &str) -> Option<&'f [u8]> {
        self.all(name).next()
    }

    /// Whether there is one.
    fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }
}

impl Fields for HeaderMap {
    fn each(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
    }

    fn all<'f>(&'f self, name: &str) -> impl Iterator<Item = &'f [u8]> {
        self.get_all(name).into_iter().map(|value| value.as_bytes())
    }

    fn first<'f>(&'f self, name: &str) -> Option<&'f [u8]> {
        self.get(name).map(|value| value.as_bytes())
    }

    fn has(&self, name: &str) -> bool {
        self.contains_key(name)
    }
}

/// Where the gateway's own fields are written.
pub trait Sink {
    /// One more field, whose value `write` appends to what it is given.
    fn field(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>));
}

/// As they are on the wire, one line for each.
impl Sink for Vec<u8> {
    fn field(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        write_line(self, name.as_bytes(), write);
    }
}

/// Appends a field as it is on the wire, with the value that `write` appends.
pub fn write_line(out: &mut Vec<u8>, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    write(out);
    out.extend_from_slice(b"\r\n");
}

/// Beside those that are there.
impl Sink for HeaderMap {
    fn field(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        let mut value = Vec::new();
        write(&mut value);
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            self.append(name, value);
        }
    }
}

/// A value as text, if it is: visible ASCII, spaces and tabs.
#[must_use]
pub fn text(value: &[u8]) -> Option<&str> {
    let is_text = value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    if is_text { std::str::from_utf8(value).ok() } else { None }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use http::HeaderName;

    /// Fields as they were sent.
    #[derive(Debug)]
    pub(in super::super) struct Sent<'a>(pub(in super::super) &'a [(&'a str, &'a str)]);

    impl Fields for Sent<'_> {
        fn each(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
            self.0.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        }
    }

    impl Sent<'_> {
        /// The same in a map.
        pub(in super::super) fn map(&self) -> HeaderMap {
            let field = |(name, value): &(&str, &str)| {
                (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
            };
            self.0.iter().map(field).collect()
        }
    }

    #[test]
    fn a_list_and_a_map_say_the_same() {
        fn check(fields: &impl Fields) {
            assert_eq!(fields.all("x-a").collect::<Vec<_>>(), [b"1", b"2"]);
            assert_eq!((fields.first("x-a"), fields.first("x-c")), (Some(&b"1"[..]), None));
            assert_eq!((fields.has("x-b"), fields.has("x-c"), fields.each().count()), (true, false, 3));
        }
        let sent = Sent(&[("X-A", "1"), ("x-b", ""), ("x-a", "2")]);
        check(&sent);
        check(&sent.map());
    }

    #[test]
    fn what_is_written_is_a_line_or_an_entry() {
        fn write(sink: &mut impl Sink) {
            sink.field("X-A", |out| out.extend_from_slice(b"1"));
            sink.field("X-A", |out| out.extend_from_slice(b"2"));
        }
        let (mut lines, mut map) = (Vec::new(), HeaderMap::new());
        write(&mut lines);
        write(&mut map);
        assert_eq!(lines, b"X-A: 1\r\nX-A: 2\r\n");
        assert_eq!(map.all("x-a").collect::<Vec<_>>(), [b"1", b"2"]);
    }

    #[test]
    fn text_is_what_can_be_shown() {
        assert_eq!((text(b"a b\t~"), text(b"")), (Some("a b\t~"), Some("")));
        assert_eq!((text(b"\x7f"), text(b"\xc3\xa4"), text(b"a\0")), (None, None, None));
    }
}
