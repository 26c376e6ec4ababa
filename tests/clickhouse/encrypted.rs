//! TLS: the engine of these tests has none, so that a door before it does the encryption.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use millstream::clickhouse::{Client, RequestError};
use millstream::config::ClickHouseConfig;
use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Name};

use super::harness::clickhouse as server;
use super::harness::process::folder;
use super::wait;

#[test]
fn a_server_is_believed_only_with_a_certificate_that_is_trusted_and_its_own() {
    let engine = server::shared_url().replace("http://", "");
    let folder = folder("clickhouse-tls");
    let ask = |port: u16, ca: Option<PathBuf>| {
        let mut config = ClickHouseConfig::new(&format!("https://localhost:{port}"), "default", "t");
        config.ca = ca;
        let client = Client::new(&config).expect("a client");
        wait(client.query("SELECT 40 + 2", &[])).map(|answer| answer.text())
    };
    let (certificate, key) = self_signed("localhost");
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, certificate.to_pem().expect("PEM")).expect("written");
    let port = door(&engine, &certificate, &key);
    assert_eq!(ask(port, Some(ca.clone())).expect("it is trusted"), "42");
    assert!(matches!(ask(port, None), Err(RequestError::NoAnswer { .. })), "nobody vouches for it");
    // Trusted, but for another host.
    let (certificate, key) = self_signed("elsewhere");
    let other = folder.join("other.pem");
    std::fs::write(&other, certificate.to_pem().expect("PEM")).expect("written");
    let port = door(&engine, &certificate, &key);
    assert!(matches!(ask(port, Some(other)), Err(RequestError::NoAnswer { .. })), "it is somebody else's");
}

fn self_signed(host: &str) -> (X509, PKey<Private>) {
    let key = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
    let mut name = X509Name::builder().expect("a name");
    name.append_entry_by_text("CN", host).expect("a name");
    let name = name.build();
    let mut builder = X509::builder().expect("a certificate");
    builder.set_version(2).expect("a version");
    builder.set_subject_name(&name).expect("a name");
    builder.set_issuer_name(&name).expect("a name");
    builder.set_pubkey(&key).expect("a key");
    builder.set_not_before(&Asn1Time::days_from_now(0).expect("a time")).expect("a time");
    builder.set_not_after(&Asn1Time::days_from_now(2).expect("a time")).expect("a time");
    let host = SubjectAlternativeName::new().dns(host).build(&builder.x509v3_context(None, None)).expect("a host");
    builder.append_extension(host).expect("an extension");
    builder.append_extension(BasicConstraints::new().critical().ca().build().expect("a CA")).expect("an extension");
    builder.sign(&key, MessageDigest::sha256()).expect("signed");
    (builder.build(), key)
}

/// A listener with TLS that passes everything on to `engine`; it lives as long as this process.
fn door(engine: &str, certificate: &X509, key: &PKey<Private>) -> u16 {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("an acceptor");
    acceptor.set_certificate(certificate).expect("a certificate");
    acceptor.set_private_key(key).expect("a key");
    let (acceptor, engine) = (Arc::new(acceptor.build()), engine.to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (acceptor, engine) = (acceptor.clone(), engine.clone());
            std::thread::spawn(move || {
                let Ok(mut outside) = acceptor.accept(stream) else { return };
                let mut inside = TcpStream::connect(engine).expect("the engine is there");
                // Requests of this test fit one read, and so do their answers.
                let mut buffer = [0; 65_536];
                while let Ok(length @ 1..) = outside.read(&mut buffer) {
                    inside.write_all(&buffer[..length]).expect("passed on");
                    if buffer[..length].windows(11).any(|window| window == b"SELECT 40 +") {
                        let length = inside.read(&mut buffer).expect("an answer");
                        outside.write_all(&buffer[..length]).expect("passed back");
                    }
                }
            });
        }
    });
    port
}
