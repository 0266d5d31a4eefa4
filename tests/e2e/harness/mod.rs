//! What the tests stand on: the real programs as child processes, scripted services, a stub name server and an HTTP/1.1
//! client that shows every byte. Nothing here knows the gateway's code; it speaks only through sockets, files and signals.

pub(crate) mod balancer;
pub(crate) mod certificate;
pub(crate) mod clock;
pub(crate) mod conn;
pub(crate) mod contract;
pub(crate) mod dns;
pub(crate) mod fleet;
pub(crate) mod gate;
pub(crate) mod gateway;
pub(crate) mod heart;
pub(crate) mod http;
pub(crate) mod http2;
pub(crate) mod lane;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod redis;
pub(crate) mod resp;
pub(crate) mod scripts;
pub(crate) mod sentinel;
pub(crate) mod sidecar;
pub(crate) mod upstream;

pub(crate) use balancer::Balancer;
pub(crate) use clock::{eventually, now, wait_for};
pub(crate) use conn::Conn;
pub(crate) use contract::Contract;
pub(crate) use fleet::Fleet;
pub(crate) use gate::Gate;
pub(crate) use gateway::Gateway;
pub(crate) use heart::Hearts;
pub(crate) use http::{Request, Response, delete, get, head, post};
pub(crate) use lane::Lane;
pub(crate) use load::SteadyLoad;
pub(crate) use redis::Redis;
pub(crate) use sentinel::Sentinels;
pub(crate) use upstream::{After, Exchange, Upstream};

/// How long a test waits for something that normally takes milliseconds: long enough for a busy machine.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
