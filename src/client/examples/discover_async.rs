//! The same inside a runtime, here tokio's: the futures need nothing of it, not even its timer.
//!
//! `cargo run -p vertice-client --example discover_async -- http://127.0.0.1:8888 nmap_service`
#![expect(clippy::print_stdout, reason = "an example talks to whoever tries it")]

use std::error::Error;
use std::time::Duration;

use vertice_client::Discovery;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let discovery = Discovery::connect(&arguments.next().ok_or("missing argument: URL of the registry")?)?;
    let name = arguments.next().ok_or("missing argument: name of the service")?;

    let service = discovery.lookup(&name).await?;
    let instance = service.pick().ok_or("no instance takes traffic")?;
    println!("next request goes to {}", instance.endpoint);

    let mut changes = discovery.subscribe(&name)?;
    loop {
        tokio::select! {
            change = changes.changed() => match change {
                Ok(service) => println!("{} instances", service.instances().len()),
                Err(error) => println!("{error}"),
            },
            () = tokio::time::sleep(Duration::from_secs(60)) => println!("nothing new"),
        }
    }
}
