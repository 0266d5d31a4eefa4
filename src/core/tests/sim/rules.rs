//! When each lease ends and who is held, by the rules and naively: one list, counted anew at every call. It is told what the
//! registry is told, and says what must have come of it.

use super::TOLERANCE_MS;
use super::oracle::Key;
use std::collections::BTreeMap;
use std::sync::Arc;
use vertice_core::command::{Command, Deregistration, Probe, Refused, Registration, Renewal, Reply};
use vertice_core::endpoint::Endpoint;
use vertice_core::name::InstanceId;
use vertice_core::table::{Bare, Facts, Origin, Snapshot};

/// Held instances are probed this often, and at most so late.
const PROBE_EVERY_MS: u64 = 5_000;
const PROBE_LATE_MS: u64 = 250;

#[derive(Default)]
pub(crate) struct Rules {
    leases: BTreeMap<Key, Lease>,
    called_last_ms: Option<u64>,
    holding: bool,
    /// What became of those that are no longer there, to say so when they are.
    ended: BTreeMap<Key, &'static str>,
    /// How long the last stall was, and when it ended.
    stalled: Option<(u64, u64)>,
    /// Counts what time alone brought about.
    pub(crate) decided: u64,
    pub(crate) seen: Seen,
}

/// How often something happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    lapses: u64,
    holds: u64,
    holds_ended: u64,
    renewals_while_held: u64,
    renewals_on_grace: u64,
    lapses_on_grace: u64,
    held_again: u64,
    probes_passed: u64,
    evictions: u64,
    results_for_nothing: u64,
    stalls_short: u64,
    stalls_long: u64,
    stalls_while_holding: u64,
}

#[derive(Clone, Debug)]
struct Lease {
    ttl_ms: u64,
    by_address: bool,
    endpoint: Endpoint,
    deadline_ms: u64,
    /// `None` when it has been silent since its lease ended.
    silent_from_ms: Option<u64>,
    state: State,
    failures: u32,
    probe: Probing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Held,
    Grace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probing {
    No,
    DueAt(u64),
    UnderWay { no: u64, since_ms: u64 },
}

impl Lease {
    fn start(&mut self, now_ms: u64) {
        self.deadline_ms = now_ms + self.ttl_ms;
        self.silent_from_ms = Some(now_ms + self.ttl_ms * 55 / 100);
        (self.state, self.failures, self.probe) = (State::Running, 0, Probing::No);
    }

    fn is_silent(&self, now_ms: u64) -> bool {
        self.silent_from_ms.is_none_or(|from_ms| from_ms <= now_ms)
    }
}

impl Rules {
    /// When the registry was called before.
    pub(crate) fn called_last_ms(&self) -> Option<u64> {
        self.called_last_ms
    }

    /// The registry is called: a gap of more than 1.5 s since the last call was a stall.
    pub(crate) fn called(&mut self, now_ms: u64) {
        let last_ms = self.called_last_ms.replace(now_ms).unwrap_or(now_ms);
        let stall_ms = now_ms - last_ms;
        if stall_ms <= 1_500 {
            return;
        }
        self.stalled = Some((stall_ms, now_ms));
        self.decided += 1;
        self.seen.stalls_while_holding += u64::from(self.holding);
        for lease in self.leases.values_mut() {
            if stall_ms * 2 >= lease.ttl_ms {
                lease.start(now_ms);
                self.seen.stalls_long += 1;
                continue;
            }
            self.seen.stalls_short += 1;
            if matches!(lease.probe, Probing::UnderWay { .. }) {
                lease.probe = Probing::DueAt(now_ms);
            }
            if lease.state == State::Held {
                continue;
            }
            let was_silent = lease.is_silent(last_ms);
            lease.deadline_ms = (lease.deadline_ms + stall_ms).max(now_ms + 1_000);
            lease.silent_from_ms = (!was_silent).then(|| lease.deadline_ms - lease.ttl_ms * 45 / 100);
        }
    }

