//! Who joins, and what they do.

use std::time::Duration;

use crate::clip::Size;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How it is spoken to.
    pub protocol: Protocol,
    /// The server, as `http://` or `ws://`.
    pub url: String,
    /// The API key that tokens are signed for.
    pub key: String,
    /// Its secret.
    pub secret: String,
    /// What the rooms' names begin with.
    pub room: String,
    /// How many rooms.
    pub rooms: usize,
    /// Participants of each room that publish sound.
    pub publishers: usize,
    /// Participants of each room that publish picture; the first of them are those that publish sound.
    pub video_publishers: usize,
    /// Participants of each room that receive all that is published.
    pub subscribers: usize,
    /// The pictures' size; with simulcast that of the highest layer.
    pub size: Size,
    /// Whether pictures have all smaller layers as well.
    pub simulcast: bool,
    /// How those who receive look at it; none: nothing is said, and the server decides.
    pub layout: Option<Layout>,
    /// How media is received.
    pub receive: Receive,
    /// For how long it is measured, when everybody has joined.
    pub duration: Duration,
    /// How many join per second.
    pub ramp: f64,
    /// How many of those who receive leave per second while it is measured, each for somebody new.
    pub churn: f64,
}

/// How the server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// LiveKit's protocol, version 15, over a WebSocket.
    LiveKit,
    /// Who publishes comes with WHIP (RFC 9725), who receives with WHEP (draft-ietf-wish-whep).
    Whip,
}

/// How pictures are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One large, all others small.
    Speaker,
    /// A square of so many times so many; who has no place in it is not received.
    Grid(u32),
}

/// How media is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receive {
    /// Authenticated, decrypted, counted and reported on, for as little as that costs.
    Light,
    /// By the whole WebRTC stack.
    Full,
}

/// What one participant does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It sends and receives nothing.
    Publisher {
        /// Sound.
        sound: bool,
        /// Picture.
        picture: bool,
    },
    /// It receives, and sends nothing.
    Subscriber,
}

/// A participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its room.
    pub room: String,
    /// Its identity.
    pub identity: String,
    /// What it does.
    pub role: Role,
}

impl Plan {
    /// All participants in the order in which they join: first those that publish.
    pub fn members(&self) -> Vec<Member> {
        let name = |room: usize| match self.rooms {
            1 => self.room.clone(),
            _ => format!("{}-{room}", self.room),
        };
        let publishers = (0..self.rooms).flat_map(|room| {
            (0..self.publishers.max(self.video_publishers)).map(move |number| Member {
                room: name(room),
                identity: format!("publisher-{number}"),
                role: Role::Publisher {
                    sound: number < self.publishers,
                    picture: number < self.video_publishers,
                },
            })
        });
        // Rooms fill up together.
        let subscribers = (0..self.subscribers).flat_map(|number| {
            (0..self.rooms).map(move |room| Member {
                room: name(room),
                identity: format!("subscriber-{number}"),
                role: Role::Subscriber,
            })
        });
        publishers.chain(subscribers).collect()
    }

    /// The layers of a picture, ascending.
    pub fn layers(&self) -> Vec<Size> {
        let smaller = |size: &Size| *size <= self.size;
        match self.simulcast {
            true => Size::ALL.into_iter().filter(smaller).collect(),
            false => vec![self.size],
        }
    }
}

impl Layout {
    /// In which size the picture at a place is looked at; none: not at all.
    pub fn size(self, place: usize) -> Option<(u32, u32)> {
        match self {
            Self::Speaker if place == 0 => Some((1280, 720)),
            Self::Speaker => Some((320, 180)),
            Self::Grid(side) => (place < (side * side) as usize).then_some((1920 / side.max(1), 1080 / side.max(1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            protocol: Protocol::LiveKit,
            url: String::new(),
            key: String::new(),
            secret: String::new(),
            room: "load".to_owned(),
            rooms: 2,
            publishers: 2,
            video_publishers: 1,
            subscribers: 3,
            size: Size::P360,
            simulcast: true,
            layout: None,
            receive: Receive::Light,
            duration: Duration::ZERO,
            ramp: 1.0,
            churn: 0.0,
        }
    }

    #[test]
    fn who_publishes_joins_first_and_each_once() {
        let members = plan().members();
        assert_eq!(members.len(), 2 * (2 + 3));
        assert!(
            members[..4]
                .iter()
                .all(|member| matches!(member.role, Role::Publisher { sound: true, .. }))
        );
        let cameras = members
            .iter()
            .filter(|member| matches!(member.role, Role::Publisher { picture: true, .. }));
        assert_eq!(cameras.count(), 2);
        let mut names: Vec<_> = members.iter().map(|member| (&member.room, &member.identity)).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), members.len());
        assert_eq!(plan().layers(), [Size::P180, Size::P360]);
    }

    #[test]
    fn a_layout_has_as_many_places_as_it_has() {
        assert_eq!(Layout::Speaker.size(0), Some((1280, 720)));
        assert_eq!(Layout::Speaker.size(7), Some((320, 180)));
        assert_eq!(Layout::Grid(3).size(8), Some((640, 360)));
        assert_eq!(Layout::Grid(3).size(9), None);
    }
}
