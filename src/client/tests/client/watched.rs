//! A registry that can be watched, on a real socket.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use serde_json::{Value, json};

use crate::harness::DEADLINE;

/// How the registry answers the wish to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watches {
    /// As the contract says.
    Yes,
    /// As the predecessor: it never heard of them, nor of instances.
    Never,
    /// With an event that does not end.
    Endless,
}

/// No two registries have an index in common.
static FIRST: AtomicU64 = AtomicU64::new(1_000_000_000);

/// Speaks the watch contract about services that a test sets.
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<thread::JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    watches: Watches,
    /// Lowest index that can be gone on from.
    first: u64,
    index: u64,
    services: BTreeMap<String, Vec<Value>>,
    /// Which service changed at which index.
    changes: Vec<(u64, String)>,
    /// Everything that was asked: the line, and `Last-Event-ID`.
    asked: Vec<(String, Option<String>)>,
    tokens: Vec<Option<String>>,
    open: usize,
    streams: Vec<TcpStream>,
    /// Bytes of an endless event that were sent.
    endless: usize,
    down: bool,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::with(Watches::Yes)
    }

    pub(crate) fn with(watches: Watches) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let first = FIRST.fetch_add(1_000_000_000, Ordering::Relaxed);
        let state = State {
            watches,
            first,
            index: first,
            services: BTreeMap::new(),
            changes: Vec::new(),
            asked: Vec::new(),
            tokens: Vec::new(),
            open: 0,
            streams: Vec::new(),
            endless: 0,
            down: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.lock().down {
                    return;
                }
                let shared = Arc::clone(&accepting);
                thread::spawn(move || drop(shared.serve(stream.unwrap())));
            }
        });
        Self { address, shared, accepting: Mutex::new(Some(thread)) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The service has these instances now, and all who watch hear of it.
    pub(crate) fn set(&self, service: &str, instances: &[Value]) {
        let mut state = self.shared.lock();
        state.index += 1;
        let index = state.index;
        state.changes.push((index, service.to_owned()));
        if instances.is_empty() {
            state.services.remove(service);
        } else {
            state.services.insert(service.to_owned(), instances.to_vec());
        }
        self.shared.changed.notify_all();
    }

    /// Another process takes over: it knows these services and no indices of the old one. Watches end.
    pub(crate) fn restart_with(&self, services: &[(&str, &[Value])]) {
        let mut state = self.shared.lock();
        state.index += 1_000_000;
        state.first = state.index;
        state.changes.clear();
        state.services = services.iter().map(|(name, instances)| ((*name).to_owned(), instances.to_vec())).collect();
        cut(&mut state);
    }

    /// The index of the last change.
    pub(crate) fn index(&self) -> u64 {
        self.shared.lock().index
    }

    /// Ends every watch, as a broken connection would.
    pub(crate) fn cut(&self) {
        cut(&mut self.shared.lock());
    }

    /// Answers nobody any more.
    pub(crate) fn go_down(&self) {
        {
            let mut state = self.shared.lock();
            state.down = true;
            cut(&mut state);
            self.shared.changed.notify_all();
        }
        if let Some(thread) = self.accepting.lock().unwrap().take() {
            // Wakes the accept loop, which ends and closes the listener.
            drop(TcpStream::connect(self.address));
            thread.join().unwrap();
        }
    }

    /// Everything that was asked so far.
    pub(crate) fn asked(&self) -> Vec<(String, Option<String>)> {
        self.shared.lock().asked.clone()
    }

    /// How often exactly this was asked.
    pub(crate) fn times(&self, line: &str) -> usize {
        self.asked().iter().filter(|(asked, _)| asked == line).count()
    }

    /// The tokens that were sent.
    pub(crate) fn tokens(&self) -> Vec<Option<String>> {
        self.shared.lock().tokens.clone()
    }

    /// Waits for so many open watches.
    pub(crate) fn wait_open(&self, count: usize) {
        self.wait(|state| state.open == count);
    }

    /// Waits for the client to refuse more of an endless event; returns how much it took.
    pub(crate) fn wait_endless(&self) -> usize {
        self.wait(|state| state.endless > 0 && state.open == 0);
        self.shared.lock().endless
    }

    fn wait(&self, mut until: impl FnMut(&State) -> bool) {
        let state = self.shared.lock();
        let waited = self.shared.changed.wait_timeout_while(state, DEADLINE, |state| !until(state));
        assert!(!waited.unwrap().1.timed_out(), "it did not happen");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.go_down();
    }
}

