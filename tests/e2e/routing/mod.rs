//! What the data plane does to a request and its answer (SPEC §4).

mod forwarding;
mod framing;
mod headers;
mod malformed;
mod methods;
mod paths;
mod routes;
