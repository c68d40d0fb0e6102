//! Command lines for a POSIX shell that publish a test picture and tone, and that receive, with nothing but ffmpeg or GStreamer.
//!
//! Whatever stands in them was made by the media node or checked, and is of characters that a shell leaves alone within single quotes.
//! They hold keys: who has them is the participant.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use signalbox_protocol::room::{Kind, MediaAddress};
use signalbox_protocol::srtp::{SrtpStream, SrtpSuite};
use utoipa::ToSchema;

use super::session_description::{encoding, port};

/// The largest packet that a client should send, in bytes: with everything around it, it fits into a path's MTU and under the media node's
/// limit for datagrams.
const PACKET_BYTES: u32 = 1200;

/// Frames from one key frame to the next. A plain sender cannot be asked for one, so whoever joins later waits for the next.
const KEY_FRAME_EVERY: u32 = 60;

/// The lines for each tool.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Examples {
    /// For ffmpeg.
    ffmpeg: Lines,
    /// For GStreamer.
    gstreamer: Lines,
}

/// None: there is nothing to do, or the tool cannot do it.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Lines {
    /// Publishes a test picture and tone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) publish: Option<String>,
    /// Receives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) receive: Option<String>,
}

impl Examples {
    pub(super) fn new(
        media: &MediaAddress,
        publish: &[SrtpStream],
        receive: &[SrtpStream],
        first_port: u16,
        sdp: Option<&str>,
    ) -> Self {
        let to = Destination::new(media);
        Self {
            ffmpeg: Lines {
                publish: ffmpeg::publish(&to, publish),
                receive: sdp.and_then(|sdp| ffmpeg::receive(&to, receive, first_port, sdp)),
            },
            gstreamer: Lines {
                publish: gstreamer::publish(&to, publish),
                receive: gstreamer::receive(&to, receive, first_port),
            },
        }
    }

    /// What a shell script that does it all with ffmpeg consists of.
    pub(super) fn ffmpeg(&self) -> &Lines {
        &self.ffmpeg
    }
}

/// The shard's address, as URLs and as options want it.
struct Destination {
    host: String,
    url_host: String,
    port: u16,
}

impl Destination {
    fn new(media: &MediaAddress) -> Self {
        let host = media.ip.to_string();
        let url_host = if media.ip.is_ipv6() {
            format!("[{host}]")
        } else {
            host.clone()
        };
        Self {
            host,
            url_host,
            port: media.port,
        }
    }
}

mod ffmpeg {
    use super::*;

    /// One ffmpeg that sends every track. None: there are no tracks, or there is one whose RTP form it cannot make.
    pub(super) fn publish(to: &Destination, streams: &[SrtpStream]) -> Option<String> {
        // Its GCM suites are not in every version.
        let usable = |stream: &SrtpStream| stream.suite == SrtpSuite::AesCm128HmacSha1_80;
        if streams.is_empty() || !streams.iter().all(usable) {
            return None;
        }
        let mut line = String::from("ffmpeg -v warning");
        for stream in streams {
            line += match stream.kind {
                Kind::Video => " -re -f lavfi -i testsrc2=size=640x360:rate=30",
                Kind::Audio => " -re -f lavfi -i sine=frequency=440:sample_rate=48000",
            };
        }
        for (input, stream) in streams.iter().enumerate() {
            line += &format!(" -map {input} {}", encoder(&stream.codec)?);
            // The option is a signed number.
            let (kind, ssrc) = (stream.payload_type, stream.ssrc.cast_signed());
            line += &format!(" -f rtp -payload_type {kind} -ssrc {ssrc}");
            line += &format!(
                " -srtp_out_suite {} -srtp_out_params '{}'",
                stream.suite.name(),
                stream.key.0
            );
            let Destination { url_host, port, .. } = to;
            line += &format!(" 'srtp://{url_host}:{port}?rtcpport={port}&pkt_size={PACKET_BYTES}'");
        }
        Some(line)
    }

    fn encoder(codec: &str) -> Option<String> {
        let video = |encoder: &str| format!("{encoder} -b:v 1M -g {KEY_FRAME_EVERY} -pix_fmt yuv420p");
        Some(match encoding(codec) {
            "VP8" => video("-c:v libvpx -deadline realtime -cpu-used 8"),
            "H264" => video("-c:v libx264 -preset ultrafast -tune zerolatency -profile:v baseline"),
            "VP9" => video("-strict experimental -c:v libvpx-vp9 -deadline realtime -cpu-used 8"),
            "opus" => "-c:a libopus -ac 2 -b:a 64k".to_owned(),
            _ => return None,
        })
    }

