//! TLS on a listener: which certificate is shown, and the handshake.
//!
//! Pingora would shake hands before the accept room hears of the connection: unlimited, uncounted and for a minute. So its
//! listeners are plain, and the handshake is the first thing that happens inside the room.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::Stream;
use pingora::protocols::l4::stream::Stream as Plain;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;

/// In the order of preference.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The certificate that new connections get. It may be replaced at any time; connections that exist keep theirs.
#[derive(Debug)]
pub struct Certificate {
    shown: ArcSwap<CertifiedKey>,
}

impl Certificate {
    /// Shows `key`, whatever name the client asks for.
    #[must_use]
    pub fn new(key: Arc<CertifiedKey>) -> Arc<Self> {
        Arc::new(Self { shown: ArcSwap::new(key) })
    }

    /// From now on shows `key`.
    pub fn replace(&self, key: Arc<CertifiedKey>) {
        self.shown.store(key);
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.load_full())
    }
}

/// Shakes hands.
#[derive(Clone)]
pub struct Tls(Arc<Acceptor>);

impl Tls {
    /// TLS 1.2 and 1.3 with `certificate`; clients choose between HTTP/2 and HTTP/1.1, and those that do not, get HTTP/1.1.
    ///
    /// # Errors
    /// When the TLS library refuses its own defaults.
    pub fn new(certificate: Arc<Certificate>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(certificate);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        config.ticketer = ring::Ticketer::new()?;
        Ok(Self(Arc::new(Acceptor::from_server_config(Arc::new(config)))))
    }

    /// The connection once both sides have agreed; nothing when they have not.
    pub(super) async fn shake_hands(&self, stream: Stream) -> Option<Stream> {
        let plain: Box<Plain> = stream.into_any().downcast().ok()?;
        let secured = self.0.tls_handshake(*plain).await.ok()?;
        Some(Box::new(secured))
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}
