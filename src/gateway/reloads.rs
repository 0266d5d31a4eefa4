//! Asking for the configuration to be read again, and what came of it: between those who ask (a signal, an administrator, the
//! file's watch), the one who does it, and those who show it.
//!
//! Asking is counting. Whoever reads the configuration notes how often it had been asked for when it began, so that a storm of
//! signals is one or two reloads, and everybody who asked learns of one that began after they did.

use crate::clock;
use parking_lot::Mutex;
use std::path::PathBuf;
use tokio::sync::{Notify, watch};

/// More mistakes than these are in the log only.
const MISTAKES_SHOWN: usize = 32;

/// What is in force, and what came of the last attempt to change it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// The file that was read, if there is one.
    pub file: Option<PathBuf>,
    /// Counts up with every configuration that differs from the one before; the one of the start is 1.
    pub generation: u64,
    /// When it came into force, in milliseconds since 1970.
    pub since_wall_ms: u64,
    /// The last reload, if there was one.
    pub last: Option<Reload>,
    /// The keys whose new value waits for a restart.
    pub waiting: Vec<&'static str>,
}

/// What came of one reload.
#[derive(Clone, Debug, PartialEq)]
pub struct Reload {
    /// When, in milliseconds since 1970.
    pub wall_ms: u64,
    /// The mistakes for which it was refused; none when it was not. At most 32.
    pub mistakes: Vec<Mistake>,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The place, and the key if one is concerned.
    pub place: String,
    /// What is wrong and what is allowed; never a secret.
    pub message: String,
}

/// See the module.
#[derive(Debug)]
pub struct Reloads {
    asked: Mutex<u64>,
    wake: Notify,
    /// How many who asked have been answered.
    answered: watch::Sender<u64>,
    standing: Mutex<Standing>,
}

impl Reloads {
    /// For a process that started with `file`.
    #[must_use]
    pub fn new(file: Option<PathBuf>) -> Self {
        let standing = Standing { file, generation: 1, since_wall_ms: clock::wall_ms(), ..Standing::default() };
        Self { asked: Mutex::new(0), wake: Notify::new(), answered: watch::Sender::new(0), standing: Mutex::new(standing) }
    }

    /// Asks for a reload some time soon; the number is for [`Reloads::done`].
    pub fn ask(&self) -> u64 {
        let mut asked = self.asked.lock();
        *asked += 1;
        self.wake.notify_one();
        *asked
    }

    /// Waits until a reload that began after number `asked` has ended, and tells how things stand then.
    pub async fn done(&self, asked: u64) -> Standing {
        let mut answered = self.answered.subscribe();
        // An error would mean that this very board is gone.
        let _ = answered.wait_for(|answered| *answered >= asked).await;
        self.standing()
    }

    /// How things stand.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.lock().clone()
    }

    /// Waits until somebody asks; for whoever reads the configuration, and hands the number to [`Reloads::end`].
    pub async fn asked(&self) -> u64 {
        loop {
            let asked = *self.asked.lock();
            if asked > *self.answered.borrow() {
                return asked;
            }
            self.wake.notified().await;
        }
    }

    /// Answers everybody up to `asked`: a configuration was refused.
    pub fn refuse(&self, asked: u64, mut mistakes: Vec<Mistake>) {
        mistakes.truncate(MISTAKES_SHOWN);
        self.standing.lock().last = Some(Reload { wall_ms: clock::wall_ms(), mistakes });
        self.answered.send_replace(asked);
    }

    /// Answers everybody up to `asked`: a configuration was read and is in force; `is_new` when it differs from the one before.
    pub fn accept(&self, asked: u64, is_new: bool, file: Option<PathBuf>, waiting: Vec<&'static str>) {
        let wall_ms = clock::wall_ms();
        let mut standing = self.standing.lock();
        if is_new {
            standing.generation += 1;
            standing.since_wall_ms = wall_ms;
        }
        (standing.file, standing.waiting) = (file, waiting);
        standing.last = Some(Reload { wall_ms, mistakes: Vec::new() });
        drop(standing);
        self.answered.send_replace(asked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_storm_is_answered_together_and_who_asks_later_waits_for_the_next() {
        let reloads = Reloads::new(None);
        let early: Vec<u64> = (0..100).map(|_| reloads.ask()).collect();
        let begun = reloads.asked().await;
        let late = reloads.ask();
        reloads.accept(begun, true, None, Vec::new());
        for asked in early {
            assert_eq!(reloads.done(asked).await.generation, 2);
        }
        let mut waiting = Box::pin(reloads.done(late));
        let in_time = tokio::time::timeout(std::time::Duration::ZERO, &mut waiting).await.is_ok();
        assert!(!in_time, "that reload began before it asked");
        let begun = reloads.asked().await;
        assert_eq!(begun, late);
        let mistake = Mistake { place: "f:1:1".to_owned(), message: "no".to_owned() };
        reloads.refuse(begun, vec![mistake.clone(); 100]);
        let standing = waiting.await;
        assert_eq!((standing.generation, standing.last.unwrap().mistakes), (2, vec![mistake; MISTAKES_SHOWN]));
    }
}
