//! `vertice-sidecar healthcheck`: whether the registry lists this instance, as an exit code. It is what a sidecar is for, and
//! needs neither a port nor a file of the running one.

use std::time::Duration;

use vertice_api::ServiceInfo;

use crate::registration::RegistrationConfig;
use crate::registry::{RegistryClient, RegistryError};

/// Asks the registry. `Err` says why the instance does not count as registered.
pub(super) fn check(config: &RegistrationConfig) -> Result<String, String> {
    let client = RegistryClient::with_timeout(config.registry.clone(), config.token.clone(), TIMEOUT);
    judge(config, client.lookup(config.service_name.as_str()))
}

fn judge(config: &RegistrationConfig, found: Result<Option<ServiceInfo>, RegistryError>) -> Result<String, String> {
    let (service, id) = (&config.service_name, &config.instance_id);
    let info = found.map_err(|error| error.to_string())?.ok_or_else(|| format!("{service} is not registered"))?;
    // The predecessor knows no instances: there the service is ours.
    match info.instances.iter().find(|instance| instance.instance_id == *id) {
        None if !info.instances.is_empty() => Err(format!("{service} is registered, but not its instance {id}")),
        _ => Ok(format!("{service} is registered as {id}")),
    }
}

/// For one registry. Two fit into the 3 s that the image gives its health check.
const TIMEOUT: Duration = Duration::from_secs(1);
