//! One of three instances is broken in some way, and clients do not notice where the request may be sent again.

use std::time::Duration;

use crate::harness::scripts::{raw_then_close, raw_then_reset, script, silent, status, text};
use crate::harness::upstream::Script;
use crate::harness::{After, Gateway, Request, Response, Upstream, eventually, get, net, now};

const SETTINGS: &str =
    "[balance]\nalgorithm = \"round_robin\"\n[timeouts]\nfirst_byte = \"250ms\"\n[breaker]\nopen = \"100ms\"\n";

/// A gateway in front of two sound instances and a broken one; each gets its turn.
struct World {
    gateway: Gateway,
    broken: Upstream,
    _sound: [Upstream; 2],
}

impl World {
    fn with(broken: Script) -> Self {
        Self::configured(SETTINGS, broken)
    }

    fn configured(settings: &str, broken: Script) -> Self {
        let gateway = Gateway::builder().config(settings).start();
        let (broken, sound) = (Upstream::start(broken), [Upstream::start(text("sound")), Upstream::start(text("sound"))]);
        for upstream in [&broken, &sound[0], &sound[1]] {
            gateway.register("svc", upstream);
        }
        Self { gateway, broken, _sound: sound }
    }

    fn ask(&self, round: usize) -> Response {
        self.gateway.data(match round % 3 {
            0 => get("/v2/svc/x"),
            1 => Request::new("PUT", "/v2/svc/x").body(vec![b'x'; 20_000]),
            _ => Request::new("DELETE", "/v2/svc/x").chunked(&[b"one", b"two"]),
        })
    }

    /// Asks until the broken instance has been tried as often as its breaker needs to open, and more.
    fn nobody_notices(&self) {
        for round in 0..60 {
            let answer = self.ask(round);
            assert_eq!((answer.status, answer.text().as_str()), (200, "sound"), "round {round}");
        }
        assert!(
            self.broken.count() >= 3,
            "the broken instance was asked {} times: the test shows nothing",
            self.broken.count()
        );
        let metrics = self.gateway.metrics();
        assert!(metrics.only("vertice_upstream_retries_total", &[("service", "svc")]) >= 3.0);
        // A request is counted a moment after its answer.
        let answered = || self.gateway.metrics().sum("http_requests_total", &[("service", "svc"), ("status", "200")]);
        eventually("every request to be counted", || answered() == 60.0);
    }
}

#[test]
fn one_that_resets_connections() {
    World::with(raw_then_reset("")).nobody_notices();
}

#[test]
fn one_that_closes_connections() {
    World::with(raw_then_close("")).nobody_notices();
}

#[test]
fn one_that_resets_in_the_middle_of_its_head() {
    World::with(raw_then_reset("HTTP/1.1 200 OK\r\nContent-Le")).nobody_notices();
}

#[test]
fn one_that_answers_garbage() {
    World::with(raw_then_close("\0\u{1}SSH-2.0-OpenSSH\r\n\r\n")).nobody_notices();
}

#[test]
fn one_that_hangs() {
    World::with(silent()).nobody_notices();
}

#[test]
fn one_that_does_not_even_read_the_request() {
    World::with(script(|exchange| exchange.hold())).nobody_notices();
}

#[test]
fn one_that_says_that_it_cannot_serve() {
    for line in ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"] {
        World::with(status(line, "broken")).nobody_notices();
    }
}

#[test]
fn one_that_refuses_after_an_interim_answer() {
    World::with(script(|exchange| {
        exchange.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")?;
        exchange.read_body()?;
        exchange.answer("503 Service Unavailable", &[], b"broken")?;
        Ok(After::KeepAlive)
    }))
    .nobody_notices();
}

#[test]
fn one_that_comes_and_goes() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let world = World::with(script(move |exchange| {
        exchange.read_body()?;
        if asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) % 4 != 3 {
            return Ok(After::Reset);
        }
        exchange.answer("200 OK", &[], b"sound")?;
        Ok(After::KeepAlive)
    }));
    world.nobody_notices();
}

#[test]
fn one_that_dies_in_the_middle_of_a_body_is_cut_short_and_shed() {
    let world = World::with(raw_then_reset("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"));
    let answers: Vec<Response> = (0..12).map(|round| world.ask(round)).collect();
    let cut = answers.iter().filter(|answer| !answer.complete).count();
    assert!(answers.iter().all(|answer| answer.complete == (answer.text() == "sound")), "a part was passed off as the whole");
    assert_eq!(cut, world.broken.count(), "what has begun cannot be asked for again");
    assert!((3..=4).contains(&cut), "{cut} answers were cut; the breaker opens after three");
}

