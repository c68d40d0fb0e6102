//! What is sent: two seconds of picture in three sizes (VP8, thirty pictures a second, one key frame at the beginning) and of sound (Opus, 20 ms),
//! over and over. The pictures are a moving test pattern with a little noise, encoded for real time at 1.2 Mbit/s, 400 and 130 kbit/s.

/// How large a picture is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// 320 × 180.
    P180,
    /// 640 × 360.
    P360,
    /// 1280 × 720.
    P720,
}

impl Size {
    /// All, ascending.
    pub const ALL: [Self; 3] = [Self::P180, Self::P360, Self::P720];

    /// Width and height in pixels.
    pub fn pixels(self) -> (u32, u32) {
        match self {
            Self::P180 => (320, 180),
            Self::P360 => (640, 360),
            Self::P720 => (1280, 720),
        }
    }

    /// Bits per second.
    pub fn bps(self) -> u32 {
        let bytes: usize = frames(self).map(<[u8]>::len).sum();
        (bytes * 8 / 2) as u32
    }

    /// The name of its simulcast layer in LiveKit's dialect.
    pub fn rid(self) -> &'static str {
        match self {
            Self::P180 => "q",
            Self::P360 => "h",
            Self::P720 => "f",
        }
    }
}

const IVF_HEADER: usize = 32;
const IVF_FRAME_HEADER: usize = 12;

/// The frames of a clip; the first one is its key frame.
pub fn frames(size: Size) -> impl Iterator<Item = &'static [u8]> + Clone {
    let file: &'static [u8] = match size {
        Size::P180 => include_bytes!("../media/180p.ivf"),
        Size::P360 => include_bytes!("../media/360p.ivf"),
        Size::P720 => include_bytes!("../media/720p.ivf"),
    };
    let mut rest = file.get(IVF_HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (header, behind) = rest.split_at_checked(IVF_FRAME_HEADER)?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let (frame, behind) = behind.split_at_checked(length)?;
        rest = behind;
        Some(frame)
    })
}

/// The packets of sound, each behind its length in 16 bits in the file.
pub fn sound() -> impl Iterator<Item = &'static [u8]> + Clone {
    let mut rest: &'static [u8] = include_bytes!("../media/sound.packets");
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk::<2>()?;
        let (packet, behind) = behind.split_at_checked(u16::from_le_bytes(*length).into())?;
        rest = behind;
        Some(packet)
    })
}

/// Whether a VP8 frame is a key frame (RFC 6386 section 9.1).
pub fn is_key(frame: &[u8]) -> bool {
    frame.first().is_some_and(|first| first & 1 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_are_two_seconds_long_and_begin_with_their_only_key_frame() {
        for size in Size::ALL {
            let keys: Vec<bool> = frames(size).map(is_key).collect();
            assert_eq!(keys.len(), 60);
            assert!(keys[0] && !keys[1..].contains(&true), "{size:?}");
        }
        assert!((100_000..200_000).contains(&Size::P180.bps()), "{}", Size::P180.bps());
        assert!(
            (1_000_000..1_500_000).contains(&Size::P720.bps()),
            "{}",
            Size::P720.bps()
        );
        assert_eq!(sound().count(), 100);
    }
}
