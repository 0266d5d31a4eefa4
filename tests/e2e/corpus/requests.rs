//! What clients may send, what they are answered, and what the instance sees of it.

use std::net::IpAddr;

use super::format::Case;
use super::observed::{Aspect, Message, Observed};
use super::track::Track;
use super::{Cut, through_both_lanes};
use crate::harness::{Conn, Lane};

/// How many cases there are at least.
const CASES_MIN: usize = 430;

#[test]
fn what_reaches_the_instance_is_what_the_client_meant_or_nothing() {
    through_both_lanes("requests", CASES_MIN, check);
}

fn check(track: &Track<'_>, case: &Case, cut: Cut, client: IpAddr) -> Observed {
    track.recorder.forget();
    // From an address of its own, which the gateway tells the instance: so that what comes late is not another case's.
    let mut conn = Conn::open_from(Some(client), track.gateway.gateway).unwrap();
    let got = track.talk(case, cut, Lane::Express, &mut conn);
    // Whatever the gateway made of the bytes, it has made of them before it answers this.
    let probe = track.ask("afterwards", Lane::Express, Some(client));
    let mut wrong = got.differences(case);
    wrong.extend(probe.err().map(|error| (None, error)));
    let (seen, unexpected) = track.settled(case, client);
    wrong.extend(unexpected.map(|text| (Some(Aspect::Instance), text)));
    let ours = track.ours_seen(client);
    if ours != Track::ours_expected(got.fate) {
        wrong.push((None, format!("the instance saw {ours} of the requests that the runner sent itself")));
    }
    let requests = seen.iter().map(|seen| Message::request(seen, track.recorder.addr)).collect();
    Observed { answers: got.messages, fate: got.fate, requests, wrong, ..Observed::default() }
}
