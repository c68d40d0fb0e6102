//! A shard's UDP socket: bound, buffered, read in batches and written in runs.
//!
//! Reading is `recvmmsg` with generic receive offload, writing is GSO with plain sends as the fallback. It owns the receive buffers
//! and the counters of both directions; it must not know what a datagram means.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;

use crate::Error;
use crate::send_run::Run;

/// What is asked of the kernel for each direction of a socket, in bytes; it may grant less (`net.core.rmem_max`, `wmem_max`).
/// Higher: longer bursts survive a busy thread, and wait longer. Lower: bursts are lost.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Room for one receive of the batch: with receive offload up to 64 KiB arrive as one.
const RECEIVE_BYTES: usize = 65_535;

/// Binds `count` sockets for [`crate::run()`]: the first at `address`, each further one a port higher. With port 0 each gets any
/// free port.
///
/// # Errors
/// [`Error::Config`] when there are not enough port numbers, [`Error::BindMedia`] when one cannot be bound.
pub fn bind_media(address: SocketAddr, count: usize) -> Result<Vec<UdpSocket>, Error> {
    (0..count)
        .map(|index| {
            let mut address = address;
            if address.port() != 0 {
                let port = u16::try_from(index)
                    .ok()
                    .and_then(|index| address.port().checked_add(index))
                    .ok_or_else(|| {
                        Error::Config(format!(
                            "--media-bind: {count} shards do not fit above port {}; choose a lower port",
                            address.port()
                        ))
                    })?;
                address.set_port(port);
            }
            bind(address).map_err(|source| Error::BindMedia { address, source })
        })
        .collect()
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Best effort: what the kernel grants is its operator's choice.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Plain counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketStats {
    /// Datagrams read.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// System calls that read at least one datagram.
    pub receive_calls: u64,
    /// Failed reads.
    pub receive_errors: u64,
    /// Datagrams written.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// System calls that wrote them.
    pub send_calls: u64,
    /// Runs that the kernel refused as one, so that their datagrams were written one by one.
    pub runs_refused: u64,
    /// Datagrams dropped because the socket's send buffer was full.
    pub send_dropped: u64,
    /// Datagrams that were not sent as the lease was over.
    pub send_refused: u64,
    /// Datagrams that the kernel refused, or whose destination can have no datagram.
    pub send_errors: u64,
}

/// What came of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// At least one datagram, and perhaps there are more.
    Some,
    /// Nothing is there.
    Empty,
    /// The socket is at fault.
    Failed,
}

/// A shard's socket. Lives in its thread's runtime.
pub struct MediaSocket {
    socket: tokio::net::UdpSocket,
    state: UdpSocketState,
    ipv4: bool,
    buffer: Box<[u8]>,
    stats: SocketStats,
}

