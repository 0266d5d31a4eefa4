//! The thread that reads: what other replicas did, as soon as they did it.

use super::connect::Dialler;
use super::failure::Failure;
use super::record::{self, Event, Kept, Misread};
use super::script::{list, number, text};
use super::shared::Shared;
use super::shelf::Shelf;
use crate::clock;
use redis::Value;
use std::time::Duration;
use vertice_core::command::Command;
use vertice_core::follow::{Follower, Step};
use vertice_core::record::ReplicaId;

/// How long one waits for news before looking at everything else.
const BLOCK: Duration = Duration::from_millis(250);
/// So many entries of each stream are read at once.
const COUNT: usize = 500;
/// The wait after a failure, doubling up to the other: each start compares everything.
const AGAIN: Duration = Duration::from_millis(200);
const AGAIN_MAX: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Reader {
    pub(super) shared: Shared,
    pub(super) dialler: Dialler,
}

/// Where one is in the streams.
struct Place {
    follower: Follower,
    events: String,
    renewals: String,
}

impl Reader {
    /// Runs until it is told to stop. It follows while the writer has a connection, and starts anew with each.
    pub(super) fn run(mut self) {
        let (mut again, mut known) = (AGAIN, 0);
        while !self.shared.is_stopping() {
            let link = self.shared.state.wait_for_link(0, BLOCK);
            if link == 0 {
                continue;
            }
            if std::mem::replace(&mut known, link) != link {
                again = AGAIN;
            }
            if let Err(failure) = self.follow(link, &mut again) {
                self.shared.state.deaf(Some(&failure));
                self.shared.metrics.redis_failures.with_label_values(&[failure.word]).inc();
                tracing::debug!(error = %failure, "failed to follow Redis");
                if failure.word == "response" {
                    self.shared.skipped.note("vx:events", "foreign", &failure.text);
                }
                self.shared.pause(again);
                again = (again * 2).min(AGAIN_MAX);
            }
        }
    }

    /// Resets `again` as soon as reading goes well.
    fn follow(&mut self, link: u64, again: &mut Duration) -> Result<(), Failure> {
        let mut shelf = self.shared.dial(&mut self.dialler)?;
        shelf.link.patient(BLOCK)?;
        let mut place = self.start(&mut shelf, link, "connected")?;
        while !self.shared.is_stopping() && self.shared.state.link() == link {
            let read = self.read(&mut shelf, &mut place)?;
            self.shared.state.deaf(None);
            *again = AGAIN;
            let Some(is_complete) = read else { continue };
            if !is_complete {
                tracing::info!("events of Redis were lost; comparing everything");
                // A missed renewal is asked for; none is missed for the sake of an event.
                let renewals = std::mem::take(&mut place.renewals);
                place = Place { renewals, ..self.start(&mut shelf, link, "gap")? };
            }
        }
        Ok(())
    }

    /// Notes where the streams end, *then* has everything compared: nothing falls between.
    fn start(&self, shelf: &mut Shelf, link: u64, why: &'static str) -> Result<Place, Failure> {
        let position = shelf.note()?;
        let mut follower = Follower::default();
        follower.positioned(position.seq);
        self.shared.state.positioned(link, why);
        Ok(Place { follower, events: position.events, renewals: position.renewals })
    }

    /// Reads what there is, waiting for it a while. `None` when there was nothing; else whether nothing was missed.
    fn read(&self, shelf: &mut Shelf, place: &mut Place) -> Result<Option<bool>, Failure> {
        let mut call = redis::cmd("XREAD");
        call.arg("COUNT").arg(COUNT).arg("BLOCK").arg(BLOCK.as_millis().to_string());
        call.arg("STREAMS").arg("vx:events").arg("vx:renewals").arg(&place.events).arg(&place.renewals);
        // Its duration is mostly waiting, and says nothing.
        let reply: Value = call.query(&mut shelf.link.connection)?;
        let Some(streams) = list(&reply) else { return Ok(None) };
        let mut is_complete = true;
        for stream in streams {
            let Some([name, entries]) = list(stream) else { return Err(Failure::reply("a stream")) };
            for entry in list(entries).ok_or_else(|| Failure::reply("a stream"))? {
                let Some([id, fields]) = list(entry) else { return Err(Failure::reply("an entry")) };
                let id = text(id).ok_or_else(|| Failure::reply("an entry's id"))?;
                // An entry that was deleted has no fields.
                let entry = Entry { fields: list(fields).unwrap_or_default() };
                match text(name) {
                    Some("vx:events") => {
                        is_complete &= self.event(&entry, &mut place.follower);
                        place.events = id.to_owned();
                    }
                    _ => {
                        self.renewals(&entry);
                        place.renewals = id.to_owned();
                    }
                }
            }
        }
        Ok(Some(is_complete))
    }

