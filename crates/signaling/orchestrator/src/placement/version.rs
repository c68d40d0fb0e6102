//! The order of software versions.

/// How many numbers of a version count.
const NUMBERS: usize = 4;

/// A version as dotted numbers: `1.4`, `1.4.2`. What is missing is 0, what follows the first `-` or `+` is ignored, and so
/// is a fifth number. A text that is no version is 0, which is below all others: a node that does not say what it runs
/// fails every requirement, and a requirement that says nothing is met by every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u64; NUMBERS]);

impl Version {
    /// Reads a version.
    pub fn parse(text: &str) -> Self {
        let numbers = text.split(['-', '+']).next().unwrap_or_default();
        let mut version = Self([0; NUMBERS]);
        for (place, number) in version.0.iter_mut().zip(numbers.split('.')) {
            match number.parse() {
                Ok(number) => *place = number,
                Err(_) => return Self([0; NUMBERS]),
            }
        }
        version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_numbers_not_their_texts() {
        let ordered = ["", "0.1", "0.9.9", "0.10", "1.4.2", "1.4.10", "2", "10.0"];
        for pair in ordered.windows(2) {
            assert!(Version::parse(pair[0]) < Version::parse(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn a_missing_number_is_zero_and_a_suffix_is_ignored() {
        for same in ["1.4", "1.4.0", "1.4.0.0.7", "1.4-rc.1", "1.4+g1234567"] {
            assert_eq!(Version::parse(same), Version::parse("1.4.0"), "{same}");
        }
    }

    #[test]
    fn what_is_no_version_is_zero() {
        for text in ["", "latest", "v1.4", "1..4", "1.x", "99999999999999999999999", "-1"] {
            assert_eq!(Version::parse(text), Version::parse("0"), "{text}");
        }
    }
}
