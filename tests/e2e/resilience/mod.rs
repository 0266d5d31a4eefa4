//! Failures of services and of clients, and what they must not become (SPEC §5).

mod attacks;
mod breaker;
mod clients;
mod concurrency;
mod connections;
mod failures;
mod faults;
mod innocent;
mod limit_answers;
mod limits;
mod rates;
mod readers;
mod retry;
mod timeouts;
mod uploads;
