//! TLS for clients: versions 1.2 and 1.3, with HTTP/2 and HTTP/1.1.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ResolvesServerCert;
use rustls::version::{TLS12, TLS13};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::acme::{self, Acme, AcmeFlags};
use super::certificates::{Certificates, Files, Unusable};
use crate::metrics::Metrics;
use crate::reload;

/// HTTP/2's name in a handshake (RFC 7301, RFC 9113 section 3.2).
pub(super) const HTTP_2: &[u8] = b"h2";

/// What ends TLS.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    source: Source,
}

/// Where certificates are from.
#[derive(Clone)]
enum Source {
    Files(Arc<Certificates>),
    Authority(Arc<Acme>),
}

impl Tls {
    /// With certificates from these files.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub(super) fn new(files: Vec<Files>) -> Result<Self, Unusable> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificates = Arc::new(Certificates::read(files, Arc::clone(&provider), SystemTime::now())?);
        let resolver = Arc::clone(&certificates);
        Self::showing(resolver, provider, Source::Files(certificates))
    }

    /// With certificates that an authority gives.
    ///
    /// # Errors
    /// A sentence without its full stop: a file or folder that cannot be used.
    pub(super) fn from_authority(config: &AcmeFlags) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let acme = Arc::new(Acme::new(config, Arc::clone(&provider))?);
        let resolver = acme.resolver();
        Self::showing(resolver, provider, Source::Authority(acme)).map_err(|error| error.to_string())
    }

    fn showing(
        resolver: Arc<dyn ResolvesServerCert>,
        provider: Arc<CryptoProvider>,
        source: Source,
    ) -> Result<Self, Unusable> {
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![HTTP_2.to_vec(), b"http/1.1".to_vec()];
        if let Source::Authority(_) = source {
            config.alpn_protocols.push(acme::PROOF.to_vec());
        }
        // Whoever comes back saves a round trip and most of the work; nothing is remembered here for it.
        if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            source,
        })
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Keeps the certificates fresh until `ended`; files are read again whenever `asked` says so as well.
    pub(crate) async fn keep_fresh(
        &self,
        metrics: Arc<Metrics>,
        asked: watch::Receiver<u64>,
        ended: CancellationToken,
    ) {
        match &self.source {
            Source::Files(certificates) => {
                certificates.show(&metrics);
                reload::keep_fresh(Arc::clone(certificates), metrics, asked, ended).await;
            }
            Source::Authority(acme) => acme.look_after(&metrics, ended).await,
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}
