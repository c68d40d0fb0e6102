//! Hashes that are the same on every machine, in every process and in every version of the standard library.
//!
//! A user who fell into the canary share does so again tomorrow, and two orchestrators rank the nodes for a room alike.
//! Nothing here is secret: who may choose names can choose their hashes.

/// 64-bit FNV-1a (RFC 9923) with murmur3's finalizer on top: FNV alone hardly moves the high bits for the last bytes of
/// a text.
pub fn of_bytes(bytes: &[u8]) -> u64 {
    mix(fnv1a(bytes))
}

/// Of an id of 128 bits, such as a UUID of any version.
pub fn of_id(id: u128) -> u64 {
    let (high, low) = ((id >> 64) as u64, id as u64);
    pair(high, mix(low))
}

/// Of two hashes together.
pub fn pair(left: u64, right: u64) -> u64 {
    mix(left ^ right)
}

/// The hash as a number that is above 0 and below 1, never equal to either: both have no use as an argument of a
/// logarithm.
pub fn unit(hash: u64) -> f64 {
    // 52 bits, so that adding a half is exact.
    const STEPS: f64 = (1_u64 << 52) as f64;
    ((hash >> 12) as f64 + 0.5) / STEPS
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// `fmix64` of MurmurHash3: a bijection in which each bit of the input moves each bit of the output with a
/// probability near one half.
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_published_vectors() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(mix(1), 0xb456_bcfc_34c2_cb2c);
    }

    #[test]
    fn hashes_stay_what_they_were() {
        // Another value here moves users between the tracks and rooms between the nodes.
        assert_eq!(of_bytes(b"daily"), 3_389_471_175_180_992_309);
        assert_eq!(of_id(1), 9_038_243_705_893_100_514);
        assert_eq!(pair(of_bytes(b"daily"), of_id(1)), 6_494_188_931_729_987_776);
    }

    #[test]
    fn a_unit_is_never_zero_or_one() {
        for hash in [0, 1, u64::MAX - 1, u64::MAX] {
            let unit = unit(hash);
            assert!(0.0 < unit && unit < 1.0, "{unit} from {hash:#x}");
        }
    }
}
