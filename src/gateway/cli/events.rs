//! Server-sent events, read line by line (WHATWG HTML §9.2.6).

use std::io::{self, BufRead, BufReader, Read};

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// What it is; empty when it only carries an id.
    pub(super) name: String,
    /// Where the stream goes on after it.
    pub(super) id: Option<u64>,
    /// Its lines, joined.
    pub(super) data: String,
}

/// A stream of events.
#[derive(Debug)]
pub(super) struct Events<R> {
    lines: BufReader<R>,
}

impl<R: Read> Events<R> {
    /// Reads the events of this body.
    pub(super) fn new(body: R) -> Self {
        Self { lines: BufReader::new(body) }
    }

    /// The next event; `None` at the end of the stream. An event that was cut off does not count.
    pub(super) fn next(&mut self) -> io::Result<Option<Event>> {
        let (mut event, mut is_empty, mut left) = (Event::default(), true, EVENT_MAX);
        while let Some(line) = self.line(&mut left)? {
            if line.is_empty() {
                if !is_empty {
                    return Ok(Some(event));
                }
                left = EVENT_MAX;
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut event.name),
                "id" => event.id = value.parse().ok(),
                "data" => {
                    if !event.data.is_empty() {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                }
                // Comments, and fields of later versions.
                _ => continue,
            }
            is_empty = false;
        }
        Ok(None)
    }

    /// The next whole line, as far as so many bytes are left.
    fn line(&mut self, left: &mut u64) -> io::Result<Option<String>> {
        let mut line = String::new();
        let read = self.lines.by_ref().take(*left).read_line(&mut line)?;
        *left -= read as u64;
        if line.ends_with('\n') {
            line.truncate(line.trim_end_matches(['\r', '\n']).len());
            return Ok(Some(line));
        }
        if *left == 0 { Err(io::Error::new(io::ErrorKind::InvalidData, "an event is longer than 64 MiB")) } else { Ok(None) }
    }
}

/// As long as the longest list that is read: 100 000 instances fit.
const EVENT_MAX: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &[u8]) -> Vec<Event> {
        let mut events = Events::new(text);
        std::iter::from_fn(|| events.next().unwrap()).collect()
    }

    fn event(name: &str, id: Option<u64>, data: &str) -> Event {
        Event { name: name.to_owned(), id, data: data.to_owned() }
    }

    #[test]
    fn a_stream() {
        let text = b"id: 7\n\n: keep-alive\n\nevent: change\nid: 8\ndata: {\"a\":\ndata:1}\nlater: x\n\nevent:reset\r\nid:9\r\n\r\nevent: cut";
        assert_eq!(all(text), [event("", Some(7), ""), event("change", Some(8), "{\"a\":\n1}"), event("reset", Some(9), "")]);
        assert_eq!(all(b""), []);
        assert_eq!(all(b"\n\n: x\n\n"), []);
    }

    #[test]
    fn what_is_no_text_is_an_error() {
        assert!(Events::new(&b"data: \xff\n\n"[..]).next().is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(bytes: Vec<u8>) {
            let mut events = Events::new(&bytes[..]);
            while let Ok(Some(_)) = events.next() {}
        }
    }
}
