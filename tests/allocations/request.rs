//! A plain request from its head to its end, as a lane that leaves heads where they were read has it decided.

use super::{on_this_thread, world};
use http::{Method, StatusCode, Version};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use vertice_core::time::Moment;
use vertice_gateway::proxy::admit::{self, Asked};
use vertice_gateway::proxy::answer::{self, Framing};
use vertice_gateway::proxy::conclude::{Ended, conclude};
use vertice_gateway::proxy::ctx::Ctx;
use vertice_gateway::proxy::fields::Fields;
use vertice_gateway::proxy::headers::HopByHop;
use vertice_gateway::proxy::outgoing::Outgoing;
use vertice_gateway::proxy::rules::Rules;
use vertice_gateway::telemetry::access::AccessLog;
use vertice_gateway::telemetry::metrics::Metrics;
use vertice_gateway::upstream::Table;

const SERVICES: usize = 10;
const REQUESTS: usize = 1_000;

/// Fields where they were read.
struct Sent<'a>(&'a [(&'a str, &'a str)]);

impl Fields for Sent<'_> {
    fn each(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
    }
}

struct World {
    table: Arc<Table>,
    rules: Arc<Rules>,
    metrics: Arc<Metrics>,
    access: AccessLog,
}

impl World {
    /// Decides about one request, from the look at its target to its record; what was written is in `out`.
    fn request(&self, target: &[u8], out: &mut Vec<u8>) {
        out.clear();
        let fields =
            Sent(&[("Host", "gateway:8000"), ("User-Agent", "curl/8.5.0"), ("Accept", "*/*"), ("X-Request-ID", "a.1")]);
        let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let mut now = Moment::from_millis(1);
        let mut ctx = Ctx::new(now, self.rules.clone(), self.metrics.request_starts());
        let asked = Asked { target, method: &Method::GET, fields: &fields };
        let way = self.rules.routing.find(&asked).expect("it is below /v2/");
        let plan = self.rules.routing.plan(way, target, &self.table.load()).expect("it is registered");
        assert!(plan.is_plain());
        ctx.identify(Some(peer), &fields);
        admit::admit(&mut ctx, plan, &fields, None, &self.metrics).expect("nothing is limited");
        ctx.begin(now).expect("it was taken in");
        ctx.connected(true, now);
        let outgoing = Outgoing::of(&ctx, &fields, "http").expect("an attempt is under way");
        outgoing.write_target(target, out);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        outgoing.write(out);
        for (name, value) in fields.each().filter(|(name, _)| !outgoing.replaces(name)) {
            for part in [name, b": ", value, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        ctx.forward.as_mut().expect("it is on its way").sent(now);

        now = now.plus(Duration::from_millis(1));
        let answer = Sent(&[("Content-Length", "13"), ("Connection", "keep-alive"), ("Keep-Alive", "timeout=5")]);
        let framing = answer::check(StatusCode::OK, Version::HTTP_11, &answer, 0);
        assert_eq!(framing, Ok(Framing::Length(13)));
        ctx.forward.as_mut().expect("it is on its way").answered(StatusCode::OK, &answer, now);
        let hop = HopByHop::of(StatusCode::OK, &answer);
        assert!(hop.drops(b"Keep-Alive") && !hop.drops(b"Content-Length"));
        answer::add(&mut ctx, StatusCode::OK, &answer, out);
        let ended = Ended {
            method: &Method::GET,
            target,
            version: Version::HTTP_11,
            fields: &fields,
            status: Some(StatusCode::OK),
            bytes: 13,
            cause: None,
        };
        conclude(&mut ctx, &ended, now, &self.metrics, &self.access);
    }
}

#[test]
fn deciding_about_a_plain_request_does_not_allocate() {
    let metrics = world::metrics();
    let (_registrar, table, _handle) = world::registrar(SERVICES, 3, &Arc::default(), &metrics);
    let access = AccessLog::off(metrics.clone());
    let world = World { table, rules: Arc::default(), metrics, access };
    let targets: Vec<String> = world::shuffled_names(SERVICES).iter().map(|name| format!("/v2/{name}/x?y=1")).collect();
    let mut out = Vec::with_capacity(4096);
    let mut request = |at: usize| world.request(targets[at % SERVICES].as_bytes(), &mut out);
    // What is counted for the first time finds itself a place.
    (0..SERVICES).for_each(&mut request);
    assert_eq!(on_this_thread(|| (0..REQUESTS).for_each(&mut request)), 0);
    let out = String::from_utf8_lossy(&out);
    assert!(out.starts_with("/x?y=1 HTTP/1.1\r\nHost: ") && out.contains("X-Forwarded-For: 192.0.2.1\r\n"), "{out}");
    assert!(out.contains("Accept: */*\r\n") && out.ends_with("X-Request-ID: a.1\r\n"), "{out}");
    assert_eq!(out.matches("X-Request-ID").count(), 2, "{out}");
}