    /// Proves each port, one datagram each, then records all streams.
    pub(super) fn receive(to: &Destination, streams: &[SrtpStream], first_port: u16, sdp: &str) -> Option<String> {
        let mut lines = String::new();
        let Destination {
            url_host, port: server, ..
        } = to;
        for (index, stream) in streams.iter().enumerate() {
            let (proof, local) = (&stream.proof.as_ref()?.0, port(first_port, index));
            lines += &format!(
                "printf %s '{proof}' | base64 -d | ffmpeg -v error -f data -i pipe: -map 0 -c copy -f data 'udp://{url_host}:{server}?localport={local}'\n"
            );
        }
        if streams.is_empty() || streams.iter().any(|stream| encoding(&stream.codec) == "AV1") {
            return None;
        }
        let sdp = STANDARD.encode(sdp);
        lines += &format!(
            "printf %s '{sdp}' | base64 -d | ffmpeg -v warning -protocol_whitelist pipe,udp,rtp -sdp_flags rtcp_to_source -f sdp -i pipe: -map 0 -c copy -y received.mkv"
        );
        Some(lines)
    }
}

mod gstreamer {
    use super::*;

    pub(super) fn publish(to: &Destination, streams: &[SrtpStream]) -> Option<String> {
        if streams.is_empty() {
            return None;
        }
        let mut line = String::from("gst-launch-1.0 -q");
        for stream in streams {
            let (source, payloader) = match encoding(&stream.codec) {
                "opus" => (
                    "audiotestsrc is-live=true wave=ticks ! audioconvert ! audioresample ! opusenc",
                    "rtpopuspay",
                ),
                "VP8" => (VP8, "rtpvp8pay picture-id-mode=2"),
                "VP9" => (VP9, "rtpvp9pay picture-id-mode=2"),
                "H264" => (H264, "rtph264pay config-interval=-1 aggregate-mode=zero-latency"),
                _ => return None,
            };
            let (kind, ssrc) = (stream.payload_type, stream.ssrc);
            let (cipher, auth) = algorithms(stream.suite);
            let key = hex(&stream.key.0)?;
            let Destination { host, port, .. } = to;
            line += &format!(
                " {source} ! {payloader} pt={kind} ssrc={ssrc} mtu={PACKET_BYTES} ! srtpenc key={key} rtp-cipher={cipher} rtp-auth={auth} rtcp-cipher={cipher} rtcp-auth={auth} ! udpsink host={host} port={port}"
            );
        }
        Some(line)
    }

    const VP8: &str = "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=30/1 ! vp8enc deadline=1 target-bitrate=1000000 keyframe-max-dist=60";
    const VP9: &str = "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=30/1 ! vp9enc deadline=1 target-bitrate=1000000 keyframe-max-dist=60";
    const H264: &str = "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=30/1 ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=1000 key-int-max=60 ! video/x-h264,profile=constrained-baseline";

    /// Proves each port, then records all streams.
    pub(super) fn receive(to: &Destination, streams: &[SrtpStream], first_port: u16) -> Option<String> {
        if streams.is_empty() {
            return None;
        }
        let Destination { host, port: server, .. } = to;
        let mut lines = String::new();
        let mut pipeline = String::from("gst-launch-1.0 -q -e matroskamux name=file ! filesink location=received.mkv");
        for (index, stream) in streams.iter().enumerate() {
            let (mid, proof, local) = (&stream.mid, &stream.proof.as_ref()?.0, port(first_port, index));
            lines += &format!(
                "printf %s '{proof}' | base64 -d | gst-launch-1.0 -q fdsrc ! udpsink host={host} port={server} bind-port={local}\n"
            );
            let (media, name, depayloader) = match encoding(&stream.codec) {
                "opus" => ("audio", "OPUS", "rtpopusdepay ! opusparse"),
                "VP8" => ("video", "VP8", "rtpvp8depay"),
                "VP9" => ("video", "VP9", "rtpvp9depay ! vp9parse"),
                "H264" => ("video", "H264", "rtph264depay ! h264parse"),
                _ => return None,
            };
            let (cipher, auth) = algorithms(stream.suite);
            let (kind, clock_rate, ssrc, key) =
                (stream.payload_type, stream.clock_rate, stream.ssrc, hex(&stream.key.0)?);
            pipeline += &format!(
                " udpsrc port={local} caps='application/x-srtp,media={media},encoding-name={name},clock-rate={clock_rate},payload={kind},ssrc=(uint){ssrc},srtp-key=(buffer){key},srtp-cipher={cipher},srtp-auth={auth},srtcp-cipher={cipher},srtcp-auth={auth}' ! srtpdec name=srtp{mid} srtp{mid}.rtp_src ! rtpjitterbuffer ! {depayloader} ! queue ! file. srtp{mid}.rtcp_src ! fakesink sync=false async=false"
            );
        }
        Some(lines + &pipeline)
    }

    fn algorithms(suite: SrtpSuite) -> (&'static str, &'static str) {
        match suite {
            SrtpSuite::AesCm128HmacSha1_80 => ("aes-128-icm", "hmac-sha1-80"),
            SrtpSuite::AeadAes128Gcm => ("aes-128-gcm", "null"),
        }
    }

    /// A key as GStreamer writes it.
    fn hex(base64: &str) -> Option<String> {
        let bytes = STANDARD.decode(base64).ok()?;
        Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}
