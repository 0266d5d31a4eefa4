//! The client's side of a case: what it sends, and everything that it gets.

use std::io;

use super::format::{Answer, Case, Fate, Step};
use super::observed::{Aspect, Message};
use super::track::Track;
use super::{Cut, MOMENT, shown};
use crate::harness::{Conn, Lane, PATIENCE, Response, eventually};

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Got {
    answers: Vec<(u16, Option<Response>)>,
    /// The same, and interim answers that no case expects.
    pub(super) messages: Vec<Message>,
    /// Neither an answer nor the end.
    odd: Option<String>,
    pub(super) fate: Option<Fate>,
}

impl Track<'_> {
    /// Has the conversation, and reads everything that comes. What the runner itself asks for behind it takes the lane `ours`.
    pub(super) fn talk(&self, case: &Case, cut: Cut, ours: Lane, conn: &mut Conn) -> Got {
        let mut got = Got::default();
        let mut expected = case.answers.iter();
        for step in &case.steps {
            match step {
                // The gateway may close at any point; what it answered tells.
                Step::Send(bytes) => drop(send(conn, &self.own(bytes), cut)),
                // Only so that the kernel does not join the writes: nothing depends on it.
                Step::Pause => std::thread::sleep(MOMENT),
                Step::Finish => conn.finish(),
                Step::AwaitInstance => eventually("the instance to have answered", || self.recorder.has_played()),
                Step::AwaitAnswer => {
                    if !got.take(conn, expected.next()) {
                        return got;
                    }
                }
                Step::Reset => {}
            }
        }
        for answer in expected {
            if !got.take(conn, Some(answer)) {
                return got;
            }
        }
        got.fate = Some(match case.fate {
            Some(Fate::Closed) => closed(conn, &mut got.odd),
            _ => self.still_open(conn, ours, &mut got.odd),
        });
        got
    }

    /// Whether the next request on the connection is understood and answered as what it is.
    fn still_open(&self, conn: &mut Conn, ours: Lane, odd: &mut Option<String>) -> Fate {
        match conn.try_send(self.our_request("next", ours).bytes("x")).and_then(|()| conn.try_response("GET")) {
            Ok(answer) if answer.status == 200 && answer.body == b"/next" => Fate::Open,
            Ok(answer) => {
                *odd = Some(format!("the next request was answered {} {:?}", answer.status, answer.text()));
                Fate::Open
            }
            Err(error) => {
                *odd = Some(format!("the next request was not answered: {error}"));
                Fate::Closed
            }
        }
    }
}

/// Whether the gateway closes and has nothing more to say.
fn closed(conn: &mut Conn, odd: &mut Option<String>) -> Fate {
    if conn.closes_within(PATIENCE) {
        return Fate::Closed;
    }
    let (rest, has_ended) = conn.rest();
    *odd = Some(format!("more than the answers: {}", shown(&rest)));
    if has_ended { Fate::Closed } else { Fate::Open }
}

fn send(conn: &mut Conn, bytes: &[u8], cut: Cut) -> io::Result<()> {
    match cut {
        Cut::AsWritten => conn.try_send(bytes),
        Cut::ByteByByte => bytes.iter().try_for_each(|byte| conn.try_send([*byte])),
    }
}

impl Got {
    /// Reads one answer; `false` when there is none.
    fn take(&mut self, conn: &mut Conn, expected: Option<&Answer>) -> bool {
        let method = if expected.is_some_and(|answer| answer.is_head) { "HEAD" } else { "GET" };
        let is_interim = expected.is_some_and(|answer| (100..200).contains(&answer.status));
        let answer = if is_interim {
            conn.try_head().map(|head| {
                self.messages.push(Message::answer(&head.raw, b"", true));
                (head.status, None)
            })
        } else {
            conn.try_response(method).map(|response| {
                self.messages.extend(response.interim.iter().map(|head| Message::answer(&head.raw, b"", true)));
                self.messages.push(Message::answer(&response.raw, &response.body, response.complete));
                (response.status, Some(response))
            })
        };
        match answer {
            Ok(answer) => self.answers.push(answer),
            Err(error) => {
                self.odd = Some(format!("instead of an answer: {error}"));
                self.fate = Some(Fate::Closed);
                return false;
            }
        }
        true
    }

    /// What is not as the case says.
    pub(super) fn differences(&self, case: &Case) -> Vec<(Option<Aspect>, String)> {
        let mut wrong: Vec<(Option<Aspect>, String)> = Vec::new();
        wrong.extend(self.odd.iter().map(|odd| (Some(Aspect::Connection), odd.clone())));
        for (at, expected) in case.answers.iter().enumerate() {
            let difference = match self.answers.get(at) {
                None => Some(format!("no answer {expected:?}")),
                Some((status, response)) => expected.difference(*status, response.as_ref()),
            };
            wrong.extend(difference.map(|text| (Some(Aspect::Answer), text)));
        }
        if self.fate != case.fate {
            let text = format!("the connection should be {:?} and is {:?}", case.fate, self.fate);
            wrong.push((Some(Aspect::Connection), text));
        }
        wrong
    }
}

impl Answer {
    /// What is wrong with an answer.
    fn difference(&self, status: u16, response: Option<&Response>) -> Option<String> {
        if self.status != status {
            return Some(format!("status {status} instead of {}", self.status));
        }
        let response = response?;
        let reason = response.reason().unwrap_or_default();
        let (expected, words) = self.reason.clone().unwrap_or_default();
        if reason != expected {
            return Some(format!("reason {reason:?} instead of {expected:?}"));
        }
        if !words.is_empty() && !response.text().contains(&words) {
            return Some(format!("{words:?} is not in {}", response.text()));
        }
        if self.body.as_ref().is_some_and(|body| *body != response.body) {
            return Some(format!("body {:?}", shown(&response.body)));
        }
        (response.complete == self.cut).then(|| format!("the body is {}", if self.cut { "complete" } else { "cut off" }))
    }
}
