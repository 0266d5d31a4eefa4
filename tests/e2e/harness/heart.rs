//! What sidecars do all day: heartbeats for registered instances, and nothing else. A lost registration is not registered
//! again but noted, so that a test sees it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use super::{eventually, post};

/// Sends heartbeats until it is dropped.
pub(crate) struct Hearts {
    tally: Arc<Tally>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Tally {
    stopping: AtomicBool,
    rounds: AtomicUsize,
    refused: Mutex<Vec<String>>,
}

impl Hearts {
    /// Keeps these instances (service, id) alive through `registry`, each once per `interval`.
    pub(crate) fn start(registry: SocketAddr, instances: &[(&str, &str)], interval: Duration) -> Self {
        let beats: Vec<_> = instances.iter().map(|(service, id)| json!({"service_name": service, "instance_id": id})).collect();
        let tally = Arc::<Tally>::default();
        let thread = std::thread::spawn({
            let tally = tally.clone();
            move || {
                while !tally.stopping.load(Ordering::SeqCst) {
                    for beat in &beats {
                        // A gateway that is away is the test's doing; one that refuses has lost the instance.
                        match post("/heartbeat", beat).try_send(registry) {
                            Ok(answer) if answer.status != 200 => {
                                tally.refused.lock().unwrap().push(format!("{beat}: {} {}", answer.status, answer.text()));
                            }
                            _ => {}
                        }
                    }
                    tally.rounds.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(interval);
                }
            }
        });
        Self { tally, thread: Some(thread) }
    }

    /// Waits until everybody was heard `rounds` more times.
    pub(crate) fn beat(&self, rounds: usize) {
        let before = self.tally.rounds.load(Ordering::SeqCst);
        eventually("the heartbeats", || self.tally.rounds.load(Ordering::SeqCst) >= before + rounds);
    }

    /// Checks that no heartbeat was refused.
    #[track_caller]
    pub(crate) fn assert_all_known(&self) {
        let refused = self.tally.refused.lock().unwrap();
        assert!(refused.is_empty(), "{refused:?}");
    }
}

impl Drop for Hearts {
    fn drop(&mut self) {
        self.tally.stopping.store(true, Ordering::SeqCst);
        self.thread.take().map(JoinHandle::join);
    }
}
