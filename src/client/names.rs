//! Names to addresses, with a memory: a name server that says nothing for a moment must not make a service look ill, nor keep
//! its heartbeats from a registry that has not moved.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Error, Timeout};

/// The system's resolver; when it does not answer in time, its last answer counts. A name that is said not to exist does not.
#[derive(Debug, Default)]
pub(crate) struct Names {
    system: DefaultResolver,
    last: Mutex<BTreeMap<String, Vec<SocketAddr>>>,
}

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let answer = self.system.resolve(uri, config, timeout).map(|addresses| addresses.to_vec());
        let mut addresses = self.empty();
        let key = uri.authority().map(ToString::to_string).unwrap_or_default();
        self.settle(key, answer)?.into_iter().for_each(|address| addresses.push(address));
        Ok(addresses)
    }
}

impl Names {
    fn settle(&self, key: String, answer: Result<Vec<SocketAddr>, Error>) -> Result<Vec<SocketAddr>, Error> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(addresses) => {
                if last.len() < NAMES_MAX || last.contains_key(&key) {
                    last.insert(key, addresses.clone());
                }
                Ok(addresses)
            }
            Err(Error::Timeout(Timeout::Resolve)) if last.contains_key(&key) => Ok(last[&key].clone()),
            Err(error) => {
                last.remove(&key);
                Err(error)
            }
        }
    }
}

/// A client has one service and a few registries; what comes beyond is looked up each time.
const NAMES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn silence() -> Result<Vec<SocketAddr>, Error> {
        Err(Error::Timeout(Timeout::Resolve))
    }

    #[test]
    fn the_last_answer_counts_while_there_is_none() {
        let names = Names::default();
        let (a, b): (SocketAddr, SocketAddr) = ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let settle = |answer| names.settle("osint:80".to_owned(), answer);
        assert!(settle(silence()).is_err(), "there was no answer before");
        assert_eq!(settle(Ok(vec![a])).unwrap(), [a]);
        assert_eq!(settle(silence()).unwrap(), [a]);
        assert!(names.settle("other:80".to_owned(), silence()).is_err());
        assert_eq!(settle(Ok(vec![b])).unwrap(), [b]);
        assert_eq!(settle(silence()).unwrap(), [b]);
        assert!(settle(Err(Error::HostNotFound)).is_err(), "no such name");
        assert!(settle(silence()).is_err(), "what is said not to exist is forgotten");
    }

    #[test]
    fn many_names_are_looked_up_and_not_kept() {
        let names = Names::default();
        let address: SocketAddr = "10.0.0.1:80".parse().unwrap();
        for n in 0..2 * NAMES_MAX {
            assert_eq!(names.settle(format!("osint-{n}:80"), Ok(vec![address])).unwrap(), [address]);
        }
        assert_eq!(names.last.lock().unwrap().len(), NAMES_MAX);
    }
}
