//! What takes a participant up again at another node, as it was: its connections, its tracks and its wishes.
//!
//! A room's state lives on its node alone. So that it survives the node, the gateway of each participant keeps what the next node needs to
//! know of it: [`Resumption`], which comes with the [`Snapshot`](super::Snapshot) of every participant that can be moved and is kept up to date by
//! [`Event::Resumable`](super::Event::Resumable), by the participant's own [`ParticipantInfo`] in other events, and by the offers and answers that pass the gateway.

use serde::{Deserialize, Serialize};

use super::{Preference, Target, Transports};
use crate::TrackId;
use crate::room::{ParticipantInfo, PublishTrack, Slot};
use crate::tunnel::Tunnel;

/// What a gateway keeps of a participant for its next node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumption {
    /// See [`Join::transports`](super::Join::transports).
    pub transports: Transports,
    /// See [`Join::auto_subscribe`](super::Join::auto_subscribe).
    pub auto_subscribe: bool,
    /// See [`Join::never_pause`](super::Join::never_pause).
    #[serde(default)]
    pub never_pause: bool,
    /// Every track that it has announced or publishes.
    #[serde(default)]
    pub tracks: Vec<SaidTrack>,
    /// What it has said about tracks of others.
    #[serde(default)]
    pub wants: Vec<Wanted>,
    /// With [`Transports::Dual`]: what was agreed last on [`Target::Subscriber`]; none: nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscriber: Option<Agreed>,
    /// Data channels that are open.
    #[serde(default)]
    pub channels: Vec<ChannelInfo>,
}

/// A track, and what its publisher has said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaidTrack {
    /// Its id.
    pub id: TrackId,
    /// What was said. With [`PublishTrack::encoding_of`], `id` is that of the announcement.
    pub said: PublishTrack,
    /// The m-line of the publisher's connection that carries it; empty: it was only announced.
    #[serde(default)]
    pub mid: String,
    /// Its streams, as far as they were seen. Clients name layers (RFC 8852) only until they have been heard of once, so that another node
    /// could not tell them apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<KnownStream>,
}

/// A stream that arrives of a track.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownStream {
    /// The simulcast layer (`a=rid`); empty: there are none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rid: String,
    /// Its SSRC.
    pub ssrc: u32,
    /// The SSRC of what repairs it (RFC 4588), if that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair_ssrc: Option<u32>,
}

/// What a participant has said about a track of somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Which.
    pub track: TrackId,
    /// Receive it, or not; none: as [`Join::auto_subscribe`](super::Join::auto_subscribe) says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscribed: Option<bool>,
    /// How.
    pub preference: Preference,
}

/// An offer of the node that the client has answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// [`Event::Offer`](super::Event::Offer)'s id. The next node counts on from it.
    pub id: u32,
    /// The node's SDP.
    pub offer: String,
    /// The client's SDP.
    pub answer: String,
}

/// A data channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelInfo {
    /// On which connection.
    pub target: Target,
    /// Its label.
    pub label: String,
    /// Its SCTP stream (RFC 8832 section 6).
    pub id: u16,
}

/// What has changed of a [`Resumption`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResumptionChange {
    /// A track was announced, is published now, or its streams are known. It takes the place of the one with the same id. Tracks end by
    /// [`Event::TrackUnpublished`](super::Event::TrackUnpublished).
    Track {
        /// As it is now.
        track: Box<SaidTrack>,
    },
    /// An announced track, or a further encoding, will not come.
    Ended {
        /// Which.
        id: TrackId,
    },
    /// These wishes are new, each in place of the one for the same track.
    Wants {
        /// The changed ones.
        wants: Vec<Wanted>,
    },
    /// The data channels that are open now, all of them.
    Channels {
        /// In no order.
        channels: Vec<ChannelInfo>,
    },
}

/// A participant that was in the room at another node, where it is no longer: it is taken up with its id, its tracks and its wishes, and the
/// others are told nothing.
///
/// Its tracks are there at once, and carry media from when the client has offered anew on [`Target::Publisher`], with the same m-lines. On
/// [`Target::Subscriber`] the node offers anew, with the same m-lines, without being asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// As it was last, with the [`TrackInfo`](crate::room::TrackInfo) of its tracks.
    pub participant: ParticipantInfo,
    /// What its gateway kept.
    pub kept: Resumption,
    /// With [`Transports::Single`], its slots and what they carried.
    #[serde(default)]
    pub slots: Vec<Slot>,
    /// If the node that it was at is still there: the ways to its client over that node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tunnels: Vec<Tunnel>,
}

