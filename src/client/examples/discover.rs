//! Finds a service, and tells what becomes of it.
//!
//! `cargo run -p vertice-client --example discover -- http://127.0.0.1:8888 nmap_service`
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "an example talks to whoever tries it, and is a program")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use vertice_client::discovery::variables;
use vertice_client::{Discovery, DiscoveryError, DiscoverySettings, RegistryUrls};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let registry = RegistryUrls::parse(&arguments.next().ok_or("missing argument: URL of the registry")?)?;
    let service = arguments.next().ok_or("missing argument: name of the service")?;

    let mut settings = DiscoverySettings::new(registry);
    // Works alone, too: without a registry NMAP_SERVICE_URL and its like tell where the service is.
    settings.fallback = Some(Arc::new(|name| variables(name).into_iter().find_map(|name| std::env::var(name).ok())));
    let discovery = Discovery::new(settings);

    match discovery.endpoint(&service) {
        Ok(endpoint) => println!("next request goes to {endpoint}"),
        Err(error @ DiscoveryError::BadName { .. }) => return Err(error.into()),
        Err(error) => println!("{error}"),
    }

    let mut changes = discovery.subscribe(&service)?;
    loop {
        match changes.wait(Duration::from_secs(60)) {
            Some(Ok(service)) => {
                let usable: Vec<_> = service.usable().map(|instance| instance.endpoint.as_str()).collect();
                println!("instances that take traffic: [{}]", usable.join(", "));
            }
            Some(Err(error)) => println!("{error}"),
            None => println!("nothing new"),
        }
    }
}