    /// Tells the registry of an event. Whether it is the one that was expected.
    fn event(&self, entry: &Entry<'_>, follower: &mut Follower) -> bool {
        let Some(n) = entry.field("n").and_then(number::<u64>) else {
            self.skip("vx:events", &("damaged", "an event has no number".to_owned()));
            return true;
        };
        let is_expected = follower.entry(n) == Step::Apply;
        match self.read_event(entry) {
            Ok(event) if event.by == self.shared.settings.me => self.count("own"),
            Ok(event) => {
                self.observe(entry);
                self.count("applied");
                self.shared.deliver(match event.kept {
                    Kept::Record(record) => Command::Merge(Box::new(record)),
                    Kept::Gone(gone) => Command::MergeGone(gone),
                });
            }
            Err(misread) => self.skip("vx:events", &misread),
        }
        is_expected
    }

    fn read_event(&self, entry: &Entry<'_>) -> Result<Event, Misread> {
        let by = self.author(entry)?;
        let (ago, store_micros) = self.age(entry);
        match (entry.text("put"), entry.text("gone")) {
            (Some(put), None) => Event::put(by, put, ago, store_micros),
            (None, Some(gone)) => Event::gone(by, gone, ago, store_micros),
            _ => Err(("damaged", "an event is neither put nor gone".to_owned())),
        }
    }

    fn renewals(&self, entry: &Entry<'_>) {
        let by = match self.author(entry) {
            Ok(by) if by == self.shared.settings.me => return,
            Ok(by) => by,
            Err(misread) => return self.skip("vx:renewals", &misread),
        };
        let (ago, store_micros) = self.age(entry);
        let renewals = match record::read_renewals(entry.text("r").unwrap_or_default(), ago, store_micros) {
            Ok(renewals) => renewals,
            Err(misread) => return self.skip("vx:renewals", &misread),
        };
        for renewal in renewals {
            match renewal {
                Ok(record::RenewedThere { service, id, version_no, left }) => {
                    self.shared.deliver(Command::Renewed { service, id, version_no, left, holder: by });
                }
                Err(misread) => self.skip("vx:renewals", &misread),
            }
        }
    }

    fn author(&self, entry: &Entry<'_>) -> Result<ReplicaId, Misread> {
        let by = entry.text("by").and_then(record::read_hex);
        by.ok_or_else(|| ("damaged", "an entry tells nobody who wrote it".to_owned()))
    }

    /// How long ago it was written, and the store's time. The id of an entry would not do: it never goes back, as the time does
    /// when it is set back.
    fn age(&self, entry: &Entry<'_>) -> (Duration, u64) {
        let store_micros = self.shared.state.store_micros(clock::mono()).unwrap_or_default();
        let written_ms = entry.field("t").and_then(number::<u64>).unwrap_or(store_micros / 1000);
        (Duration::from_millis((store_micros / 1000).saturating_sub(written_ms)), store_micros)
    }

    /// From the change on the other replica until it is handed to the registry here, by the store's clock.
    fn observe(&self, entry: &Entry<'_>) {
        let decided = entry.field("at").and_then(number::<u64>).filter(|at| *at > 0);
        if let (Some(at), Some(now)) = (decided, self.shared.state.store_micros(clock::mono())) {
            self.shared.metrics.propagation_replica.observe(Duration::from_micros(now.saturating_sub(at)).as_secs_f64());
        }
    }

    fn count(&self, result: &str) {
        self.shared.metrics.store_events.with_label_values(&[result]).inc();
    }

    fn skip(&self, key: &str, (reason, detail): &Misread) {
        self.count("skipped");
        self.shared.skipped.note(key, reason, detail);
    }
}

/// An entry of a stream.
struct Entry<'a> {
    fields: &'a [Value],
}

impl<'a> Entry<'a> {
    fn field(&self, name: &str) -> Option<&'a Value> {
        self.fields.chunks_exact(2).find(|pair| text(&pair[0]) == Some(name)).map(|pair| &pair[1])
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.field(name).and_then(text)
    }
}