    /// The process starts anew, with these.
    pub(crate) fn restarted<'a>(&mut self, facts: impl Iterator<Item = &'a Arc<Facts>>, now_ms: u64) {
        *self = Self { called_last_ms: Some(now_ms), decided: self.decided, seen: self.seen, ..Self::default() };
        for facts in facts {
            let by_address = facts.origin == Origin::RegisteredByAddress;
            let key = (facts.service.clone(), facts.id.clone());
            self.begin(key, facts.ttl.as_millis() as u64, by_address, facts.endpoint.clone(), now_ms);
        }
    }

    /// A command was carried out.
    pub(crate) fn applied(&mut self, command: &Command, reply: &Result<Reply, Refused>, now_ms: u64) -> Result<(), String> {
        self.called(now_ms);
        match (command, reply) {
            (Command::Register(registration), Ok(Reply::Registered { id, ttl, .. })) => {
                self.registered(registration, id, ttl.as_millis() as u64, now_ms);
            }
            (Command::Renew(renewal), reply) => {
                let those = self.meant_by(renewal);
                let told = reply.as_ref().map_or(0, |reply| if let Reply::Renewed(count) = reply { *count } else { 0 });
                if told != those.len() {
                    let after =
                        self.stalled.filter(|(_, at_ms)| *at_ms == now_ms).map(|(ms, _)| format!(" after a stall of {ms} ms"));
                    return Err(format!("{told} renewed instead of {those:?}{}", after.unwrap_or_default()));
                }
                those.iter().for_each(|key| self.renewed(key, now_ms));
            }
            (Command::Deregister(request), Ok(Reply::Deregistered(_))) => {
                for key in self.meant_to_go(request) {
                    self.leases.remove(&key);
                    self.ended.insert(key, "was deregistered");
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn registered(&mut self, registration: &Registration, id: &InstanceId, ttl_ms: u64, now_ms: u64) {
        let key = (registration.service.clone(), id.clone());
        let is_same =
            |other: &Key, lease: &Lease| other.0 == key.0 && (*other == key || lease.endpoint == registration.endpoint);
        self.leases.retain(|other, lease| !is_same(other, lease));
        self.begin(key, ttl_ms, registration.id.is_none(), registration.endpoint.clone(), now_ms);
    }

    fn begin(&mut self, key: Key, ttl_ms: u64, by_address: bool, endpoint: Endpoint, now_ms: u64) {
        let (state, probe) = (State::Running, Probing::No);
        let mut lease = Lease { ttl_ms, by_address, endpoint, deadline_ms: 0, silent_from_ms: None, state, failures: 0, probe };
        lease.start(now_ms);
        self.ended.remove(&key);
        self.leases.insert(key, lease);
    }

    fn renewed(&mut self, key: &Key, now_ms: u64) {
        let Some(lease) = self.leases.get_mut(key) else { return };
        match lease.state {
            State::Running => {}
            State::Held => self.seen.renewals_while_held += 1,
            State::Grace => self.seen.renewals_on_grace += 1,
        }
        lease.start(now_ms);
    }

    /// Leases that are due are held or end.
    pub(crate) fn expired(&mut self, now_ms: u64) -> Result<(), String> {
        self.called(now_ms);
        let silent = self.leases.values().filter(|lease| lease.is_silent(now_ms)).count();
        let is_mass = self.leases.len() >= 10 && silent * 2 > self.leases.len();
        if self.holding && !is_mass {
            self.holding = false;
            self.decided += 1;
            self.seen.holds_ended += 1;
            for lease in self.leases.values_mut().filter(|lease| lease.state == State::Held) {
                lease.state = State::Grace;
                lease.deadline_ms = now_ms + lease.ttl_ms;
            }
        }
        let is_due = |lease: &Lease| lease.state != State::Held && lease.deadline_ms <= now_ms;
        let due: Vec<Key> = self.leases.iter().filter(|(_, lease)| is_due(lease)).map(|(key, _)| key.clone()).collect();
        for key in due {
            self.decided += 1;
            let lease = self.leases.get_mut(&key).expect("it is due");
            if now_ms > lease.deadline_ms + TOLERANCE_MS {
                return Err(format!("{} of {} outlives its lease: {lease:?}", key.1, key.0));
            }
            if is_mass {
                self.seen.holds += u64::from(!std::mem::replace(&mut self.holding, true));
                self.seen.held_again += u64::from(lease.state == State::Grace);
                lease.state = State::Held;
                // Whoever is probed already goes on being probed.
                if lease.probe == Probing::No {
                    lease.probe = Probing::DueAt(now_ms);
                }
                lease.silent_from_ms = None;
            } else {
                *if lease.state == State::Grace { &mut self.seen.lapses_on_grace } else { &mut self.seen.lapses } += 1;
                self.leases.remove(&key);
                self.ended.insert(key, "lapsed");
            }
        }
        Ok(())
    }

    /// A probe was asked for.
    pub(crate) fn asked(&mut self, probe: &Probe, now_ms: u64) -> Result<(), String> {
        let key = (probe.service.clone(), probe.instance.clone());
        let Some(lease) = self.leases.get_mut(&key) else {
            let why = self.ended.get(&key).copied().unwrap_or("was replaced");
            return Err(format!("{} of {} is probed, but must be gone: it {why}", key.1, key.0));
        };
        if !matches!(lease.probe, Probing::DueAt(due_ms) if due_ms <= now_ms) {
            return Err(format!("{probe:?} is not due: {lease:?}"));
        }
        lease.probe = Probing::UnderWay { no: probe.no, since_ms: now_ms };
        Ok(())
    }

    /// Nobody waits for a probe who should have had it.
    pub(crate) fn check_probed(&self, now_ms: u64) -> Result<(), String> {
        // What came due while the process was stopped is made up for a few at a time.
        let resumed_ms = self.stalled.map_or(0, |(_, at_ms)| at_ms);
        let is_late =
            |lease: &Lease| matches!(lease.probe, Probing::DueAt(due_ms) if due_ms.max(resumed_ms) + PROBE_LATE_MS < now_ms);
        match self.leases.iter().find(|(_, lease)| is_late(lease)) {
            Some((key, lease)) => Err(format!("{} of {} waits for its probe: {lease:?}", key.1, key.0)),
            None => Ok(()),
        }
    }

    /// A probe ended.
    pub(crate) fn probed(&mut self, ended: u64, passed: bool, now_ms: u64) {
        self.called(now_ms);
        let asked = self.leases.iter_mut().find_map(|(key, lease)| match lease.probe {
            Probing::UnderWay { no, since_ms } if no == ended => Some((key.clone(), lease, since_ms)),
            _ => None,
        });
        let Some((key, lease, since_ms)) = asked else {
            self.seen.results_for_nothing += 1;
            return;
        };
        lease.probe = Probing::DueAt((since_ms + PROBE_EVERY_MS).max(now_ms));
        lease.failures = if passed { 0 } else { lease.failures + 1 };
        self.seen.probes_passed += u64::from(passed);
        if lease.failures == 2 {
            self.seen.evictions += 1;
            self.leases.remove(&key);
            self.ended.insert(key, "failed two probes");
        }
    }

    /// The table shows exactly the instances that the rules leave, each with the time that is left to it.
    pub(crate) fn check(&self, snapshot: &Snapshot<Bare>, born_ms: u64) -> Result<(), String> {
        let after_stall =
            || self.stalled.map(|(ms, at_ms)| format!("; the last stall ended at {at_ms} ms and was {ms} ms long"));
        let mut shown = 0;
        for upstream in snapshot.iter().filter(|service| !service.is_fallback).flat_map(|service| service.instances.iter()) {
            let key = (upstream.facts.service.clone(), upstream.facts.id.clone());
            let Some(lease) = self.leases.get(&key) else {
                let why = self.ended.get(&key).copied().unwrap_or("was replaced");
                return Err(format!("{} of {} must be gone: it {why}", key.1, key.0));
            };
            let cell = &upstream.cells.lease;
            if cell.is_held() != (lease.state == State::Held) {
                return Err(format!("{} of {} is shown as held: {}, but {lease:?}", key.1, key.0, cell.is_held()));
            }
            let deadline_ms = born_ms + cell.deadline().millis();
            if lease.state != State::Held && deadline_ms != lease.deadline_ms {
                let after = after_stall().unwrap_or_default();
                return Err(format!("{} of {} ends at {deadline_ms} ms instead of {lease:?}{after}", key.1, key.0));
            }
            shown += 1;
        }
        if shown == self.leases.len() {
            return Ok(());
        }
        let is_shown = |key: &Key| {
            snapshot
                .get(key.0.as_str())
                .is_some_and(|service| service.instances.iter().any(|upstream| upstream.facts.id == key.1))
        };
        let (key, lease) = self.leases.iter().find(|(key, _)| !is_shown(key)).expect("one is missing");
        let must = if lease.state == State::Running { "is gone, but its lease runs" } else { "must be held" };
        Err(format!("{} of {} {must}: {lease:?}{}", key.1, key.0, after_stall().unwrap_or_default()))
    }

    /// A named instance is meant; else the caller's own registration; else the only one; else all that came without an id.
    fn meant_by(&self, renewal: &Renewal) -> Vec<Key> {
        let mut those: Vec<&Key> = self.leases.keys().filter(|key| key.0 == renewal.service).collect();
        let by_address = |key: &&Key| self.leases[*key].by_address;
        let own = InstanceId::of_registrant(renewal.registrant);
        if let Some(id) = &renewal.id {
            those.retain(|key| key.1 == *id);
        } else if those.iter().any(|key| key.1 == own && by_address(key)) {
            those.retain(|key| key.1 == own);
        } else if those.len() > 1 {
            those.retain(by_address);
        }
        those.into_iter().cloned().collect()
    }

    fn meant_to_go(&self, request: &Deregistration) -> Vec<Key> {
        let mut those: Vec<&Key> = self.leases.keys().filter(|key| key.0 == request.service).collect();
        if let Some(id) = &request.id {
            those.retain(|key| key.1 == *id);
        } else if !request.all && those.len() > 1 {
            let own = InstanceId::of_registrant(request.registrant);
            those.retain(|key| key.1 == own);
        }
        those.into_iter().cloned().collect()
    }
}

impl Seen {
    pub(crate) fn plus(self, other: Self) -> Self {
        let (one, other) = (self.all(), other.all());
        let mut sum = one.into_iter().zip(other).map(|(one, other)| one + other);
        let mut next = || sum.next().unwrap_or(0);
        Self {
            lapses: next(),
            holds: next(),
            holds_ended: next(),
            renewals_while_held: next(),
            renewals_on_grace: next(),
            lapses_on_grace: next(),
            held_again: next(),
            probes_passed: next(),
            evictions: next(),
            results_for_nothing: next(),
            stalls_short: next(),
            stalls_long: next(),
            stalls_while_holding: next(),
        }
    }

    /// Whether everything that can happen did, so often.
    pub(crate) fn is_everything_at_least(self, times: u64) -> bool {
        self.all().into_iter().all(|count| count >= times)
    }

    fn all(self) -> [u64; 13] {
        [
            self.lapses,
            self.holds,
            self.holds_ended,
            self.renewals_while_held,
            self.renewals_on_grace,
            self.lapses_on_grace,
            self.held_again,
            self.probes_passed,
            self.evictions,
            self.results_for_nothing,
            self.stalls_short,
            self.stalls_long,
            self.stalls_while_holding,
        ]
    }
}
