//! Keeps a service registered for as long as this program runs.
//!
//! `cargo run -p vertice-client --example register -- http://127.0.0.1:8888 osint_service http://127.0.0.1:8049`
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to whoever tries it")]

use std::error::Error;

use vertice_client::{Registration, RegistrationConfig, RegistryUrls, ServiceName, Status};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or_else(|| format!("missing argument: {what}"));
    let registry = RegistryUrls::parse(&next("URL of the registry")?)?;
    let service = ServiceName::parse(&next("name of the service")?)?;
    let endpoint = next("URL of the service")?;

    let mut config = RegistrationConfig::new(service, endpoint, registry);
    config.version = Some("1.0.0".to_owned());
    config.metadata.insert("team".to_owned(), "red".to_owned());

    // Returns at once, and works from now on in the background. A registry that is away is waited for.
    let registration = Registration::start(config, |step| eprintln!("{step}"))?;

    println!("press Enter to stop taking traffic");
    std::io::stdin().read_line(&mut String::new())?;
    registration.set_status(Status::Draining);

    println!("press Enter to end");
    std::io::stdin().read_line(&mut String::new())?;
    // Takes the registration back; dropping it does the same.
    registration.stop();
    Ok(())
}
