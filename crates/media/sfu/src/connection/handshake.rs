//! The keys of a DTLS handshake (RFC 5764): the stack uses them for what arrives, and [`crate::egress`] for what is sent, so a copy is kept
//! of what the handshake exports.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use dimpl::Dtls;
use str0m::config::{CryptoProvider, DtlsCert};
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, KeyingMaterial, ProtocolVersion, SrtpProfile,
};

use crate::keys::{MasterKey, Profile};

/// When a flight of the handshake is sent again for the first time; then after twice as long each time. RFC 6347 section 4.2.4.1 recommends a second
/// for a path that nothing is known of; this one ICE has just measured, and whoever joins, or goes on after a loss, waits. libwebrtc does it as soon. Higher: a lost packet
/// costs more. Lower: paths with a longer round trip carry needless copies.
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// The same of a connection that goes on from another node: its media stands still until the handshake is over, and everybody else's who looks at it.
/// Higher: a lost packet costs them more. Lower: more needless copies, of the one or two packets that a flight has.
const FIRST_RETRY_OF_MOVED: Duration = Duration::from_millis(10);

/// On such a connection the first flight is sent so often as well, until its client answers. That takes no notice of it
/// before it has our description. Higher: its media stands still for longer. Lower: more datagrams for nothing.
const COPY_EVERY: Duration = Duration::from_millis(10);

/// How many such copies are sent.
const COPIES: u32 = 40;

/// How long the stack waits before it asks again whether a handshake may begin.
const HELD: Duration = Duration::from_millis(5);

/// How often: for 25 seconds in all, as a client may take long to come.
const RETRIES: usize = 8;

/// The same of a connection that goes on from another node, for as long.
const RETRIES_OF_MOVED: usize = 11;

/// Where a connection finds the keys of its handshakes.
#[derive(Debug, Clone, Default)]
pub struct Handshake(Arc<Slot>);

#[derive(Default)]
struct Slot {
    /// How many handshakes have exported keys and are over for both sides.
    count: AtomicU32,
    is_held: AtomicBool,
    is_confirmed: AtomicBool,
    exported: Mutex<Option<(SrtpProfile, Vec<u8>)>>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slot(…)")
    }
}

/// The keys of the DTLS client and of the server.
pub struct Exported {
    /// The client's.
    pub client: MasterKey,
    /// The server's.
    pub server: MasterKey,
}

thread_local! {
    /// That of the last instance that was made on this thread: the stack makes one for each connection, and says nothing of it.
    static LAST_MADE: RefCell<Option<Handshake>> = const { RefCell::new(None) };
    /// Whether the next instance that is made on this thread is for a connection that goes on from another node.
    static NEXT_IS_MOVED: Cell<bool> = const { Cell::new(false) };
}

/// Says what the next connection is that is made on this thread.
pub fn make_next(is_moved: bool) {
    NEXT_IS_MOVED.set(is_moved);
}

impl Handshake {
    /// That of the connection that was just made on this thread.
    pub fn of_last_made() -> Option<Self> {
        LAST_MADE.with(|last| last.borrow_mut().take())
    }

    /// Nothing is sent of it until [`Handshake::release`]. To be called before it has begun.
    pub fn hold(&self) {
        self.0.is_held.store(true, Ordering::Release);
    }

    /// It begins now, if it was held.
    pub fn release(&self) {
        self.0.is_held.store(false, Ordering::Release);
    }

    /// Whether it is held.
    pub fn is_held(&self) -> bool {
        self.0.is_held.load(Ordering::Acquire)
    }

    /// The peer has used keys of it, so it has all that it needs.
    pub fn confirm(&self) {
        self.0.is_confirmed.store(true, Ordering::Release);
    }

    fn is_confirmed(&self) -> bool {
        self.0.is_confirmed.load(Ordering::Acquire)
    }

    /// How many handshakes have exported keys and are over for both sides.
    pub fn count(&self) -> u32 {
        self.0.count.load(Ordering::Acquire)
    }

    /// The keys of the last one. They are given out once.
    pub fn take(&self) -> Option<Exported> {
        let exported = self.0.exported.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (profile, bytes) = exported?;
        let profile = match profile {
            SrtpProfile::AES128_CM_SHA1_80 => Profile::AesCm128HmacSha1_80,
            SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
            SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
            _ => return None,
        };
        let (client, server) = MasterKey::pair(profile, &bytes)?;
        Some(Exported { client, server })
    }

