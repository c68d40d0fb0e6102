//! The keys of a connection's DTLS handshake (RFC 5764): the stack has them for itself, and the light receiver needs them too, so a copy is kept of what
//! the handshake exports.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use signalbox_srtp::keys::{MasterKey, Profile};
use str0m::config::{CryptoProvider, DtlsCert};
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion, SrtpProfile,
};

/// Where a connection finds the keys of its handshake.
#[derive(Clone, Default)]
pub struct Handshake(Arc<Mutex<Option<Keys>>>);

/// The keys of both sides.
pub struct Keys {
    /// What we encrypt with.
    pub ours: MasterKey,
    /// What the peer encrypts with.
    pub theirs: MasterKey,
}

thread_local! {
    /// That of the last connection that was made on this thread: the stack makes one for each, and says nothing of it.
    static LAST_MADE: RefCell<Option<Handshake>> = const { RefCell::new(None) };
}

impl Handshake {
    /// That of the connection that was just made on this thread.
    pub fn of_last_made() -> Option<Self> {
        LAST_MADE.with(|last| last.borrow_mut().take())
    }

    /// The keys, once, when it is over.
    pub fn take(&self) -> Option<Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn exported(&self, material: &[u8], profile: SrtpProfile, is_client: bool) {
        let profile = match profile {
            SrtpProfile::AES128_CM_SHA1_80 => Profile::AesCm128HmacSha1_80,
            SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
            SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
            _ => return,
        };
        let keys = MasterKey::pair(profile, material).map(|(client, server)| match is_client {
            true => Keys {
                ours: client,
                theirs: server,
            },
            false => Keys {
                ours: server,
                theirs: client,
            },
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = keys;
    }
}

/// The stack's own cryptography, but for the keys that are kept.
pub fn crypto_provider() -> CryptoProvider {
    static RECORDER: OnceLock<Recorder> = OnceLock::new();
    let mut provider = str0m::crypto::from_feature_flags();
    let inner = provider.dtls_provider;
    provider.dtls_provider = RECORDER.get_or_init(|| Recorder(inner));
    provider
}

#[derive(Debug)]
struct Recorder(&'static dyn DtlsProvider);

impl DtlsProvider for Recorder {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        self.0.generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let inner = self.0.new_dtls(certificate, now, version, mtu)?;
        let handshake = Handshake::default();
        LAST_MADE.with(|last| *last.borrow_mut() = Some(handshake.clone()));
        Ok(Box::new(Recorded { inner, handshake }))
    }
}

struct Recorded {
    inner: Box<dyn DtlsInstance>,
    handshake: Handshake,
}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorded(…)")
    }
}

impl DtlsInstance for Recorded {
    fn set_active(&mut self, active: bool) {
        self.inner.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.inner.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        let is_client = self.inner.is_active();
        let output = self.inner.poll_output(buffer);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output {
            self.handshake.exported(material, *profile, is_client);
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.inner.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.inner.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.inner.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.inner.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.inner.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.inner.close()
    }
}
