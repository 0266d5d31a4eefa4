//! Listeners with TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;

use crate::harness::certificate::{Files, issue};
use crate::harness::gateway::PROGRAM;
use crate::harness::process::run;
use crate::harness::scripts::echo;
use crate::harness::{Conn, Gateway, PATIENCE, Upstream, eventually, get, post};

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A gateway with a listener for TLS at `127.0.0.1`.
fn gateway(files: &Files, settings: &[(&str, &str)]) -> (Gateway, SocketAddr) {
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let builder = Gateway::builder()
        .env("VERTICE_GATEWAY__TLS__LISTEN", "127.0.0.1:0")
        .env("VERTICE_GATEWAY__TLS__CERTIFICATE", &path(&files.certificate))
        .env("VERTICE_GATEWAY__TLS__KEY", &path(&files.key));
    let gateway = settings.iter().fold(builder, |builder, (name, value)| builder.env(name, value)).start();
    let address = gateway.listener("gateway_tls");
    (gateway, address)
}

/// Shakes hands, trusting the authority of the tests and nobody else.
fn connect(files: &Files, target: SocketAddr, protocols: &[&str]) -> TlsStream {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let tcp = TcpStream::connect(target).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::from(target.ip());
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), tcp);
    stream.conn.complete_io(&mut stream.sock).unwrap();
    stream
}

fn chosen(stream: &TlsStream) -> Option<&str> {
    stream.conn.alpn_protocol().map(|protocol| std::str::from_utf8(protocol).unwrap())
}

#[test]
fn a_client_chooses_the_version_and_services_learn_that_it_was_https() {
    let dir = tempfile::tempdir().unwrap();
    let files = issue([127, 0, 0, 1].into(), dir.path());
    let (gateway, address) = gateway(&files, &[]);
    let upstream = Upstream::start(echo());
    gateway.register("echo", &upstream);
    for (offered, taken) in [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)] {
        assert_eq!(chosen(&connect(&files, address, offered)), taken, "{offered:?}");
    }
    let mut stream = connect(&files, address, &[]);
    for _ in 0..2 {
        stream.write_all(b"GET /v2/echo/x HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-Proto: http\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let length = head.to_lowercase().split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        stream.read_exact(&mut vec![0; length]).unwrap();
        let seen = upstream.last();
        assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
        assert!(seen.header("forwarded").is_some_and(|field| field.ends_with(";host=\"shop.example\";proto=https")));
    }
    assert_eq!(gateway.status()["listeners"]["gateway_tls"], serde_json::json!([address]));
    // The plain listener is what it was.
    gateway.data(get("/v2/echo/x")).expect(200);
    assert_eq!(upstream.last().header("x-forwarded-proto"), Some("http"));
}

#[test]
fn a_new_certificate_is_shown_after_a_reload_and_half_a_one_never() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (files, renewed) = (issue([127, 0, 0, 1].into(), dir.path()), issue([127, 0, 0, 1].into(), other.path()));
    let (gateway, address) = gateway(&files, &[]);
    let shown = |stream: &TlsStream| stream.conn.peer_certificates().unwrap()[0].to_vec();
    let mut before = connect(&files, address, &[]);
    std::fs::copy(&renewed.certificate, &files.certificate).unwrap();
    let refused = gateway.api(post("/gateway/reload", &json!({})));
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("gateway.tls.key"), "{}", refused.text());
    assert_eq!(shown(&connect(&files, address, &[])), shown(&before), "a certificate without its key");
    std::fs::copy(&renewed.key, &files.key).unwrap();
    gateway.api(post("/gateway/reload", &json!({}))).expect(200);
    assert_ne!(shown(&connect(&renewed, address, &[])), shown(&before));
    // Who had connected stays.
    before.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut start = [0; 12];
    before.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
}

#[test]
fn whoever_does_not_shake_hands_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let files = issue([127, 0, 0, 1].into(), dir.path());
    let (mut gateway, address) = gateway(&files, &[("VERTICE_LIMITS__TLS_HANDSHAKE", "400ms")]);
    let mut silent = Conn::open(address);
    let mut plain = Conn::open(address);
    plain.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(silent.closes_within(PATIENCE));
    while plain.exactly(1).is_ok() {}
    assert_eq!(gateway.metrics().sum("vertice_limit_hits_total", &[("limit", "tls_handshake")]), 1.0);
    eventually("the connections to end", || gateway.metrics().sum("vertice_connections", &[]) <= 1.0);
    gateway.assert_sound();
}

#[test]
fn a_certificate_that_cannot_be_used_is_a_mistake_of_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let files = issue([127, 0, 0, 1].into(), dir.path());
    let other = tempfile::tempdir().unwrap();
    let others = issue([127, 0, 0, 1].into(), other.path());
    for (certificate, key, complaint) in [
        (&files.certificate, &others.key, "not a key that goes with the certificate"),
        (&files.key, &files.key, "has no certificate"),
        (&files.certificate, &files.certificate, "has no private key"),
    ] {
        let mut command = Command::new(PROGRAM);
        command.arg("run");
        let env = [
            ("VERTICE_GATEWAY__TLS__LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
            ("VERTICE_GATEWAY__TLS__CERTIFICATE".to_owned(), certificate.to_str().unwrap().to_owned()),
            ("VERTICE_GATEWAY__TLS__KEY".to_owned(), key.to_str().unwrap().to_owned()),
        ];
        let finished = run(command, &env, PATIENCE);
        assert_eq!(finished.code, Some(78), "{complaint}");
        assert!(finished.stderr.contains(complaint), "{}", finished.stderr);
    }
}
