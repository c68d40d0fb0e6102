//! Whether an IP address can be reached from the internet, by the registries of special-purpose addresses
//! (RFC 6890 and IANA's lists that it set up).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why the address cannot be reached from the internet, as an adjective or a noun for "is …"; none: it can.
pub fn why_not_public(address: IpAddr) -> Option<&'static str> {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4_why_not(v4),
        IpAddr::V6(v6) => v6_why_not(v6),
    }
}

fn v4_why_not(address: Ipv4Addr) -> Option<&'static str> {
    let octets = address.octets();
    Some(match octets {
        [0, ..] => "unspecified",
        [100, second, ..] if second & 0b1100_0000 == 64 => "shared by a carrier's customers (RFC 6598)",
        [192, 0, 0, _] => "reserved for protocols",
        [198, 18 | 19, ..] => "for benchmarks",
        _ if address.is_private() => "private",
        _ if address.is_loopback() => "loopback",
        _ if address.is_link_local() => "link-local",
        _ if address.is_documentation() => "for documentation",
        _ if address.is_multicast() => "multicast",
        [240..=255, ..] => "reserved",
        _ => return None,
    })
}

fn v6_why_not(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    Some(match segments {
        _ if address.is_unspecified() => "unspecified",
        _ if address.is_loopback() => "loopback",
        _ if address.is_multicast() => "multicast",
        _ if address.is_unicast_link_local() => "link-local",
        _ if address.is_unique_local() => "private",
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => "for documentation",
        [0x2001, 2, 0, ..] => "for benchmarks",
        [0x2001, 0, ..] | [0x2002, ..] => "a tunnel's",
        // Global unicast is 2000::/3 and nothing else (RFC 4291 section 2.4).
        [first, ..] if first & 0xe000 != 0x2000 => "reserved",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_that_is_not_public_is_named() {
        for (address, why) in [
            ("0.0.0.0", "unspecified"),
            ("10.0.0.7", "private"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("127.0.0.1", "loopback"),
            ("169.254.10.1", "link-local"),
            ("100.64.0.1", "shared by a carrier's customers (RFC 6598)"),
            ("100.127.255.255", "shared by a carrier's customers (RFC 6598)"),
            ("192.0.2.1", "for documentation"),
            ("198.51.100.1", "for documentation"),
            ("203.0.113.9", "for documentation"),
            ("198.19.0.1", "for benchmarks"),
            ("192.0.0.8", "reserved for protocols"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::ffff:10.0.0.7", "private"),
            ("fe80::1", "link-local"),
            ("fd00::1", "private"),
            ("ff02::1", "multicast"),
            ("2001:db8::1", "for documentation"),
            ("3fff:fff::1", "for documentation"),
            ("2001:2::1", "for benchmarks"),
            ("2002::1", "a tunnel's"),
            ("64:ff9b::1", "reserved"),
        ] {
            assert_eq!(why_not_public(address.parse().unwrap()), Some(why), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_public() {
        for address in [
            "54.12.34.56",
            "100.63.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "2a01:4f8::1",
            "2001:db7::1",
            "2001:4860:4860::8888",
            "::ffff:54.12.34.56",
        ] {
            assert_eq!(why_not_public(address.parse().unwrap()), None, "{address}");
        }
    }
}
