//! The PROXY protocol, versions 1 and 2: what an L4 balancer says in front of a connection of whom it is.
//!
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>. Whether there is such a header is never guessed: it is expected of whom it is configured
//! for, and of nobody else.

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2: signature, version and command, family, length.
const FIXED: usize = 16;

/// The longest line of version 1 (section 2.1).
const MAX_LINE: usize = 107;

/// The most that may follow the fixed part of version 2: addresses, and what else is said of the connection.
const MAX_FOLLOWING: usize = 2048;

/// Reads the header, and no byte more. None: the balancer speaks for itself (`LOCAL`, `UNKNOWN`), as in its health checks, or for a client without an
/// IP address.
///
/// # Errors
/// `InvalidData` when it is none, or is too long; whatever reading fails with.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    // Even the shortest line of version 1 is longer.
    let mut head = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut head).await?;
    if head == SIGNATURE {
        head.resize(FIXED, 0);
        stream
            .read_exact(head.get_mut(SIGNATURE.len()..).unwrap_or_default())
            .await?;
        let following = head
            .last_chunk()
            .map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
        if following > MAX_FOLLOWING {
            return Err(invalid("its header is too long"));
        }
        head.resize(FIXED + following, 0);
        stream.read_exact(head.get_mut(FIXED..).unwrap_or_default()).await?;
        return source_of_v2(&head);
    }
    if !head.starts_with(b"PROXY ") {
        return Err(invalid("it does not begin with a PROXY header"));
    }
    while !head.ends_with(b"\n") {
        if head.len() >= MAX_LINE {
            return Err(invalid("its header is too long"));
        }
        head.push(stream.read_u8().await?);
    }
    source_of_v1(&head)
}

fn source_of_v2(header: &[u8]) -> io::Result<Option<SocketAddr>> {
    let header = v2::Header::try_from(header).map_err(|_| invalid("its PROXY header cannot be read"))?;
    if header.command == v2::Command::Local {
        return Ok(None);
    }
    Ok(match header.addresses {
        v2::Addresses::IPv4(v4) => Some((v4.source_address, v4.source_port).into()),
        v2::Addresses::IPv6(v6) => Some((v6.source_address, v6.source_port).into()),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    })
}

fn source_of_v1(line: &[u8]) -> io::Result<Option<SocketAddr>> {
    let header = v1::Header::try_from(line).map_err(|_| invalid("its PROXY header cannot be read"))?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(v4) => Some((v4.source_address, v4.source_port).into()),
        v1::Addresses::Tcp6(v6) => Some((v6.source_address, v6.source_port).into()),
        v1::Addresses::Unknown => None,
    })
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &[u8] = b"GET / HTTP/1.1\r\n";

    /// What is read of the header, and that what follows it is left.
    async fn read_before_rest(header: &[u8]) -> io::Result<Option<SocketAddr>> {
        let bytes = [header, REST].concat();
        let mut stream = bytes.as_slice();
        let source = read(&mut stream).await?;
        assert_eq!(stream, REST);
        Ok(source)
    }

    fn v2(command: u8, family: u8, following: &[u8]) -> Vec<u8> {
        let length = u16::try_from(following.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[0x20 | command, family], &length, following].concat()
    }

    #[tokio::test]
    async fn both_versions_name_the_client() {
        let v4 = read_before_rest(b"PROXY TCP4 192.0.2.1 203.0.113.9 51234 443\r\n").await;
        assert_eq!(v4.unwrap(), Some("192.0.2.1:51234".parse().unwrap()));
        let v6 = read_before_rest(b"PROXY TCP6 2001:db8::1 2001:db8::2 51234 443\r\n").await;
        assert_eq!(v6.unwrap(), Some("[2001:db8::1]:51234".parse().unwrap()));
        let mut addresses = vec![192, 0, 2, 1, 203, 0, 113, 9, 0xc8, 0x22, 1, 0xbb];
        let plain = read_before_rest(&v2(1, 0x11, &addresses)).await.unwrap();
        assert_eq!(plain, Some("192.0.2.1:51234".parse().unwrap()));
        // What else is said of the connection: here, its ALPN.
        addresses.extend(b"\x01\0\x02h2");
        let with_more = read_before_rest(&v2(1, 0x11, &addresses)).await.unwrap();
        assert_eq!(with_more, plain);
    }

    #[tokio::test]
    async fn a_balancer_may_speak_for_itself() {
        assert_eq!(read_before_rest(b"PROXY UNKNOWN\r\n").await.unwrap(), None);
        assert_eq!(read_before_rest(&v2(0, 0, b"")).await.unwrap(), None);
        let sockets = [7; 216];
        assert_eq!(read_before_rest(&v2(1, 0x31, &sockets)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn whatever_else_comes_is_no_header() {
        let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        let too_long = v2(1, 0x11, &[0; MAX_FOLLOWING + 1]);
        let short_of_addresses = v2(1, 0x11, &[0; 3]);
        let another_version = [SIGNATURE.as_slice(), &[0x31, 0x11, 0, 0]].concat();
        let no_headers: [&[u8]; 7] = [
            REST,
            b"PROXY TCP4 192.0.2.300 203.0.113.9 51234 443\r\n",
            b"PROXY TCP4 192.0.2.1 203.0.113.9 512345 443\r\n",
            &endless,
            &too_long,
            &short_of_addresses,
            &another_version,
        ];
        for header in no_headers {
            let error = read_before_rest(header).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{header:?}");
        }
        let error = read_before_rest(b"").await.err();
        assert!(error.is_some());
        assert_eq!(
            read(&mut b"PROXY TC".as_slice()).await.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
