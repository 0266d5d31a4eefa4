//! Clients that wait for changes of the registry (SPEC §3): long polls and streams of server-sent events.

mod clients;
mod long_poll;
mod stream;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::http::header;
use crate::harness::{Conn, Gateway, Request, Response, eventually, get, post};

/// The index of an answer.
#[track_caller]
fn index_of(answer: &Response) -> u64 {
    let index = answer.header("x-vertice-index").and_then(|text| text.parse().ok());
    index.unwrap_or_else(|| panic!("no index in {answer:?}"))
}

/// The registry's index now.
#[track_caller]
fn present_index(gateway: &Gateway) -> u64 {
    index_of(&gateway.api(get("/services")).expect(200))
}

fn watch(path: &str, index: u64, wait: &str) -> Request {
    get(&format!("{path}?watch={index}&wait={wait}"))
}

/// Starts a long poll that waits for as long as it may, and sees it wait.
#[track_caller]
fn waiting(gateway: &Gateway, path: &str, index: u64) -> Conn {
    let before = watchers(gateway, "long_poll");
    let mut conn = Conn::open(gateway.registry);
    conn.start(&watch(path, index, "10m"));
    eventually("the long poll to wait", || watchers(gateway, "long_poll") == before + 1.0);
    conn
}

/// How many watch.
#[track_caller]
fn watchers(gateway: &Gateway, kind: &str) -> f64 {
    gateway.registry_metrics().sum("vertice_watchers", &[("kind", kind)])
}

fn beat(gateway: &Gateway, body: &Value) {
    gateway.api(post("/heartbeat", body)).expect(200);
}

/// One block of a stream of events.
#[derive(Debug, Default)]
struct Event {
    event: String,
    id: Option<u64>,
    data: Option<Value>,
    comment: bool,
}

impl Event {
    fn parse(block: &str) -> Self {
        let mut event = Self::default();
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("event", name)) => event.event = name.to_owned(),
                Some(("id", id)) => event.id = Some(id.parse().unwrap()),
                Some(("data", data)) => event.data = Some(serde_json::from_str(data).unwrap()),
                Some(("", _)) => event.comment = true,
                _ => panic!("not a line of an event: {line:?}"),
            }
        }
        event
    }

    #[track_caller]
    fn id(&self) -> u64 {
        self.id.unwrap_or_else(|| panic!("no id in {self:?}"))
    }

    #[track_caller]
    fn service(&self) -> &str {
        let data = self.data.as_ref().unwrap_or_else(|| panic!("no data in {self:?}"));
        data["service_name"].as_str().unwrap_or_else(|| panic!("no name in {self:?}"))
    }

    fn is_deleted(&self) -> bool {
        self.data.as_ref().is_some_and(|data| data["deleted"] == true)
    }
}

/// A stream of events that is being read.
struct Events {
    conn: Conn,
    text: String,
}

impl Events {
    #[track_caller]
    fn open(target: SocketAddr, path: &str, last_event_id: Option<u64>) -> Self {
        let mut request = get(path).header("Accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", &id.to_string());
        }
        let mut conn = Conn::open(target);
        conn.start(&request);
        let head = conn.head();
        assert_eq!((head.status, header(&head.headers, "content-type")), (200, Some("text/event-stream")), "{head:?}");
        assert_eq!(header(&head.headers, "cache-control"), Some("no-cache"));
        Self { conn, text: String::new() }
    }

    /// The next block; `None` when the stream has ended in order.
    #[track_caller]
    fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                return Some(Event::parse(block.trim_end()));
            }
            let chunk = self.conn.chunk().unwrap_or_else(|error| panic!("the stream broke off: {error}"));
            if chunk.is_empty() {
                assert!(self.text.is_empty(), "half an event: {}", self.text);
                return None;
            }
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next block that is there for sure.
    #[track_caller]
    fn event(&mut self) -> Event {
        self.next().expect("the stream ended")
    }

    /// The next block, which must be an event about `service`.
    #[track_caller]
    fn change(&mut self, service: &str) -> Event {
        let event = self.event();
        assert_eq!((event.event.as_str(), event.service()), ("change", service), "{event:?}");
        event
    }
}

/// A registration in a zone.
fn in_zone(service: &str, instance: &str, zone: &str) -> Value {
    json!({"service_name": service, "endpoint": format!("http://127.0.0.1:9/{instance}"), "instance_id": instance, "zone": zone})
}
