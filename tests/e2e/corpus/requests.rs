//! What clients may send, what they are answered, and what the instance sees of it.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::format::{Answer, Case, Fate, Step, Upstream};
use super::recorder::Seen;
use super::{Runner, files, format, gateway, run, shown};
use crate::harness::{Conn, Response, get, now};

/// How long what the instance saw may differ from what it shall see: what it is sent may still be under way.
const SETTLED: Duration = Duration::from_secs(5);

/// Of the fields that the gateway sets, how many are the same whatever the client sends.
const ALWAYS_OURS: usize = 3;

/// How many cases there are at least.
const CASES_MIN: usize = 200;

#[test]
fn what_reaches_the_instance_is_what_the_client_meant_or_nothing() {
    let read = files("requests").iter().map(|(file, text)| format::read(file, text)).collect::<Result<Vec<_>, _>>();
    let cases = read.unwrap_or_else(|error| panic!("{error}")).concat();
    assert!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let mut gateway = gateway();
    let complaints = run(&gateway, &cases, |runner, case| {
        let mut found: Vec<String> = runner.check_request(case, Cut::AsWritten).into_iter().collect();
        if found.is_empty() && !case.whole_only {
            found.extend(runner.check_request(case, Cut::ByteByByte));
        }
        found
    });
    assert!(complaints.is_empty(), "{} of {} cases:\n\n{}", complaints.len(), cases.len(), complaints.join("\n\n"));
    gateway.assert_sound();
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    AsWritten,
    ByteByByte,
}

/// What came back.
#[derive(Debug, Default)]
struct Got {
    answers: Vec<(u16, Option<Response>)>,
    /// Neither an answer nor the end.
    odd: Option<String>,
    fate: Option<Fate>,
}

