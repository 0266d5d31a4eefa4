//! Several gateways that share one Redis.

use std::thread;

use super::gateway::Builder;
use super::{Balancer, Gateway};

/// Running gateways, each on addresses and in a directory of its own.
pub(crate) struct Fleet {
    pub(crate) gateways: Vec<Gateway>,
}

impl Fleet {
    /// Starts `count` gateways with these variables.
    #[track_caller]
    pub(crate) fn start(count: usize, env: &[(String, String)]) -> Self {
        Self::start_with(count, env, |builder| builder)
    }

    /// The same, with more to each gateway.
    #[track_caller]
    pub(crate) fn start_with(count: usize, env: &[(String, String)], more: impl Fn(Builder) -> Builder) -> Self {
        let builders: Vec<Builder> = (1..=count)
            .map(|number| {
                let builder = Gateway::builder().env("REPLICA_ID", &format!("replica-{number}"));
                more(env.iter().fold(builder, |builder, (name, value)| builder.env(name, value)))
            })
            .collect();
        // Together, as they would after a power cut.
        let started: Vec<_> = builders.into_iter().map(|builder| thread::spawn(|| builder.start())).collect();
        Self { gateways: started.into_iter().map(|gateway| gateway.join().unwrap()).collect() }
    }

    /// A load balancer in front of the data planes.
    pub(crate) fn balancer(&self) -> Balancer {
        Balancer::start(self.gateways.iter().map(|gateway| gateway.gateway).collect())
    }

    /// A load balancer in front of the registries.
    pub(crate) fn registry_balancer(&self) -> Balancer {
        Balancer::start(self.gateways.iter().map(|gateway| gateway.registry).collect())
    }
}
