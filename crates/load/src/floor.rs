//! What a packet costs on this machine when nothing is done but what nobody can leave out: to encrypt it, and to hand it to the kernel. What a server takes is held
//! against that.
//!
//! It is sent over loopback, where the sender pays for what a receiver's network card does elsewhere, as it does when the server is measured there.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Instant;

use anyhow::Context;
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use rand::Rng;
use serde::Serialize;
use signalbox_protocol::srtp::SrtpSuite;
use signalbox_srtp::cipher::Cipher;
use signalbox_srtp::keys::MasterKey;

/// Receivers, who throw everything away.
const RECEIVERS: usize = 64;

/// Bytes of a packet of a picture.
const BYTES: usize = 1_150;

/// Bytes that are not encrypted.
const HEADER_BYTES: usize = 20;

/// Packets of one measurement: the quickest of some counts, as the machine may be busy with something else.
const PACKETS: usize = 64_000;

const ROUNDS: usize = 5;

/// Packets of a picture that leave together.
const RUN: usize = 8;

/// Microseconds of one core's time for each packet of 1,150 bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Floor {
    /// Encrypted with AES-128-GCM, and sent alone.
    pub alone: f64,
    /// The same, eight at a time with generic segmentation offload.
    pub in_runs: f64,
}

/// Measures it, for about a second.
///
/// # Errors
/// When there are no sockets.
pub fn measure() -> anyhow::Result<Floor> {
    Ok(Floor {
        alone: quickest(1)?,
        in_runs: quickest(RUN)?,
    })
}

fn quickest(run: usize) -> anyhow::Result<f64> {
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    let receivers: Vec<UdpSocket> = (0..RECEIVERS).map(|_| bind()).collect::<io::Result<_>>()?;
    let to: Vec<SocketAddr> = receivers.iter().map(UdpSocket::local_addr).collect::<io::Result<_>>()?;
    let (sender, state) = (bind()?, UdpSocketState::new((&bind()?).into())?);
    let key = MasterKey::generate(SrtpSuite::AeadAes128Gcm, |count| {
        let mut bytes = vec![0; count];
        rand::rng().fill_bytes(&mut bytes);
        bytes
    });
    let cipher = Cipher::new(&key).ok().context("there is no cipher")?;
    let (mut packet, mut together, mut index) = (Vec::new(), Vec::new(), 0);
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for nth in 0..PACKETS / run {
            together.clear();
            for _ in 0..run {
                index += 1;
                packet.resize(BYTES, 7);
                packet.truncate(BYTES);
                cipher
                    .seal_rtp(&mut packet, HEADER_BYTES, 1, index)
                    .ok()
                    .context("it cannot be encrypted")?;
                together.extend_from_slice(&packet);
            }
            let transmit = Transmit {
                destination: to[nth % RECEIVERS],
                ecn: None,
                contents: &together,
                segment_size: (run > 1).then_some(packet.len()),
                src_ip: None,
            };
            state.try_send(UdpSockRef::from(&sender), &transmit)?;
        }
        best = best.min(begun.elapsed().as_secs_f64() * 1e6 / PACKETS as f64);
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_some_time_and_less_together() {
        let floor = measure().unwrap();
        assert!(floor.in_runs > 0.0 && floor.in_runs < floor.alone, "{floor:?}");
    }
}