impl Resumption {
    /// Takes in a change.
    pub fn apply(&mut self, change: ResumptionChange) {
        match change {
            ResumptionChange::Track { track } => match self.tracks.iter_mut().find(|known| known.id == track.id) {
                Some(known) => *known = *track,
                None => self.tracks.push(*track),
            },
            ResumptionChange::Ended { id } => self.tracks.retain(|known| known.id != id),
            ResumptionChange::Wants { wants } => {
                for wanted in wants {
                    match self.wants.iter_mut().find(|known| known.track == wanted.track) {
                        Some(known) => *known = wanted,
                        None => self.wants.push(wanted),
                    }
                }
            }
            ResumptionChange::Channels { channels } => self.channels = channels,
        }
    }

    /// A track is gone, its publisher's or somebody else's.
    pub fn forget_track(&mut self, track: &TrackId) {
        self.tracks
            .retain(|known| known.id != *track && known.said.encoding_of.as_ref() != Some(track));
        self.wants.retain(|wanted| wanted.track != *track);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::{Kind, Source};

    fn resumption() -> Resumption {
        Resumption {
            transports: Transports::Dual,
            auto_subscribe: true,
            never_pause: false,
            tracks: Vec::new(),
            wants: Vec::new(),
            subscriber: None,
            channels: Vec::new(),
        }
    }

    fn said(id: &str, mid: &str) -> SaidTrack {
        SaidTrack {
            id: TrackId::new(id),
            said: PublishTrack::new("cid", Kind::Video, Source::Camera),
            mid: mid.to_owned(),
            streams: Vec::new(),
        }
    }

    #[test]
    fn a_change_takes_the_place_of_what_was_known() {
        let mut kept = resumption();
        for mid in ["", "1"] {
            let track = Box::new(said("TR_a", mid));
            kept.apply(ResumptionChange::Track { track });
        }
        assert_eq!(kept.tracks, [said("TR_a", "1")]);
        for subscribed in [Some(true), Some(false)] {
            let wanted = Wanted {
                track: TrackId::new("TR_b"),
                subscribed,
                preference: Preference::default(),
            };
            kept.apply(ResumptionChange::Wants { wants: vec![wanted] });
        }
        assert_eq!(kept.wants.len(), 1);
        assert_eq!(kept.wants[0].subscribed, Some(false));
    }

    #[test]
    fn with_a_track_go_its_further_encodings_and_what_was_said_about_it() {
        let mut kept = resumption();
        let mut backup = said("TR_backup", "2");
        backup.said.encoding_of = Some(TrackId::new("TR_a"));
        for track in [said("TR_a", "1"), backup, said("TR_c", "3")] {
            kept.apply(ResumptionChange::Track { track: Box::new(track) });
        }
        kept.forget_track(&TrackId::new("TR_a"));
        assert_eq!(kept.tracks, [said("TR_c", "3")]);
    }

    #[test]
    fn a_resumption_keeps_its_json() {
        let mut kept = resumption();
        kept.channels = vec![ChannelInfo {
            target: Target::Subscriber,
            label: "_lossy".into(),
            id: 2,
        }];
        kept.subscriber = Some(Agreed {
            id: 3,
            offer: "o".into(),
            answer: "a".into(),
        });
        let json = r#"{"transports":"dual","auto_subscribe":true,"never_pause":false,"tracks":[],"wants":[],"subscriber":{"id":3,"offer":"o","answer":"a"},"channels":[{"target":"subscriber","label":"_lossy","id":2}]}"#;
        assert_eq!(serde_json::to_string(&kept).unwrap(), json);
        assert_eq!(serde_json::from_str::<Resumption>(json).unwrap(), kept);
        let change = ResumptionChange::Channels { channels: Vec::new() };
        let json = r#"{"type":"channels","channels":[]}"#;
        assert_eq!(serde_json::to_string(&change).unwrap(), json);
    }
}
