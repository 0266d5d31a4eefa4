//! What instances may answer, what the client gets of it, and whether the connection to the instance is used again.

use std::net::IpAddr;

use super::format::{Case, Fate, Pool, Step};
use super::observed::{Aspect, Message, Observed};
use super::recorder::{End, Scripted, Seen};
use super::track::Track;
use super::{Cut, through_both_lanes};
use crate::harness::{Conn, Lane};

/// How many cases there are at least.
const CASES_MIN: usize = 200;

#[test]
fn what_the_client_gets_is_what_the_instance_meant_or_502() {
    through_both_lanes("answers", CASES_MIN, check);
}

fn check(track: &Track<'_>, case: &Case, cut: Cut, client: IpAddr) -> Observed {
    // A connection that nobody has doubts about is in the pool, and the case's request takes it: each lane has its own.
    let lane = if case.full > 0 { Lane::Full } else { Lane::Express };
    let before = track.ask("other", lane, None);
    track.recorder.forget();
    track.recorder.answer_next(scripted(case, cut));
    let mut conn = Conn::open_from(Some(client), track.gateway.gateway).unwrap();
    let got = track.talk(case, Cut::AsWritten, lane, &mut conn);
    let (seen, unexpected) = track.settled(case, client);
    let after = track.ask("other", lane, None);
    let mut wrong = got.differences(case);
    wrong.extend(before.err().into_iter().chain(after.err()).map(|error| (None, error)));
    wrong.extend(unexpected.map(|text| (Some(Aspect::Instance), text)));
    let pool = fate_of_last(&seen, &track.recorder.seen());
    if case.pool != Some(pool) {
        wrong.push((Some(Aspect::Pool), format!("the instance's connection was {pool:?}")));
    }
    let mut requests: Vec<Message> = seen.iter().map(|seen| Message::request(seen, track.recorder.addr)).collect();
    if case.early {
        // What an instance still gets of a body that it has answered already is chance.
        requests.iter_mut().for_each(Message::forget_body);
    }
    let ours_full = if lane == Lane::Full { 2 + u32::from(got.fate == Some(Fate::Open)) } else { 0 };
    Observed { answers: got.messages, fate: got.fate, requests, pool: Some(pool), ours_full, wrong }
}

/// Whether the connection on which the case's last request came was used again, by those that the runner sent itself.
fn fate_of_last(case: &[Seen], all: &[Seen]) -> Pool {
    let Some(last) = case.last() else { return Pool::Dropped };
    let on_it = |seen: &[Seen]| seen.iter().filter(|seen| seen.connection == last.connection).count();
    if on_it(all) > on_it(case) { Pool::Reused } else { Pool::Dropped }
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
