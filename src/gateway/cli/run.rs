//! From the arguments to the exit code.

use super::access::{self, Environment};
use super::arguments::{Access, Call};
use super::colour::When;
use super::failure::Failure;
use super::output::Output;
use super::{completions, drain, healthcheck, instances, reload, services, status, watch};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use vertice_client::RegistryClient;

/// A command's own exit code, or why it ended early.
type Ending = Result<ExitCode, Failure>;

/// Does what was typed. `program` describes all commands there are.
pub fn run(call: &Call, env: &Environment, program: impl FnOnce() -> clap::Command) -> ExitCode {
    match call {
        Call::Status { access } => ask(access, env, |client, output| status::show(&client, access.json, output)),
        Call::Services { filter, access } => ask(access, env, |client, output| {
            services::list(&client, &filter.parameters(), access.json, output)?;
            Ok(ExitCode::SUCCESS)
        }),
        Call::Instances { service, access } => ask(access, env, |client, output| {
            instances::list(&client, service.as_deref(), access.json, output)?;
            Ok(ExitCode::SUCCESS)
        }),
        Call::Watch { service, access } => ask(access, env, |client, output| {
            watch::watch(client, service.as_deref(), access.json, output)?;
            Ok(ExitCode::SUCCESS)
        }),
        Call::Drain { service, instance, span, undo, access } => ask(access, env, |client, output| {
            let span = if *undo { Duration::ZERO } else { *span };
            drain::drain(&client, service, instance.as_deref(), span, access.json, output)?;
            Ok(ExitCode::SUCCESS)
        }),
        Call::Reload { access } => ask(access, env, |client, output| {
            reload::reload(&client, access.json, output)?;
            Ok(ExitCode::SUCCESS)
        }),
        Call::Completions { shell } => {
            finish(Output::standard(When::Never, env), |output| completions::print(*shell, program(), output))
        }
    }
}

/// Tells whether the gateway that has these listeners, on this host, serves: 0 or 1.
pub fn check_health(listeners: &[SocketAddr], env: &Environment) -> ExitCode {
    finish(Output::standard(When::Never, env), |output| {
        healthcheck::check(listeners, output)?;
        Ok(ExitCode::SUCCESS)
    })
}

fn ask(access: &Access, env: &Environment, command: impl FnOnce(RegistryClient, &mut Output) -> Ending) -> ExitCode {
    finish(Output::standard(access.color, env), |output| command(access::client(access, env)?, output))
}

fn finish(mut output: Output, command: impl FnOnce(&mut Output) -> Ending) -> ExitCode {
    let ending = command(&mut output).and_then(|code| output.flush().map(|()| code));
    ending.unwrap_or_else(|failure| {
        if !matches!(failure, Failure::Closed) {
            output.note(&failure.to_string());
        }
        failure.code()
    })
}
