//! Several replicas, one store: what others say, and what they are told.
//!
//! Every command here may come twice, late, out of order or not at all, from the events of the store, from a load, or from a
//! comparison of everything. They commute: whatever arrives in whatever order, the highest version of an instance holds.
//! Nothing that is learned here is written again, so there is no echo; only whoever knows *better* than what it hears says so.
//!
//! **Who lets a lease lapse.** A lease is held by the replica that renewed it last. The holder lapses it on its deadline. The
//! others hear of renewals at the latest one [`SHADOW`] later; when even then nothing was heard they do not judge, they ask the
//! store: a record with a living holder stays, one whose holder is gone lapses.
//!
//! **While the store is away** no renewal is heard of. Leases held elsewhere are kept; once over, and `stale_after` their last
//! renewal, they are probed, as a hold does, and removed after two failed probes. Leases held here may have been renewed
//! elsewhere meanwhile, with a load balancer in front they are: when there were other replicas they are probed on their deadline
//! instead of being lapsed. So nobody is removed who is well, and whoever died goes some seconds later than it would.
//!
//! **When the store comes back** nobody is judged for [`RECOVERY`]: the others are coming back, too, and have to write what
//! they renewed. What was last renewed here before that may have been renewed elsewhere since: it is asked about as well.

use super::graves::{Graves, KEPT_BEYOND};
use super::{Entry, Registry, lapsed};
use crate::command::{Effect, Refused, Reply};
use crate::event::Event;
use crate::lease::{Lease, SHADOW};
use crate::name::{InstanceId, ServiceName};
use crate::record::{Gone, Record, ReplicaId, Standing, StoreNews, Stored, Why};
use crate::table::Facts;
use crate::time::{Moment, Now};
use crate::version::{may_be_change, shifted};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A question to the store is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// After the store came back, or lost what it had, the other replicas have so long to say what they know.
const RECOVERY: Duration = Duration::from_secs(5);
/// A renewal is told at once when less than this was left: others may be about to ask.
const URGENT: Duration = Duration::from_secs(2);
/// Whoever heard of another replica within this believes that there is one, whatever the store says: it may just have forgotten.
const OTHERS_REMEMBERED: Duration = Duration::from_secs(60);
/// Graves kept for each instance there may be.
const GRAVES_PER_INSTANCE: usize = 2;

/// What a replica knows that shares its store.
#[derive(Debug)]
pub(super) struct Sharing {
    pub(super) me: ReplicaId,
    pub(super) graves: Graves,
    stale_after: Duration,
    link: Link,
    /// Whether other replicas are believed to be there, and when one was last heard.
    others: bool,
    heard_last: Option<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Away { others: bool },
    Following { since: Moment },
}

/// What to do about a lease that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// So many are silent that we are to blame.
    Hold,
    /// It is over.
    Lapse,
    /// The store knows.
    Ask,
    /// Nobody can know: probe it.
    Probe,
    /// Nothing before that.
    Wait(Moment),
}

impl Sharing {
    pub(super) fn new(me: ReplicaId, stale_after: Duration) -> Self {
        // Until something is known of them, others may be there.
        Self { me, graves: Graves::default(), stale_after, link: Link::Away { others: true }, others: true, heard_last: None }
    }

    /// How long after a renewal elsewhere a lease is doubted from now on.
    pub(super) const fn doubt_after(&mut self, stale_after: Duration) {
        self.stale_after = stale_after;
    }

    /// Since when the store is followed, if it is.
    fn following_since(&self) -> Option<Moment> {
        match self.link {
            Link::Following { since } => Some(since),
            Link::Away { .. } => None,
        }
    }

    /// Whether the others have had the time to say what they know.
    fn may_judge(&self, now: Moment) -> bool {
        self.following_since().is_some_and(|since| now.since(since) >= RECOVERY)
    }

    /// Whether a lease was last renewed before the store was followed without a break.
    fn is_renewed_before_following(&self, lease: Lease) -> bool {
        self.following_since().is_some_and(|since| lease.deadline().minus(lease.ttl()) < since)
    }
}

