//! Asks a service how it is.

use std::io::Read;
use std::time::Duration;

use serde_json::Value;
use vertice_core::status::Status;

use crate::lifecycle::Health;
use crate::transport;

/// The health endpoint of one service.
#[derive(Clone, Debug)]
pub struct Probe {
    agent: ureq::Agent,
    url: String,
}

impl Probe {
    /// A probe of `url`: 1 s to resolve and to connect, 2 s for everything; redirects are not followed.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { agent: transport::agent(PROBE_TIMEOUT), url: url.into() }
    }

    /// Asks once. Whatever the service answers, this does not fail: it is what the probe found.
    #[must_use]
    pub fn ask(&self) -> Health {
        let mut response = match self.agent.get(&self.url).call() {
            Ok(response) => response,
            Err(error) => return Health::Silent(format!("failed to reach {}: {error}", self.url)),
        };
        let status = response.status().as_u16();
        if status != 200 {
            return Health::NotReady(status);
        }
        // The head has said 200. A body that breaks off or never ends only costs us the version.
        let mut body = Vec::new();
        let _ = response.body_mut().as_reader().take(BODY_MAX).read_to_end(&mut body);
        read_body(&body)
    }

    /// Ends a question that is under way, and refuses all later ones.
    pub(crate) fn interrupt(&self) {
        self.agent.clone().shutdown();
    }
}

/// What the body of a 200 says. Anything that is no JSON object just says "ready".
fn read_body(body: &[u8]) -> Health {
    let value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let word = field(&value, "status");
    Health::Ready { status: meaning(word.as_deref()), word, version: field(&value, "version") }
}

/// A field as one line of text that fits into metadata.
fn field(value: &Value, name: &str) -> Option<String> {
    let text: String = match value.get(name)? {
        Value::String(text) => text.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Frameworks have many words for the same thing. A 200 with a word that nobody knows is healthy.
fn meaning(word: Option<&str>) -> Status {
    let Some(word) = word else { return Status::Healthy };
    let word = word.to_ascii_lowercase();
    match word.as_str() {
        "warn" | "warning" => Status::Degraded,
        "fail" | "failed" | "down" | "error" | "critical" | "out_of_service" => Status::Unhealthy,
        word => Status::parse(word).unwrap_or_default(),
    }
}

const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// More of a health body is not read.
const BODY_MAX: u64 = 64 * 1024;
/// Longest version and status word; metadata values may be 512 bytes, a character takes up to 4.
const TEXT_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(body: &str) -> (Status, Option<String>, Option<String>) {
        match read_body(body.as_bytes()) {
            Health::Ready { status, word, version } => (status, word, version),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn version_and_status_come_from_json() {
        let some = |text: &str| Some(text.to_owned());
        for (body, status, word, version) in [
            (r#"{"status":"healthy","version":"1.0.0"}"#, Status::Healthy, some("healthy"), some("1.0.0")),
            (r#"{"status":"degraded"}"#, Status::Degraded, some("degraded"), None),
            (r#"{"status":"UP","version":2}"#, Status::Healthy, some("UP"), some("2")),
            (r#"{"status":"DOWN"}"#, Status::Unhealthy, some("DOWN"), None),
            (r#"{"status":"starting","version":""}"#, Status::Starting, some("starting"), None),
            (r#"{"status":"draining","version":" 1\n\u0000 "}"#, Status::Draining, some("draining"), some("1")),
            (r#"{"status":true,"version":["1"]}"#, Status::Healthy, None, None),
            ("[]", Status::Healthy, None, None),
            ("OK", Status::Healthy, None, None),
            ("", Status::Healthy, None, None),
            (r#"{"status":"#, Status::Healthy, None, None),
        ] {
            assert_eq!(ready(body), (status, word, version), "{body}");
        }
    }

    #[test]
    fn hostile_bodies_are_just_ready() {
        let deep = format!(r#"{{"status":{}1{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
        assert_eq!(ready(&deep), (Status::Healthy, None, None));
        let long = format!(r#"{{"version":"{}"}}"#, "é".repeat(5000));
        assert_eq!(ready(&long).2.map(|v| v.chars().count()), Some(128));
        assert_eq!(read_body(&[0xff, 0xfe, 0]), read_body(b""));
    }
}
