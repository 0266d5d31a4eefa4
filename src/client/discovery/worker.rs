//! The background thread: does what [`super::follower`] says, and tells what came of it.

use std::io::Read;
use std::sync::Arc;

use vertice_core::name::ServiceName;

use super::follower::Event;
use super::frames::Frames;
use super::shared::{Shared, Task};
use crate::registry::RegistryError;

/// Follows the registry until the end is wanted.
pub(crate) fn run(shared: &Arc<Shared>) {
    let _farewell = Farewell(shared);
    let mut watch = None;
    let mut event = Event::Tick;
    while let Some(task) = shared.next(event) {
        event = match task {
            Task::Lookup(name) => look_up(shared, name),
            Task::Open(agent, index) => {
                watch = None;
                open(shared, &agent, index, &mut watch)
            }
            Task::Read => match &mut watch {
                Some(open) => open.read(),
                None => Event::Ended("there is no watch".to_owned()),
            },
            Task::Sleep(until) => {
                // Nobody reads it while we sleep.
                watch = None;
                shared.sleep(until);
                Event::Tick
            }
        };
    }
}

fn look_up(shared: &Shared, name: ServiceName) -> Event {
    match shared.client.lookup(name.as_str()) {
        Ok(info) => Event::LookedUp(name, info.map(Box::new)),
        Err(error @ RegistryError::Unreachable { .. }) => Event::Unreachable(error.to_string()),
        Err(error) => Event::LookupRefused(name, error.to_string()),
    }
}

fn open(shared: &Shared, agent: &ureq::Agent, index: Option<u64>, watch: &mut Option<Watch>) -> Event {
    match shared.client.watch(agent, index) {
        Ok(Some(body)) => {
            *watch = Some(Watch { body: body.into_reader(), piece: Vec::new(), read: 0, frames: Frames::default() });
            Event::Opened
        }
        Ok(None) => Event::NoWatch { overloaded: false },
        Err(RegistryError::Refused { status, .. }) => Event::NoWatch { overloaded: status == 429 || status >= 500 },
        Err(error) => Event::OpenFailed(error.to_string()),
    }
}

/// An open watch.
struct Watch {
    body: ureq::BodyReader<'static>,
    /// What was received last.
    piece: Vec<u8>,
    /// How much of that has become frames.
    read: usize,
    frames: Frames,
}

impl Watch {
    /// Waits for the next frame.
    fn read(&mut self) -> Event {
        loop {
            match self.frames.take(&self.piece[self.read..]) {
                Ok((taken, frame)) => {
                    self.read += taken;
                    if let Some(frame) = frame {
                        return Event::Read(frame);
                    }
                }
                Err(error) => return Event::Unreadable(format!("failed to read the watch: {error}")),
            }
            self.piece.resize(PIECE, 0);
            self.read = 0;
            match self.body.read(&mut self.piece) {
                Ok(0) => return Event::Ended("the registry ended the watch".to_owned()),
                Ok(read) => self.piece.truncate(read),
                Err(error) => return Event::Ended(format!("failed to read the watch: {error}")),
            }
        }
    }
}

/// Tells everybody that the thread ends, whatever the reason.
struct Farewell<'a>(&'a Shared);

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        self.0.ended();
    }
}

const PIECE: usize = 8 * 1024;
