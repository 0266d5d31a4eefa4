//! Where services are.
//!
//! ```no_run
//! use std::time::Duration;
//! use vertice_client::Discovery;
//!
//! let discovery = Discovery::connect("http://127.0.0.1:8888")?;
//! // The first question waits for the registry (5 s at most); all others are answered from memory.
//! let instance = discovery.pick("nmap_service")?;
//! println!("next request goes to {}", instance.endpoint);
//!
//! let mut changes = discovery.subscribe("nmap_service")?;
//! while let Some(service) = changes.wait(Duration::from_secs(60)) {
//!     println!("{} instances now", service?.instances().len());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Inside a runtime, whichever it is (nothing here blocks; the work is done by one thread of our own):
//!
//! ```no_run
//! # async fn example(discovery: &vertice_client::Discovery) -> Result<(), Box<dyn std::error::Error>> {
//! let service = discovery.lookup("nmap_service").await?;
//! let instance = service.pick().ok_or("nobody takes traffic")?;
//!
//! let mut changes = discovery.subscribe("nmap_service")?;
//! let now = changes.changed().await?;
//! # Ok(()) }
//! ```
//!
//! **When the registry is away** everything that was ever heard stays in use, however long it takes: stale beats nothing, and
//! [`Service::age`] and [`Service::is_stale`] tell. A service that was never heard of is looked for in
//! [`DiscoverySettings::fallback`]; with [`variables`] that is the environment, as the gateway does it.
//!
//! **What it costs:** one thread and one connection per [`Discovery`], from the first question on; about 1 KB per instance of
//! the services that were asked for.

mod cache;
pub mod follower;
pub mod frames;
mod handle;
mod service;
mod shared;
mod subscription;
mod worker;

pub use cache::Answer;
pub use follower::{Pace, State};
pub use handle::{Discovery, DiscoveryError, DiscoverySettings, Fallback, Lookup, variables};
pub use service::Service;
pub use subscription::{Changed, Subscription};
pub use vertice_api::Instance;
