//! Failures of services and of clients, and what they must not become (SPEC §5).

mod breaker;
mod clients;
mod failures;
mod faults;
mod limits;
mod retry;
mod timeouts;
