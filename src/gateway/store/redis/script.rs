//! The scripts that run inside Redis, and how they are called: in pipelines, by their hash, loaded when Redis lacks them.

use super::connect::Link;
use super::failure::Failure;
use crate::clock;
use crate::telemetry::metrics::Metrics;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use std::sync::LazyLock;

/// So many calls go in one pipeline: few enough that none of them waits long for the others.
pub(super) const PIPELINE_MAX: usize = 200;

/// One that Redis runs as a whole.
pub(super) struct Script {
    code: &'static str,
    hash: String,
}

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {
        $($(#[$doc])* pub(super) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(concat!(include_str!("scripts/common.lua"), include_str!($file))));)*
        const ALL: &[&LazyLock<Script>] = &[$(&$name),*];
    };
}

scripts! {
    /// Writes an instance.
    PUT = "scripts/put.lua";
    /// Writes a grave.
    GONE = "scripts/gone.lua";
    /// Moves the ends of leases.
    RENEW = "scripts/renew.lua";
    /// Says that this replica lives; tells the time, the epoch and who else does.
    BEAT = "scripts/beat.lua";
    /// Tells where the streams end.
    NOTE = "scripts/note.lua";
    /// Reads services' indexes.
    INDEX = "scripts/index.lua";
    /// Reads hashes of bounded size.
    FETCH = "scripts/fetch.lua";
    /// Shows the best instance to the predecessor.
    MIRROR = "scripts/mirror.lua";
    /// Keeps the result of a health check.
    HEALTH = "scripts/health.lua";
    /// Adds to what replicas owe to rate limits, and tells it.
    RATES = "scripts/rates.lua";
    /// Takes stale entries out of an index.
    TIDY = "scripts/tidy.lua";
}

impl Script {
    fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    /// A call with these keys; arguments are added by the caller.
    pub(super) fn on<'a>(&self, keys: impl ExactSizeIterator<Item = &'a str>) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.hash).arg(keys.len());
        keys.for_each(|key| {
            call.arg(key);
        });
        call
    }
}

impl Link {
    /// Runs the calls in one pipeline. What one of them is refused for its own sake (a key that is not what it should be) is
    /// an error in its place; what the server refuses to all is the failure of the whole.
    pub(super) fn run(
        &mut self,
        operation: &'static str,
        calls: Vec<Cmd>,
        metrics: &Metrics,
    ) -> Result<Vec<Result<Value, Failure>>, Failure> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let started = clock::mono();
        let result = self.run_loaded(&calls);
        metrics.redis_duration.with_label_values(&[operation]).observe(clock::mono().since(started).as_secs_f64());
        let expected = calls.len();
        match result? {
            results if results.len() == expected => results.into_iter().map(its_own).collect(),
            _ => Err(Failure::reply("another number of answers than of questions")),
        }
    }

    /// Runs one call.
    pub(super) fn run_one(&mut self, operation: &'static str, call: Cmd, metrics: &Metrics) -> Result<Value, Failure> {
        let mut results = self.run(operation, vec![call], metrics)?;
        results.pop().unwrap_or_else(|| Err(Failure::reply("no answer")))
    }

    fn run_loaded(&mut self, calls: &[Cmd]) -> Result<Vec<RedisResult<Value>>, Failure> {
        let results = self.pipeline(calls)?;
        if !results.iter().any(|result| result.as_ref().is_err_and(is_unknown_script)) {
            return Ok(results);
        }
        // Redis was restarted or flushed its scripts. What did run may run again: everything here can be repeated.
        let load = |script: &&LazyLock<Script>| redis::cmd("SCRIPT").arg("LOAD").arg(script.code).to_owned();
        for result in self.pipeline(&ALL.iter().map(load).collect::<Vec<_>>())? {
            result?;
        }
        self.pipeline(calls)
    }

    fn pipeline(&mut self, calls: &[Cmd]) -> Result<Vec<RedisResult<Value>>, Failure> {
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for call in calls {
            pipeline.add_command(call.clone());
        }
        Ok(pipeline.ignore_errors().query(&mut self.connection)?)
    }
}

/// Sorts errors that are one call's own from those that are everybody's.
fn its_own(result: RedisResult<Value>) -> Result<Result<Value, Failure>, Failure> {
    match result.map_err(Failure::from) {
        Err(failure) if failure.word == "response" => Ok(Err(failure)),
        Err(failure) => Err(failure),
        Ok(value) => Ok(Ok(value)),
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// The text of an answer.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// The number of an answer.
pub(super) fn number<N: std::str::FromStr + TryFrom<i64>>(value: &Value) -> Option<N> {
    match value {
        Value::Int(number) => N::try_from(*number).ok(),
        value => text(value)?.parse().ok(),
    }
}

/// The parts of an answer.
pub(super) fn list(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

/// Microseconds, of what `TIME` says.
pub(super) fn micros(time: &Value) -> Option<u64> {
    match list(time)? {
        [seconds, micros] => number::<u64>(seconds)?.checked_mul(1_000_000)?.checked_add(number::<u64>(micros)?),
        _ => None,
    }
}
