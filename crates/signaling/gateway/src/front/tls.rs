//! TLS for clients: versions 1.2 and 1.3, with HTTP/2 and HTTP/1.1.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use tokio_rustls::TlsAcceptor;

use super::certificates::{Certificates, Files, Unusable};

/// HTTP/2's name in a handshake (RFC 7301, RFC 9113 section 3.2).
pub(super) const HTTP_2: &[u8] = b"h2";

/// What ends TLS.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    certificates: Arc<Certificates>,
}

impl Tls {
    /// With certificates from these files.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub(super) fn new(files: Vec<Files>) -> Result<Self, Unusable> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificates = Arc::new(Certificates::read(files, Arc::clone(&provider), SystemTime::now())?);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificates) as _);
        config.alpn_protocols = vec![HTTP_2.to_vec(), b"http/1.1".to_vec()];
        // Whoever comes back saves a round trip and most of the work; nothing is remembered here for it.
        if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            certificates,
        })
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// The certificates, to be kept fresh.
    pub(crate) fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("expires", &self.certificates.expires())
            .finish()
    }
}
