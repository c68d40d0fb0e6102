//! Certificates from an authority that gives them by itself (ACME, RFC 8555), and asks for proof in a handshake of TLS (RFC 8737).
//!
//! The library orders, proves and renews; what it was given is kept in a folder. Here are the settings, and what became of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, DnsName};
use rustls::{ClientConfig, RootCertStore};
use rustls_acme::caches::DirCache;
use rustls_acme::{AcmeConfig, AcmeState, EventOk, ResolvesServerCertAcme};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// What is agreed on in a handshake that only proves something (RFC 8737 section 3).
pub(super) const PROOF: &[u8] = b"acme-tls/1";

/// Which authority is asked for what.
#[derive(Debug, Clone, clap::Args)]
pub struct AcmeFlags {
    /// Get certificates for these names from an authority by ACME, such as Let's Encrypt, which has to reach this gateway as port 443 of each. Several are separated by
    /// commas. Instead of `--tls-certificate`.
    #[arg(long, env = "SIGNALBOX_ACME_DOMAIN", value_delimiter = ',', value_name = "NAME")]
    pub acme_domain: Vec<String>,

    /// The folder in which its certificates and the account's key are kept.
    #[arg(long, env = "SIGNALBOX_ACME_CACHE", value_name = "FOLDER")]
    pub acme_cache: Option<PathBuf>,

    /// Where the authority writes to, like `mailto:operator@example.com`. That its terms are agreed to is said with `--acme-domain`.
    #[arg(long, env = "SIGNALBOX_ACME_CONTACT", value_delimiter = ',', value_name = "URL")]
    pub acme_contact: Vec<String>,

    /// The authority's directory.
    #[arg(
        long,
        env = "SIGNALBOX_ACME_DIRECTORY",
        default_value = "https://acme-v02.api.letsencrypt.org/directory",
        value_name = "URL"
    )]
    pub acme_directory: reqwest::Url,

    /// A file with the root certificates that the authority itself is known by, in PEM, if it is not one that this machine knows.
    #[arg(long, env = "SIGNALBOX_ACME_ROOT", value_name = "FILE")]
    pub acme_root: Option<PathBuf>,
}

impl AcmeFlags {
    /// Whether certificates are ordered.
    pub(super) fn is_used(&self) -> bool {
        !self.acme_domain.is_empty()
    }

    /// # Errors
    /// A sentence without its full stop: settings that contradict each other.
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.is_used() {
            return match self.acme_cache {
                Some(_) => Err("--acme-cache needs --acme-domain, the names to get certificates for".into()),
                None => Ok(()),
            };
        }
        if self.acme_cache.is_none() {
            return Err(
                "--acme-domain needs --acme-cache, as authorities refuse who orders anew at every start".into(),
            );
        }
        for name in &self.acme_domain {
            if DnsName::try_from(name.as_str()).is_err() || name.contains('*') {
                return Err(format!(
                    "--acme-domain: a certificate for {name:?} cannot be proven by a handshake; name hosts like rtc.example.com"
                ));
            }
        }
        if self.acme_directory.scheme() != "https" {
            return Err("--acme-directory must be an https URL".into());
        }
        Ok(())
    }

    /// Whoever the authority's own certificate must be from.
    fn roots(&self) -> Result<RootCertStore, String> {
        let certificates = match &self.acme_root {
            Some(file) => read(file)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            let why = "this machine knows no authorities; install the package ca-certificates, or name a file with --acme-root";
            return Err(why.into());
        }
        Ok(roots)
    }
}

fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(|error| format!("--acme-root: {} cannot be read: {error}", file.display()))
}

/// An order that is renewed for as long as it is looked after.
pub(super) struct Acme {
    /// None once somebody looks after it.
    state: Mutex<Option<AcmeState<io::Error>>>,
    resolver: Arc<ResolvesServerCertAcme>,
}

impl Acme {
    /// Nothing is asked of anybody yet.
    ///
    /// # Errors
    /// A sentence without its full stop: a file or folder that cannot be used.
    pub(super) fn new(config: &AcmeFlags, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let folder = config.acme_cache.clone().unwrap_or_default();
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("--acme-cache: {} cannot be made: {error}", folder.display()))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_root_certificates(config.roots()?)
            .with_no_client_auth();
        let state = AcmeConfig::new_with_client_config(&config.acme_domain, Arc::new(client))
            .contact(&config.acme_contact)
            .directory(config.acme_directory.as_str())
            .cache(DirCache::new(folder))
            .state();
        Ok(Self {
            resolver: state.resolver(),
            state: Mutex::new(Some(state)),
        })
    }

    /// Chooses what a handshake shows: the certificate, or a proof. Nothing before there is one.
    pub(super) fn resolver(&self) -> Arc<ResolvesServerCertAcme> {
        Arc::clone(&self.resolver)
    }

    /// Orders and renews, until `ended`.
    pub(super) async fn look_after(&self, metrics: &Metrics, ended: CancellationToken) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut state) = state else {
            return;
        };
        while let Some(Some(event)) = ended.run_until_cancelled(state.next()).await {
            match event {
                Ok(EventOk::DeployedCachedCert) => tracing::info!("the certificate of the last time is used"),
                Ok(EventOk::DeployedNewCert) => {
                    metrics.certificate_reloads.increment();
                    tracing::info!("the authority has given a certificate, which is used from now on");
                }
                Ok(EventOk::CertCacheStore | EventOk::AccountCacheStore) => {}
                Err(error) => {
                    metrics.certificate_reload_failures.increment();
                    tracing::error!(%error, "the authority has given no certificate; it is asked again");
                }
            }
        }
    }
}
