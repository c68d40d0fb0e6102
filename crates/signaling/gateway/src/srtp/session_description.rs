//! The SDP file with which ffmpeg, VLC or GStreamer receive (RFC 8866): one m-line for each stream, with its key (RFC 4568).
//!
//! The ports are the receiver's own, and so an m-line has a port of its own although all media comes from one: players that read SDP files
//! bind the port that they read there.

use std::fmt::Write;

use signalbox_protocol::RoomName;
use signalbox_protocol::room::{Kind, MediaAddress};
use signalbox_protocol::srtp::SrtpStream;

use super::request::PORTS_PER_STREAM;

/// Which port a stream is received on.
pub(super) fn port(first: u16, index: usize) -> u16 {
    let steps = u16::try_from(index).unwrap_or(u16::MAX);
    first.saturating_add(steps.saturating_mul(PORTS_PER_STREAM))
}

/// The file. Lines end with CR LF.
pub(super) fn file(room: &RoomName, media: &MediaAddress, streams: &[SrtpStream], first_port: u16) -> String {
    let family = if media.ip.is_ipv4() { "IP4" } else { "IP6" };
    let ip = media.ip;
    let mut sdp = format!(
        "v=0\r\no=- {} {} IN {family} {ip}\r\ns={room}\r\nc=IN {family} {ip}\r\nt=0 0\r\n",
        streams.first().map_or(0, |stream| stream.ssrc),
        media.generation,
    );
    for (index, stream) in streams.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write_stream(&mut sdp, stream, port(first_port, index), media.port);
    }
    sdp
}

fn write_stream(sdp: &mut String, stream: &SrtpStream, port: u16, rtcp_port: u16) -> std::fmt::Result {
    let (kind, channels) = match stream.kind {
        Kind::Audio => ("audio", "/2"),
        Kind::Video => ("video", ""),
    };
    let (payload_type, clock_rate) = (stream.payload_type, stream.clock_rate);
    let encoding = encoding(&stream.codec);
    write!(sdp, "m={kind} {port} RTP/SAVP {payload_type}\r\n")?;
    write!(sdp, "a=rtpmap:{payload_type} {encoding}/{clock_rate}{channels}\r\n")?;
    if encoding == "H264" {
        write!(sdp, "a=fmtp:{payload_type} packetization-mode=1\r\n")?;
    }
    let (suite, key) = (stream.suite.name(), &stream.key.0);
    write!(sdp, "a=crypto:1 {suite} inline:{key}\r\n")?;
    write!(sdp, "a=rtcp:{rtcp_port}\r\na=rtcp-mux\r\n")?;
    write!(
        sdp,
        "a=mid:{}\r\na=ssrc:{} cname:signalbox\r\na=recvonly\r\n",
        stream.mid, stream.ssrc
    )
}

/// The encoding's name in `a=rtpmap`: a media type without its first part.
pub(super) fn encoding(media_type: &str) -> &str {
    media_type.split_once('/').map_or(media_type, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::srtp::{SrtpKey, SrtpSuite};
    use signalbox_protocol::{Generation, NodeId};

    use super::*;

    #[test]
    fn each_stream_has_a_line_with_its_own_port_and_key() {
        let stream = |mid: &str, kind, codec: &str, payload_type| SrtpStream {
            mid: mid.into(),
            track: None,
            kind,
            codec: codec.into(),
            clock_rate: if kind == Kind::Audio { 48_000 } else { 90_000 },
            payload_type,
            ssrc: 7,
            suite: SrtpSuite::AesCm128HmacSha1_80,
            key: SrtpKey(format!("key{mid}")),
            feedback_ssrc: 8,
            feedback_key: SrtpKey("feedback".into()),
            proof: None,
        };
        let streams = [
            stream("0", Kind::Video, "video/H264", 102),
            stream("1", Kind::Audio, "audio/opus", 111),
        ];
        let media = MediaAddress {
            ip: "192.0.2.7".parse().unwrap(),
            port: 50_000,
            node: NodeId(Default::default()),
            generation: Generation(3),
        };
        let sdp = file(&"daily".parse().unwrap(), &media, &streams, 5004);
        let lines: Vec<&str> = sdp.split_terminator("\r\n").collect();
        assert!(!sdp.replace("\r\n", "").contains(['\r', '\n']));
        assert_eq!(lines[..3], ["v=0", "o=- 7 3 IN IP4 192.0.2.7", "s=daily"]);
        assert!(lines.contains(&"m=video 5004 RTP/SAVP 102"));
        assert!(lines.contains(&"a=rtpmap:102 H264/90000"));
        assert!(lines.contains(&"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:key0"));
        assert!(lines.contains(&"m=audio 5006 RTP/SAVP 111"));
        assert!(lines.contains(&"a=rtpmap:111 opus/48000/2"));
        assert!(lines.contains(&"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:key1"));
    }
}
