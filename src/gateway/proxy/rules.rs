//! What the operator decided about requests, in one piece: a request takes it once and keeps it to its end, so that a reload in
//! between cannot show it one half of the old decisions and one of the new.

use super::admit::Routing;
use ipnet::IpNet;
use std::time::Duration;

/// The rules of all requests that begin while they are in force.
#[derive(Debug, Default)]
pub struct Rules {
    /// Bounds, and whom to trust.
    pub settings: Settings,
    /// Routes and aliases.
    pub routing: Routing,
}

/// What a lane was configured with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Whose word about the client counts.
    pub trusted_proxies: Vec<IpNet>,
    /// How long a client's body may stall.
    pub body_stall: Duration,
    /// How long a client may refuse to take more of an answer.
    pub write_stall: Duration,
    /// How long a client connection may idle between requests.
    pub idle_keepalive: Duration,
}
