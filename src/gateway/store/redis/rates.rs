//! Rate limits that replicas count together.
//!
//! Each replica decides by what it knows, so no request waits for Redis. A thread of its own tells Redis ten times a second
//! what was let through here, and hears what all replicas owe together; their cells then stand where one cell that had seen
//! everything would. In between, each of n replicas may let through what was left of the burst when it last heard, and what
//! the rate allows in that time: together at most n − 1 times that too much, which is then owed, so that over longer times
//! the rate is kept. While Redis is away each replica counts alone and grants the whole rate: whoever serves on is worth more than
//! whoever refuses, and behind a load balancer nobody knows who gets which share.

use super::connect::Dialler;
use super::failure::Failure;
use super::script::{self, list, number, text};
use super::shared::Shared;
use super::shelf::Shelf;
use crate::clock;
use crate::rates::{News, Rate, Rates};
use std::sync::Arc;
use std::time::Duration;
use vertice_core::limiter::DEBT_MAX;

/// How often Redis is told.
const TELL: Duration = Duration::from_millis(100);
/// After a failure nobody is told for so long.
const AGAIN: Duration = Duration::from_millis(500);
/// So many keys of a limit are told at once; the others wait for their turn.
const KEYS_MAX: usize = 5_000;
/// So many keys go in one call.
const CALL_MAX: usize = 100;

/// Tells and hears until it is told to stop.
pub(super) fn run(shared: &Shared, mut dialler: Dialler, rates: &Rates) {
    let mut shelf: Option<Shelf> = None;
    while !shared.is_stopping() {
        std::thread::sleep(TELL);
        let limits = rates.shared();
        if limits.is_empty() || !shared.state.is_connected() {
            shelf = None;
            continue;
        }
        if shelf.is_none() {
            shelf = shared.dial(&mut dialler).inspect_err(|_| shared.pause(AGAIN)).ok();
        }
        let Some(connected) = &mut shelf else { continue };
        if let Err(failure) = limits.iter().try_for_each(|rate| exchange(connected, rate)) {
            shared.metrics.redis_failures.with_label_values(&[failure.word]).inc();
            tracing::debug!(error = %failure, "shared rate limits are counted alone for a while");
            shelf = None;
        }
    }
}

/// Tells what is new of a limit, and hears where it stands.
pub(super) fn exchange(shelf: &mut Shelf, rate: &Arc<Rate>) -> Result<(), Failure> {
    let news = rate.take_news(KEYS_MAX, clock::mono());
    if news.len() == KEYS_MAX {
        shelf.metrics.limit_hit("shared_rate_limit_keys");
    }
    let told = tell(shelf, rate, &news);
    // What did arrive of it is told twice then, and so owed twice for a moment: rather that than not at all.
    told.inspect_err(|_| rate.keep_news(&news))
}

fn tell(shelf: &mut Shelf, rate: &Rate, news: &[News]) -> Result<(), Failure> {
    let quota = &rate.limit.quota;
    let micros = |nanos: u64| nanos.div_ceil(1000);
    let most = micros(quota.tolerance().saturating_mul(DEBT_MAX.into()));
    let call = |news: &[News]| {
        let keys: Vec<String> = news.iter().map(|news| key(rate, &news.key)).collect();
        let mut call = script::RATES.on(keys.iter().map(String::as_str));
        for news in news {
            call.arg(micros(quota.interval().saturating_mul(news.requests.into()))).arg(most);
        }
        call
    };
    let replies = shelf.link.run("rates", news.chunks(CALL_MAX).map(call).collect(), &shelf.metrics)?;
    let now = clock::mono();
    for (reply, news) in replies.into_iter().zip(news.chunks(CALL_MAX)) {
        let reply = reply?;
        let owed = list(&reply).filter(|owed| owed.len() == news.len()).ok_or_else(|| Failure::reply("rates"))?;
        for (owed, news) in owed.iter().zip(news) {
            match number::<u64>(owed) {
                Some(micros) => rate.learn(&news.key, Duration::from_micros(micros), now),
                None if text(owed) == Some("foreign") => {
                    shelf.skipped.note(&key(rate, &news.key), "foreign", "it is no string")
                }
                None => return Err(Failure::reply("rates")),
            }
        }
    }
    Ok(())
}

fn key(rate: &Rate, key: &[u8]) -> String {
    format!("vx:rate:{}:{}", rate.limit.name, rate.spell(key))
}