#[test]
fn what_may_have_been_done_is_not_asked_for_twice() {
    for (broken, expected, reason) in [
        (raw_then_reset(""), 502, Some("upstream_reset")),
        (raw_then_close("garbage\r\n\r\n"), 502, Some("upstream_invalid")),
        (silent(), 504, Some("upstream_timeout")),
        (status("503 Service Unavailable", "the instance's own words"), 503, None),
    ] {
        let world = World::with(broken);
        let answers: Vec<Response> =
            (0..6).map(|_| world.gateway.data(Request::new("POST", "/v2/svc/pay").body("10 EUR"))).collect();
        let failed: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
        assert_eq!(failed.len(), world.broken.count(), "{reason:?}");
        assert!(!failed.is_empty());
        for answer in failed {
            assert_eq!((answer.status, answer.reason()), (expected, reason));
            assert!(reason.is_some() || answer.text() == "the instance's own words");
        }
    }
}

#[test]
fn a_large_body_is_not_kept_for_another_attempt() {
    let world = World::with(raw_then_reset(""));
    let put = || world.gateway.data(Request::new("PUT", "/v2/svc/x").body(vec![b'x'; 200_000]));
    let statuses: Vec<u16> = (0..6).map(|_| put().status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 502).count(), world.broken.count(), "{statuses:?}");
    assert!(statuses.contains(&502));
}

#[test]
fn the_last_instance_s_own_answer_is_passed_on() {
    let gateway = Gateway::start();
    let answer = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nX-Why: maintenance\r\nContent-Length: 4\r\n\r\nwait";
    let both = [(); 2].map(|()| Upstream::start(crate::harness::scripts::raw(answer)));
    both.iter().for_each(|upstream| gateway.register("svc", upstream));
    let answer = gateway.data(get("/v2/svc/x")).expect(503);
    let shown = (answer.header("retry-after"), answer.header("x-why"), answer.reason(), answer.text());
    assert_eq!(shown, (Some("7"), Some("maintenance"), None, "wait".to_owned()));
    assert_eq!((both[0].count(), both[1].count()), (1, 1), "each is asked once");
}

#[test]
fn retries_are_paid_from_a_budget() {
    // Only what the broken instance says is to cost a retry, and not that a busy machine was slow.
    let patient = SETTINGS.replace("250ms", "20s");
    let settings = format!("{patient}failures = 60\n[retry]\nbudget_percent = 50\nbudget_min_per_second = 0\n");
    let world = World::configured(&settings, status("503 Service Unavailable", "broken"));
    let answers: Vec<u16> = (0..90).map(|_| world.gateway.data(get("/v2/svc/x")).status).collect();
    let refused = answers.iter().filter(|status| **status == 503).count();
    let metrics = world.gateway.metrics();
    let retried = metrics.only("vertice_upstream_retries_total", &[("service", "svc")]);
    // A third of the requests would be retried, which half of them pays for; the savings are empty at the start.
    assert!(refused <= 2, "{refused} of 90 refused");
    assert!(retried >= 25.0, "{retried}");
    let miserly = settings.replace("budget_percent = 50", "budget_percent = 0");
    let world = World::configured(&miserly, status("503 Service Unavailable", "broken"));
    let refused = (0..30).filter(|_| world.gateway.data(get("/v2/svc/x")).status == 503).count();
    assert_eq!(refused, 10, "each third request, because nobody may be asked twice");
    let metrics = world.gateway.metrics();
    assert_eq!(metrics.only("vertice_limit_hits_total", &[("limit", "retry_budget")]), 10.0);
}

#[test]
fn attempts_end_with_the_time_of_the_whole_request() {
    let gateway = Gateway::builder()
        .config("[timeouts]\nfirst_byte = \"400ms\"\nrequest = \"600ms\"\n[retry]\nattempts_max = 8\n")
        .start();
    let all: Vec<Upstream> = (0..6).map(|_| Upstream::start(silent())).collect();
    all.iter().for_each(|upstream| gateway.register("svc", upstream));
    let started = now();
    gateway.data(get("/v2/svc/x")).problem(504, "upstream_timeout");
    assert!(started.elapsed() >= Duration::from_millis(600));
    let asked: usize = all.iter().map(Upstream::count).sum();
    assert!(asked <= 2, "{asked} attempts of 400 ms in 600 ms");
}

#[test]
fn one_that_is_not_there_costs_nobody_anything() {
    let gateway = Gateway::builder().config(SETTINGS).start();
    let sound = Upstream::start(text("sound"));
    gateway.register("svc", &sound);
    gateway.register_at("svc", &format!("http://{}", net::closed()));
    for _ in 0..20 {
        gateway.data(Request::new("POST", "/v2/svc/x").body("x")).expect(200);
    }
}