impl Runner<'_> {
    /// The complaint about a case, if there is one.
    fn check_request(&self, case: &Case, cut: Cut) -> Option<String> {
        self.recorder.forget();
        // An address of its own, which the gateway tells the instance: so that what comes late is not another case's.
        let client = self.next_client();
        let mut conn = Conn::open_from(Some(client), self.gateway.gateway).unwrap();
        let got = self.talk(case, cut, &mut conn);
        // Whatever the gateway made of the bytes, it has made of them before it answers this.
        let probe = get(&format!("/v2/{}/afterwards", self.service)).from(client).send(self.gateway.gateway);
        let mut wrong = differences(case, &got);
        if probe.status != 200 {
            wrong.push(format!("another client's request afterwards was answered {}", probe.status));
        }
        let seen = self.settled(case, client);
        wrong.extend(seen.err());
        if wrong.is_empty() {
            return None;
        }
        let sent: Vec<String> = case.steps.iter().map(|step| format!("  {}", self.described(step))).collect();
        Some(format!(
            "line {} {} ({cut:?})\n sent\n{}\n wrong\n  {}\n got\n  {}",
            case.line,
            case.name,
            sent.join("\n"),
            wrong.join("\n  "),
            got.described()
        ))
    }

    fn described(&self, step: &Step) -> String {
        match step {
            Step::Send(bytes) => shown(&self.own(bytes)),
            other => format!("({other:?})"),
        }
    }

    /// Has the conversation, and reads everything that comes.
    fn talk(&self, case: &Case, cut: Cut, conn: &mut Conn) -> Got {
        let mut got = Got::default();
        let mut expected = case.answers.iter().peekable();
        for step in &case.steps {
            match step {
                // The gateway may close at any point; what it answered tells.
                Step::Send(bytes) => drop(send(conn, &self.own(bytes), cut)),
                // Only so that the kernel does not join the writes: nothing depends on it.
                Step::Pause => std::thread::sleep(Duration::from_millis(3)),
                Step::Finish => conn.finish(),
                Step::AwaitAnswer => {
                    let answer = expected.next();
                    if !got.take(conn, answer) {
                        return got;
                    }
                }
            }
        }
        for answer in expected {
            if !got.take(conn, Some(answer)) {
                return got;
            }
        }
        match case.fate {
            Some(Fate::Open) => got.fate = Some(self.still_open(conn, &mut got.odd)),
            _ => {
                let (rest, _) = conn.rest();
                if !rest.is_empty() {
                    got.odd = Some(format!("more than the answers: {}", shown(&rest)));
                }
                got.fate = Some(Fate::Closed);
            }
        }
        got
    }

    /// Whether the next request on the connection is understood and answered as what it is.
    fn still_open(&self, conn: &mut Conn, odd: &mut Option<String>) -> Fate {
        let next = format!("GET /v2/{}/next HTTP/1.1\r\nHost: x\r\n\r\n", self.service);
        match conn.try_send(next).and_then(|()| conn.try_response("GET")) {
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

    /// Waits until the instance has seen what it shall, for a while.
    fn settled(&self, case: &Case, client: IpAddr) -> Result<(), String> {
        let start = now();
        loop {
            let mut seen = self.recorder.seen();
            seen.retain(|seen| is_of(seen, client));
            let is_ours = |seen: &Seen, target: &str| seen.head.starts_with(format!("GET /{target} HTTP/1.1\r\n").as_bytes());
            let (before, mut ours) = (seen.len(), 0);
            seen.retain(|seen| !is_ours(seen, "afterwards"));
            ours += before - seen.len();
            if case.fate == Some(Fate::Open) {
                let last = seen.pop();
                ours += usize::from(last.is_some_and(|last| is_ours(&last, "next")));
            }
            let expected_ours = 1 + usize::from(case.fate == Some(Fate::Open));
            let requests: Vec<Vec<u8>> = seen.iter().map(|seen| self.without_ours(seen, client)).collect();
            let matches = match case.upstream.as_ref() {
                Some(Upstream::Requests(expected)) => {
                    let expected: Vec<Vec<u8>> = expected.iter().map(|request| sorted(&self.own(request), &[])).collect();
                    requests == expected && seen.iter().all(|seen| seen.complete)
                }
                _ => requests.len() <= 1 && seen.iter().all(|seen| !seen.complete),
            };
            if matches && ours == expected_ours {
                return Ok(());
            }
            if start.elapsed() > SETTLED {
                let list = |all: &[Vec<u8>]| all.iter().map(|one| format!("\n    {}", shown(one))).collect::<String>();
                let expected = match &case.upstream {
                    Some(Upstream::Requests(all)) => list(all),
                    _ => " at most one, cut off".to_owned(),
                };
                return Err(format!("the instance should have seen{expected}\n   but saw{}", list(&requests)));
            }
            crate::harness::clock::breathe();
        }
    }

    /// What the instance saw without the fields that the gateway sets. A field that is missing, repeated, or says something
    /// else, stays visible.
    fn without_ours(&self, seen: &Seen, client: IpAddr) -> Vec<u8> {
        let ours = [
            format!("Host: {}", self.recorder.addr),
            format!("X-Forwarded-For: {client}"),
            "X-Forwarded-Proto: http".to_owned(),
            "X-Forwarded-Host: x".to_owned(),
            format!("Forwarded: for={client};host=\"x\";proto=http"),
        ];
        let mut bytes = seen.head.clone();
        bytes.extend_from_slice(&seen.body);
        let normal = sorted(&bytes, &ours.map(String::into_bytes));
        super::replaced(&normal, client.to_string().as_bytes(), b"{client}")
    }
}

/// A request with its fields sorted, without `ours`. The first of them are always the same, and noted when they are missing;
/// the others depend on the `Host` that the client sent, which a case may make its business.
fn sorted(request: &[u8], ours: &[Vec<u8>]) -> Vec<u8> {
    let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { return request.to_vec() };
    let (head, body) = (&request[..end], &request[end + 4..]);
    let mut lines = split(head, b"\r\n");
    let first = lines.remove(0);
    for (at, own) in ours.iter().enumerate() {
        match lines.iter().position(|line| line == own) {
            Some(found) => drop(lines.remove(found)),
            None if at < ALWAYS_OURS => lines.push(b"(one of the gateway's own fields is missing or says something else)"),
            None => {}
        }
    }
    if let Some(made) = lines.iter().position(|line| !ours.is_empty() && is_request_id(line)) {
        lines.remove(made);
    }
    lines.sort_unstable();
    let mut out = first.to_vec();
    for line in lines {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
    out
}

/// Whether it came from that client, as far as it says from whom it came.
fn is_of(seen: &Seen, client: IpAddr) -> bool {
    let head = String::from_utf8_lossy(&seen.head);
    !head.contains("\r\nX-Forwarded-For: 127.") || head.contains(&format!("\r\nX-Forwarded-For: {client}\r\n"))
}

fn is_request_id(line: &[u8]) -> bool {
    line.strip_prefix(b"X-Request-ID: ").is_some_and(|id| id.len() == 32 && id.iter().all(u8::is_ascii_hexdigit))
}

fn split<'a>(bytes: &'a [u8], separator: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(separator.len()).position(|window| window == separator) {
        parts.push(&rest[..at]);
        rest = &rest[at + separator.len()..];
    }
    parts.push(rest);
    parts
}

fn send(conn: &mut Conn, bytes: &[u8], cut: Cut) -> io::Result<()> {
    match cut {
        Cut::AsWritten => conn.try_send(bytes),
        Cut::ByteByByte => bytes.iter().try_for_each(|byte| conn.try_send([*byte])),
    }
}

fn differences(case: &Case, got: &Got) -> Vec<String> {
    let mut wrong: Vec<String> = got.odd.iter().cloned().collect();
    for (at, expected) in case.answers.iter().enumerate() {
        match got.answers.get(at) {
            None => wrong.push(format!("no answer {expected:?}")),
            Some((status, response)) => wrong.extend(expected.difference(*status, response.as_ref())),
        }
    }
    if got.fate != case.fate {
        wrong.push(format!("the connection should be {:?} and is {:?}", case.fate, got.fate));
    }
    wrong
}

impl Answer {
    /// What is wrong with an answer.
    pub(super) fn difference(&self, status: u16, response: Option<&Response>) -> Option<String> {
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

impl Got {
    /// Reads one answer; `false` when there is none.
    fn take(&mut self, conn: &mut Conn, expected: Option<&Answer>) -> bool {
        let method = if expected.is_some_and(|answer| answer.is_head) { "HEAD" } else { "GET" };
        let is_interim = expected.is_some_and(|answer| (100..200).contains(&answer.status));
        let answer = if is_interim {
            conn.try_head().map(|head| (head.status, None))
        } else {
            conn.try_response(method).map(|response| (response.status, Some(response)))
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

    fn described(&self) -> String {
        let one = |(status, response): &(u16, Option<Response>)| match response {
            Some(response) => format!("{status} {:?} {}", response.reason().unwrap_or_default(), response.text()),
            None => status.to_string(),
        };
        let answers: Vec<String> = self.answers.iter().map(one).collect();
        format!("{}; then {:?}", answers.join("\n  "), self.fate)
    }
}
