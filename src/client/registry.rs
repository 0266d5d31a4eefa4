//! The registry, seen from a client.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use vertice_api::{
    Deregistered, HeartbeatReceived, HeartbeatRequest, Problem, RegisterRequest, Registered, ServiceInfo, headers, paths,
};
use vertice_core::endpoint::{Endpoint, Scheme};

use crate::transport;

mod answer;

pub use answer::{Answer, ByteStream};

/// Speaks to one of several registries: to the last one that answered, and to the next when that one does not.
///
/// Every call of the registry's API may be repeated without harm, so a call that got no answer (or 5xx) simply goes to the
/// next address. An answer below 500 is an answer: the address is kept. Calls block; one takes at most the timeout (5 s)
/// per address.
#[derive(Debug)]
pub struct RegistryClient {
    agent: ureq::Agent,
    urls: RegistryUrls,
    token: Option<Token>,
    /// Index of the address that answered last.
    current: AtomicUsize,
}

impl RegistryClient {
    /// A client of these registries. The token is sent with every call.
    #[must_use]
    pub fn new(urls: RegistryUrls, token: Option<Token>) -> Self {
        Self::with_timeout(urls, token, CALL_TIMEOUT)
    }

    /// The same with another limit for one call to one address.
    #[must_use]
    pub fn with_timeout(urls: RegistryUrls, token: Option<Token>, timeout: Duration) -> Self {
        Self { agent: transport::agent(timeout), urls, token, current: AtomicUsize::new(0) }
    }

    /// Creates or updates a registration.
    ///
    /// # Errors
    /// No registry answered, or it refused.
    pub fn register(&self, request: &RegisterRequest) -> Result<Registered, RegistryError> {
        let body = serde_json::to_vec(request).map_err(unwritable)?;
        self.call(Method::Post(&body), paths::REGISTER, WRITE_ANSWER_MAX, |answer| serde_json::from_slice(answer))
    }

    /// Renews a registration.
    ///
    /// # Errors
    /// [`RegistryError::is_not_found`] when there is no such lease: register again. Else no registry answered, or it refused.
    pub fn heartbeat(&self, request: &HeartbeatRequest) -> Result<HeartbeatReceived, RegistryError> {
        let body = serde_json::to_vec(request).map_err(unwritable)?;
        self.call(Method::Post(&body), paths::HEARTBEAT, WRITE_ANSWER_MAX, |answer| serde_json::from_slice(answer))
    }

    /// Takes a registration back; without an id the caller's own, or the service's only one. Fine when there is none.
    ///
    /// # Errors
    /// No registry answered, or it refused (409: several instances and no id).
    pub fn deregister(&self, service: &str, instance_id: Option<&str>) -> Result<Deregistered, RegistryError> {
        let path = paths::deregister(service, instance_id);
        self.call(Method::Delete, &path, WRITE_ANSWER_MAX, |answer| serde_json::from_slice(answer))
    }

    /// One service with its instances; `None` when it is not registered.
    ///
    /// # Errors
    /// No registry answered, or it refused.
    pub fn lookup(&self, service: &str) -> Result<Option<ServiceInfo>, RegistryError> {
        match self.call(Method::Get, &paths::service(service), SERVICE_ANSWER_MAX, |answer| serde_json::from_slice(answer)) {
            Err(error) if error.is_not_found() => Ok(None),
            result => result.map(Some),
        }
    }

    /// The names of all registered services, sorted.
    ///
    /// # Errors
    /// No registry answered, or it refused.
    pub fn services(&self) -> Result<Vec<String>, RegistryError> {
        self.call(Method::Get, paths::SERVICES, READ_ANSWER_MAX, |answer| serde_json::from_slice(answer))
    }

    /// The same registries with a fresh connection and another limit for one call, starting with the one that answered last.
    pub(crate) fn again_within(&self, timeout: Duration) -> Self {
        let current = AtomicUsize::new(self.current.load(Ordering::Relaxed));
        Self { current, ..Self::with_timeout(self.urls.clone(), self.token.clone(), timeout) }
    }

    /// Ends a call that is under way, and refuses all later ones.
    pub(crate) fn interrupt(&self) {
        self.agent.clone().shutdown();
    }

