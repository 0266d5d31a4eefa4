//! Client library of the Vértice Gateway, and what its sidecar is made of.
//!
//! - [`Registration`] keeps a service registered: it registers, sends heartbeats, registers again whenever the registry has
//!   forgotten the service, and takes the registration back in the end. A registry that is away never disturbs the caller.
//! - [`Discovery`] knows where services are: it asks the registry once, and from then on the registry tells it of changes.
//!   Blocking, and as futures of any runtime.
//! - [`RegistryClient`] makes single calls: register, heartbeat, deregister, lookup, list.
//! - [`sidecar`] does the former for a service that knows nothing of it.
//!
//! ```no_run
//! use vertice_client::{Registration, RegistrationConfig, RegistryUrls, ServiceName};
//!
//! let registry = RegistryUrls::parse("http://127.0.0.1:8888")?;
//! let config = RegistrationConfig::new(ServiceName::parse("osint_service")?, "http://10.0.0.7:8049", registry);
//! let registration = Registration::start(config, |step| eprintln!("{step}"))?;
//! // … serve …
//! registration.stop();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** [`lifecycle`] and [`discovery::follower`] decide and do no I/O; the rest does I/O and decides nothing. This crate reads no
//! environment variable except in its binary, and clocks only in `clock.rs`.

mod authority;
mod clock;
pub mod discovery;
pub mod lifecycle;
mod names;
pub mod probe;
pub mod registration;
pub mod registry;
pub mod sidecar;
pub mod span;
mod transport;

pub use discovery::{Discovery, DiscoveryError, DiscoverySettings};
pub use lifecycle::{HealthGate, Step};
pub use registration::{Registration, RegistrationConfig};
pub use registry::{Answer, ByteStream, RegistryClient, RegistryError, RegistryUrls, Token};
pub use vertice_core::name::{InstanceId, ServiceName};
pub use vertice_core::status::Status;
