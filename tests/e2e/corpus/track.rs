//! One lane as a runner uses it: a gateway, and an instance of its own behind it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::format::{Case, Fate, Step, Upstream};
use super::observed::{Aspect, Observed};
use super::recorder::{Recorder, Seen};
use super::{Cut, Run, SERVICE, replaced, shown};
use crate::harness::{Gateway, Lane, Request, get, now};

/// How long what the instance saw may differ from what it shall see: what it is sent may still be under way.
const SETTLED: Duration = Duration::from_secs(5);

/// Of the fields that the gateway sets, how many are the same whatever the client sends.
const ALWAYS_OURS: usize = 3;

/// What the runner itself asks for.
const OURS: [&str; 3] = ["next", "afterwards", "other"];

/// See the module.
pub(super) struct Track<'a> {
    lane: Lane,
    pub(super) gateway: &'a Gateway,
    pub(super) service: String,
    pub(super) recorder: Recorder,
    /// How many requests had taken the full lane when last asked.
    full: AtomicU64,
}

impl<'a> Track<'a> {
    pub(super) fn start(lane: Lane, gateway: &'a Gateway, service: String) -> Self {
        let recorder = Recorder::start();
        gateway.register_at(&service, &format!("http://{}", recorder.addr));
        Self { lane, gateway, service, recorder, full: AtomicU64::new(0) }
    }

    /// Has a case run, and looks which way it went.
    pub(super) fn run(&self, case: &Case, cut: Cut, client: IpAddr, run: Run) -> Observed {
        let mut observed = run(self, case, cut, client);
        let counted = self.gateway.metrics().full_lane(&self.service) as u64;
        let took = counted - self.full.swap(counted, Ordering::Relaxed);
        let expected = u64::from(case.full + observed.ours_full);
        if self.lane == Lane::Express && took != expected {
            let text = format!("{took} requests took the full lane instead of {expected}");
            observed.wrong.push((None, text));
        }
        observed
    }

    /// What is not as the case says, but for what `is_listed`; nothing when everything is.
    pub(super) fn complaint(
        &self,
        case: &Case,
        cut: Cut,
        observed: &Observed,
        is_listed: impl Fn(Aspect) -> bool,
    ) -> Option<String> {
        // A case says what the express lane does.
        let is_excused = |aspect: Option<Aspect>| self.lane == Lane::Full && aspect.is_some_and(&is_listed);
        let wrong: Vec<&str> =
            observed.wrong.iter().filter(|(aspect, _)| !is_excused(*aspect)).map(|(_, text)| text.as_str()).collect();
        if wrong.is_empty() {
            return None;
        }
        let instance =
            if case.instance.is_empty() { String::new() } else { self.described(" the instance sent", &case.instance) };
        Some(format!(
            "line {} {} ({cut:?}, {:?} lane)\n{}{instance} wrong\n  {}\n{}",
            case.line,
            case.name,
            self.lane,
            self.described(" the client sent", &case.steps),
            wrong.join("\n  "),
            observed.described()
        ))
    }

    /// The case's bytes for this runner's service.
    pub(super) fn own(&self, bytes: &[u8]) -> Vec<u8> {
        replaced(bytes, format!("/v2/{SERVICE}").as_bytes(), format!("/v2/{}", self.service).as_bytes())
    }

    fn described(&self, title: &str, steps: &[Step]) -> String {
        let one = |step: &Step| match step {
            Step::Send(bytes) => format!("  {}\n", shown(&self.own(bytes))),
            other => format!("  ({other:?})\n"),
        };
        format!("{title}\n{}", steps.iter().map(one).collect::<String>())
    }

    /// One of the runner's own requests, which takes the express lane or, to find connections of the full lane, that one.
    pub(super) fn our_request(&self, target: &str, lane: Lane) -> Request {
        let request = get(&format!("/v2/{}/{target}", self.service)).host("x");
        // A field that has no business in the express lane and goes no further.
        if lane == Lane::Full { request.header("TE", "trailers") } else { request }
    }

    /// Asks on a connection of its own.
    pub(super) fn ask(&self, target: &str, lane: Lane, client: Option<IpAddr>) -> Result<(), String> {
        let request = self.our_request(target, lane);
        let request = client.map_or(request.clone(), |client| request.from(client));
        let answer = request.send(self.gateway.gateway);
        match (answer.status, answer.text()) {
            (200, text) if text == format!("/{target}") => Ok(()),
            (status, text) => Err(format!("another connection's request was answered {status} {text:?}")),
        }
    }

    /// Waits until the instance has seen what it shall, for a while. Gives what it saw of the case, and what is wrong with it.
    pub(super) fn settled(&self, case: &Case, client: IpAddr) -> (Vec<Seen>, Option<String>) {
        let start = now();
        loop {
            let seen = self.seen_of(client);
            let (whole, cut): (Vec<&Seen>, Vec<&Seen>) = seen.iter().partition(|seen| seen.complete);
            let whole: Vec<Vec<u8>> = whole.into_iter().map(|seen| self.without_ours(seen, client)).collect();
            let (expected, cut_max) = match &case.upstream {
                Some(Upstream::Requests(expected)) => (expected, 0),
                Some(Upstream::Cut(expected)) => (expected, 1),
                None => return (seen, None),
            };
            let expected: Vec<Vec<u8>> = expected.iter().map(|request| sorted(&self.own(request), &[])).collect();
            if whole == expected && cut.len() <= cut_max {
                return (seen, None);
            }
            if start.elapsed() > SETTLED {
                let list = |all: &[Vec<u8>]| all.iter().map(|one| format!("\n    {}", shown(one))).collect::<String>();
                let cut: Vec<Vec<u8>> = cut.into_iter().map(|seen| self.without_ours(seen, client)).collect();
                let wrong = format!(
                    "the instance should have seen{}\n   and at most {cut_max} cut off, but saw{}\n   and cut off{}",
                    list(&expected),
                    list(&whole),
                    list(&cut)
                );
                return (seen, Some(wrong));
            }
            crate::harness::clock::breathe();
        }
    }

    /// What the instance saw of the case.
    fn seen_of(&self, client: IpAddr) -> Vec<Seen> {
        let mut seen = self.recorder.seen();
        seen.retain(|seen| is_of(seen, client) && OURS.iter().all(|target| !is_for(seen, target)));
        seen
    }

    /// How many of the runner's own requests the instance saw from that client.
    pub(super) fn ours_seen(&self, client: IpAddr) -> usize {
        let seen = self.recorder.seen();
        seen.iter().filter(|seen| is_of(seen, client) && OURS.iter().any(|target| is_for(seen, target))).count()
    }

    /// How many of them there are for a case with that end: one from another connection, and one on that of the case.
    pub(super) fn ours_expected(fate: Option<Fate>) -> usize {
        1 + usize::from(fate == Some(Fate::Open))
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
        replaced(&normal, client.to_string().as_bytes(), b"{client}")
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

fn is_for(seen: &Seen, target: &str) -> bool {
    seen.head.starts_with(format!("GET /{target} HTTP/1.1\r\n").as_bytes())
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