    /// Opens a watch over all services that goes on after `index`, or begins now. `None`: the registry answers with
    /// something else, it knows no watches. `agent` says how long an answer may take.
    pub(crate) fn watch(&self, agent: &ureq::Agent, index: Option<u64>) -> Result<Option<ureq::Body>, RegistryError> {
        self.ask_each(|base| {
            let mut request = agent.get(format!("{base}{}", paths::SERVICES)).header(headers::ACCEPT, headers::EVENT_STREAM);
            if let Some(index) = index {
                request = request.header(headers::LAST_EVENT_ID, index.to_string());
            }
            let mut response = self.authorised(request).call().map_err(|error| unreachable(base, &error))?;
            let status = response.status().as_u16();
            if !(200..300).contains(&status) {
                let body = response.body_mut().with_config().limit(WRITE_ANSWER_MAX).read_to_vec();
                return Err(refusal(base, status, &body.unwrap_or_default()));
            }
            let is_stream = response.body().mime_type().is_some_and(|kind| kind.eq_ignore_ascii_case(headers::EVENT_STREAM));
            Ok(is_stream.then(|| response.into_body()))
        })
    }

    fn call<T>(&self, method: Method<'_>, path: &str, answer_max: u64, read: Reader<T>) -> Result<T, RegistryError> {
        self.ask_each(|base| self.call_one(base, method, path, answer_max, read))
    }

    /// Asks the registry that answered last, and then the others, until one answers.
    fn ask_each<T>(&self, ask: impl Fn(&str) -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        let count = self.urls.0.len();
        let first = self.current.load(Ordering::Relaxed);
        let mut result = Err(RegistryError::NoAddress);
        for index in (0..count).map(|n| (first + n) % count) {
            result = ask(&self.urls.0[index]);
            if !result.as_ref().is_err_and(RegistryError::is_worth_another_address) {
                self.current.store(index, Ordering::Relaxed);
                break;
            }
        }
        result
    }

    fn call_one<T>(
        &self,
        base: &str,
        method: Method<'_>,
        path: &str,
        answer_max: u64,
        read: Reader<T>,
    ) -> Result<T, RegistryError> {
        let url = format!("{base}{path}");
        let unreachable = |error: ureq::Error| unreachable(base, &error);
        let mut response = match method {
            Method::Get => self.authorised(self.agent.get(&url)).call(),
            Method::Delete => self.authorised(self.agent.delete(&url)).call(),
            Method::Post(body) => {
                self.authorised(self.agent.post(&url)).header(headers::CONTENT_TYPE, headers::JSON).send(body)
            }
        }
        .map_err(unreachable)?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(answer_max).read_to_vec();
        if !(200..300).contains(&status) {
            // A refusal whose reasons got lost is still a refusal.
            return Err(refusal(base, status, &body.unwrap_or_default()));
        }
        read(&body.map_err(unreachable)?).map_err(|error| RegistryError::Unreadable {
            url: base.to_owned(),
            status,
            cause: error.to_string(),
        })
    }

    fn authorised<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header(headers::REGISTRY_TOKEN, &token.0),
            None => request,
        }
    }
}

#[derive(Clone, Copy)]
enum Method<'a> {
    Get,
    Delete,
    Post(&'a [u8]),
}

/// Reads the body of a good answer.
type Reader<T> = fn(&[u8]) -> serde_json::Result<T>;

fn unreachable(base: &str, error: &ureq::Error) -> RegistryError {
    RegistryError::Unreachable { url: base.to_owned(), cause: error.to_string() }
}

fn unwritable(error: serde_json::Error) -> RegistryError {
    RegistryError::Unwritable(error.to_string())
}

fn refusal(base: &str, status: u16, body: &[u8]) -> RegistryError {
    let detail = match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => {
            let fields: Vec<_> = problem.errors.iter().map(|e| format!("{} {}", e.field, e.message)).collect();
            let detail = problem.detail.into_owned();
            if fields.is_empty() { detail } else { format!("{detail} ({})", fields.join("; ")) }
        }
        // The predecessor sends only `detail`.
        Err(_) => serde_json::from_slice::<Value>(body)
            .ok()
            .and_then(|value| value.get("detail")?.as_str().map(str::to_owned))
            .unwrap_or_default(),
    };
    let detail = detail.chars().map(|c| if c.is_control() { ' ' } else { c }).take(DETAIL_MAX).collect();
    RegistryError::Refused { url: base.to_owned(), status, detail }
}

