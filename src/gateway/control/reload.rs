//! `POST /gateway/reload`: an administrator has the configuration read again and waits for what comes of it.

use super::error::Error;
use super::{Answer, Control, json};
use crate::reloads::{Mistake, Standing};
use http::StatusCode;
use std::time::Duration;
use vertice_api::FieldError;
use vertice_api::gateway::{ConfigStatus, ReloadStatus, Reloaded};
use vertice_core::reason::Reason;

/// Reading files takes no longer, unless their disk hangs.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn reload(control: &Control) -> Answer {
    let before = control.reloads.standing().generation;
    let done = control.reloads.done(control.reloads.ask());
    let standing = tokio::time::timeout(PATIENCE, done).await;
    let standing = standing.map_err(|_| Error::new(Reason::Overloaded, "The configuration is still being read."))?;
    let mistakes = standing.last.map_or_else(Vec::new, |last| last.mistakes);
    if !mistakes.is_empty() {
        let error = |mistake: Mistake| FieldError { field: mistake.place, message: mistake.message };
        let detail = "The configuration has mistakes; the running one stays in force.";
        let errors = mistakes.into_iter().map(error).collect();
        return Err(Error { errors, ..Error::new(Reason::Unprocessable, detail) });
    }
    let body = Reloaded {
        message: if standing.generation > before { Reloaded::CHANGED } else { Reloaded::UNCHANGED }.to_owned(),
        generation: standing.generation,
        restart_needed: names(&standing.waiting),
    };
    json(StatusCode::OK, &body)
}

/// What `/gateway/status` says of the configuration.
pub(super) fn status(standing: Standing) -> ConfigStatus {
    let seconds = super::epoch_s;
    let mistake = |mistake: Mistake| format!("{}: {}", mistake.place, mistake.message);
    ConfigStatus {
        file: standing.file.map(|file| file.display().to_string()),
        generation: standing.generation,
        since: seconds(standing.since_wall_ms),
        last_reload: standing.last.map(|last| ReloadStatus {
            at: seconds(last.wall_ms),
            success: last.mistakes.is_empty(),
            errors: last.mistakes.into_iter().map(mistake).collect(),
        }),
        restart_needed: names(&standing.waiting),
    }
}

fn names(keys: &[&'static str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}
