//! What a case showed, in a form in which two lanes can be compared: everything that both sides could see, but for what no two
//! requests have in common. Nothing else is left out.

use std::net::SocketAddr;

use super::format::{Fate, Pool};
use super::recorder::Seen;
use super::{replaced, shown};

/// What may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Aspect {
    /// What the client was answered.
    Answer,
    /// What became of the client's connection.
    Connection,
    /// What the instance saw.
    Instance,
    /// Whether the instance's connection was used again.
    Pool,
}

impl Aspect {
    pub(super) const ALL: [Self; 4] = [Self::Answer, Self::Connection, Self::Instance, Self::Pool];

    /// As the table says it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Connection => "connection",
            Self::Instance => "instance",
            Self::Pool => "pool",
        }
    }
}

/// A message without its framing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    head: Vec<u8>,
    body: Vec<u8>,
    complete: bool,
}

/// See the module. What is wrong and no aspect of the case is excused by nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    pub(super) answers: Vec<Message>,
    pub(super) fate: Option<Fate>,
    pub(super) requests: Vec<Message>,
    pub(super) pool: Option<Pool>,
    /// How many requests the runner itself sent through the full lane.
    pub(super) ours_full: u32,
    /// What of it is not as the case says.
    pub(super) wrong: Vec<(Option<Aspect>, String)>,
}

impl Observed {
    pub(super) fn described(&self) -> String {
        let (answers, requests) = (listed(&self.answers), listed(&self.requests));
        format!(" the client got {answers}\n  and then {:?}\n the instance saw {requests}", self.fate)
    }

    /// In what this one, of the express lane, differs from the full lane's.
    pub(super) fn differences(&self, full: &Self) -> Vec<(Aspect, String)> {
        let mut found = Vec::new();
        let mut note = |aspect: Aspect, express: String, full: String| {
            found.push((aspect, format!("the lanes differ in the {}\n  express {express}\n  full    {full}", aspect.as_str())));
        };
        if !same(&self.answers, &full.answers) {
            note(Aspect::Answer, listed(&self.answers), listed(&full.answers));
        }
        if self.fate != full.fate {
            note(Aspect::Connection, format!("{:?}", self.fate), format!("{:?}", full.fate));
        }
        if !same_requests(&self.requests, &full.requests) {
            note(Aspect::Instance, listed(&self.requests), listed(&full.requests));
        }
        if self.pool != full.pool {
            note(Aspect::Pool, format!("{:?}", self.pool), format!("{:?}", full.pool));
        }
        found
    }
}

fn same(some: &[Message], others: &[Message]) -> bool {
    some.len() == others.len() && some.iter().zip(others).all(|(one, other)| one.is_like(other))
}

/// Whether the instance had seen anything of a request that was taken back is chance, too.
fn same_requests(some: &[Message], others: &[Message]) -> bool {
    let whole = |messages: &[Message]| messages.iter().filter(|message| message.complete).cloned().collect::<Vec<_>>();
    same(some, others) || some.len() != others.len() && same(&whole(some), &whole(others))
}

fn listed(messages: &[Message]) -> String {
    let one = |message: &Message| {
        let cut = if message.complete { "" } else { " (cut)" };
        format!("\n    {}{}{cut}", shown(&message.head), shown(&message.body))
    };
    if messages.is_empty() { "nothing".to_owned() } else { messages.iter().map(one).collect() }
}

impl Message {
    /// What a client was answered.
    pub(super) fn answer(raw: &[u8], body: &[u8], complete: bool) -> Self {
        Self::normal(raw, body, complete)
    }

    /// What an instance saw; its address is as good as any other's.
    pub(super) fn request(seen: &Seen, instance: SocketAddr) -> Self {
        let mut message = Self::normal(&seen.head, &seen.body, seen.complete);
        message.head = replaced(&message.head, format!("\r\nHost: {instance}\r\n").as_bytes(), b"\r\nHost: {instance}\r\n");
        message
    }

