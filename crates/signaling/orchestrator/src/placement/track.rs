//! Which track a room goes to: canary for a share of the users, always the same ones.

use signalbox_protocol::history::Filter;
use signalbox_protocol::placement::{PlaceRoom, Track};

use super::{Field, Settings, hash, region};

/// Keeps this hash apart from other hashes of users' names: whoever falls into the canary share here should not for that
/// reason alone fall into one share or shard elsewhere.
const SALT: &[u8] = b"signalbox canary";

/// How many equal shares the users fall into. Higher: finer shares.
const BUCKETS: u16 = 10_000;

/// The bucket of those who are known to have been in the share before: they are in every share but none.
pub const FIRST: u16 = 0;

/// Into which of the equal shares this user falls.
pub fn bucket(user: &str) -> u16 {
    let bucket = hash::pair(hash::of_bytes(SALT), hash::of_bytes(user.as_bytes())) % u64::from(BUCKETS);
    u16::try_from(bucket).unwrap_or(BUCKETS)
}

/// The bucket that is known without looking at the user's name.
pub fn known(request: &PlaceRoom) -> Option<u16> {
    request.canary_user.then_some(FIRST)
}

/// Whether `user`'s rooms belong on canary nodes when `share` of the users' do, from 0 to 1. Whoever does at one share
/// does at every higher one.
pub fn is_canary(user: &str, share: f64) -> bool {
    is_within(bucket(user), share)
}

fn is_within(bucket: u16, share: f64) -> bool {
    f64::from(bucket) < share * f64::from(BUCKETS)
}

/// The track that the request wants: the one that it names or prefers, or else the one that its user falls into. A request without
/// a user falls by its room's name, unless it is known that one fell into this bucket.
pub fn wanted(request: &PlaceRoom, known: Option<u16>, share: f64) -> Track {
    request.track.or(request.prefer).unwrap_or_else(|| {
        let user = request.user.as_deref().unwrap_or(request.room.as_str());
        if is_within(known.unwrap_or_else(|| bucket(user)), share) {
            Track::Canary
        } else {
            Track::Stable
        }
    })
}

/// Takes out the nodes of the other track, and says whether that was stable although canary was wanted.
///
/// It is when only the share, or a preference, asked for canary and no canary node can take the room near where it is wanted: to try a new
/// version is worth neither a refused join nor a detour to another region. The reverse never happens. A request that
/// names its track means it, and users outside of the share do not get the new version because the old one is full.
pub fn keep(field: &mut Field<'_>, request: &PlaceRoom, known: Option<u16>, settings: &Settings) -> (Track, bool) {
    let wanted = wanted(request, known, settings.canary_share);
    let near_canary = || {
        field.eligible.iter().any(|scored| {
            scored.candidate.track == Track::Canary
                && request
                    .region
                    .as_deref()
                    .is_none_or(|region| region::has_room(scored, region, settings))
        })
    };
    let any_stable = || {
        field
            .eligible
            .iter()
            .any(|scored| scored.candidate.track == Track::Stable)
    };
    let fallback = request.track.is_none() && wanted == Track::Canary && !near_canary() && any_stable();
    let given = if fallback { Track::Stable } else { wanted };
    field.keep(Filter::Track, |scored| scored.candidate.track == given);
    (wanted, fallback)
}
