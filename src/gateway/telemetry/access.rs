//! The access log: one JSON object a request, on standard output, written by a thread of its own.
//!
//! Workers never wait for it: the queue is bounded, and lines that do not fit are dropped and counted.

use super::metrics::Metrics;
use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How many lines may wait.
const QUEUE: usize = 8192;

/// What is logged of a request. Borrowed, so that nothing is copied when the log is off.
#[derive(Debug)]
pub struct Entry<'a> {
    /// When it began, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Method.
    pub method: &'a str,
    /// Path without its query, which may carry secrets.
    pub path: &'a [u8],
    /// Protocol version.
    pub version: &'a str,
    /// Status sent to the client; 0 when it was gone before one was sent.
    pub status: u16,
    /// Who asked.
    pub client: Option<IpAddr>,
    /// Bytes of the answer's body.
    pub bytes: usize,
    /// Microseconds from head to end.
    pub duration_us: u64,
    /// The service, if one was found.
    pub service: &'a str,
    /// The configured route, unless it came under `/v2/`.
    pub route: &'a str,
    /// The instance that answered or was tried last.
    pub instance: &'a str,
    /// Attempts after the first one.
    pub retries: u32,
    /// How it watched the registry: its duration is mostly waiting then.
    pub watch: &'a str,
    /// The reason, if the gateway answered itself.
    pub reason: &'a str,
    /// Request id.
    pub request_id: &'a str,
    /// `User-Agent`.
    pub user_agent: &'a [u8],
    /// `traceparent`, whose second field is the trace id.
    pub traceparent: &'a [u8],
}

/// The writing end.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: Option<SyncSender<Vec<u8>>>,
    metrics: Arc<Metrics>,
}

impl AccessLog {
    /// A log that writes nothing.
    #[must_use]
    pub const fn off(metrics: Arc<Metrics>) -> Self {
        Self { lines: None, metrics }
    }

    /// Starts the writer thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let (lines, queue) = sync_channel(QUEUE);
        std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(&queue))?;
        Ok(Self { lines: Some(lines), metrics })
    }

    /// Whether lines are written at all; if not, entries need not be made.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Queues a line.
    pub fn write(&self, entry: &Entry<'_>) {
        let Some(lines) = &self.lines else { return };
        if lines.try_send(line(entry)).is_err() {
            self.metrics.access_dropped.inc();
        }
    }
}

/// Writes whatever is queued in one go, then waits again.
fn write_all(queue: &Receiver<Vec<u8>>) {
    let mut batch = Vec::new();
    while let Ok(first) = queue.recv() {
        batch.clear();
        batch.extend_from_slice(&first);
        while batch.len() < 64 * 1024
            && let Ok(next) = queue.try_recv()
        {
            batch.extend_from_slice(&next);
        }
        // A reader that went away is not a reason to stop serving.
        let _ = std::io::stdout().lock().write_all(&batch);
    }
}

fn line(entry: &Entry<'_>) -> Vec<u8> {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(entry.time_ms);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut object = serde_json::json!({
        "time": humantime::format_rfc3339_millis(time).to_string(),
        "http.request.method": entry.method,
        "url.path": text(entry.path),
        "network.protocol.version": entry.version,
        "http.response.status_code": entry.status,
        "http.response.body.size": entry.bytes,
        "duration_ms": entry.duration_us as f64 / 1000.0,
        "request_id": entry.request_id,
    });
    if let Some(fields) = object.as_object_mut() {
        let mut add = |name: &str, value: String| {
            if !value.is_empty() {
                fields.insert(name.to_owned(), value.into());
            }
        };
        add("client.address", entry.client.map(|client| client.to_string()).unwrap_or_default());
        add("vertice.service", entry.service.to_owned());
        add("vertice.route", entry.route.to_owned());
        add("vertice.instance", entry.instance.to_owned());
        add("vertice.watch", entry.watch.to_owned());
        add("vertice.reason", entry.reason.to_owned());
        add("user_agent.original", text(entry.user_agent));
        add("trace_id", text(entry.traceparent).split('-').nth(1).unwrap_or_default().to_owned());
        if entry.retries > 0 {
            fields.insert("retries".to_owned(), entry.retries.into());
        }
    }
    let mut line = object.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_json_object_whatever_the_client_sent() {
        let entry = Entry {
            time_ms: 1_700_000_000_000,
            method: "GET",
            path: b"/v2/x/\"\n\xff",
            version: "1.1",
            status: 200,
            client: Some([127, 0, 0, 1].into()),
            bytes: 13,
            duration_us: 1500,
            service: "nmap_service",
            route: "",
            instance: "a:1",
            retries: 0,
            watch: "",
            reason: "",
            request_id: "abc",
            user_agent: b"curl\r\nevil",
            traceparent: b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        };
        let line = line(&entry);
        assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), 1);
        let object: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(object["time"], "2023-11-14T22:13:20.000Z");
        assert_eq!(object["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(object["duration_ms"], 1.5);
        assert!(object.get("vertice.reason").is_none() && object.get("vertice.route").is_none());
    }
}