    fn exported(&self, material: &KeyingMaterial, profile: SrtpProfile) {
        let copy = Some((profile, material.to_vec()));
        *self.0.exported.lock().unwrap_or_else(PoisonError::into_inner) = copy;
    }

    fn connected(&self) {
        self.0.count.fetch_add(1, Ordering::Release);
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
        let is_moved = NEXT_IS_MOVED.take();
        let retries = match is_moved {
            true => (FIRST_RETRY_OF_MOVED, RETRIES_OF_MOVED),
            false => (FIRST_RETRY, RETRIES),
        };
        let inner = endpoint(certificate, now, version, mtu, retries)?;
        let copies = is_moved.then(|| Copies::new(now));
        let handshake = Handshake::default();
        LAST_MADE.with(|last| *last.borrow_mut() = Some(handshake.clone()));
        Ok(Box::new(Instance {
            inner,
            handshake,
            waits: None,
            copies,
            connected: None,
            now,
        }))
    }
}

/// As the stack makes one, but for when it sends again.
fn endpoint(
    certificate: &DtlsCert,
    now: Instant,
    version: DtlsVersion,
    mtu: Option<usize>,
    (first_retry, retries): (Duration, usize),
) -> Result<Dtls, CryptoError> {
    let mut config = dimpl::Config::builder()
        // ICE has shown that the peer is where it says.
        .use_server_cookie(false)
        .flight_start_rto(first_retry)
        .flight_retries(retries);
    if let Some(mtu) = mtu {
        config = config.mtu(mtu);
    }
    let failed = |error| CryptoError::Other(format!("no DTLS with this configuration: {error}"));
    let config = Arc::new(config.build().map_err(failed)?);
    let certificate = certificate.clone();
    match version {
        DtlsVersion::Dtls12 => Ok(Dtls::new_12(config, certificate, now)),
        DtlsVersion::Dtls13 => Ok(Dtls::new_13(config, certificate, now)),
        DtlsVersion::Auto => Ok(Dtls::new_auto(config, certificate, now)),
        _ => Err(CryptoError::Other(format!("unsupported DTLS version: {version}"))),
    }
}

struct Instance {
    inner: Dtls,
    handshake: Handshake,
    /// Its part in the handshake, as long as that is held.
    waits: Option<bool>,
    /// The first flight, as long as the peer may not have taken notice of it; none: that is sent as any other.
    copies: Option<Copies>,
    /// It is over for our side, and whether the stack has been told.
    connected: Option<bool>,
    now: Instant,
}

/// A flight that is sent again and again.
struct Copies {
    packets: Vec<Vec<u8>>,
    /// Those are all.
    is_whole: bool,
    /// The next one of them to be sent.
    place: usize,
    next: Instant,
    left: u32,
}

impl Copies {
    fn new(now: Instant) -> Self {
        Self {
            packets: Vec::new(),
            is_whole: false,
            place: 0,
            next: now,
            left: COPIES,
        }
    }

    /// When there is something to send; none: nothing any more, or yet.
    fn due(&self) -> Option<Instant> {
        (self.left > 0 && self.is_whole).then_some(self.next)
    }

    fn sent(&mut self, packet: &[u8], now: Instant) {
        if !self.is_whole {
            self.packets.push(packet.to_vec());
            self.next = now + COPY_EVERY;
        }
    }

    fn poll(&mut self, now: Instant) -> Option<&[u8]> {
        let place = self.place;
        if self.due()? > now {
            return None;
        }
        self.place += 1;
        if self.place == self.packets.len() {
            self.place = 0;
            self.left -= 1;
            self.next = now + COPY_EVERY;
        }
        self.packets.get(place).map(Vec::as_slice)
    }
}

/// Whether it ends a DTLS connection, such as the one that the client had with the node that it comes from: it has our description now. An encrypted record of
/// DTLS 1.3 does not say what it is (RFC 9147 section 4), but none with data of SCTP is as short as an alert.
fn is_alert(packet: &[u8]) -> bool {
    const ALERT: u8 = 21;
    const LONGEST_ENCRYPTED: usize = 32;
    match packet.first() {
        Some(&ALERT) => true,
        Some(32..64) => packet.len() <= LONGEST_ENCRYPTED,
        _ => false,
    }
}