    /// The order of fields with different names means nothing (RFC 9110 §5.3), the moment and a generated id are never the
    /// same, and how much of a body arrived before it was cut off is chance.
    fn normal(raw: &[u8], body: &[u8], complete: bool) -> Self {
        let text = raw.strip_suffix(b"\r\n\r\n").unwrap_or(raw);
        let mut lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let first = lines.next().unwrap_or_default();
        let mut fields: Vec<(Vec<u8>, &[u8])> = lines.map(|line| (name_of(line), line)).collect();
        fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        let id =
            fields.iter().find(|(name, _)| name == b"x-request-id").map(|(_, line)| line["X-Request-ID: ".len()..].to_vec());
        let mut head = [first, b"\r\n"].concat();
        for (name, line) in fields {
            match &name[..] {
                b"date" => head.extend_from_slice(b"Date: {date}"),
                _ => head.extend_from_slice(line),
            }
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        let named = |bytes: Vec<u8>| match id.as_ref().filter(|id| is_generated(id)) {
            Some(id) => replaced(&bytes, id, b"{id}"),
            None => bytes,
        };
        Self { head: named(head), body: named(body.to_vec()), complete }
    }

    /// Leaves the head.
    pub(super) fn forget_body(&mut self) {
        (self.body, self.complete) = (Vec::new(), true);
    }

    fn is_like(&self, other: &Self) -> bool {
        let bodies = (&self.body, &other.body);
        let same_body = match (self.complete, other.complete) {
            (true, true) => bodies.0 == bodies.1,
            (false, false) => bodies.0.starts_with(bodies.1) || bodies.1.starts_with(bodies.0),
            _ => false,
        };
        self.head == other.head && same_body
    }
}

fn name_of(line: &[u8]) -> Vec<u8> {
    line.split(|byte| *byte == b':').next().unwrap_or_default().to_ascii_lowercase()
}

fn is_generated(id: &[u8]) -> bool {
    id.len() == 32 && id.iter().all(u8::is_ascii_hexdigit)
}

#[test]
fn only_what_means_nothing_is_left_out() {
    let answer = |head: &str, body: &str, complete| Message::answer(head.as_bytes(), body.as_bytes(), complete);
    let id = "0123456789abcdef0123456789abcdef";
    let one = answer(&format!("HTTP/1.1 200 OK\r\nDate: now\r\nX: 1\r\nx: 2\r\nX-Request-ID: {id}\r\n\r\n"), id, true);
    let other = id.replace('0', "f");
    let same = answer(&format!("HTTP/1.1 200 OK\r\nX: 1\r\nX-Request-ID: {other}\r\nx: 2\r\nDate: then\r\n\r\n"), &other, true);
    assert!(one.is_like(&same), "{one:?}\n{same:?}");
    let plain = answer("HTTP/1.1 200 OK\r\nX: 1\r\n\r\n", "body", true);
    for (head, body, complete) in [
        ("HTTP/1.1 200 Ok\r\nX: 1\r\n\r\n", "body", true),
        ("HTTP/1.1 200 OK\r\nx: 1\r\n\r\n", "body", true),
        ("HTTP/1.1 200 OK\r\nX: 1\r\nX: 1\r\n\r\n", "body", true),
        ("HTTP/1.1 200 OK\r\nX: 1\r\nDate: now\r\n\r\n", "body", true),
        ("HTTP/1.1 200 OK\r\nX: 1\r\n\r\n", "bod", true),
        ("HTTP/1.1 200 OK\r\nX: 1\r\n\r\n", "body", false),
    ] {
        assert!(!plain.is_like(&answer(head, body, complete)), "{head:?} {body} {complete}");
    }
    assert!(
        answer("H", "abc", false).is_like(&answer("H", "a", false))
            && !answer("H", "abc", false).is_like(&answer("H", "b", false))
    );
    assert!(!answer("H\r\nX: 1\r\nX: 2\r\n\r\n", "", true).is_like(&answer("H\r\nX: 2\r\nX: 1\r\n\r\n", "", true)));
}
