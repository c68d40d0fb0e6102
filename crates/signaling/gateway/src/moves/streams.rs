//! What a client without a peer connection wants at another node: that its streams go on there.
//!
//! What the client sends goes on with the same SSRCs and keys: the numbers that its keystream depends on are its own. What it receives gets
//! new ones, since a new node would use a keystream twice (RFC 3711 section 9.1).

use signalbox_protocol::room::{PublishTrack, TrackInfo};
use signalbox_protocol::srtp::{SrtpRequest, SrtpResume, SrtpSession, SrtpStream, SrtpWanted};

/// The tracks to publish and the streams to ask for.
pub(super) fn wanted(streams: &SrtpSession, tracks: &[TrackInfo]) -> (Vec<PublishTrack>, SrtpRequest) {
    let published: Vec<(&SrtpStream, &TrackInfo)> = streams
        .publish
        .iter()
        .filter_map(|stream| {
            let track = stream.track.as_ref()?;
            Some((stream, tracks.iter().find(|info| info.id == *track)?))
        })
        .collect();
    let receive = streams.receive.iter().map(|stream| SrtpWanted {
        kind: stream.kind,
        codec: Some(stream.codec.clone()),
    });
    let suites = streams.publish.iter().chain(&streams.receive);
    let request = SrtpRequest {
        suite: suites.map(|stream| stream.suite).next().unwrap_or_default(),
        receive: receive.collect(),
        resume: published.iter().map(|(stream, info)| resume(stream, info)).collect(),
        ..SrtpRequest::default()
    };
    let publish = published.iter().map(|(stream, info)| publish(stream, info));
    (publish.collect(), request)
}

fn publish(stream: &SrtpStream, info: &TrackInfo) -> PublishTrack {
    PublishTrack {
        name: info.name.clone(),
        muted: info.muted,
        width: info.width,
        height: info.height,
        codec: Some(stream.codec.clone()),
        stream: info.stream.clone(),
        dialect_info: info.dialect_info.clone(),
        ..PublishTrack::new(stream.mid.clone(), info.kind, info.source)
    }
}

fn resume(stream: &SrtpStream, info: &TrackInfo) -> SrtpResume {
    SrtpResume {
        ssrc: stream.ssrc,
        payload_type: stream.payload_type,
        key: stream.key.clone(),
        track: info.id.clone(),
    }
}
