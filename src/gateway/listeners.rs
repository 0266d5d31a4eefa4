//! The gateway's own listeners: bound before anything else, and known to the guard that refuses them as endpoints.

use crate::accept::{BindError, BoundListener};
use crate::config::Config;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Both roles' listeners, bound.
#[derive(Debug)]
pub struct Listeners {
    /// Data plane.
    pub gateway: Doors,
    /// Registry.
    pub registry: Doors,
}

/// The listeners of one role, by what they speak.
#[derive(Debug)]
pub struct Doors {
    /// HTTP/1.
    pub plain: Vec<BoundListener>,
    /// HTTP/2 without TLS.
    pub h2c: Vec<BoundListener>,
    /// TLS.
    pub tls: Vec<BoundListener>,
}

impl Doors {
    fn bind(plain: &[SocketAddr], h2c: &[SocketAddr], tls: &[SocketAddr]) -> Result<Self, BindError> {
        let bind = |addresses: &[SocketAddr]| addresses.iter().map(|address| BoundListener::bind(*address)).collect();
        let (plain, h2c, tls): (Result<_, _>, Result<_, _>, Result<_, _>) = (bind(plain), bind(h2c), bind(tls));
        Ok(Self { plain: plain?, h2c: h2c?, tls: tls? })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.h2c.is_empty() && self.tls.is_empty()
    }
}

impl Listeners {
    /// Binds every address.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        let (gateway, registry) = (&config.gateway, &config.registry);
        Ok(Self {
            gateway: Doors::bind(&gateway.listen, &gateway.h2c_listen, &gateway.tls.listen)?,
            registry: Doors::bind(&registry.listen, &[], &registry.tls.listen)?,
        })
    }

    /// The addresses, with the ports that were picked.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let addresses = |listeners: &[BoundListener]| listeners.iter().map(BoundListener::local_addr).collect();
        Addresses {
            gateway: addresses(&self.gateway.plain),
            gateway_h2c: addresses(&self.gateway.h2c),
            gateway_tls: addresses(&self.gateway.tls),
            registry: addresses(&self.registry.plain),
            registry_tls: addresses(&self.registry.tls),
        }
    }
}

/// Where the gateway listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Addresses {
    /// Data plane.
    pub gateway: Vec<SocketAddr>,
    /// Data plane, HTTP/2 without TLS.
    pub gateway_h2c: Vec<SocketAddr>,
    /// Data plane, TLS.
    pub gateway_tls: Vec<SocketAddr>,
    /// Registry.
    pub registry: Vec<SocketAddr>,
    /// Registry, TLS.
    pub registry_tls: Vec<SocketAddr>,
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
        let all = [&self.gateway, &self.gateway_h2c, &self.gateway_tls, &self.registry, &self.registry_tls];
        all.into_iter().flatten().flat_map(spelled_out).collect()
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
