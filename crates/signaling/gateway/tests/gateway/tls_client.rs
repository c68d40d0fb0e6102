//! A client of TLS that trusts one certificate, and certificates for it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, ProtocolVersion, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A folder with certificates and keys, gone with it.
pub struct Certificates(PathBuf);

impl Certificates {
    /// One for "localhost" in it, `own`.
    pub fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("signalbox-tls-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let made = Self(folder);
        made.make("own", "localhost");
        made
    }

    /// Another one, in place of what has the name.
    pub fn make(&self, file: &str, name: &str) {
        self.write(file, CertificateParams::new(vec![name.to_owned()]).unwrap());
    }

    /// The same, of a time that is over.
    pub fn make_expired(&self, file: &str, name: &str) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        self.write(file, params);
    }

    fn write(&self, file: &str, params: CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        // Each at once, as whoever renews them does.
        for (path, text) in [
            (self.chain(file), certificate.pem()),
            (self.key(file), key.serialize_pem()),
        ] {
            let beside = path.with_extension("new");
            fs::write(&beside, text).unwrap();
            fs::rename(beside, path).unwrap();
        }
    }

    pub fn chain(&self, file: &str) -> PathBuf {
        self.0.join(format!("{file}.pem"))
    }

    pub fn key(&self, file: &str) -> PathBuf {
        self.0.join(format!("{file}.key"))
    }

    /// The flags that make a gateway use it.
    pub fn flags(&self) -> [String; 2] {
        [
            format!("--tls-certificate={}", self.chain("own").display()),
            format!("--tls-key={}", self.key("own").display()),
        ]
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a client offers.
pub struct Offer<'a> {
    pub versions: &'a [&'static SupportedProtocolVersion],
    pub protocols: &'a [&'a str],
}

impl Default for Offer<'_> {
    fn default() -> Self {
        Self {
            versions: rustls::ALL_VERSIONS,
            protocols: &["h2", "http/1.1"],
        }
    }
}

impl Offer<'_> {
    /// A client that trusts whatever certificate it is shown.
    pub fn trusting_anyone() -> TlsConnector {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    /// A client that trusts only this certificate.
    pub fn trusting(&self, chain: &Path) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(chain).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = self.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

/// Shakes hands with a gateway.
pub async fn connect(connector: &TlsConnector, to: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    connector
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
}

/// What was agreed on: the version, and what is spoken.
pub fn agreed(stream: &TlsStream<TcpStream>) -> (ProtocolVersion, String) {
    let (_, session) = stream.get_ref();
    let spoken = session.alpn_protocol().unwrap_or_default();
    (
        session.protocol_version().unwrap(),
        String::from_utf8_lossy(spoken).into_owned(),
    )
}

/// Checks that the other end has the certificate's key, and nothing else.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