/// An instance at `endpoint` with these differences from a usual one.
pub(crate) fn instance(endpoint: &str, differences: &Value) -> Value {
    let mut instance = json!({
        "instance_id": endpoint.trim_start_matches("http://"), "endpoint": endpoint, "health_endpoint": "/health", "metadata": {},
        "weight": 100, "zone": null, "version": null, "status": "healthy", "breaker": "closed", "registered_at": 1.0,
        "last_heartbeat": 2.0, "ttl_remaining": 60,
    });
    instance.as_object_mut().unwrap().extend(differences.as_object().unwrap().clone());
    instance
}

/// Usual instances at these endpoints.
pub(crate) fn at(endpoints: &[&str]) -> Vec<Value> {
    endpoints.iter().map(|endpoint| instance(endpoint, &json!({}))).collect()
}

fn cut(state: &mut State) {
    for stream in state.streams.drain(..) {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let header = |name: &str| {
            let fields = lines[1..].iter().filter_map(|line| line.split_once(": "));
            fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
        };
        let line = lines[0].trim_end_matches(" HTTP/1.1").to_owned();
        let last = header("Last-Event-ID");
        let mut state = self.lock();
        state.asked.push((line.clone(), last.clone()));
        state.tokens.push(header("X-Registry-Token"));
        let watches = header("Accept").as_deref() == Some("text/event-stream") && state.watches != Watches::Never;
        if watches {
            state.open += 1;
            state.streams.push(stream.try_clone()?);
            self.changed.notify_all();
            drop(state);
            let result = self.watch(&mut stream, last);
            self.lock().open -= 1;
            self.changed.notify_all();
            return result;
        }
        let (status, body) = match line.strip_prefix("GET /services/") {
            Some(service) => match describe(&state, service) {
                Some(body) => (200, body),
                None => (404, json!({"detail": format!("Service '{service}' not found")})),
            },
            None => (200, state.services.keys().cloned().collect()),
        };
        self.changed.notify_all();
        drop(state);
        let body = body.to_string();
        write!(
            stream,
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    }

    fn watch(&self, stream: &mut TcpStream, last: Option<String>) -> io::Result<()> {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n")?;
        let mut state = self.lock();
        if state.watches == Watches::Endless {
            drop(state);
            stream.write_all(b"data: ")?;
            loop {
                stream.write_all(&[b'x'; 64 * 1024])?;
                self.lock().endless += 64 * 1024;
                self.changed.notify_all();
            }
        }
        let last = last.map(|last| last.parse::<u64>().unwrap());
        let mut sent = last.filter(|last| (state.first..=state.index).contains(last)).unwrap_or(state.index);
        write!(stream, "id: {sent}\n\n")?;
        if last.is_some_and(|last| last != sent) {
            write!(stream, "event: reset\nid: {}\ndata: {{}}\n\n", state.index)?;
            for service in state.services.keys() {
                write_change(stream, &state, service, state.index)?;
            }
        }
        loop {
            if state.down {
                return Ok(());
            }
            for (index, service) in state.changes.iter().filter(|(index, _)| *index > sent) {
                write_change(stream, &state, service, *index)?;
            }
            sent = state.index;
            stream.write_all(b": keep-alive\n\n")?;
            // Wakes up now and then to notice that nobody listens any more.
            state = self.changed.wait_timeout(state, std::time::Duration::from_millis(20)).unwrap().0;
        }
    }
}

fn write_change(stream: &mut TcpStream, state: &State, service: &str, index: u64) -> io::Result<()> {
    let data = describe(state, service).unwrap_or_else(|| json!({"service_name": service, "deleted": true}));
    write!(stream, "event: change\nid: {index}\ndata: {data}\n\n")
}

fn describe(state: &State, service: &str) -> Option<Value> {
    let instances = state.services.get(service)?;
    let mut body = instances.first()?.clone();
    body["service_name"] = service.into();
    if state.watches != Watches::Never {
        body["instances"] = instances.as_slice().into();
        body["index"] = state.index.into();
    }
    Some(body)
}
