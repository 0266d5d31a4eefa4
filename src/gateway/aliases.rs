//! Other spellings of a service's name.

use crate::upstream::{Hung, Service};
use std::collections::BTreeMap;
use std::sync::Arc;
use vertice_core::name::{self, ServiceName};
use vertice_core::table::Snapshot;

/// Old names and what they lead to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Aliases(pub BTreeMap<ServiceName, ServiceName>);

impl Aliases {
    /// The service of that name, of its normal form, or of what it is an alias for: the first that somebody registered, else the
    /// first that has a fallback.
    #[must_use]
    pub fn resolve<'t>(&self, text: &str, table: &'t Snapshot<Hung>) -> Option<&'t Arc<Service>> {
        let exact = table.get(text);
        if let Some(service) = exact.filter(|service| !service.is_fallback) {
            return Some(service);
        }
        let normal = name::normalise(text);
        let normal = normal.as_ref().map_or(text, ServiceName::as_str);
        let alias = self.0.get(normal).and_then(|target| table.get(target.as_str()));
        let spellings = [exact, table.get(normal), alias];
        let found = || spellings.iter().copied().flatten();
        // Environment variables cannot spell a hyphen: `A_B_URL` is the fallback of `a-b` too.
        let by_variable = || table.get(&normal.replace('-', "_")).filter(|service| service.is_fallback);
        found().find(|service| !service.is_fallback).or_else(|| found().next()).or_else(by_variable)
    }
}
