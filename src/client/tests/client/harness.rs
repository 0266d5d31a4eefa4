//! Scripted HTTP servers and a sidecar process. Everything waits for something to happen.
#![expect(clippy::disallowed_methods, reason = "tests measure how long things take")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long to wait for what must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A request that a server has received.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) at: Instant,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// `POST /register` and so on.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// What a server does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A complete answer.
    Json(u16, String),
    /// These bytes, then close.
    Raw(Vec<u8>),
    /// These bytes, then keep the connection open and say nothing more.
    Stall(Vec<u8>),
    /// Close without reading: the client sees a reset.
    Reset,
}

/// Answers the n-th request (from 0).
type Script = Box<dyn FnMut(usize, Option<&Request>) -> Reply + Send>;

/// An HTTP server that follows a script and reports every request.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    requests: Receiver<Request>,
    script: Arc<Mutex<Script>>,
    stopped: Arc<AtomicBool>,
}

impl Server {
    /// `script` gets the number of the request and the request. It is asked once before the request is read, with `None`:
    /// only [`Reply::Reset`] counts then.
    pub(crate) fn start(script: impl FnMut(usize, Option<&Request>) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = sync_channel(10_000);
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let stopped = Arc::new(AtomicBool::new(false));
        let (shared, stop) = (Arc::clone(&script), Arc::clone(&stopped));
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (script, sender) = (Arc::clone(&shared), sender.clone());
                thread::spawn(move || serve(stream.unwrap(), number, &script, &sender));
            }
        });
        Self { address, requests, script, stopped }
    }

    /// A registry where everything works; leases are 60 s.
    pub(crate) fn registry() -> Self {
        Self::start(|_, request| registry_answer(request, 60))
    }

    /// A healthy service of version 1.2.3.
    pub(crate) fn service() -> Self {
        Self::start(|_, _| healthy())
    }

    /// Follows another script from now on.
    pub(crate) fn follow(&self, script: impl FnMut(usize, Option<&Request>) -> Reply + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next request.
    pub(crate) fn next(&self) -> Request {
        self.requests.recv_timeout(DEADLINE).expect("a request should have come")
    }

    /// The next request that fits; others are skipped.
    pub(crate) fn next_where(&self, mut fits: impl FnMut(&Request) -> bool) -> Request {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < DEADLINE, "the request that was waited for did not come");
            let request = self.next();
            if fits(&request) {
                return request;
            }
        }
    }

    /// The requests that come until `until` happens.
    pub(crate) fn drain(&self, mut until: impl FnMut() -> bool) -> Vec<Request> {
        let mut seen = Vec::new();
        let start = Instant::now();
        while !until() {
            assert!(start.elapsed() < DEADLINE, "it did not happen");
            match self.requests.recv_timeout(Duration::from_millis(20)) {
                Ok(request) => seen.push(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        seen.extend(self.requests.try_iter());
        seen
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the accept loop.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(mut stream: TcpStream, number: usize, script: &Mutex<Script>, sender: &SyncSender<Request>) {
    if stream.peek(&mut [0]).is_ok_and(|read| read == 0) {
        return;
    }
    if matches!((script.lock().unwrap())(number, None), Reply::Reset) {
        // Unread data makes the close a reset.
        return;
    }
    let Some(request) = read_request(&stream) else { return };
    let reply = (script.lock().unwrap())(number, Some(&request));
    // Reported before it is answered: who reacts to the answer finds the request already noted.
    let _ = sender.try_send(request);
    match reply {
        Reply::Json(status, body) => {
            let _ = write!(
                stream,
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
        Reply::Raw(bytes) => drop(stream.write_all(&bytes)),
        Reply::Stall(bytes) => {
            let _ = stream.write_all(&bytes);
            let _ = stream.read_to_end(&mut Vec::new());
        }
        Reply::Reset => {}
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let mut first = lines.first()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(Request { at: Instant::now(), method, target, headers, body })
}

/// What a registry answers when all is well.
pub(crate) fn registry_answer(request: Option<&Request>, ttl: u64) -> Reply {
    let Some(request) = request else { return Reply::Json(200, String::new()) };
    let message = |status, message: &str| {
        Reply::Json(
            status,
            format!(r#"{{"message":"{message}","service_name":"abc","instance_id":"i","ttl":{ttl},"durable":true}}"#),
        )
    };
    match request.line().as_str() {
        "POST /register" => message(201, "Service registered successfully"),
        "POST /heartbeat" => message(200, "Heartbeat received"),
        line if line.starts_with("DELETE /deregister/") => message(200, "Service deregistered"),
        _ => Reply::Json(404, r#"{"detail":"Service 'abc' not found"}"#.to_owned()),
    }
}

pub(crate) fn healthy() -> Reply {
    Reply::Json(200, r#"{"status":"healthy","version":"1.2.3"}"#.to_owned())
}

/// The real `vertice-sidecar`, ended when dropped.
pub(crate) struct Sidecar {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Sidecar {
    /// Next to `service`, with nothing in its environment but what a test of `registry` needs and `more`.
    pub(crate) fn start(service: SocketAddr, registry: &str, more: &[(&str, &str)]) -> Self {
        Self::with_arguments(service, registry, more, &[])
    }

    /// As the parent of a command, for which `service` answers.
    pub(crate) fn exec(service: SocketAddr, registry: &str, more: &[(&str, &str)], command: &[&str]) -> Self {
        Self::with_arguments(service, registry, more, &[&["exec", "--"], command].concat())
    }

    fn with_arguments(service: SocketAddr, registry: &str, more: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut child = command()
            .args(arguments)
            .envs([("SERVICE_NAME", "osint_service"), ("SERVICE_HOST", "127.0.0.1"), ("REGISTRY_URL", registry)])
            .env("SERVICE_PORT", service.port().to_string())
            .envs(more.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = sync_channel(10_000);
        let stdout: ChildStdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.try_send(line);
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line of the log that contains `text`.
    pub(crate) fn wait_line(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("{text:?} was not logged ({error}): {:#?}", self.seen),
            }
        }
    }

    /// Sends a signal and waits for the end. Returns the exit code, how long it took, and the whole log.
    pub(crate) fn end(self, signal: &str) -> (Option<i32>, Duration, Vec<String>) {
        let start = Instant::now();
        crate::harness::signal(self.id(), signal);
        let (code, log) = self.wait_end();
        (code, start.elapsed(), log)
    }

    /// Waits for the end. Returns the exit code and the whole log.
    pub(crate) fn wait_end(mut self) -> (Option<i32>, Vec<String>) {
        // The log ends when the process does.
        while let Ok(line) = self.lines.recv_timeout(DEADLINE) {
            self.seen.push(line);
        }
        let status = self.child.wait().unwrap();
        (status.code(), std::mem::take(&mut self.seen))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Memory in use, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Processor time used so far, in clock ticks (1/100 s).
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(process: u32, signal: &str) {
    let kill = format!("kill -{signal} {process}");
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success(), "{kill}");
}

/// Whether a process has ended. One whose new parent has not noticed yet counts.
pub(crate) fn is_gone(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    stat.map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])))
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs the sidecar to its end.
pub(crate) fn run_sidecar(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    command().args(arguments).envs(variables.iter().copied()).output().unwrap()
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vertice-sidecar"));
    command.env_clear().stdin(Stdio::null());
    command
}
