//! The certificates that clients are shown: read from files, checked, chosen by name, and read again when the files change.
//!
//! What cannot be used is never taken: the certificates that were there before stay.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::SignatureScheme;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::metrics::{Counter, Metrics};
use crate::reload::Reload;

/// A certificate's chain and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    /// The server's own certificate first.
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
}

/// Why certificates cannot be used. The text is a sentence without its full stop, and names the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("{} cannot be read: {reason}", file.display())]
    Unreadable { file: PathBuf, reason: String },
    #[error("{} has no certificate; it must have the server's own first, in PEM", .0.display())]
    Empty(PathBuf),
    #[error("the certificate in {} cannot be used: {reason}", file.display())]
    Malformed { file: PathBuf, reason: String },
    #[error("the key in {} does not belong to the certificate in {}", key.display(), chain.display())]
    Mismatch { key: PathBuf, chain: PathBuf },
    #[error("the certificate in {} expired {} ago", file.display(), days(*ago))]
    Expired { file: PathBuf, ago: Duration },
    #[error("the certificate in {} is valid only in {}; is this machine's clock right", file.display(), days(*in_))]
    NotYetValid { file: PathBuf, in_: Duration },
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

fn days(time: Duration) -> String {
    let hours = time.as_secs() / 3600;
    match hours / 24 {
        0 => format!("{hours} hours"),
        days => format!("{days} days"),
    }
}

/// What is in the files at a time.
#[derive(Debug)]
struct Loaded {
    keys: Vec<Arc<CertifiedKey>>,
    expires: SystemTime,
}

/// The certificates of all names, the first for whoever asks for no name or for another one.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: Vec<Files>,
    provider: Arc<CryptoProvider>,
    loaded: RwLock<Arc<Loaded>>,
}

impl Certificates {
    /// Reads them.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub(super) fn read(files: Vec<Files>, provider: Arc<CryptoProvider>, now: SystemTime) -> Result<Self, Unusable> {
        let loaded = load(&files, &provider, now)?;
        Ok(Self {
            files,
            provider,
            loaded: RwLock::new(Arc::new(loaded)),
        })
    }

    /// Reads them again. Handshakes from now on use them; connections that are there stay as they are.
    ///
    /// # Errors
    /// The first that cannot be used; then nothing has changed.
    fn read_again(&self, now: SystemTime) -> Result<(), Unusable> {
        let loaded = Arc::new(load(&self.files, &self.provider, now)?);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// When the first of them expires.
    pub(super) fn expires(&self) -> SystemTime {
        self.loaded().expires
    }

    /// Says so to whoever watches.
    pub(crate) fn show(&self, metrics: &Metrics) {
        let seconds = self
            .expires()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        metrics
            .certificate_expires
            .set(i64::try_from(seconds.as_secs()).unwrap_or(i64::MAX));
    }

    fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let loaded = self.loaded();
        let usable = || {
            let keys = loaded.keys.iter();
            keys.filter(|key| key.key.choose_scheme(schemes).is_some())
        };
        let named = name.and_then(|name| usable().find(|key| is_for(key, name)));
        named.or_else(|| usable().next()).cloned()
    }
}

impl Reload for Certificates {
    const WHAT: &'static str = "the certificates";

    fn files(&self) -> impl Iterator<Item = &Path> + Send {
        let files = self.files.iter();
        files.flat_map(|files| [files.chain.as_path(), files.key.as_path()])
    }

    fn reload(&self, metrics: &Metrics) -> Result<(), String> {
        self.read_again(SystemTime::now()).map_err(|error| error.to_string())?;
        self.show(metrics);
        Ok(())
    }

    fn counters(metrics: &Metrics) -> [&Counter; 2] {
        [&metrics.certificate_reloads, &metrics.certificate_reload_failures]
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

fn is_for(key: &CertifiedKey, name: &str) -> bool {
    let certificate = key.cert.first().and_then(|der| ParsedCertificate::try_from(der).ok());
    let name = ServerName::try_from(name).ok();
    certificate
        .zip(name)
        .is_some_and(|(certificate, name)| verify_server_name(&certificate, &name).is_ok())
}

fn load(files: &[Files], provider: &CryptoProvider, now: SystemTime) -> Result<Loaded, Unusable> {
    let mut loaded = Loaded {
        keys: Vec::with_capacity(files.len()),
        expires: SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX)),
    };
    for files in files {
        let (key, expires) = load_one(files, provider, now)?;
        loaded.keys.push(Arc::new(key));
        loaded.expires = loaded.expires.min(expires);
    }
    Ok(loaded)
}

fn load_one(
    Files { chain, key }: &Files,
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<(CertifiedKey, SystemTime), Unusable> {
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(chain, &error))?;
    let own = certificates.first().ok_or_else(|| Unusable::Empty(chain.clone()))?;
    let expires = validity(chain, own, now)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
    let certified = CertifiedKey::from_der(certificates, private, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => Unusable::Mismatch {
            key: key.clone(),
            chain: chain.clone(),
        },
        other => Unusable::Malformed {
            file: key.clone(),
            reason: other.to_string(),
        },
    })?;
    Ok((certified, expires))
}

