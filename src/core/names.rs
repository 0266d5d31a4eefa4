//! Host names that instances use, the services that depend on each, and the last good answer.

use crate::name::ServiceName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Reference-counted names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    by_host: BTreeMap<Arc<str>, Known>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Vec<IpAddr>,
    /// How many instances of each service use the name.
    users: BTreeMap<ServiceName, usize>,
}

impl Names {
    /// One more instance of `service` uses `host`; tells whether it is the name's first user.
    pub(crate) fn add_user(&mut self, host: &Arc<str>, service: &ServiceName) -> bool {
        let known = self.by_host.entry(host.clone()).or_default();
        let first = known.users.is_empty();
        *known.users.entry(service.clone()).or_default() += 1;
        first
    }

    /// One instance less; tells whether the name has no user left, and forgets it then.
    pub(crate) fn remove_user(&mut self, host: &Arc<str>, service: &ServiceName) -> bool {
        let Some(known) = self.by_host.get_mut(host) else { return false };
        if let Some(count) = known.users.get_mut(service) {
            *count -= 1;
            if *count == 0 {
                known.users.remove(service);
            }
        }
        let unused = known.users.is_empty();
        if unused {
            self.by_host.remove(host);
        }
        unused
    }

    /// The last good answer; empty while there was none.
    pub(crate) fn addresses(&self, host: &str) -> &[IpAddr] {
        self.by_host.get(host).map_or(&[], |known| &known.addresses)
    }

    /// Notes an answer; the services to change, if it is news. An empty answer never replaces a good one, and the same
    /// addresses in another order are no news: many name servers rotate them with each answer.
    pub(crate) fn resolved(&mut self, host: &Arc<str>, addresses: &[IpAddr]) -> Option<Vec<ServiceName>> {
        if addresses.is_empty() {
            return None;
        }
        // A name that nobody uses yet is about to be used by the registration that brings its answer.
        let known = self.by_host.entry(host.clone()).or_default();
        let set = |addresses: &[IpAddr]| addresses.iter().copied().collect::<BTreeSet<_>>();
        if set(&known.addresses) == set(addresses) {
            return None;
        }
        known.addresses = addresses.to_vec();
        Some(known.users.keys().cloned().collect())
    }

    /// Forgets an answer that came for a name nobody uses.
    pub(crate) fn forget_unused(&mut self, host: &str) {
        if self.by_host.get(host).is_some_and(|known| known.users.is_empty()) {
            self.by_host.remove(host);
        }
    }
}
