//! TLS on the server's own listener.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use llm_engine_server::Reloader;
use llm_engine_server::config::Config;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use scripted_upstream::freeze;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::advance;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Server, config, quick};
use crate::raw::Raw;

/// A folder with a configuration, a certificate and a key.
async fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("cert.pem", scripted_upstream::CERTIFICATE);
    write("key.pem", scripted_upstream::KEY);
    let lines = "tls = { certificate = 'cert.pem', key = 'key.pem' }\nlisten";
    write(
        "engine.toml",
        &config(&quick().await, "").replacen("listen", lines, 1),
    );
    folder
}

async fn connect(server: &Server) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(scripted_upstream::CERTIFICATE.as_bytes());
    roots.add(certificate.unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n")
        .await
        .unwrap();
    let mut heard = [0; 12];
    stream.read_exact(&mut heard).await.unwrap();
    String::from_utf8(heard.to_vec()).unwrap()
}

#[tokio::test]
async fn requests_are_answered_over_tls_and_over_nothing_else() {
    let _frozen = freeze();
    let folder = folder().await;
    let server = Server::of_file(&folder.path().join("engine.toml")).await;
    assert_eq!(ask(&mut connect(&server).await).await, "HTTP/1.1 200");
    let mut plain = Raw::open(&server).await;
    plain.say("GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await;
    plain.hear_all().await;
    assert!(!plain.heard().contains("HTTP/1.1"), "{}", plain.heard());
    let mut silent = Raw::open(&server).await;
    for _ in 0..12 {
        advance(Duration::from_secs(1)).await;
        tokio::task::yield_now().await;
    }
    silent.hear_all().await;
    assert!(silent.heard().is_empty());
}

#[tokio::test]
async fn a_renewed_certificate_is_used_for_new_connections_and_a_broken_one_is_not() {
    let _frozen = freeze();
    let folder = folder().await;
    let path = folder.path().join("engine.toml");
    let server = Server::of_file(&path).await;
    let mut reloader = Reloader::new(server.app.clone(), path, server.config.clone());
    let mut kept = connect(&server).await;
    let shown = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let first = shown(&kept);
    std::fs::write(folder.path().join("key.pem"), "nonsense").unwrap();
    reloader.reload();
    assert_eq!(shown(&connect(&server).await), first);
    std::fs::write(folder.path().join("key.pem"), scripted_upstream::KEY).unwrap();
    reloader.reload();
    assert_eq!(shown(&connect(&server).await), first);
    assert_eq!(ask(&mut kept).await, "HTTP/1.1 200", "what was open goes on");
}

#[test]
fn a_certificate_that_can_t_be_used_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("cert.pem"), scripted_upstream::CERTIFICATE).unwrap();
    std::fs::write(at("key.pem"), scripted_upstream::KEY).unwrap();
    std::fs::write(at("empty.pem"), "").unwrap();
    for (certificate, key, words) in [
        ("none.pem", "key.pem", "none.pem can't be used"),
        ("empty.pem", "key.pem", "BEGIN CERTIFICATE"),
        ("cert.pem", "none.pem", "none.pem can't be used"),
        ("cert.pem", "empty.pem", "key"),
        ("cert.pem", "cert.pem", "key"),
    ] {
        let text = format!("\ntls = {{ certificate = '{certificate}', key = '{key}' }}\n");
        let error = Config::parse(&text, &folder.path().join("engine.toml"))
            .unwrap_err()
            .to_string();
        // The column of the quotation mark before the file that can't be used; the first character is the empty line's end.
        let wrong = match certificate {
            "cert.pem" => text.rfind(key),
            _ => text.find(certificate),
        };
        let column = wrong.unwrap() - 1;
        assert!(
            error.contains(&format!("engine.toml:2:{column}: ")) && error.contains(words),
            "{error}"
        );
    }
    let text = "tls = { certificate = 'cert.pem', key = 'key.pem' }";
    assert!(
        Config::parse(text, &folder.path().join("engine.toml"))
            .unwrap()
            .tls
            .is_some()
    );
    assert!(Config::parse(text, Path::new("elsewhere/engine.toml")).is_err());
}
