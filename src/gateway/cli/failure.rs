//! Why a command ends early.

use super::access::Mistake;
use std::io;
use std::process::ExitCode;
use vertice_client::RegistryError;

/// What is wrong was set up, not typed: a variable or the token file (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

/// Why a command ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Whoever read the output has seen enough; no reason to complain.
    #[error("nobody reads the output any more")]
    Closed,
    /// The output cannot be written.
    #[error("failed to write the output: {0}")]
    Output(io::Error),
    /// The token file or a variable is wrong.
    #[error(transparent)]
    Setup(#[from] Mistake),
    /// The registry did not give what was asked for.
    #[error("failed to {doing}: {cause}")]
    Call {
        /// What the command was about to do.
        doing: String,
        /// Why it could not.
        cause: String,
    },
}

impl Failure {
    /// A call that went wrong.
    pub(super) fn call(doing: impl Into<String>, error: &RegistryError) -> Self {
        let hint = match error {
            RegistryError::Refused { status: 401, .. } => "; --token-file or VERTICE_REGISTRY_TOKEN gives it the token",
            _ => "",
        };
        Self::Call { doing: doing.into(), cause: format!("{error}{hint}") }
    }

    /// What to end with.
    pub(super) fn code(&self) -> ExitCode {
        match self {
            Self::Closed => ExitCode::SUCCESS,
            Self::Setup(_) => ExitCode::from(EXIT_CONFIG),
            Self::Output(_) | Self::Call { .. } => ExitCode::FAILURE,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Output(error) }
    }
}
