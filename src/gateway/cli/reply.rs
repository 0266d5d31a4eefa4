//! What a registry answered, read.

use super::failure::Failure;
use super::json;
use super::output::Output;
use crate::clock;
use serde::Deserialize;
use std::time::UNIX_EPOCH;
use vertice_client::{Answer, RegistryError};

/// A 2xx to a call.
#[derive(Debug)]
pub(super) struct Reply {
    answer: Answer,
    doing: String,
}

impl Reply {
    /// The answer to a call made in order to be `doing` something; anything but 2xx is a failure of it.
    pub(super) fn new(doing: &str, answer: Result<Answer, RegistryError>) -> Result<Self, Failure> {
        let answer = answer.and_then(Answer::good).map_err(|error| Failure::call(doing, &error))?;
        Ok(Self { answer, doing: doing.to_owned() })
    }

    /// The body's meaning. Fields that this version does not know are ignored.
    pub(super) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        serde_json::from_slice(&self.answer.body).map_err(|error| self.unreadable(&error.to_string()))
    }

    /// The body as it came, if it is JSON.
    pub(super) fn document(&self) -> Result<&str, Failure> {
        json::document(&self.answer.body).map_err(|cause| self.unreadable(&cause))
    }

    /// Prints the body as it came, laid out.
    pub(super) fn print(&self, output: &mut Output) -> Result<(), Failure> {
        output.line(&json::pretty(self.document()?))
    }

    /// The time by the registry's clock, in seconds since 1970: the times in its answer are of that clock, and ours may differ.
    pub(super) fn epoch_s(&self) -> f64 {
        let date = self.answer.date.as_deref().and_then(|date| httpdate::parse_http_date(date).ok());
        let since_epoch = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
        since_epoch.map_or_else(|| clock::wall_ms() as f64 / 1000.0, |since_epoch| since_epoch.as_secs_f64())
    }

    /// The failure to understand the body.
    pub(super) fn unreadable(&self, cause: &str) -> Failure {
        let Answer { url, status, .. } = &self.answer;
        Failure::call(&self.doing, &RegistryError::Unreadable { url: url.clone(), status: *status, cause: cause.to_owned() })
    }
}
