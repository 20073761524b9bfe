//! Addresses and prefixes, parsed once. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::error::NetworkError;

fn malformed(text: &str, expected: &'static str) -> NetworkError {
    NetworkError::Malformed { text: text.to_owned(), expected }
}

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// Bits of an address of this family.
    pub(super) fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

/// An IP address with the length of its network's prefix. Prints as `10.0.0.2/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpAddress {
    /// The address.
    pub address: IpAddr,
    /// Prefix length in bits, within what the family has.
    pub prefix: u8,
}

impl IpAddress {
    /// From an address and the prefix length as decimal text, which the API calls mask.
    ///
    /// # Errors
    /// When either is malformed, or the length exceeds the family's.
    pub fn parse(address: &str, mask: &str) -> Result<IpAddress, NetworkError> {
        let address = parse_ip(address)?;
        Ok(IpAddress { address, prefix: parse_length(mask, Family::of(address))? })
    }

    /// The family of the address.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }
}

impl fmt::Display for IpAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.prefix)
    }
}

/// A network: the part of an address that its prefix covers. Prints as `10.0.0.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// The network of `address`; bits behind the prefix are dropped, since the kernel refuses routes that have them.
    pub(super) fn new(address: IpAddr, length: u8) -> Prefix {
        let host = u32::from(Family::of(address).bits().saturating_sub(length));
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(host).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(host).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
            }
        };
        Prefix { address, length }
    }

    /// The lowest address in it.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Its length in bits.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Its family.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = NetworkError;

    /// From `ADDRESS/LENGTH`, or from `ADDRESS` for that host alone.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (parse_ip(address)?, Some(length)),
            None => (parse_ip(text)?, None),
        };
        let family = Family::of(address);
        let length = length.map_or(Ok(family.bits()), |length| parse_length(length, family))?;
        Ok(Prefix::new(address, length))
    }
}

/// The hardware address of a link, six bytes on Ethernet. Prints as `02:00:ca:fe:00:01`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HardwareAddress(Vec<u8>);

impl HardwareAddress {
    /// The longest that the kernel takes (MAX_ADDR_LEN), in bytes.
    const LONGEST: usize = 32;

    /// From the bytes that the kernel reports.
    pub(super) fn from_bytes(bytes: &[u8]) -> HardwareAddress {
        HardwareAddress(bytes.to_vec())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for HardwareAddress {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let byte = |pair: &str| {
            let digits = pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit());
            digits.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        bytes
            .filter(|bytes| (6..=HardwareAddress::LONGEST).contains(&bytes.len()))
            .map(HardwareAddress)
            .ok_or_else(|| malformed(text, "a hardware address such as 02:00:ca:fe:00:01"))
    }
}

impl fmt::Display for HardwareAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(out, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

/// An address of either family, without a prefix length.
///
/// # Errors
/// When it is none.
pub(crate) fn parse_ip(text: &str) -> Result<IpAddr, NetworkError> {
    text.parse().map_err(|_| malformed(text, "an IP address"))
}

fn parse_length(text: &str, family: Family) -> Result<u8, NetworkError> {
    let expected = match family {
        Family::V4 => "a prefix length from 0 to 32",
        Family::V6 => "a prefix length from 0 to 128",
    };
    text.parse().ok().filter(|length| *length <= family.bits()).ok_or_else(|| malformed(text, expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_with_a_mask() {
        let v4 = IpAddress::parse("10.0.0.2", "24").unwrap();
        assert_eq!((v4.to_string().as_str(), v4.family()), ("10.0.0.2/24", Family::V4));
        let v6 = IpAddress::parse("fd00::2", "64").unwrap();
        assert_eq!((v6.to_string().as_str(), v6.family()), ("fd00::2/64", Family::V6));
        for (address, mask, text) in [
            ("10.0.0", "24", "\"10.0.0\" is not an IP address"),
            ("", "24", "\"\" is not an IP address"),
            ("10.0.0.2", "33", "\"33\" is not a prefix length from 0 to 32"),
            ("10.0.0.2", "255.255.255.0", "is not a prefix length"),
            ("10.0.0.2", "", "\"\" is not a prefix length"),
            ("fd00::2", "129", "\"129\" is not a prefix length from 0 to 128"),
        ] {
            let error = IpAddress::parse(address, mask).expect_err(address).to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn prefixes_drop_the_bits_behind_them() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("255.255.255.255/0", "0.0.0.0/0"),
            ("fd00:1:2::3/32", "fd00:1::/32"),
            ("fd00::3", "fd00::3/128"),
            ("ffff::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), shown);
        }
        for text in ["", "/", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "default", "10.0.0.0/8/8"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn hardware_addresses() {
        let address: HardwareAddress = "02:00:CA:fe:00:01".parse().unwrap();
        assert_eq!(address.as_bytes(), [2, 0, 0xca, 0xfe, 0, 1]);
        assert_eq!(address.to_string(), "02:00:ca:fe:00:01");
        for text in ["", "02", "02:00:ca:fe:00", "02:00:ca:fe:00:1", "02:00:ca:fe:00:+1", "02-00-ca-fe-00-01"]
        {
            assert!(text.parse::<HardwareAddress>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,24}") {
            let _prefix = text.parse::<Prefix>();
            let _hardware = text.parse::<HardwareAddress>();
            let _address = IpAddress::parse(&text, &text);
        }

        #[test]
        fn what_is_shown_parses_to_the_same(address in any::<std::net::IpAddr>(), length in 0u8..=128) {
            let length = length.min(Family::of(address).bits());
            let prefix = Prefix::new(address, length);
            prop_assert_eq!(prefix.to_string().parse::<Prefix>().unwrap(), prefix);
        }
    }
}
