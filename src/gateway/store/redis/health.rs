//! The second layer of the health-check cache: what other replicas found out in the last half minute.
//!
//! A thread of its own asks, so that whoever checks waits for it as long as it wants to and no longer. While Redis is away
//! nobody waits at all.

use super::connect::Dialler;
use super::failure::Failure;
use super::script;
use super::shared::Shared;
use super::shelf::Shelf;
use parking_lot::Mutex;
use redis::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::oneshot;
use vertice_api::gateway::HealthCheck;

/// How long a result is kept.
const KEPT_S: u32 = 30;
/// How long one waits for it.
const WAIT: Duration = Duration::from_millis(50);
/// So many questions wait at most.
const QUEUE: usize = 64;
/// How often the thread looks whether it is to end.
const GLANCE: Duration = Duration::from_millis(100);
/// After a failure nobody is asked for so long.
const AGAIN: Duration = Duration::from_millis(500);

enum Question {
    Get { name: String, answer: oneshot::Sender<Option<HealthCheck>> },
    Put(Box<HealthCheck>),
}

/// Asks for results, and shares them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HealthLayer {
    questions: SyncSender<Question>,
    is_up: Arc<AtomicBool>,
    /// Questions that found no place.
    refused: Arc<AtomicU64>,
}

/// The other end of a [`HealthLayer`].
#[derive(Debug)]
pub(super) struct HealthQueue {
    questions: Mutex<Option<Receiver<Question>>>,
    is_up: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
}

/// A layer, and what answers it.
pub(super) fn layer() -> (HealthLayer, HealthQueue) {
    let (sender, receiver) = sync_channel(QUEUE);
    let (is_up, refused) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let queue = HealthQueue { questions: Mutex::new(Some(receiver)), is_up: is_up.clone(), refused: refused.clone() };
    (HealthLayer { questions: sender, is_up, refused }, queue)
}

impl HealthLayer {
    /// What was found out of a service, if anything was lately and it was good.
    pub async fn get(&self, name: &str) -> Option<HealthCheck> {
        if !self.is_up.load(Ordering::Relaxed) {
            return None;
        }
        let (answer, found) = oneshot::channel();
        self.send(Question::Get { name: name.to_owned(), answer });
        tokio::time::timeout(WAIT, found).await.ok()?.ok()?
    }

    /// Shares a good result. Bad ones are everybody's own business: a network may be broken in one place only.
    pub fn put(&self, result: &HealthCheck) {
        if result.healthy && self.is_up.load(Ordering::Relaxed) {
            self.send(Question::Put(Box::new(result.clone())));
        }
    }

    /// What does not fit is found out again by whoever wants to know.
    fn send(&self, question: Question) {
        if self.questions.try_send(question).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Answers until it is told to stop.
pub(super) fn run(shared: &Shared, mut dialler: Dialler) {
    let queue = shared.state.health_queue();
    let Some(questions) = queue.questions.lock().take() else { return };
    let mut shelf: Option<Shelf> = None;
    while !shared.is_stopping() {
        if !shared.state.is_connected() {
            shelf = None;
        } else if shelf.is_none() {
            shelf = shared.dial(&mut dialler).and_then(hurried).inspect_err(|_| shared.pause(AGAIN)).ok();
        }
        queue.is_up.store(shelf.is_some(), Ordering::Relaxed);
        if queue.refused.swap(0, Ordering::Relaxed) > 0 {
            shared.metrics.limit_hit("health_layer");
        }
        let question = match questions.recv_timeout(GLANCE) {
            Ok(question) => question,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let answered = shelf.as_mut().map_or(Ok(()), |shelf| answer(shelf, question));
        if let Err(failure) = answered {
            shared.metrics.redis_failures.with_label_values(&[failure.word]).inc();
            shelf = None;
        }
    }
    queue.is_up.store(false, Ordering::Relaxed);
}

fn hurried(mut shelf: Shelf) -> Result<Shelf, Failure> {
    shelf.link.hurry(WAIT)?;
    Ok(shelf)
}

fn answer(shelf: &mut Shelf, question: Question) -> Result<(), Failure> {
    match question {
        Question::Put(result) => put(shelf, &result),
        Question::Get { name, answer } => {
            // Whoever asked has given up, and so have the others in the queue, perhaps.
            if !answer.is_closed() {
                let _ = answer.send(get(shelf, &name)?);
            }
            Ok(())
        }
    }
}

fn key(name: &str) -> String {
    format!("health:{name}")
}

fn get(shelf: &mut Shelf, name: &str) -> Result<Option<HealthCheck>, Failure> {
    let fields = ["service_name", "service_url", "healthy", "status_code", "response_time_ms", "timestamp"];
    let mut call = redis::cmd("HMGET");
    call.arg(key(name)).arg(&fields);
    let reply = match shelf.link.run("health", vec![call], &shelf.metrics)?.pop() {
        Some(Ok(Value::Array(values))) => values,
        _ => {
            shelf.skipped.note(&key(name), "foreign", "it is no hash");
            return Ok(None);
        }
    };
    let texts: HashMap<&str, &str> =
        fields.into_iter().zip(&reply).filter_map(|(field, value)| Some((field, script::text(value)?))).collect();
    if texts.is_empty() {
        return Ok(None);
    }
    let result = read(name, &texts);
    if result.is_none() {
        shelf.skipped.note(&key(name), "damaged", "it is no result of a health check");
    }
    Ok(result.filter(|result| result.healthy))
}

fn read(name: &str, texts: &HashMap<&str, &str>) -> Option<HealthCheck> {
    let number = |field| texts.get(field)?.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    if texts.get("service_name").is_some_and(|written| *written != name) {
        return None;
    }
    Some(HealthCheck {
        service_name: name.to_owned(),
        service_url: texts.get("service_url").filter(|url| url.len() <= 2_048).map(|url| (*url).to_owned())?,
        healthy: matches!(*texts.get("healthy")?, "true" | "True" | "1"),
        status_code: texts.get("status_code")?.parse().ok().filter(|code| (100..=599).contains(code))?,
        response_time_ms: number("response_time_ms")?,
        cached: false,
        cache_layer: None,
        timestamp: number("timestamp")?,
    })
}

fn put(shelf: &mut Shelf, result: &HealthCheck) -> Result<(), Failure> {
    let key = key(&result.service_name);
    let mut call = script::HEALTH.on(std::iter::once(&*key));
    call.arg(KEPT_S).arg("service_name").arg(&result.service_name).arg("service_url").arg(&result.service_url);
    call.arg("healthy").arg("true").arg("status_code").arg(result.status_code);
    call.arg("response_time_ms").arg(result.response_time_ms.to_string()).arg("timestamp").arg(result.timestamp.to_string());
    let reply = shelf.link.run_one("health", call, &shelf.metrics)?;
    if script::text(&reply) == Some("foreign") {
        shelf.skipped.note(&key, "foreign", "it is no hash");
    }
    Ok(())
}
