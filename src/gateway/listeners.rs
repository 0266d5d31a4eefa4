//! The gateway's own listeners: bound before anything else, and known to the guard that refuses them as endpoints.

use crate::accept::{BindError, BoundListener};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Both roles' listeners, bound.
#[derive(Debug)]
pub struct Listeners {
    /// Data plane.
    pub gateway: Vec<BoundListener>,
    /// Registry.
    pub registry: Vec<BoundListener>,
}

impl Listeners {
    /// Binds every address.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub fn bind(gateway: &[SocketAddr], registry: &[SocketAddr]) -> Result<Self, BindError> {
        let bind =
            |addresses: &[SocketAddr]| addresses.iter().map(|address| BoundListener::bind(*address)).collect::<Result<_, _>>();
        Ok(Self { gateway: bind(gateway)?, registry: bind(registry)? })
    }

    /// The addresses, with the ports that were picked.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let addresses = |listeners: &[BoundListener]| listeners.iter().map(BoundListener::local_addr).collect();
        Addresses { gateway: addresses(&self.gateway), registry: addresses(&self.registry) }
    }
}

/// Where the gateway listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Addresses {
    /// Data plane.
    pub gateway: Vec<SocketAddr>,
    /// Registry.
    pub registry: Vec<SocketAddr>,
}

impl Addresses {
    /// Every address and port under which an instance would be this gateway: listeners on "all addresses" are spelled out
    /// with the host's current ones.
    #[must_use]
    pub fn concrete(&self) -> Vec<SocketAddr> {
        let interfaces: Vec<IpAddr> =
            if_addrs::get_if_addrs().unwrap_or_default().iter().map(if_addrs::Interface::ip).collect();
        let spelled_out = |listener: &SocketAddr| match listener.ip().is_unspecified() {
            true => interfaces.iter().map(|ip| SocketAddr::new(*ip, listener.port())).chain([*listener]).collect(),
            false => vec![*listener],
        };
        self.gateway.iter().chain(&self.registry).flat_map(spelled_out).collect()
    }

    /// Writes the addresses as JSON, all at once, for whoever asked for port 0.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        let mut draft = path.as_os_str().to_owned();
        draft.push(".new");
        std::fs::write(&draft, text)?;
        std::fs::rename(&draft, path)
    }
}
