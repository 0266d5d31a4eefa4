//! The clients that are connected: how many there may be in all and from one address, and how those over a limit leave.
//!
//! **Invariant:** every map entry belongs to at least one open connection, so the maps are bounded by the number of
//! connections, whatever addresses they come from.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

/// Maps that are locked one at a time, so that clients of different addresses rarely wait for each other.
const SHARDS: usize = 32;

/// How many clients over a limit are told so at once. Each of them costs a descriptor for as long as it is told; beyond
/// this they are closed without a word.
const LEAVING_MAX: usize = 256;

/// The network of one IPv6 customer: within it, a client can have as many addresses as it likes.
const IPV6_PREFIX: u32 = 64;

/// Which limit a client ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// There are as many connections as there may be.
    Gateway,
    /// Its address has as many as it may have.
    Client,
}

/// Who is connected, on all listeners.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    admitted: AtomicUsize,
    leaving: AtomicUsize,
    clients: [Mutex<HashMap<u128, usize>>; SHARDS],
    hash: RandomState,
}

impl Crowd {
    /// Gives a connection its place, if there are fewer than `max` of them. With `per_client`, its address and how many
    /// connections that may have, it is counted against that, too.
    pub(super) fn admit(&self, max: usize, per_client: Option<(IpAddr, usize)>) -> Result<Place<'_>, Full> {
        if self.admitted.fetch_add(1, Relaxed) >= max {
            self.admitted.fetch_sub(1, Relaxed);
            return Err(Full::Gateway);
        }
        // From here on, dropping it takes it back.
        let mut place = Place { crowd: self, client: None };
        if let Some((address, max)) = per_client {
            let client = network(address);
            if !self.count(client, max) {
                return Err(Full::Client);
            }
            place.client = Some(client);
        }
        Ok(place)
    }

    /// Lets a client that was not admitted be told so. `None` when too many others are being told.
    pub(super) fn tell_off(&self) -> Option<Leaving<'_>> {
        let leaving = Leaving(self);
        (self.leaving.fetch_add(1, Relaxed) < LEAVING_MAX).then_some(leaving)
    }

    fn count(&self, client: u128, max: usize) -> bool {
        let mut clients = self.shard(client).lock();
        match clients.entry(client) {
            Entry::Occupied(entry) if *entry.get() >= max => false,
            entry => {
                *entry.or_insert(0) += 1;
                true
            }
        }
    }

    fn discount(&self, client: u128) {
        let mut clients = self.shard(client).lock();
        if let Entry::Occupied(mut entry) = clients.entry(client) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    fn shard(&self, client: u128) -> &Mutex<HashMap<u128, usize>> {
        let hash = self.hash.hash_one(client) % SHARDS as u64;
        &self.clients[usize::try_from(hash).unwrap_or_default()]
    }
}

/// What counts as one client.
fn network(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Ipv6Addr::LOCALHOST.to_bits(),
        IpAddr::V6(v6) => v6.to_bits() & (u128::MAX << (128 - IPV6_PREFIX)),
    }
}

/// A connection's place, for as long as it is open.
#[derive(Debug)]
pub(super) struct Place<'a> {
    crowd: &'a Crowd,
    client: Option<u128>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            self.crowd.discount(client);
        }
        self.crowd.admitted.fetch_sub(1, Relaxed);
    }
}

/// A client that is being told that there is no place for it.
#[derive(Debug)]
pub(super) struct Leaving<'a>(&'a Crowd);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leaving.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn known(crowd: &Crowd) -> usize {
        crowd.clients.iter().map(|shard| shard.lock().len()).sum()
    }

    #[test]
    fn places_are_given_up_to_the_limit_and_come_back() {
        let crowd = Crowd::default();
        let held: Vec<_> = (0..3).map(|_| crowd.admit(3, None).unwrap()).collect();
        assert_eq!(crowd.admit(3, None).unwrap_err(), Full::Gateway);
        drop(held);
        assert!(crowd.admit(3, None).is_ok());
    }

    #[test]
    fn one_address_takes_no_more_than_its_share() {
        let crowd = Crowd::default();
        let from = |address: &str| crowd.admit(100, Some((ip(address), 2)));
        let held = [from("192.0.2.1").unwrap(), from("::ffff:192.0.2.1").unwrap(), from("2001:db8::1").unwrap()];
        assert_eq!(from("192.0.2.1").unwrap_err(), Full::Client, "written as IPv6 it is the same");
        let others = [from("192.0.2.2").unwrap(), from("2001:db8::2").unwrap(), from("2001:db8:0:1::1").unwrap()];
        assert_eq!(from("2001:db8::ffff:3").unwrap_err(), Full::Client, "one /64 is one client");
        assert_eq!(known(&crowd), 4);
        drop((held, others));
        assert_eq!(known(&crowd), 0, "nothing is kept of those who left");
        assert_eq!(crowd.admitted.load(Relaxed), 0, "those who were refused left nothing either");
        assert!(from("192.0.2.1").is_ok());
    }

    #[test]
    fn only_so_many_are_told() {
        let crowd = Crowd::default();
        let leaving: Vec<_> = (0..LEAVING_MAX).map(|_| crowd.tell_off().unwrap()).collect();
        assert!(crowd.tell_off().is_none());
        assert!(crowd.tell_off().is_none());
        drop(leaving);
        assert!(crowd.tell_off().is_some());
    }
}
