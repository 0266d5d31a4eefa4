//! Which instance gets the next attempt.
//!
//! A pick first chooses by the service's algorithm, then asks the chosen instance's breaker; if that sheds, whoever comes next
//! is asked. Instances that are ejected, or whose probes failed, are chosen only when nobody else is left, or in *panic*: when
//! so few others are available that those would be overrun.

mod explain;
pub mod lineup;
pub mod ring;
mod round;
mod tried;

pub use explain::{Candidate, explain};
pub use round::{is_in_panic, share};
pub use tried::Tried;

use crate::table::{Attach, Service, Upstream};
use crate::time::Moment;
use round::Round;
use std::sync::Arc;

/// What a request says about who shall take it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preference {
    /// The hash of its key, if the service is balanced by one and the request has it.
    pub key: Option<u64>,
    /// What its cookie calls the instance it stays with; 0 when it has none.
    pub token: u64,
}

/// The chosen instance.
pub struct Pick<'a, X: Attach> {
    /// Who.
    pub upstream: &'a Arc<Upstream<X>>,
    /// Which of its addresses.
    pub address: usize,
    /// Whether this request is the half-open breaker's probe.
    pub probe: bool,
}

impl<X: Attach> std::fmt::Debug for Pick<'_, X> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pick").field("id", &self.upstream.facts.id).field("address", &self.address).finish()
    }
}

/// Why nobody was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPick {
    /// No instance takes traffic.
    NoInstance,
    /// Every usable instance has an open breaker; the first of them admits a probe at `until`.
    BreakerOpen {
        /// When it is worth coming back.
        until: Moment,
    },
    /// Every usable instance has been tried.
    Exhausted,
}

/// Chooses an instance for an attempt and asks its breaker. `seed` is a fresh random number.
///
/// The instance that the request's cookie names comes first. An instance that is half-open and has no probe under way takes the
/// request if it comes up, whatever its load: otherwise it would never be tried while others are faster. An instance with
/// several addresses may be tried once per address.
///
/// # Errors
/// [`NoPick`] when no instance can take it.
pub fn pick<'a, X: Attach>(
    service: &'a Service<X>,
    tried: &Tried,
    preference: &Preference,
    now: Moment,
    seed: u64,
) -> Result<Pick<'a, X>, NoPick> {
    if service.usable.is_empty() {
        return Err(NoPick::NoInstance);
    }
    let mut round = Round::new(service, tried, now);
    if preference.token != 0
        && let Some(named) = service.lineup.named(preference.token)
        && let Some(pick) = round.ask(named, true)
    {
        return Ok(pick);
    }
    let rota = round.rota(preference, seed);
    let start = round.choose(rota, preference, seed);
    round.ask_from(start, rota).ok_or_else(|| round.refusal())
}

/// Whether an instance is left that `tried` has not spent, its breaker aside.
#[must_use]
pub fn has_other<X: Attach>(service: &Service<X>, tried: &Tried) -> bool {
    service.usable.iter().any(|upstream| !tried.has_spent(upstream))
}

#[cfg(test)]
mod tests;
