//! The sidecar: see [`vertice_client::sidecar`].

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    // A value that is no UTF-8 is shown with replacement characters, which no variable of ours accepts.
    let variable = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    ExitCode::from(vertice_client::sidecar::run(&arguments, variable))
}
