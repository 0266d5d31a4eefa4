//! `completions`: scripts for shells.

use super::failure::Failure;
use super::output::Output;
use clap_complete::Shell;
use std::process::ExitCode;

/// Prints the script for this shell.
pub(super) fn print(shell: Shell, mut program: clap::Command, output: &mut Output) -> Result<ExitCode, Failure> {
    let name = program.get_name().to_owned();
    // The generator panics when it cannot write, and a buffer can always be written.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program, name, &mut script);
    output.raw(&script)?;
    Ok(ExitCode::SUCCESS)
}
