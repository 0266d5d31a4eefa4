//! What instances may answer, what the client gets of it, and whether the connection to the instance is used again.

use super::format::{Case, Fate, Pool, Step};
use super::recorder::Scripted;
use super::{Runner, files, format, gateway, run, shown};
use crate::harness::{Conn, Response};

/// How many cases there are at least.
const CASES_MIN: usize = 60;

#[test]
fn what_the_client_gets_is_what_the_instance_meant_or_502() {
    let read = files("answers").iter().map(|(file, text)| format::read(file, text)).collect::<Result<Vec<_>, _>>();
    let cases = read.unwrap_or_else(|error| panic!("{error}")).concat();
    assert!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let mut gateway = gateway();
    let complaints = run(&gateway, &cases, |runner, case| {
        let mut found: Vec<String> = runner.check_answer(case, false).into_iter().collect();
        if found.is_empty() && !case.whole_only {
            found.extend(runner.check_answer(case, true));
        }
        found
    });
    assert!(complaints.is_empty(), "{} of {} cases:\n\n{}", complaints.len(), cases.len(), complaints.join("\n\n"));
    gateway.assert_sound();
}

impl Runner<'_> {
    /// The complaint about a case, if there is one.
    fn check_answer(&self, case: &Case, byte_by_byte: bool) -> Option<String> {
        // A connection that nobody has doubts about is in the pool, and the case's request takes it.
        let before = self.fresh_answer();
        self.recorder.forget();
        self.recorder.answer_next(scripted(&case.instance, byte_by_byte));
        let mut conn = Conn::open(self.gateway.gateway);
        for step in &case.steps {
            match step {
                Step::Send(bytes) => conn.send(self.own(bytes)),
                _ => conn.finish(),
            }
        }
        let (got, mut wrong) = self.read(case, &mut conn);
        let first = self.recorder.seen();
        let fate = self.next(&mut conn, &mut wrong);
        if case.fate.is_some_and(|expected| expected != fate) {
            wrong.push(format!("the client's connection is {fate:?}"));
        }
        let other = self.fresh_answer();
        wrong.extend(other.err().or(before.err()));
        let seen = self.recorder.seen();
        let connections: Vec<usize> = seen.iter().map(|seen| seen.connection).collect();
        let used = first.last().map(|seen| seen.connection);
        let reused = connections.iter().filter(|connection| Some(**connection) == used).count() > first.len();
        let pool = if reused { Pool::Reused } else { Pool::Dropped };
        if case.pool != Some(pool) {
            wrong.push(format!("the instance's connection was {pool:?}: {connections:?}"));
        }
        if wrong.is_empty() {
            return None;
        }
        let sent: Vec<String> = case.instance.iter().map(|step| format!("  {}", described(step))).collect();
        Some(format!(
            "line {} {}{}\n the instance sent\n{}\n wrong\n  {}\n the client got\n  {}",
            case.line,
            case.name,
            if byte_by_byte { " (byte by byte)" } else { "" },
            sent.join("\n"),
            wrong.join("\n  "),
            got.join("\n  ")
        ))
    }

    /// Reads the answers that the case expects.
    fn read(&self, case: &Case, conn: &mut Conn) -> (Vec<String>, Vec<String>) {
        let (mut got, mut wrong) = (Vec::new(), Vec::new());
        for expected in &case.answers {
            let is_interim = (100..200).contains(&expected.status);
            let method = if expected.is_head { "HEAD" } else { "GET" };
            let answer: std::io::Result<(u16, Option<Response>)> = if is_interim {
                conn.try_head().map(|head| (head.status, None))
            } else {
                conn.try_response(method).map(|response| (response.status, Some(response)))
            };
            match answer {
                Ok((status, response)) => {
                    let text = response.as_ref().map(|response| shown(&response.body));
                    got.push(format!("{status} {}", text.unwrap_or_default()));
                    wrong.extend(expected.difference(status, response.as_ref()));
                }
                Err(error) => {
                    wrong.push(format!("instead of {}: {error}", expected.status));
                    return (got, wrong);
                }
            }
        }
        (got, wrong)
    }

    /// Asks once more on the client's connection.
    fn next(&self, conn: &mut Conn, wrong: &mut Vec<String>) -> Fate {
        let request = format!("GET /v2/{}/next HTTP/1.1\r\nHost: x\r\n\r\n", self.service);
        match conn.try_send(request).and_then(|()| conn.try_response("GET")) {
            Ok(answer) if answer.status == 200 && answer.body == b"/next" => Fate::Open,
            Ok(answer) => {
                wrong.push(format!("the next request was answered {} {:?}", answer.status, answer.text()));
                Fate::Open
            }
            Err(_) => Fate::Closed,
        }
    }

    /// Asks as another client.
    fn fresh_answer(&self) -> Result<(), String> {
        let answer = crate::harness::get(&format!("/v2/{}/other", self.service)).send(self.gateway.gateway);
        match (answer.status, answer.text()) {
            (200, text) if text == "/other" => Ok(()),
            (status, text) => Err(format!("another client's request was answered {status} {text:?}")),
        }
    }
}

fn scripted(steps: &[Step], byte_by_byte: bool) -> Scripted {
    let mut script = Scripted::default();
    for step in steps {
        match step {
            Step::Send(bytes) if byte_by_byte => script.writes.extend(bytes.iter().map(|byte| vec![*byte])),
            Step::Send(bytes) => script.writes.push(bytes.clone()),
            Step::Finish => script.close = true,
            Step::Pause | Step::AwaitAnswer => {}
        }
    }
    script
}

fn described(step: &Step) -> String {
    match step {
        Step::Send(bytes) => shown(bytes),
        other => format!("({other:?})"),
    }
}
