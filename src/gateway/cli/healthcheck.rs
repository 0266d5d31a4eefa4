//! `healthcheck`: whether the gateway beside it serves, as an exit code. Containers run it: there is no shell and no curl in
//! the image.

use super::failure::Failure;
use super::output::Output;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use vertice_api::paths;
use vertice_client::{RegistryClient, RegistryUrls};

/// Asks each listener for its health; every one of them must answer 200.
///
/// `/health` and not `/livez`: who waits for a container to be healthy wants to use it, and a gateway that drains is of no use.
/// `degraded` is a 200, so no trouble of Redis makes a container unhealthy that serves.
pub(super) fn check(listeners: &[SocketAddr], output: &mut Output) -> Result<(), Failure> {
    for &listener in listeners {
        let address = reachable(listener).map_err(failed)?;
        let urls = RegistryUrls::parse(&format!("http://{address}")).map_err(failed)?;
        let client = RegistryClient::with_timeout(urls, None, TIMEOUT);
        client.get(paths::HEALTH).and_then(vertice_client::Answer::good).map_err(|error| Failure::call(DOING, &error))?;
        output.line(&format!("http://{address} serves"))?;
    }
    Ok(())
}

/// The address as this host's own processes reach it: "all addresses" include the loopback's.
fn reachable(listener: SocketAddr) -> Result<SocketAddr, &'static str> {
    if listener.port() == 0 {
        return Err("a listener is configured with port 0, so nobody knows its port");
    }
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, listener.port()))
}

fn failed(cause: impl std::fmt::Display) -> Failure {
    Failure::Call { doing: DOING.to_owned(), cause: cause.to_string() }
}

const DOING: &str = "check the health";
/// For one listener. Two of them fit into the 3 s that the image gives its health check.
const TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_asked_where_they_can_be_reached() {
        for (listener, asked) in [
            ("0.0.0.0:8000", "127.0.0.1:8000"),
            ("[::]:8000", "[::1]:8000"),
            ("10.0.0.7:8000", "10.0.0.7:8000"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(reachable(listener.parse().unwrap()), Ok(asked.parse().unwrap()));
        }
        assert!(reachable("127.0.0.1:0".parse().unwrap()).is_err());
    }
}
