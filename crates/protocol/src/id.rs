//! Ids. Each has its own type, so that none can be passed where another is meant.
//!
//! Names that people choose ([`RoomName`], [`Identity`]) are checked when they are made or decoded: 1 to 256 bytes, no control
//! characters. Ids that the system makes ([`ParticipantId`], [`TrackId`]) are opaque strings with the prefixes that LiveKit's
//! clients expect.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest [`RoomName`] or [`Identity`], in bytes. Higher: longer keys in every map and index. Lower: refuses names that
/// applications already use.
pub const MAX_NAME_BYTES: usize = 256;

/// Why a name was refused. Its text is a sentence for the person who chose the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidName {
    /// The name has no characters.
    Empty,
    /// The name has more than [`MAX_NAME_BYTES`] bytes.
    TooLong,
    /// The name holds a control character, such as a newline.
    NotPrintable,
    /// The name is `.` or `..`, which no URL can carry as a path segment (RFC 3986 section 5.2.4).
    Dots,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidName::Empty => "must not be empty",
            InvalidName::TooLong => "must be at most 256 bytes long",
            InvalidName::NotPrintable => "must hold printable characters only",
            InvalidName::Dots => "must not be . or ..",
        })
    }
}

impl std::error::Error for InvalidName {}

fn check_name(name: &str) -> Result<(), InvalidName> {
    // The byte-order mark and the bidirectional controls would let two names look alike.
    let unprintable = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if name.trim().is_empty() {
        Err(InvalidName::Empty)
    } else if name.len() > MAX_NAME_BYTES {
        Err(InvalidName::TooLong)
    } else if name.chars().any(unprintable) {
        Err(InvalidName::NotPrintable)
    } else if matches!(name, "." | "..") {
        Err(InvalidName::Dots)
    } else {
        Ok(())
    }
}

macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(
            feature = "openapi",
            derive(utoipa::ToSchema),
            schema(value_type = String, min_length = 1, max_length = 256)
        )]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(name: String) -> Result<Self, InvalidName> {
                check_name(&name)?;
                Ok(Self(name))
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::try_from(name.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_name! {
    /// The name of a room, chosen by the application. It is the room map's key.
    RoomName
}

checked_name! {
    /// Who a participant is, chosen by the application: at most one participant of a room has it at a time.
    Identity
}

macro_rules! opaque_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        pub struct $name(String);

        impl $name {
            /// Takes an id over as it is.
            pub fn new(id: impl Into<String>) -> Self {
                Self(id.into())
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

opaque_id! {
    /// One stay of one identity in one room: `PA_…`. Joining again makes a new one.
    ParticipantId
}

opaque_id! {
    /// One published track: `TR_…`.
    TrackId
}

/// A media node. It survives restarts of the node; its [`Epoch`] does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, format = Uuid))]
pub struct NodeId(pub Uuid);

impl NodeId {
    /// A new random id (UUID version 4).
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for NodeId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// One room map and all that share it. The database has it; a map in memory makes one at each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, format = Uuid))]
pub struct ClusterId(pub Uuid);

impl ClusterId {
    /// A new random id (UUID version 4).
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = u64))]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// One registration of a node. It only grows; whatever was assigned to an older epoch of a node is dead.
    Epoch
}

counter! {
    /// How often a room has been placed. It grows by one with each placement and never repeats for a room.
    Generation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_to_256_printable_bytes() {
        assert_eq!("".parse::<RoomName>(), Err(InvalidName::Empty));
        assert_eq!("  ".parse::<RoomName>(), Err(InvalidName::Empty));
        assert_eq!("a\nb".parse::<RoomName>(), Err(InvalidName::NotPrintable));
        assert_eq!("a\u{202e}b".parse::<RoomName>(), Err(InvalidName::NotPrintable));
        assert_eq!("x".repeat(257).parse::<Identity>(), Err(InvalidName::TooLong));
        assert_eq!("..".parse::<RoomName>(), Err(InvalidName::Dots));
        assert!("x".repeat(256).parse::<Identity>().is_ok());
        assert!("Raum Å 7".parse::<RoomName>().is_ok());
    }

    #[test]
    fn a_bad_name_is_refused_while_decoding() {
        assert!(serde_json::from_str::<RoomName>(r#""daily""#).is_ok());
        assert!(serde_json::from_str::<RoomName>(r#""""#).is_err());
    }
}
