//! TLS in front of a server's signaling.

use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::Connector;

/// Whether the server at this URL speaks TLS.
pub fn is_encrypted(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("wss://")
}

/// What everybody connects with to the server at this URL: made once, as reading the certificates takes longer than a join.
///
/// # Errors
/// When it speaks TLS, and there are no certificates that its own could be checked against.
pub fn connector(url: &str) -> anyhow::Result<Connector> {
    if !is_encrypted(url) {
        return Ok(Connector::Plain);
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    ensure!(
        !roots.is_empty(),
        "there are no certificates to check the server's against: install ca-certificates, or name a file of them in SSL_CERT_FILE"
    );
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("no TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Connector::Rustls(Arc::new(config)))
}
