//! Errors of the control plane.

use crate::registrar::AskError;
use vertice_api::FieldError;
use vertice_core::command::Refused;
use vertice_core::reason::Reason;

/// Why a call was refused.
#[derive(Debug)]
pub struct Error {
    /// The stable code.
    pub reason: Reason,
    /// A sentence for people.
    pub detail: String,
    /// The fields at fault.
    pub errors: Vec<FieldError>,
    /// The methods there are, where the method was wrong.
    pub allow: Option<&'static str>,
    /// The index at which this was true, where a watch can go on from it.
    pub index: Option<u64>,
    /// Seconds after which a retry makes sense, where that is better known than by the reason.
    pub retry_after_s: Option<u32>,
}

impl Error {
    /// An error without fields.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), errors: Vec::new(), allow: None, index: None, retry_after_s: None }
    }

    /// Fields are missing, mistyped or refused.
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let named: Vec<String> = errors.iter().map(|error| format!("{} {}", error.field, error.message)).collect();
        Self { errors, ..Self::new(Reason::Unprocessable, format!("The request was refused: {}.", named.join("; "))) }
    }

    /// The path exists, the method does not.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(Reason::MethodNotAllowed, format!("This path takes {allow}.")) }
    }

    /// The predecessor's sentence for a look-up; true at the table's generation `index`.
    pub fn not_found(service: &str, index: u64) -> Self {
        Self { index: Some(index), ..Self::new(Reason::NotFound, format!("Service '{service}' not found")) }
    }

    /// What the registrar's refusal means for `service`.
    pub fn of(error: AskError, service: &str) -> Self {
        match error {
            AskError::Busy => Self::new(Reason::Overloaded, "The registry has too much to do; try again."),
            AskError::Refused(Refused::Full(what)) => {
                Self::new(Reason::Overloaded, format!("The registry is full: no more {what} are accepted."))
            }
            AskError::Refused(Refused::NotRegistered) => {
                Self::new(Reason::NotFound, format!("Service '{service}' not registered"))
            }
            AskError::Refused(Refused::Ambiguous { instances }) => Self::new(
                Reason::Conflict,
                format!("Service '{service}' has {instances} instances: name one with instance_id, or all with all=1."),
            ),
            AskError::Refused(Refused::Address(why)) => Self::fields(vec![FieldError::new("endpoint", why)]),
        }
    }
}
