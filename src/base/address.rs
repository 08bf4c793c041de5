//! Addresses and subnets: pure arithmetic, and which of them are never a destination.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A subnet: its lowest address and the length of its prefix. Written `10.89.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSubnet {
    /// There is nothing like `/24`.
    #[error("a subnet is written ADDRESS/BITS, as in 10.89.0.0/24")]
    Form,
    /// What stands before the slash.
    #[error("what is before the slash is no IP address")]
    Address,
    /// What stands behind it.
    #[error("the length of a prefix is at most {0} bits")]
    Prefix(u8),
}

impl Subnet {
    /// The subnet that an address is in; none if the prefix is longer than an address.
    pub fn of(address: IpAddr, prefix: u8) -> Option<Self> {
        if prefix > bits(address) {
            return None;
        }
        let mask = u128::MAX.checked_shl(u32::from(bits(address) - prefix)).unwrap_or(0);
        Some(Self { address: from_number(number(address) & mask, address.is_ipv6()), prefix })
    }

    /// That of one address alone.
    pub fn host(address: IpAddr) -> Self {
        Self { address, prefix: bits(address) }
    }

    /// Its lowest address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// The length of its prefix in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether an address is in it.
    pub fn contains(self, address: IpAddr) -> bool {
        Self::of(address, self.prefix).is_some_and(|other| other.address == self.address)
    }

    /// Whether some address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.address.is_ipv6() == other.address.is_ipv6()
            && (self.contains(other.address) || other.contains(self.address))
    }

    /// Whether it is one of IPv6.
    pub fn is_ipv6(self) -> bool {
        self.address.is_ipv6()
    }

    /// Its highest address: of IPv4 that for broadcasts.
    pub fn last(self) -> IpAddr {
        let host = u32::from(bits(self.address) - self.prefix);
        let ones = u128::MAX.checked_shl(host).map_or(u128::MAX, |mask| !mask);
        from_number(number(self.address) | ones, self.is_ipv6())
    }

    /// The address `offset` above the lowest, if it is inside.
    pub fn nth(self, offset: u128) -> Option<IpAddr> {
        let sum = number(self.address).checked_add(offset)?;
        (sum <= number(self.last())).then(|| from_number(sum, self.is_ipv6()))
    }

    /// How far an address is above the lowest.
    pub fn offset(self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| number(address) - number(self.address))
    }

    /// Whether a host may have this address of it: not the first, not IPv4's last.
    pub fn has_host(self, address: IpAddr) -> bool {
        self.contains(address)
            && (u32::from(bits(self.address) - self.prefix) <= 1
                || (address != self.address && (self.is_ipv6() || address != self.last())))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = NoSubnet;

    fn from_str(text: &str) -> Result<Self, NoSubnet> {
        let (address, prefix) = text.split_once('/').ok_or(NoSubnet::Form)?;
        let address: IpAddr = address.parse().map_err(|_| NoSubnet::Address)?;
        let most = NoSubnet::Prefix(bits(address));
        let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|_| digits).ok_or(most)?;
        Self::of(address, prefix).ok_or(most)
    }
}

impl TryFrom<String> for Subnet {
    type Error = NoSubnet;

    fn try_from(text: String) -> Result<Self, NoSubnet> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[allow(clippy::cast_possible_truncation, reason = "what comes of an IPv4 address is one")]
fn from_number(number: u128, ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::from(number).into() } else { Ipv4Addr::from(number as u32).into() }
}

/// The IPv4 address that an IPv6 one stands for: mapped (RFC 4291), behind a NAT64 (RFC 6052), 6to4
/// (RFC 3056).
pub fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

/// Whether an address is one of a single machine or link, of many receivers, or none: what a proxy must not
/// dial for others, for to the host it means something else than to who asked. A socket of IPv6 reaches IPv4's
/// by mapped addresses, and Linux takes the unspecified address for the loopback.
pub fn is_local(address: IpAddr) -> bool {
    let local_v4 = |address: Ipv4Addr| {
        let first = address.octets()[0];
        first == 0 || first == 127 || first >= 224 || address.is_link_local()
    };
    match address {
        IpAddr::V4(address) => local_v4(address),
        IpAddr::V6(v6) => {
            let segments = v6.segments();
            v6.is_multicast()
                || v6.is_unicast_link_local()
                // Unspecified, loopback, mapped and the deprecated "compatible" ones.
                || segments[..5] == [0; 5]
                || embedded(address).is_some_and(local_v4)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn subnets_are_read_and_written() {
        for (text, shown) in [
            ("10.89.0.7/24", "10.89.0.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("1.2.3.4/32", "1.2.3.4/32"),
            ("fd00::5/64", "fd00::/64"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Subnet>().expect(text).to_string(), shown);
        }
        for (text, why) in [
            ("10.0.0.0", NoSubnet::Form),
            ("10.0.0/8", NoSubnet::Address),
            ("/8", NoSubnet::Address),
            ("10.0.0.0/33", NoSubnet::Prefix(32)),
            ("10.0.0.0/+8", NoSubnet::Prefix(32)),
            ("10.0.0.0/", NoSubnet::Prefix(32)),
            ("fd00::/129", NoSubnet::Prefix(128)),
            ("fd00::/-1", NoSubnet::Prefix(128)),
        ] {
            assert_eq!(text.parse::<Subnet>(), Err(why), "{text}");
        }
    }

    #[test]
    fn addresses_are_counted() {
        let net: Subnet = "10.89.0.0/24".parse().expect("a subnet");
        assert_eq!(net.nth(1), Some(ip("10.89.0.1")));
        assert_eq!(net.nth(255), Some(ip("10.89.0.255")));
        assert_eq!(net.nth(256), None);
        assert_eq!(net.last(), ip("10.89.0.255"));
        assert_eq!(net.offset(ip("10.89.0.9")), Some(9));
        assert_eq!(net.offset(ip("10.89.1.9")), None);
        assert!(net.has_host(ip("10.89.0.1")) && !net.has_host(ip("10.89.0.0")));
        assert!(!net.has_host(ip("10.89.0.255")) && !net.has_host(ip("fd00::1")));
        let six: Subnet = "fd00::/64".parse().expect("a subnet");
        assert!(six.has_host(ip("fd00::ffff:ffff:ffff:ffff")) && !six.has_host(ip("fd00::")));
        let all: Subnet = "::/0".parse().expect("a subnet");
        assert_eq!(all.last(), IpAddr::V6(Ipv6Addr::from(u128::MAX)));
        assert!(all.overlaps(six) && six.overlaps(all) && !net.overlaps(all));
        let wide: Subnet = "10.0.0.0/8".parse().expect("a subnet");
        assert!(wide.overlaps(net) && net.overlaps(wide));
    }

    #[test]
    fn what_means_something_else_to_the_host() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "2002:7f00:1::",
            "febf::1",
        ] {
            assert!(is_local(ip(text)), "{text}");
        }
        for text in
            ["10.0.0.1", "8.8.8.8", "192.168.1.1", "2001:db8::1", "fd00::1", "64:ff9b::8.8.8.8", "100.64.0.1"]
        {
            assert!(!is_local(ip(text)), "{text}");
        }
    }
}