/// Why a call of the registry failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// No answer.
    #[error("failed to reach the registry at {url}: {cause}")]
    Unreachable {
        /// The registry.
        url: String,
        /// Why.
        cause: String,
    },
    /// An answer outside 2xx.
    #[error("the registry at {url} answered {status}{}{detail}", if detail.is_empty() { "" } else { ": " })]
    Refused {
        /// The registry.
        url: String,
        /// Its answer.
        status: u16,
        /// Its reasons, possibly empty.
        detail: String,
    },
    /// A 2xx that is not the registry's.
    #[error("failed to read the answer {status} of the registry at {url}: {cause}")]
    Unreadable {
        /// The registry.
        url: String,
        /// Its answer.
        status: u16,
        /// What is wrong with the body.
        cause: String,
    },
    /// The request is no JSON.
    #[error("failed to write the request: {0}")]
    Unwritable(String),
    /// The list of registries is empty.
    #[error("failed to choose a registry: none is configured")]
    NoAddress,
}

impl RegistryError {
    /// Whether the registry says that there is no such service or lease.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether another registry could do better.
    const fn is_worth_another_address(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Unreadable { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            Self::Unwritable(_) | Self::NoAddress => false,
        }
    }
}

/// One or more registries; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryUrls(Vec<String>);

impl RegistryUrls {
    /// Reads a comma-separated list of `http://host[:port][/prefix]`.
    ///
    /// # Errors
    /// A sentence naming the first bad address and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, RegistryUrlError> {
        let mut urls: Vec<String> = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let bad = |message: &str| RegistryUrlError(format!("{part:?} {message}"));
            let endpoint = Endpoint::parse(part).map_err(|error| bad(error.0))?;
            if endpoint.scheme() == Scheme::Https {
                return Err(bad("must start with http://: this client speaks no TLS"));
            }
            let url = endpoint.to_string();
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        if urls.is_empty() { Err(RegistryUrlError("must name at least one registry".to_owned())) } else { Ok(Self(urls)) }
    }

    /// The addresses, in the order of preference.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// What is wrong with a list of registries, as the end of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RegistryUrlError(String);

/// The registry token. Shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The environment variables that may hold it, the first that is set counts.
    pub const VARIABLES: [&str; 2] = ["VERTICE_REGISTRY_TOKEN", "REGISTRY_AUTH_TOKEN"];

    /// Reads a token: visible ASCII characters, as a header field wants them.
    ///
    /// # Errors
    /// A sentence that does not repeat the token.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) { Ok(Self(text.to_owned())) } else { Err(TokenError) }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// The text cannot be sent as a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must consist of visible ASCII characters without spaces")]
pub struct TokenError;

const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers to writes are a few hundred bytes.
const WRITE_ANSWER_MAX: u64 = 64 * 1024;
/// 20 000 instances fit.
const SERVICE_ANSWER_MAX: u64 = 8 * 1024 * 1024;
/// A million names fit.
const READ_ANSWER_MAX: u64 = 64 * 1024 * 1024;
/// Characters of a registry's reasons that are kept.
const DETAIL_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_registries() {
        let urls = |text| RegistryUrls::parse(text).map(|urls| urls.0);
        assert_eq!(
            urls("http://a:8888/, http://b ,,http://A:8888").unwrap(),
            ["http://a:8888".to_owned(), "http://b".to_owned()]
        );
        assert_eq!(urls("http://[::1]:80/registry").unwrap(), ["http://[::1]/registry".to_owned()]);
        for (bad, says) in [
            ("", "at least one"),
            (" , ", "at least one"),
            ("a:8888", "\"a:8888\""),
            ("https://a", "no TLS"),
            ("http://a,ftp://b", "\"ftp://b\""),
            ("http://u:p@a", "user"),
            ("http://a?x", "query"),
        ] {
            let error = urls(bad).unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn a_token_is_sendable_and_never_shown() {
        let token = Token::parse("s3cret!").unwrap();
        assert!(!format!("{token:?}").contains("s3cret"));
        for bad in ["", "a b", "a\r\nX: y", "é"] {
            assert!(Token::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn refusals_tell_the_reasons() {
        let text = |body: &str| refusal("http://a", 422, body.as_bytes()).to_string();
        assert_eq!(
            text(
                r#"{"type":"t","title":"t","status":422,"detail":"2 fields","reason":"r","request_id":"i","errors":[{"field":"ttl","message":"is odd"},{"field":"zone","message":"is far"}]}"#
            ),
            "the registry at http://a answered 422: 2 fields (ttl is odd; zone is far)"
        );
        assert_eq!(text(r#"{"detail":"no\nway"}"#), "the registry at http://a answered 422: no way");
        assert_eq!(text("<html>"), "the registry at http://a answered 422");
    }
}
