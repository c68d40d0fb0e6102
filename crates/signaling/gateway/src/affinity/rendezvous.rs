//! Rendezvous hashing: each user has its own order of the gateways, and is at home at the first that is there.
//!
//! Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous" (1996). All gateways know the same names, so they agree without a word. When one goes, its own
//! users move and nobody else's.

use aws_lc_rs::digest::{SHA256, digest};

/// Where `user` is at home among gateways of these names; none: there are none.
pub(super) fn home<'a>(user: &str, gateways: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    gateways.max_by_key(|gateway| (rank(user, gateway), *gateway))
}

fn rank(user: &str, gateway: &str) -> u64 {
    // A name has no byte of 0, so that no two pairs are one text.
    let hash = digest(&SHA256, format!("{gateway}\0{user}").as_bytes());
    hash.as_ref()
        .first_chunk()
        .map_or(0, |first: &[u8; 8]| u64::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_spread_and_only_those_of_a_gateway_that_goes_move() {
        const USERS: usize = 2_000;
        let names: Vec<String> = (0..10).map(|n| format!("gateway-{n}")).collect();
        let all = || names.iter().map(String::as_str);
        let mut counts = [0; 10];
        let mut moved = 0;
        for user in (0..USERS).map(|n| format!("user-{n}")) {
            let before = home(&user, all()).unwrap();
            counts[all().position(|name| name == before).unwrap()] += 1;
            let after = home(&user, all().filter(|name| *name != "gateway-3")).unwrap();
            assert!(before == after || before == "gateway-3", "{user}");
            moved += usize::from(before != after);
        }
        assert!(counts.iter().all(|count| *count * 10 <= USERS * 13 / 10), "{counts:?}");
        assert_eq!(moved, counts[3]);
    }

    #[test]
    fn a_home_stays_where_it_was() {
        // Another one here parts users from their sessions while gateways are upgraded one by one.
        let names = ["a", "b", "c"];
        let homes = ["ann", "bob", "cem", "dan"].map(|user| home(user, names.into_iter()).unwrap());
        assert_eq!(homes, ["a", "b", "a", "c"]);
        assert_eq!(home("ann", std::iter::empty()), None);
    }
}