impl Registry {
    /// The instance is gone: tells the store, and remembers it.
    pub(super) fn bury(&mut self, facts: &Facts, why: Why, version_no: u64, finishing: Option<Duration>, now: Moment) {
        let (service, id, kept) = (facts.service.clone(), facts.id.clone(), facts.ttl.saturating_add(KEPT_BEYOND));
        self.bury_unseen(service, id, why, version_no, finishing, kept, now);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a grave")]
    fn bury_unseen(
        &mut self,
        service: ServiceName,
        id: InstanceId,
        why: Why,
        version_no: u64,
        finishing: Option<Duration>,
        kept: Duration,
        now: Moment,
    ) {
        let by = self.sharing.as_ref().map_or(ReplicaId::NOBODY, |sharing| sharing.me);
        let gone = Gone { service, id, version_no, why, by, kept, finishing };
        self.dig(gone.clone(), now);
        self.effects.push(Effect::Forget(gone));
    }

    fn dig(&mut self, gone: Gone, now: Moment) {
        let max = self.limits.instances.saturating_mul(GRAVES_PER_INSTANCE);
        if let Some(sharing) = &mut self.sharing {
            sharing.graves.dig(gone, now, max);
        }
    }

    /// Somebody deregisters an instance that is not known here. Another replica may know it and not have been able to say so,
    /// or the store may hold it while it cannot be asked.
    pub(super) fn deregister_unseen(&mut self, service: &ServiceName, id: InstanceId, now: Now) {
        if self.sharing.as_ref().is_some_and(|sharing| sharing.graves.len() < self.limits.instances) {
            let version_no = self.versions.next(now);
            let kept = Duration::from_secs(*crate::bounds::TTL_S.end()).saturating_add(KEPT_BEYOND);
            self.bury_unseen(service.clone(), id, Why::Removed, version_no, None, kept, now.mono);
        }
    }

    /// Whether the store cannot be asked.
    pub(super) fn is_away(&self) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| sharing.following_since().is_none())
    }

    /// Tells the other replicas of a renewal, unless a write of the whole instance does.
    pub(super) fn tell_renewal(&mut self, renewed: Option<Stored>, left_before: Duration) {
        if let Some(stored) = renewed.filter(|_| self.sharing.is_some()) {
            self.effects.push(Effect::Renewal { stored, is_urgent: left_before < URGENT });
        }
    }

    /// A change that only replicas need to know of gets a version of its own, above `above` as well.
    pub(super) fn restate(&mut self, service: &ServiceName, id: &InstanceId, above: u64, now: Now) {
        if self.sharing.is_none() {
            return;
        }
        let Some(entry) = self.services.get_mut(service).and_then(|instances| instances.get_mut(id)) else { return };
        let facts = Arc::make_mut(&mut entry.facts);
        facts.version_no = self.versions.change(facts.version_no.max(above), now);
        let effect = entry.stored();
        self.effects.extend(effect);
        self.touch(service.clone());
    }

    /// What to do about a lease that is due.
    pub(super) fn verdict(&self, service: &ServiceName, id: &InstanceId, now: Moment) -> Verdict {
        let Some(sharing) = &self.sharing else { return Verdict::Lapse };
        let lease = self.known(service, id).map(|entry| entry.lease);
        let Some(lease) = lease else { return Verdict::Lapse };
        match (sharing.link, lease.holder()) {
            // What was said while the store was away was heard by nobody.
            (Link::Following { .. }, None) if sharing.is_renewed_before_following(lease) => Verdict::Ask,
            (Link::Following { .. }, None) | (Link::Away { others: false }, None) => Verdict::Lapse,
            (Link::Following { .. }, Some(_)) => Verdict::Ask,
            (Link::Away { others: true }, None) => Verdict::Probe,
            (Link::Away { .. }, Some(_)) => {
                // Counted from its last renewal, and never before the lease is over.
                let stale = lease.deadline().minus(lease.ttl()).plus(sharing.stale_after).max(lease.deadline());
                if stale <= now { Verdict::Probe } else { Verdict::Wait(stale) }
            }
        }
    }

    /// Asks the store for an instance, and for the answer to be waited for.
    pub(super) fn ask(&mut self, service: ServiceName, id: InstanceId, now: Moment) {
        self.due_at(&service, &id, now.plus(ASK_AGAIN));
        self.effects.push(Effect::Fetch { service, id });
    }

    /// Has a lease looked into at another time.
    pub(super) fn due_at(&mut self, service: &ServiceName, id: &InstanceId, due: Moment) {
        let Some(entry) = self.services.get_mut(service).and_then(|instances| instances.get_mut(id)) else { return };
        self.leases.put_off(entry.lease, service, id);
        entry.lease = entry.lease.due_at(due);
        self.leases.start_silent(entry.lease, service, id);
    }

    /// What another replica, or the store, says of an instance.
    pub(super) fn merge(&mut self, record: Record, now: Now) -> Result<Reply, Refused> {
        self.heard_from(record.holder, now.mono);
        let Some(sharing) = &self.sharing else { return Ok(Reply::Done) };
        self.versions.saw(record.facts.version_no, now.mono);
        let (service, id) = (record.facts.service.clone(), record.facts.id.clone());
        if let Some(grave) = sharing.graves.against(&record) {
            self.effects.push(Effect::Forget(grave.clone()));
            return Ok(Reply::Done);
        }
        let known = self.known(&service, &id);
        match known.map(|entry| entry.facts.version_no) {
            Some(version_no) if version_no > record.facts.version_no => self.insist(&service, &id),
            Some(version_no) if version_no == record.facts.version_no => {
                self.renewed_elsewhere(&service, &id, record.left, record.holder, now);
            }
            _ => self.take_in(record, now)?,
        }
        Ok(Reply::Done)
    }

    /// Takes in an instance, or a newer version of one.
    fn take_in(&mut self, record: Record, now: Now) -> Result<(), Refused> {
        let Record { facts, left, holder, drain } = record;
        let (service, id) = (facts.service.clone(), facts.id.clone());
        let rivals = self.replaced_by(&service, &id, &facts.endpoint);
        self.check_limits(&service, rivals.len())?;
        // Two replicas may have registered one endpoint under two ids at once: the later registration is the true one.
        let newer = |rival: &&InstanceId| self.services[&service][*rival].facts.version_no > facts.version_no;
        if rivals.iter().any(|rival| newer(&rival)) {
            self.bury(&facts, Why::Removed, facts.version_no, None, now.mono);
            return Ok(());
        }
        let before = self.known(&service, &id);
        let is_same_registration = before.is_some_and(|entry| entry.facts.registered_wall_ms == facts.registered_wall_ms);
        let mine = before.map(|entry| entry.lease);
        let is_change = before.is_some_and(|entry| may_be_change(facts.version_no, entry.facts.version_no));
        let cells = match before.filter(|entry| is_same_registration && entry.facts.endpoint == facts.endpoint) {
            Some(entry) => {
                if facts.status.takes_traffic() && !entry.facts.status.takes_traffic() {
                    entry.cells.standing.starts(now.mono);
                }
                entry.cells.clone()
            }
            None => {
                let cells = self.inherited_cells(&service, &rivals, &facts.endpoint);
                cells.registered(now.mono);
                cells
            }
        };
        let offered = Lease::elsewhere(facts.ttl, left, holder, now.mono);
        // What another replica heard says nothing against a renewal that came here.
        let is_better = |mine: &Lease| mine.deadline() > offered.deadline() || is_beyond(left, facts.ttl);
        // Nor does a change against one elsewhere. Whoever registered anew may be another, of whom its holder knows nothing.
        let is_known = |mine: &Lease| mine.holder().is_none() || is_change;
        let is_kept = |mine: &Lease| is_known(mine) && mine.ttl() == facts.ttl && mine.deadline() > now.mono;
        let kept = mine.filter(|mine| is_kept(mine) && is_better(mine));
        let lease = kept.unwrap_or(offered);
        self.hold_name_of(&facts, now);
        for rival in &rivals {
            let loser = self.services[&service][rival].facts.clone();
            self.take_out(&service, rival);
            if *rival != id {
                self.bury(&loser, Why::Removed, loser.version_no, None, now.mono);
            }
        }
        self.insert(facts.clone(), lease, cells, Self::renewed_wall_ms(lease, now));
        if lease.holder().is_none() {
            // The renewal was told of a version that nobody goes by any more.
            let stored = self.known(&service, &id).and_then(Entry::on_its_way);
            self.tell_renewal(stored, left);
        }
        if let Some(left) = drain.filter(|left| !left.is_zero()) {
            self.start_drain(&service, &id, left, false, now);
        }
        self.release_name_of(&facts);
        if !is_same_registration {
            self.effects.push(Effect::Tell(Event::Learned { service, instance: id, replaced: !rivals.is_empty() }));
        }
        Ok(())
    }

    /// An instance was renewed at another replica.
    pub(super) fn renewed_there(
        &mut self,
        service: ServiceName,
        id: InstanceId,
        version_no: u64,
        left: Duration,
        holder: ReplicaId,
        now: Now,
    ) {
        self.heard_from(holder, now.mono);
        let Some(sharing) = &self.sharing else { return };
        self.versions.saw(version_no, now.mono);
        let known = self.known(&service, &id).map(|entry| entry.facts.version_no);
        let is_buried = sharing
            .graves
            .of(&service, &id)
            .is_some_and(|gone| gone.version_no > version_no || (gone.version_no == version_no && gone.why == Why::Removed));
        match known {
            Some(known) if known >= version_no => self.renewed_elsewhere(&service, &id, left, holder, now),
            // Renewed there, and not known here, or not in that version: what was missed can be read.
            _ if !is_buried => self.effects.push(Effect::Fetch { service, id }),
            _ => {}
        }
    }

    fn renewed_elsewhere(&mut self, service: &ServiceName, id: &InstanceId, left: Duration, holder: ReplicaId, now: Now) {
        let is_mine = self.sharing.as_ref().is_some_and(|sharing| sharing.me == holder);
        let Some(entry) = self.entry(service, id) else { return };
        if is_beyond(left, entry.facts.ttl) && entry.lease.deadline() > now.mono {
            return;
        }
        let lease = Lease::elsewhere(entry.facts.ttl, left, holder, now.mono);
        if is_mine || lease.deadline() <= entry.lease.deadline() || lease.deadline() <= now.mono {
            return;
        }
        let before = std::mem::replace(&mut entry.lease, lease);
        entry.cells.lease.set(lease, Self::renewed_wall_ms(lease, now));
        self.leases.end(before, service, id);
        self.leases.start(lease, service, id);
        self.hold.release(service, id);
    }

    /// What another replica, or the store, says of an instance that is gone.
    pub(super) fn merge_gone(&mut self, gone: Gone, now: Now) {
        self.heard_from(gone.by, now.mono);
        let Some(sharing) = &self.sharing else { return };
        let me = sharing.me;
        self.versions.saw(gone.version_no, now.mono);
        let Gone { service, id, version_no, why, by, finishing, .. } = gone.clone();
        let known = self.known(&service, &id);
        let known = known.map(|entry| (entry.facts.version_no, entry.lease, entry.is_leaving()));
        let Some((known_no, lease, is_leaving)) = known else {
            self.dig(gone, now.mono);
            return;
        };
        if known_no > version_no {
            self.insist(&service, &id);
            return;
        }
        if why == Why::Lapsed && lease.deadline() > now.mono {
            match lease.holder() {
                // It was renewed here: it lives, and a new version says so.
                None if may_be_change(version_no, known_no) => self.restate(&service, &id, version_no, now),
                // It registered anew where it was not renewed. What is known here is out of date; it must register again.
                None => self.depart(&gone, now),
                // Its holder will say so. If that is not so, the store will when it is asked.
                Some(holder) if holder != by && holder != me => {}
                Some(_) => self.depart(&gone, now),
            }
            return;
        }
        match finishing.filter(|span| !span.is_zero()) {
            Some(span) => {
                self.dig(gone, now.mono);
                if !is_leaving {
                    self.start_drain(&service, &id, span, true, now);
                }
            }
            None => self.depart(&gone, now),
        }
    }

    /// Takes an instance out because another replica says that it is gone.
    fn depart(&mut self, gone: &Gone, now: Now) {
        self.take_out(&gone.service, &gone.id);
        self.dig(gone.clone(), now.mono);
        let (service, instance) = (gone.service.clone(), gone.id.clone());
        self.effects.push(Effect::Tell(Event::Departed { service, instance }));
    }

    /// Says again what is known better here than where something older was heard.
    fn insist(&mut self, service: &ServiceName, id: &InstanceId) {
        let effect = self.known(service, id).and_then(Entry::stored);
        self.effects.extend(effect);
    }

    /// The store's answer to a question.
    pub(super) fn fetched(
        &mut self,
        service: &ServiceName,
        id: &InstanceId,
        record: Option<Record>,
        is_holder_alive: bool,
        now: Now,
    ) -> Result<Reply, Refused> {
        let Some(me) = self.sharing.as_ref().map(|sharing| sharing.me) else { return Ok(Reply::Done) };
        let known = self.known(service, id);
        let known = known.map(|entry| (entry.facts.version_no, entry.lease, entry.is_leaving()));
        match (known, record) {
            (None, None) | (Some((.., true)), _) => {}
            (Some((_, lease, _)), None) if lease.deadline() > now.mono && lease.holder() != Some(ReplicaId::NOBODY) => {
                self.insist(service, id);
            }
            (Some(_), None) => self.lapse_asked(service, id, now),
            (Some((known_no, lease, _)), Some(record)) if known_no == record.facts.version_no => {
                let left = match is_holder_alive && record.holder != me {
                    true => record.left.max(ASK_AGAIN),
                    // More than any lease has: the store's clock was set back, and whoever could tell is dead.
                    false if record.left > record.facts.ttl.saturating_add(KEPT_BEYOND) => Duration::ZERO,
                    false => record.left,
                };
                let is_over = lease.deadline() <= now.mono && (left.is_zero() || record.holder == me);
                match is_over {
                    true => self.lapse_asked(service, id, now),
                    false => self.renewed_elsewhere(service, id, left, record.holder, now),
                }
            }
            // What I hold in the store and do not have is gone, unless somebody else has renewed it since.
            (None, Some(record)) if record.holder == me => {
                self.bury(&record.facts, Why::Lapsed, record.facts.version_no, None, now.mono);
            }
            (None, Some(record)) if !is_holder_alive => {
                let left = record.facts.ttl;
                return self.merge(Record { left, ..record }, now);
            }
            (_, Some(record)) => return self.merge(record, now),
        }
        Ok(Reply::Done)
    }

    fn lapse_asked(&mut self, service: &ServiceName, id: &InstanceId, now: Now) {
        if self.sharing.as_ref().is_some_and(|sharing| !sharing.may_judge(now.mono)) {
            // An answer to a question from before. Whoever is kept meanwhile is judged when that ends.
            if !self.hold.holds(service, id) {
                self.due_at(service, id, now.mono.plus(ASK_AGAIN));
            }
            return;
        }
        if self.is_mostly_silent() {
            // Whoever is cut off does not judge: the hold does.
            self.due_at(service, id, now.mono);
            return;
        }
        self.lapse(service, id, now.mono);
        self.effects.push(lapsed(service.clone(), id.clone()));
    }

    /// Everything that the store has of one service.
    pub(super) fn compare(&mut self, service: &ServiceName, stored: Vec<(InstanceId, Standing)>, now: Now) {
        let Some(sharing) = &self.sharing else { return };
        let stored: BTreeMap<InstanceId, Standing> = stored.into_iter().collect();
        let none = BTreeMap::new();
        let instances = self.services.get(service).unwrap_or(&none);
        let fetch = |id: &InstanceId| Effect::Fetch { service: service.clone(), id: id.clone() };
        let mut effects = Vec::new();
        for (id, standing) in &stored {
            let grave = sharing.graves.of(service, id);
            effects.extend(match (instances.get(id), standing) {
                (Some(entry), _) if entry.facts.version_no > standing.version_no() => entry.stored(),
                (Some(entry), Standing::Record(no)) if entry.facts.version_no == *no => None,
                (None, Standing::Gone(_)) => None,
                (None, Standing::Record(no)) if grave.is_some_and(|gone| gone.version_no > *no) => {
                    grave.cloned().map(Effect::Forget)
                }
                _ => Some(fetch(id)),
            });
        }
        let lacking = instances.iter().filter(|(id, entry)| !stored.contains_key(*id) && entry.lease.deadline() > now.mono);
        effects.extend(lacking.filter_map(|(id, entry)| match entry.lease.holder() {
            // It may have been removed while this process was stopped for longer than a grave is kept.
            Some(ReplicaId::NOBODY) => Some(fetch(id)),
            _ => entry.stored(),
        }));
        for standing in stored.values() {
            self.versions.saw(standing.version_no(), now.mono);
        }
        self.effects.extend(effects);
    }

    /// How the store is.
    pub(super) fn store_news(&mut self, news: StoreNews, now: Now) {
        match news {
            StoreNews::Away { others } => self.go_away(others, now.mono),
            StoreNews::Following => {
                if let Some(sharing) = &mut self.sharing {
                    sharing.link = Link::Following { since: now.mono };
                }
                self.recover(now.mono);
            }
            StoreNews::Lost => {
                self.vouch_for_nobodys();
                // The renewals that others have not read are lost as well.
                if let Some(Sharing { link: Link::Following { since }, .. }) = &mut self.sharing {
                    *since = now.mono;
                }
                self.recover(now.mono);
            }
            StoreNews::Time { micros } => {
                if let Some(error) = self.versions.store_time(micros, now.mono) {
                    self.renumber(error);
                }
            }
        }
    }

    fn heard_from(&mut self, replica: ReplicaId, now: Moment) {
        let sharing = self.sharing.as_mut().filter(|sharing| sharing.me != replica && replica != ReplicaId::NOBODY);
        if let Some(sharing) = sharing {
            (sharing.others, sharing.heard_last) = (true, Some(now));
        }
    }

    /// The store cannot be used. That it names no other replica means nothing unless none was heard for as long as any would
    /// have been: after a flush, or a change of servers, it knows only those that have come back.
    fn go_away(&mut self, others: bool, now: Moment) {
        let Some(sharing) = &mut self.sharing else { return };
        let is_long = |since: Option<Moment>| since.is_some_and(|since| now.since(since) >= OTHERS_REMEMBERED);
        let is_alone = is_long(sharing.following_since()) && (sharing.heard_last.is_none() || is_long(sharing.heard_last));
        sharing.others = others || (sharing.others && !is_alone);
        sharing.link = Link::Away { others: sharing.others };
    }

    /// Gives the other replicas time to say what they know before anybody is judged.
    fn recover(&mut self, now: Moment) {
        let due = now.plus(RECOVERY);
        let stale = self.hold.take_stale();
        for (service, id) in &stale {
            let Some(entry) = self.services.get_mut(service).and_then(|instances| instances.get_mut(id)) else { continue };
            self.leases.put_off(entry.lease, service, id);
            let holder = entry.lease.holder().unwrap_or(ReplicaId::NOBODY);
            entry.lease = entry.lease.held_by(holder).due_at(due);
            entry.cells.lease.set_lease(entry.lease);
            entry.cells.lease.set_held(false);
            let lease = entry.lease;
            self.leases.start_silent(lease, service, id);
        }
        // Also those that were put off for as long as nobody could be asked.
        let anew = |lease: Lease| lease.deadline().plus(SHADOW).max(due);
        let is_to_move = |entry: &Entry| entry.lease.due() < due || entry.lease.due() > anew(entry.lease);
        let those = self.services.iter().flat_map(|(service, instances)| {
            let those = instances.iter().filter(|(_, entry)| is_to_move(entry));
            those.map(move |(id, entry)| (service.clone(), id.clone(), anew(entry.lease)))
        });
        for (service, id, anew) in those.collect::<Vec<_>>() {
            if !self.hold.holds(&service, &id) {
                self.due_at(&service, &id, anew);
            }
        }
    }

    /// The store has forgotten everybody, so that it says nothing against those that nobody is known to hold.
    fn vouch_for_nobodys(&mut self) {
        for (service, instances) in &mut self.services {
            for (id, entry) in instances.iter_mut().filter(|(_, entry)| entry.lease.holder() == Some(ReplicaId::NOBODY)) {
                self.leases.end(entry.lease, service, id);
                entry.lease = entry.lease.held_here();
                entry.cells.lease.set_lease(entry.lease);
                self.leases.start(entry.lease, service, id);
            }
        }
    }

    /// The store has told its time for the first time: what was numbered by a guess is numbered anew.
    fn renumber(&mut self, error_micros: i64) {
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        for entry in self.services.values_mut().flat_map(BTreeMap::values_mut).filter(|entry| entry.lease.holder().is_none()) {
            let facts = Arc::make_mut(&mut entry.facts);
            facts.version_no = shifted(facts.version_no, error_micros);
            self.effects.extend(entry.stored());
        }
        names.into_iter().for_each(|name| self.touch(name));
        let Some(sharing) = &mut self.sharing else { return };
        let graves = sharing.graves.renumber(sharing.me, |version_no| shifted(version_no, error_micros));
        self.effects.extend(graves.into_iter().map(Effect::Forget));
    }

    /// When an instance was renewed whose lease has so much left.
    fn renewed_wall_ms(lease: Lease, now: Now) -> u64 {
        let ago = lease.ttl().saturating_sub(lease.deadline().since(now.mono));
        now.wall_ms.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Whether that is more than any lease has left: the store's clock was set back. What is known here is better.
fn is_beyond(left: Duration, ttl: Duration) -> bool {
    left > ttl.saturating_add(SHADOW)
}
