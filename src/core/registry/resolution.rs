//! Endpoints that are names: who uses which, and where instances can be reached.
//!
//! A name is held while an instance uses it, and by whoever is just putting one in, so that its last good answer outlives the
//! instance that is replaced.

use super::Registry;
use crate::command::Effect;
use crate::endpoint::{Guard, Host};
use crate::name::ServiceName;
use crate::names::Names;
use crate::table::{Facts, Origin};
use crate::time::Now;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

impl Registry {
    pub(super) fn addresses_of(&mut self, facts: &Facts) -> Arc<[SocketAddr]> {
        if let Some(host) = facts.endpoint.name() {
            self.hold_name(host, &facts.service);
        }
        judged(&self.guard, facts, &self.names)
    }

    /// Holds the name of an instance that comes from the store; its last good answer counts while there is no newer one.
    pub(super) fn hold_name_of(&mut self, facts: &Facts, now: Now) {
        let Some(host) = facts.endpoint.name() else { return };
        self.hold_name(host, &facts.service);
        if self.names.addresses(host).is_empty() {
            self.resolved(host, &facts.resolved, now);
        }
    }

    pub(super) fn release_name_of(&mut self, facts: &Facts) {
        if let Some(host) = facts.endpoint.name() {
            self.release_name(host, &facts.service);
        }
    }

    pub(super) fn hold_name(&mut self, host: &Arc<str>, service: &ServiceName) {
        if self.names.add_user(host, service) {
            self.effects.push(Effect::WantName(host.clone()));
        }
    }

    pub(super) fn release_name(&mut self, host: &Arc<str>, service: &ServiceName) {
        if self.names.remove_user(host, service) {
            self.effects.push(Effect::DropName(host.clone()));
        }
    }

    pub(super) fn resolved(&mut self, host: &Arc<str>, addresses: &[std::net::IpAddr], now: Now) {
        let Some(services) = self.names.resolved(host, addresses) else { return };
        for name in services {
            let entries = self.services.get_mut(&name).into_iter().flat_map(BTreeMap::values_mut);
            let mut changed = false;
            for entry in entries.chain(self.fallbacks.get_mut(&name)) {
                if entry.facts.endpoint.name() == Some(host) {
                    entry.addresses = judged(&self.guard, &entry.facts, &self.names);
                    // The process behind the new address is a new one: what was learned about the old one is void.
                    entry.cells.breaker.try_now();
                    changed = true;
                    if entry.facts.origin != Origin::Fallback {
                        let facts = Arc::make_mut(&mut entry.facts);
                        facts.resolved = addresses.to_vec();
                        // Every replica looks names up by itself, and may see other addresses: nothing to tell the others.
                        if self.sharing.is_none() {
                            facts.version_no = self.versions.next(now);
                            self.effects.extend(entry.stored());
                        }
                    }
                }
            }
            if changed {
                self.touch(name);
            }
        }
    }
}

/// Where the guard lets the instance be reached. The operator's own fallbacks need not be in the networks that registrants
/// are kept to.
pub(super) fn judged(guard: &Guard, facts: &Facts, names: &Names) -> Arc<[SocketAddr]> {
    let unconfined = || Guard { own: guard.own.clone(), allow: Vec::new() };
    let guard = if facts.origin == Origin::Fallback { &unconfined() } else { guard };
    let addresses = match facts.endpoint.host() {
        Host::Address(address) => std::slice::from_ref(address),
        Host::Name(host) => names.addresses(host),
    };
    let sockets = addresses.iter().map(|address| SocketAddr::new(*address, facts.endpoint.port()));
    sockets.filter(|socket| guard.judge(*socket).is_none()).collect()
}