/// Whether it answers our first flight: a record of epoch 0 with a whole ServerHello or HelloVerifyRequest (RFC 6347 sections 4.1 and 4.2.2; the same in DTLS 1.3). Only this
/// tells which version the peer speaks, and the stack gives up when it gets anything else first: what is late, of another connection, or of anyone.
fn is_answer(packet: &[u8]) -> bool {
    const HANDSHAKE: u8 = 22;
    const SERVER_HELLO: u8 = 2;
    const HELLO_VERIFY_REQUEST: u8 = 3;
    const RECORD_HEAD: usize = 13;
    let Some((head, message)) = packet.split_at_checked(RECORD_HEAD) else {
        return false;
    };
    let is_first = head.first() == Some(&HANDSHAKE) && head.get(3..5) == Some(&[0, 0]);
    let whole = message.get(1..4).zip(message.get(6..12));
    let is_whole = whole.is_some_and(|(length, place)| place.strip_prefix(&[0; 3]) == Some(length));
    let is_answer = matches!(message.first(), Some(&(SERVER_HELLO | HELLO_VERIFY_REQUEST)));
    is_first && is_answer && is_whole
}

impl Instance {
    /// Whether it has told the peer which versions there are, and not been told which it is.
    fn is_unanswered(&self) -> bool {
        self.inner.is_active() && self.inner.protocol_version().is_none()
    }

    /// Whether the stack is to be told now that it is connected. Whoever ends the handshake may send at once, in 1.3 (RFC 9147 section 5.7) that is us; but until the
    /// peer has our last flight it can open nothing, and the first packets, with the beginning of a key frame, are lost. It acknowledges that flight.
    fn is_to_tell(&mut self) -> bool {
        let is_confirmed = match self.inner.protocol_version() {
            Some(ProtocolVersion::DTLS1_3) => !self.inner.is_active() || self.handshake.is_confirmed(),
            _ => true,
        };
        self.connected
            .as_mut()
            .is_some_and(|told| is_confirmed && !std::mem::replace(told, true))
    }

    /// Begins what was held, if it may.
    fn begin(&mut self) -> Result<(), DtlsImplError> {
        if let Some(active) = self.waits.take_if(|_| !self.handshake.is_held()) {
            self.inner.set_active(active);
            self.inner.handle_timeout(self.now)?;
            if active {
                // As the stack does: it makes the first flight.
                let _ = self.inner.handle_packet(&[]);
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Instance(…)")
    }
}

impl DtlsInstance for Instance {
    fn set_active(&mut self, active: bool) {
        if self.handshake.is_held() {
            self.waits = Some(active);
        } else {
            self.inner.set_active(active);
        }
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        if self.waits.is_some() {
            return Ok(());
        }
        if is_answer(packet) {
            self.copies = None;
        } else if let Some(copies) = self.copies.as_mut().filter(|_| is_alert(packet)) {
            copies.next = self.now;
        }
        if self.is_unanswered() && !is_answer(packet) {
            return Ok(());
        }
        let was_over = self.connected.is_some();
        self.inner.handle_packet(packet)?;
        if was_over {
            self.handshake.confirm();
        }
        Ok(())
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        if self.waits.is_some() {
            return DtlsOutput::Timeout(self.now + HELD);
        }
        if let Some(packet) = self.copies.as_mut().and_then(|copies| copies.poll(self.now))
            && packet.len() <= buffer.len()
        {
            let (copy, _) = buffer.split_at_mut(packet.len());
            copy.copy_from_slice(packet);
            return DtlsOutput::Packet(copy);
        }
        if self.is_to_tell() {
            self.handshake.connected();
            return DtlsOutput::Connected;
        }
        let output = self.inner.poll_output(buffer);
        match (&output, &mut self.copies) {
            (DtlsOutput::KeyingMaterial(material, profile), _) => self.handshake.exported(material, *profile),
            (DtlsOutput::Connected, _) => {
                self.connected.get_or_insert(false);
                // It asks again at once.
                return DtlsOutput::Timeout(self.now);
            }
            (DtlsOutput::Packet(packet), Some(copies)) => copies.sent(packet, self.now),
            (DtlsOutput::Timeout(due), Some(copies)) => {
                copies.is_whole = !copies.packets.is_empty();
                let due = copies.due().map_or(*due, |copy| copy.min(*due));
                return DtlsOutput::Timeout(due);
            }
            _ => {}
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.now = now;
        if self.waits.is_some() {
            return self.begin();
        }
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

#[cfg(test)]
mod tests;
