//! Answers as they came, for programs that show them to people: nothing is lost between the wire and the reader.

use std::io::{self, Read};
use std::sync::atomic::Ordering;
use std::time::Duration;

use vertice_api::headers;

use super::{READ_ANSWER_MAX, RegistryClient, RegistryError, refusal};

/// An answer with any status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The registry that gave it.
    pub url: String,
    /// Its HTTP status.
    pub status: u16,
    /// The registry's index at that time, when it said so.
    pub index: Option<u64>,
    /// The `Date` it carries, as it stands in the header.
    pub date: Option<String>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Hands itself on when it is 2xx.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] with the reasons that the body gives.
    pub fn good(self) -> Result<Self, RegistryError> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(refusal(&self.url, self.status, &self.body)) }
    }
}

/// The body of an answer that goes on for as long as both sides want. Reading fails when nothing came for 45 s, which is three
/// times the interval at which a registry shows that it is still there.
pub struct ByteStream {
    /// The registry it comes from.
    pub url: String,
    body: ureq::BodyReader<'static>,
}

impl Read for ByteStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer)
    }
}

impl std::fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByteStream").field("url", &self.url).finish_non_exhaustive()
    }
}

impl RegistryClient {
    /// `GET` of a path with its query. An answer of 5xx counts only when no other address has a better one.
    ///
    /// # Errors
    /// No registry answered.
    pub fn get(&self, path: &str) -> Result<Answer, RegistryError> {
        self.ask(|url| self.authorised(self.agent.get(url)).call(), path)
    }

    /// `POST` without a body to a path with its query; otherwise as [`get`](Self::get).
    ///
    /// # Errors
    /// No registry answered.
    pub fn post(&self, path: &str) -> Result<Answer, RegistryError> {
        self.ask(|url| self.authorised(self.agent.post(url)).send_empty(), path)
    }

    /// Opens the stream of events at this path; `after` is the id of the last event that is known.
    ///
    /// # Errors
    /// No registry answered, it refused, or it answered something else than such a stream.
    pub fn listen(&self, path: &str, after: Option<u64>) -> Result<ByteStream, RegistryError> {
        self.first_good(
            |base| self.listen_to(base, path, after),
            |result| !result.as_ref().is_err_and(RegistryError::is_worth_another_address),
        )
    }

    fn ask(
        &self,
        send: impl Fn(&str) -> Result<ureq::http::Response<ureq::Body>, ureq::Error>,
        path: &str,
    ) -> Result<Answer, RegistryError> {
        self.first_good(
            |base| read(base, send(&format!("{base}{path}"))),
            |result| result.as_ref().is_ok_and(|answer| answer.status < 500),
        )
    }

    /// The first good result, starting with the address that answered last; else the best bad one, an answer before none.
    fn first_good<T>(
        &self,
        one: impl Fn(&str) -> Result<T, RegistryError>,
        is_good: impl Fn(&Result<T, RegistryError>) -> bool,
    ) -> Result<T, RegistryError> {
        let count = self.urls.0.len();
        let first = self.current.load(Ordering::Relaxed);
        let mut kept = Err(RegistryError::NoAddress);
        for index in (0..count).map(|n| (first + n) % count) {
            let result = one(&self.urls.0[index]);
            if is_good(&result) {
                self.current.store(index, Ordering::Relaxed);
                return result;
            }
            if result.is_ok() || kept.is_err() {
                kept = result;
            }
        }
        kept
    }

    fn listen_to(&self, base: &str, path: &str, after: Option<u64>) -> Result<ByteStream, RegistryError> {
        let mut request =
            self.authorised(self.agent.get(format!("{base}{path}"))).header(headers::ACCEPT, headers::EVENT_STREAM);
        if let Some(after) = after {
            request = request.header(headers::LAST_EVENT_ID, after.to_string());
        }
        let limit = self.agent.config().timeouts().global;
        let request = request.config().timeout_global(None).timeout_recv_response(limit).timeout_per_read(Some(SILENCE_MAX));
        let mut response = request.build().call().map_err(|error| unreachable(base, &error))?;
        let status = response.status().as_u16();
        if !(200..300).contains(&status) {
            let body = response.body_mut().with_config().limit(READ_ANSWER_MAX).read_to_vec();
            return Err(refusal(base, status, &body.unwrap_or_default()));
        }
        if response.body().mime_type() != Some(headers::EVENT_STREAM) {
            let cause = "it is no stream of events; this registry may be too old to have one".to_owned();
            return Err(RegistryError::Unreadable { url: base.to_owned(), status, cause });
        }
        Ok(ByteStream { url: base.to_owned(), body: response.into_body().into_reader() })
    }
}

fn read(base: &str, response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answer, RegistryError> {
    let mut response = response.map_err(|error| unreachable(base, &error))?;
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let index = header(headers::INDEX).and_then(|text| text.parse().ok());
    let date = header(headers::DATE).map(str::to_owned);
    let body = response.body_mut().with_config().limit(READ_ANSWER_MAX).read_to_vec();
    let body = body.map_err(|error| unreachable(base, &error))?;
    Ok(Answer { url: base.to_owned(), status: response.status().as_u16(), index, date, body })
}

fn unreachable(base: &str, error: &ureq::Error) -> RegistryError {
    RegistryError::Unreachable { url: base.to_owned(), cause: error.to_string() }
}

/// A registry sends at least a comment every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(45);
