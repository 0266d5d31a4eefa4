//! Certificates for servers of the tests' own.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

/// Where the files are.
pub(crate) struct Files {
    /// The authority that signed the certificate.
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Writes a certificate for a server at this address, and the authority that vouches for it.
pub(crate) fn issue(address: IpAddr, dir: &Path) -> Files {
    let mut authority = named("an authority of the tests");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let mut server = named("a server of the tests");
    server.subject_alt_names.push(SanType::IpAddress(address));
    let server_key = KeyPair::generate().unwrap();
    let server_pem = server.signed_by(&server_key, &Issuer::new(authority, authority_key)).unwrap().pem();
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    Files {
        authority: write("authority.pem", &authority_pem),
        certificate: write("server.pem", &server_pem),
        key: write("server.key", &server_key.serialize_pem()),
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
