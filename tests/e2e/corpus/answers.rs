//! What instances may answer, what the client gets of it, and whether the connection to the instance is used again.

use std::net::IpAddr;

use super::format::{Case, Pool, Step};
use super::observed::{Message, Observed};
use super::recorder::{End, Scripted};
use super::track::Track;
use super::{Cut, through_both_lanes};
use crate::harness::Conn;

/// How many cases there are at least.
const CASES_MIN: usize = 60;

#[test]
fn what_the_client_gets_is_what_the_instance_meant_or_502() {
    through_both_lanes("answers", CASES_MIN, check);
}

fn check(track: &Track<'_>, case: &Case, cut: Cut, client: IpAddr) -> Result<Observed, String> {
    // A connection that nobody has doubts about is in the pool, and the case's request takes it.
    let before = track.ask("other", None);
    track.recorder.forget();
    track.recorder.answer_next(scripted(case, cut));
    let mut conn = Conn::open_from(Some(client), track.gateway.gateway).unwrap();
    let got = track.talk(case, Cut::AsWritten, &mut conn);
    let seen = track.settled(case, client);
    let after = track.ask("other", None);
    let mut wrong = got.differences(case);
    wrong.extend(before.err().into_iter().chain(after.err()));
    let seen = seen.unwrap_or_else(|error| {
        wrong.push(error);
        Vec::new()
    });
    let connections: Vec<usize> = track.recorder.seen().iter().map(|seen| seen.connection).collect();
    let used = seen.last().map(|seen| seen.connection);
    let on_it = |connection: &&usize| Some(**connection) == used;
    let reused = connections.iter().filter(on_it).count() > seen.iter().filter(|seen| Some(seen.connection) == used).count();
    let pool = if reused { Pool::Reused } else { Pool::Dropped };
    if case.pool != Some(pool) {
        wrong.push(format!("the instance's connection was {pool:?}: {connections:?}"));
    }
    if wrong.is_empty() {
        let requests = seen.iter().map(|seen| Message::request(seen, &track.recorder.addr.to_string())).collect();
        return Ok(Observed { answers: got.messages, fate: got.fate, requests, pool: Some(pool) });
    }
    Err(format!(
        " the instance sent\n{}\n wrong\n  {}\n the client got\n  {}",
        track.described(&case.instance),
        wrong.join("\n  "),
        got.described()
    ))
}

fn scripted(case: &Case, cut: Cut) -> Scripted {
    let mut script = Scripted { early: case.early, ..Scripted::default() };
    for step in &case.instance {
        match step {
            Step::Send(bytes) if cut == Cut::ByteByByte => script.writes.extend(bytes.iter().map(|byte| vec![*byte])),
            Step::Send(bytes) => script.writes.push(bytes.clone()),
            Step::Pause => script.writes.push(Vec::new()),
            Step::Finish => script.end = End::Close,
            Step::Reset => script.end = End::Reset,
            Step::AwaitAnswer | Step::AwaitInstance => {}
        }
    }
    script
}
