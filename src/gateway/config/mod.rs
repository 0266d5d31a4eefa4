//! Configuration: what was written, and what it means.
//!
//! [`load`] finds the file, lays the environment over it and hands back one complete, validated [`Config`], or
//! [`ConfigErrors`] with *every* mistake and where it stands. The rest of the program sees only [`Config`]:
//! no other room knows the file's format or reads a variable.
//!
//! A value is looked for in this order, and the first one wins:
//!
//! 1. `VERTICE_SECTION__KEY` in the environment (for example `VERTICE_TIMEOUTS__FIRST_BYTE=5s`),
//! 2. the predecessor's variable, where there is one (`REDIS_HOST`, `LOG_LEVEL`, …),
//! 3. the file,
//! 4. the built-in default.
//!
//! A mistake in 1 or 3 is an error. A mistake in 2 is only a warning, and the next source counts: such variables
//! are often set for other programs in the same environment.
//!
//! The environment is an argument everywhere, so nothing here depends on the process it runs in.
//!
//! **Invariant:** this room reads files and text. It opens no socket, reads no clock and starts nothing.

mod balance;
mod environment;
mod file_watch;
mod mistake;
mod policy;
mod rates;
mod raw;
mod reader;
mod reload;
mod routes;
mod routing;
mod secret;
mod settings;
mod source;
mod store;
mod tls;
mod value;

#[cfg(test)]
mod tests;

pub use file_watch::FileWatch;
pub use mistake::{ConfigErrors, Mistake};
pub use raw::Origin;
#[cfg(test)]
pub(crate) use reload::is_fixed;
pub use reload::{Revision, Source};
pub use routing::{RoutingSettings, ServiceSettings};
pub use secret::{Secret, Token};
pub use settings::{
    AccessLog, Config, DnsSettings, GatewaySettings, HealthSettings, LeaseSettings, LimitSettings, LogFormat, LogLevel,
    LogSettings, RegistrySettings, ServerSettings, ShutdownSettings,
};
#[cfg(test)]
pub(crate) use source::sample_variables;
pub use source::{load, parse};
pub use store::{RedisSettings, StoreKind, StoreSettings};
pub use tls::{Identity, TlsSettings};
