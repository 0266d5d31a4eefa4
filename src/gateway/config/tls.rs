//! The sections `gateway.tls` and `registry.tls`: listeners that speak TLS, and the certificate they show.
//!
//! The files are read and checked here, so that a certificate without its key is a mistake with a place and not a listener
//! that refuses every client.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::reader::Reader;

/// Section `tls` of a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsSettings {
    /// Where it listens, besides the plain addresses; empty without TLS. Port 0 takes any free one.
    pub listen: Vec<SocketAddr>,
    /// What it shows; present when `listen` is not empty.
    pub identity: Option<Identity>,
}

impl TlsSettings {
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let listen = r.addresses("listen", &[]);
        let chain = r.file("certificate", certificates);
        let key = r.file("key", private_key);
        if !listen.is_empty() {
            for file in ["certificate", "key"] {
                if r.is_absent(file) {
                    r.refuse(file, "missing; a listener with TLS needs certificate and key".to_owned());
                }
            }
        }
        let identity = chain.zip(key).and_then(|(chain, key)| {
            let matched = CertifiedKey::from_der(chain, key, &ring::default_provider());
            matched
                .map_err(|cause| r.refuse("key", format!("not a key that goes with the certificate: {cause}")))
                .ok()
                .map(|key| Identity(Arc::new(key)))
        });
        Self { listen, identity }
    }
}

/// A certificate, those of the authorities that vouch for it, and its key.
#[derive(Clone)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// As the TLS library has it.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        self.0.clone()
    }
}

/// A key goes with one certificate only, so certificates tell identities apart.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }
}

/// Shows nothing of the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates)", self.0.cert.len())
    }
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err("has no certificate (BEGIN CERTIFICATE) in it".to_owned()),
        Ok(chain) => Ok(chain),
        Err(cause) => Err(format!("is not PEM: {cause}")),
    }
}

/// The text itself, if it is a list of certificates that can vouch for others.
pub(super) fn authorities(text: &str) -> Result<String, String> {
    let mut anchors = RootCertStore::empty();
    for certificate in certificates(text)? {
        anchors.add(certificate).map_err(|cause| format!("has a certificate that cannot be read: {cause}"))?;
    }
    Ok(text.to_owned())
}

fn private_key(text: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| "has no private key (BEGIN PRIVATE KEY) in it".to_owned())
}

impl Reader<'_> {
    /// The content of the file that `key` names.
    pub(super) fn file<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let read_file = self.files();
        self.value(key, |value| {
            let path = super::value::text(value)?;
            let shown = super::value::shortened(path);
            let text = read_file(Path::new(path)).map_err(|cause| format!("failed to read {shown}: {cause}"))?;
            parse(&text).map_err(|why| format!("{shown} {why}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;

    use rcgen::{CertificateParams, KeyPair};

    use super::super::source::parse_with;
    use super::super::{Config, ConfigErrors};

    const FILE: &str = "[gateway.tls]\nlisten = '127.0.0.1:0'\ncertificate = 'c'\nkey = 'k'\n";

    /// A certificate and its key.
    fn issue() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["x".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn load(certificate: &str, key: &str) -> Result<Config, ConfigErrors> {
        let read_file = |path: &std::path::Path| match path.to_str() {
            Some("c") => Ok(certificate.to_owned()),
            Some("k") => Ok(key.to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        parse_with(FILE, "f", &BTreeMap::new(), &read_file)
    }

    #[test]
    fn a_certificate_and_its_key_are_an_identity_and_others_are_a_mistake() {
        let ((one, its_key), (other, other_key)) = (issue(), issue());
        let identity = |config: Config| config.gateway.tls.identity.unwrap();
        let (first, second) = (identity(load(&one, &its_key).unwrap()), identity(load(&other, &other_key).unwrap()));
        assert!(first != second && first == identity(load(&one, &its_key).unwrap()));
        let mistake = load(&one, &other_key).unwrap_err().to_string();
        assert!(mistake.starts_with("f:4:7: gateway.tls.key: not a key that goes with the certificate"), "{mistake}");
        let mistake = load("x", &its_key).unwrap_err().to_string();
        assert_eq!(mistake, "f:3:15: gateway.tls.certificate: \"c\" has no certificate (BEGIN CERTIFICATE) in it");
        assert!(!format!("{first:?}").contains("PRIVATE"));
    }
}
