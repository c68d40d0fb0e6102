//! What a gateway says of a room and its participants, and no node can have told it, is refused before anything is changed.

use std::collections::HashSet;

use signalbox_protocol::control::{ChannelInfo, Refusal, RefusalReason, Resumption, SaidTrack};
use signalbox_protocol::room::{ParticipantInfo, RoomInfo, TrackInfo};

use crate::administer::{check_metadata, check_texts};
use crate::participant::{MAX_CHANNELS, MAX_PENDING_TRACKS};
use crate::room::Room;
use crate::sdp;

/// Tracks of one participant that is expected. Higher: a gateway at fault costs more memory.
const MAX_EXPECTED_TRACKS: usize = 64;

/// Wishes of one participant: there are as many as tracks in its room.
const MAX_WANTS: usize = 4_096;

/// m-lines that it receives on: one for each track of its room, and those that carry nothing any more.
const MAX_LINES: usize = 8_192;

/// Streams of one track: a layer each.
const MAX_STREAMS: usize = 8;

/// Refuses what cannot be expected of a room, which is open or not.
///
/// # Errors
/// Ids or texts that are too long, too many tracks, or what belongs to somebody else.
pub fn check(open: Option<&Room>, room: &RoomInfo, participants: &[ParticipantInfo]) -> Result<(), Refusal> {
    check_metadata(&room.metadata)?;
    if !is_id(&room.id) {
        return Err(invalid(BAD_ID));
    }
    let mut ids = HashSet::new();
    for participant in participants {
        let is_first = ids.insert(participant.id.as_str());
        if !is_first || !participant.tracks.iter().all(|track| ids.insert(track.id.as_str())) {
            return Err(invalid("A participant or a track is named twice."));
        }
        match open {
            Some(open) => check_participant(open, participant)?,
            None => check_alone(participant)?,
        }
    }
    Ok(())
}

pub fn check_participant(room: &Room, info: &ParticipantInfo) -> Result<(), Refusal> {
    check_alone(info)?;
    let publisher = |track: &TrackInfo| room.publisher_of(&track.id);
    let mut publishers = info.tracks.iter().filter_map(publisher);
    if publishers.any(|publisher| publisher != info.id) {
        return Err(invalid("A track of the participant is published by somebody else."));
    }
    Ok(())
}

/// Refuses what no node can have told of a participant.
pub fn check_kept(kept: &Resumption, slots: usize, max_slots: usize) -> Result<(), Refusal> {
    let is_channel = |channel: &ChannelInfo| channel.id != u16::MAX;
    if kept.channels.len() > MAX_CHANNELS || !kept.channels.iter().all(is_channel) {
        return Err(invalid(
            "The data channels to resume are too many, or have SCTP streams that they cannot have.",
        ));
    }
    let is_track = |said: &SaidTrack| is_id(said.id.as_str()) && said.streams.len() <= MAX_STREAMS;
    if kept.tracks.len() > MAX_EXPECTED_TRACKS + MAX_PENDING_TRACKS || !kept.tracks.iter().all(is_track) {
        return Err(invalid(
            "The tracks to resume are too many, or have ids or streams that they cannot have.",
        ));
    }
    let lines = kept.subscriber.as_ref().map_or(0, |agreed| {
        sdp::count_media_lines(&agreed.offer).max(sdp::count_media_lines(&agreed.answer))
    });
    if lines > MAX_LINES || kept.wants.len() > MAX_WANTS || slots > max_slots {
        return Err(invalid(
            "There are more m-lines or wishes to resume than there can have been.",
        ));
    }
    Ok(())
}

fn check_alone(info: &ParticipantInfo) -> Result<(), Refusal> {
    check_texts(info)?;
    if !is_id(info.id.as_str()) || !info.tracks.iter().all(|track| is_id(track.id.as_str())) {
        return Err(invalid(BAD_ID));
    }
    if info.tracks.len() > MAX_EXPECTED_TRACKS {
        let detail = format!("A participant has at most {MAX_EXPECTED_TRACKS} tracks.");
        return Err(invalid(detail));
    }
    Ok(())
}

const BAD_ID: &str = "The ids of rooms, participants and tracks have 1 to 64 bytes.";

fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
}

pub fn invalid(detail: impl Into<String>) -> Refusal {
    Refusal::new(RefusalReason::Invalid, detail)
}