impl MediaSocket {
    /// Takes a bound socket over. Call it within the runtime that is to wait for it.
    ///
    /// # Errors
    /// When the kernel refuses the options, or the runtime the registration.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self {
            ipv4: socket.local_addr()?.is_ipv4(),
            socket: tokio::net::UdpSocket::from_std(socket)?,
            state,
            buffer: vec![0; BATCH_SIZE * RECEIVE_BYTES].into_boxed_slice(),
            stats: SocketStats::default(),
        })
    }

    /// Waits until something may have arrived.
    ///
    /// # Errors
    /// When the runtime is going away.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Reads one batch and hands over each datagram of it.
    pub fn receive(&mut self, mut take: impl FnMut(SocketAddr, &[u8])) -> Received {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut free = self.buffer.chunks_mut(RECEIVE_BYTES);
        let mut slices: [_; BATCH_SIZE] = std::array::from_fn(|_| IoSliceMut::new(free.next().unwrap_or_default()));
        let (socket, state, mut count) = (&self.socket, &self.state, 0);
        let read = socket.try_io(Interest::READABLE, || {
            count = state.recv(UdpSockRef::from(socket), &mut slices, &mut metas)?;
            // What leaves room has taken all there was. The runtime is told so, which saves the call that would find nothing.
            (count == BATCH_SIZE)
                .then_some(())
                .ok_or_else(|| io::ErrorKind::WouldBlock.into())
        });
        match read {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.stats.receive_errors += 1;
                return Received::Failed;
            }
            Err(_) if count == 0 => return Received::Empty,
            _ => {}
        }
        self.stats.receive_calls += 1;
        for (meta, slice) in metas.iter().zip(&slices).take(count) {
            let Some(bytes) = slice.get(..meta.len) else { continue };
            for datagram in bytes.chunks(meta.stride.max(1)) {
                self.stats.received += 1;
                self.stats.received_bytes += datagram.len() as u64;
                // Nothing can be answered to port 0.
                if meta.addr.port() != 0 {
                    take(meta.addr, datagram);
                }
            }
        }
        Received::Some
    }

    /// How many datagrams a run may have; 1 where the kernel or the network card cannot do GSO.
    pub fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Writes a run. It never waits: what does not fit in the socket's buffer is dropped and counted, as a network would.
    ///
    /// `may_send` is asked right before each system call: a process that was stopped in between sends nothing that it may not send any more.
    /// What is dropped for it is counted.
    pub fn send(&mut self, run: Run<'_>, may_send: impl Fn() -> bool) {
        let count = run.count() as u64;
        // The kernel would answer EINVAL, which is also how it says that it cannot do GSO: one such peer would cost all
        // others theirs.
        if run.to.port() == 0 || run.to.is_ipv4() != self.ipv4 {
            self.stats.send_errors += count;
            return;
        }
        if !may_send() {
            self.stats.send_refused += count;
            return;
        }
        let segment = (count > 1).then_some(run.segment);
        match self.transmit(run.to, run.bytes, segment) {
            Ok(()) => self.sent(count, run.bytes.len()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stats.send_dropped += count,
            Err(_) if count > 1 => {
                self.stats.runs_refused += 1;
                for datagram in run.segments() {
                    if !may_send() {
                        self.stats.send_refused += 1;
                        continue;
                    }
                    match self.transmit(run.to, datagram, None) {
                        Ok(()) => self.sent(1, datagram.len()),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stats.send_dropped += 1,
                        Err(_) => self.stats.send_errors += 1,
                    }
                }
            }
            Err(_) => self.stats.send_errors += 1,
        }
    }

    /// The counters.
    pub fn stats(&self) -> SocketStats {
        self.stats
    }

    fn transmit(&self, destination: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> io::Result<()> {
        let transmit = Transmit {
            destination,
            ecn: None,
            contents,
            segment_size,
            src_ip: None,
        };
        // Past the runtime: it would take a full buffer as a reason not to try again before the thread sleeps.
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }

    fn sent(&mut self, datagrams: u64, bytes: usize) {
        self.stats.send_calls += 1;
        self.stats.sent += datagrams;
        self.stats.sent_bytes += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::send_run::SendRun;

    fn local() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    }

    #[test]
    fn port_zero_gives_every_shard_a_port() {
        let sockets = bind_media(local(), 3).unwrap();
        let mut ports: Vec<u16> = sockets
            .iter()
            .map(|socket| socket.local_addr().unwrap().port())
            .collect();
        ports.dedup();
        assert_eq!(ports.len(), 3);
    }

    #[test]
    fn shards_that_do_not_fit_above_the_port_are_refused() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::MAX));
        // The first may or may not be free; the second has no number.
        assert!(bind_media(address, 2).is_err());
    }

    #[tokio::test]
    async fn a_run_arrives_as_the_datagrams_that_it_was_made_of() {
        let mut from = MediaSocket::new(bind_media(local(), 1).unwrap().remove(0)).unwrap();
        let mut to = MediaSocket::new(bind_media(local(), 1).unwrap().remove(0)).unwrap();
        let address = to.socket.local_addr().unwrap();
        let sent: Vec<Vec<u8>> = (0..10u8).map(|i| vec![i; if i == 9 { 50 } else { 1000 }]).collect();
        let mut run = SendRun::default();
        let max = from.max_segments();
        for datagram in &sent {
            if !run.push(address, datagram, max) {
                run.take(|run| from.send(run, || true));
                assert!(run.push(address, datagram, max));
            }
        }
        run.take(|run| from.send(run, || true));

        let mut received = Vec::new();
        while received.len() < sent.len() {
            tokio::time::timeout(Duration::from_secs(10), to.readable())
                .await
                .unwrap()
                .unwrap();
            to.receive(|_, datagram| received.push(datagram.to_vec()));
        }
        assert_eq!(received, sent);
        assert_eq!(from.stats().sent, 10);
        assert_eq!(to.stats().received, 10);
    }

    #[tokio::test]
    async fn however_many_have_come_all_are_read_and_later_ones_are_noticed() {
        let from = UdpSocket::bind(local()).unwrap();
        let mut to = MediaSocket::new(bind_media(local(), 1).unwrap().remove(0)).unwrap();
        let address = to.socket.local_addr().unwrap();
        for count in [1, BATCH_SIZE - 1, BATCH_SIZE, 3 * BATCH_SIZE + 1, 1] {
            for number in 0..count {
                from.send_to(&[number as u8], address).unwrap();
            }
            let readable = tokio::time::timeout(Duration::from_secs(10), to.readable());
            readable.await.expect("it is told of them").unwrap();
            let mut received = Vec::new();
            while to.receive(|_, datagram| received.extend_from_slice(datagram)) == Received::Some {}
            assert_eq!(received, (0..count).map(|number| number as u8).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn a_run_that_the_kernel_refuses_is_written_one_by_one_and_counted() {
        let mut from = MediaSocket::new(bind_media(local(), 1).unwrap().remove(0)).unwrap();
        let to = UdpSocket::bind(local()).unwrap();
        // More segments than any kernel takes at once.
        let bytes = [7; 400];
        let run = Run {
            to: to.local_addr().unwrap(),
            bytes: &bytes,
            segment: 2,
        };
        from.send(run, || true);
        let stats = from.stats();
        assert_eq!((stats.runs_refused, stats.sent, stats.send_calls), (1, 200, 200));
        assert_eq!(from.max_segments(), 1, "no more runs are made");
        let mut buffer = [0; 16];
        assert!((0..200).all(|_| to.recv(&mut buffer).unwrap() == 2));
    }

    #[tokio::test]
    async fn what_may_not_be_sent_any_more_is_not_sent() {
        let mut from = MediaSocket::new(bind_media(local(), 1).unwrap().remove(0)).unwrap();
        let to = UdpSocket::bind(local()).unwrap();
        let run = Run {
            to: to.local_addr().unwrap(),
            bytes: b"old old new",
            segment: 4,
        };
        from.send(run, || false);
        assert_eq!((from.stats().sent, from.stats().send_refused), (0, 3));
        let run = Run {
            bytes: b"new",
            segment: 3,
            ..run
        };
        from.send(run, || true);
        let mut buffer = [0; 16];
        assert_eq!(to.recv(&mut buffer).unwrap(), 3);
        assert_eq!(&buffer[..3], b"new");
    }

    #[tokio::test]
    async fn a_destination_without_a_port_does_not_cost_the_others_their_offload() {
        let mut socket = MediaSocket::new(bind_media(local(), 1).unwrap().remove(0)).unwrap();
        let before = socket.max_segments();
        for to in [local(), "[::1]:9".parse().unwrap()] {
            let run = Run {
                to,
                bytes: b"x",
                segment: 1,
            };
            socket.send(run, || true);
        }
        assert_eq!(socket.stats().send_errors, 2);
        assert_eq!(socket.max_segments(), before);
    }
}
