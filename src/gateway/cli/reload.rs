//! `reload`: the gateway reads its configuration again.

use super::failure::Failure;
use super::output::Output;
use super::reply::Reply;
use super::text::clean;
use vertice_api::gateway::Reloaded;
use vertice_api::{Problem, paths};
use vertice_client::RegistryClient;

/// Has the configuration read again, and tells what came of it: every mistake, or what waits for a restart.
pub(super) fn reload(client: &RegistryClient, is_json: bool, output: &mut Output) -> Result<(), Failure> {
    let answer = client.post(paths::GATEWAY_RELOAD);
    if let Some(answer) = answer.as_ref().ok().filter(|answer| answer.status == 422) {
        let problem: Option<Problem> = serde_json::from_slice(&answer.body).ok();
        let mistakes = problem.map(|problem| problem.errors).unwrap_or_default();
        for mistake in mistakes.iter().filter(|_| !is_json) {
            output.note(&clean(&format!("{}: {}", mistake.field, mistake.message)));
        }
    }
    let reply = Reply::new("reload the configuration", answer)?;
    if is_json {
        return reply.print(output);
    }
    let Reloaded { message, restart_needed, .. } = reply.read()?;
    output.line(&clean(&message))?;
    restart_needed.iter().try_for_each(|key| output.line(&clean(&format!("  {key} waits for a restart"))))
}