/// Until when it is valid.
fn validity(file: &Path, certificate: &CertificateDer<'_>, now: SystemTime) -> Result<SystemTime, Unusable> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| Unusable::Malformed {
        file: file.to_owned(),
        reason: error.to_string(),
    })?;
    let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let (from, until) = (
        time(parsed.validity().not_before.timestamp()),
        time(parsed.validity().not_after.timestamp()),
    );
    if let Ok(in_) = from.duration_since(now)
        && !in_.is_zero()
    {
        return Err(Unusable::NotYetValid {
            file: file.to_owned(),
            in_,
        });
    }
    match now.duration_since(until) {
        Ok(ago) => Err(Unusable::Expired {
            file: file.to_owned(),
            ago,
        }),
        Err(_) => Ok(until),
    }
}

fn unreadable(file: &Path, error: &rustls::pki_types::pem::Error) -> Unusable {
    Unusable::Unreadable {
        file: file.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    const SCHEMES: [SignatureScheme; 1] = [SignatureScheme::ECDSA_NISTP256_SHA256];

    /// A folder of a test's own, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("signalbox-{test}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        /// A certificate for these names, valid since and until so long before and after now.
        fn write(&self, file: &str, names: &[&str], (since, until): (Duration, Duration)) -> Files {
            let mut params =
                CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
            params.not_before = (SystemTime::now() - since).into();
            params.not_after = (SystemTime::now() - since + until).into();
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let files = Files {
                chain: self.0.join(format!("{file}.pem")),
                key: self.0.join(format!("{file}.key")),
            };
            fs::write(&files.chain, certificate.pem()).unwrap();
            fs::write(&files.key, key.serialize_pem()).unwrap();
            files
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn read(files: &[Files]) -> Result<Certificates, Unusable> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Certificates::read(files.to_vec(), provider, SystemTime::now())
    }

    fn der(certificates: &Certificates, name: Option<&str>) -> Vec<u8> {
        certificates
            .choose(name, &SCHEMES)
            .unwrap()
            .cert
            .first()
            .unwrap()
            .to_vec()
    }

    #[test]
    fn the_name_chooses_and_the_first_is_for_everybody_else() {
        let folder = Folder::new("names");
        let both = [
            folder.write("a", &["a.example"], (YEAR, 2 * YEAR)),
            folder.write("b", &["b.example", "*.b.example"], (YEAR, 2 * YEAR)),
        ];
        let certificates = read(&both).unwrap();
        let [a, b] = ["a.example", "b.example"].map(|name| der(&certificates, Some(name)));
        assert_ne!(a, b);
        assert_eq!(der(&certificates, Some("call.b.example")), b);
        for name in [None, Some("c.example"), Some("192.0.2.1")] {
            assert_eq!(der(&certificates, name), a);
        }
        assert!(
            certificates
                .choose(Some("a.example"), &[SignatureScheme::RSA_PKCS1_SHA256])
                .is_none()
        );
    }

    #[test]
    fn what_cannot_be_used_is_refused_and_what_was_there_stays() {
        let folder = Folder::new("refused");
        let good = folder.write("own", &["a.example"], (YEAR, 2 * YEAR));
        let certificates = read(std::slice::from_ref(&good)).unwrap();
        let before = der(&certificates, None);
        let refused = |expected: &str| {
            let error = certificates.read_again(SystemTime::now()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("own."), "{error}");
            assert_eq!(der(&certificates, None), before);
            let at_start = read(std::slice::from_ref(&good)).unwrap_err();
            assert_eq!(at_start.to_string(), error);
        };
        let other = folder.write("other", &["a.example"], (YEAR, 2 * YEAR));
        fs::copy(&other.key, &good.key).unwrap();
        refused("does not belong");
        folder.write("own", &["a.example"], (2 * YEAR, YEAR));
        refused("expired 365 days ago");
        fs::write(&good.chain, "").unwrap();
        refused("no certificate");
        fs::write(
            &good.chain,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        refused("cannot be used");
        fs::remove_file(&good.chain).unwrap();
        refused("cannot be read");
        folder.write("own", &["a.example"], (YEAR, 2 * YEAR));
        certificates.read_again(SystemTime::now()).unwrap();
        assert_ne!(der(&certificates, None), before);
        let left = certificates.expires().duration_since(SystemTime::now()).unwrap();
        assert!(left > YEAR - Duration::from_secs(60) && left < YEAR + Duration::from_secs(60));
    }

    #[test]
    fn a_certificate_of_the_future_makes_one_look_at_the_clock() {
        let folder = Folder::new("future");
        let files = folder.write("own", &["a.example"], (Duration::ZERO, YEAR));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let error = Certificates::read(vec![files], provider, SystemTime::now() - YEAR).unwrap_err();
        assert!(error.to_string().contains("clock"), "{error}");
    }
}
