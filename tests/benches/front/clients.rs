//! Clients of one gateway: connections of TLS from addresses of their own, and HTTP/1.1 on them with as little work as can be.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::cluster::token;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme, version};

/// How long anything may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest head of an answer, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// A connection.
pub type Connection = TlsStream<TcpStream>;

/// An address of loopback, other for each number.
pub fn source(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, u8::try_from(number % 250).unwrap_or_default() + 1)
}

/// How to reach the gateway.
#[derive(Clone)]
pub struct Clients {
    pub to: SocketAddr,
    config: Arc<ClientConfig>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// It says after how long to ask again.
    pub says_when: bool,
    /// The connection is of no use any more.
    pub closes: bool,
}

impl Clients {
    /// Clients that take whatever certificate they are shown, and begin anew each time.
    pub fn new(to: SocketAddr) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13])
            .expect("the provider has TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        Self { to, config }
    }

    /// The same, who speak only this (RFC 7301).
    pub fn speaking(&self, protocol: &str) -> Self {
        let mut config = (*self.config).clone();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let config = Arc::new(config);
        Self { config, ..*self }
    }

    /// Opens a connection from an address of loopback.
    ///
    /// # Errors
    /// As the system and TLS have them.
    pub async fn connect(&self, from: Ipv4Addr) -> io::Result<Connection> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddrV4::new(from, 0).into())?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let connecting = async {
            let stream = socket.connect(self.to).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
        };
        in_time(connecting).await
    }

    /// One request on a connection of its own, and how long all of it took.
    ///
    /// # Errors
    /// As the system and TLS have them.
    pub async fn ask_once(&self, from: Ipv4Addr, request: &[u8]) -> io::Result<(Answer, Duration)> {
        let begun = Instant::now();
        let mut connection = self.connect(from).await?;
        let answer = ask(&mut connection, request).await?;
        Ok((answer, begun.elapsed()))
    }
}

/// Sends a request and reads its answer.
///
/// # Errors
/// As the system and TLS have them; `UnexpectedEof` for no answer.
pub async fn ask(connection: &mut Connection, request: &[u8]) -> io::Result<Answer> {
    in_time(async {
        connection.write_all(request).await?;
        read_answer(connection).await
    })
    .await
}

/// Reads an answer.
///
/// # Errors
/// As [`ask`].
pub async fn read_answer(connection: &mut Connection) -> io::Result<Answer> {
    let mut read = Vec::with_capacity(4096);
    let end = loop {
        if connection.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if read.len() > MAX_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let length: usize = field("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or_default();
    while read.len() < end + length {
        if connection.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Answer {
        status: status.ok_or(io::ErrorKind::InvalidData)?,
        says_when: field("retry-after").is_some(),
        closes: field("connection") == Some("close"),
    })
}

/// A join with an offer of SDP, as bytes.
pub fn join(room: &str, identity: &str, offer: &str) -> Vec<u8> {
    let body = serde_json::json!({ "offer": offer }).to_string();
    let token = token(room, identity);
    let length = body.len();
    format!(
        "POST /v1/rooms/{room}/join HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

async fn in_time<T>(asking: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, asking)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
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
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
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
    ) -> Result<HandshakeSignatureValid, Error> {
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
