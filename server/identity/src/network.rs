//! A range of addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The addresses that begin with the same bits: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// A text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address or network: {expected}")]
pub struct NotANetwork {
    text: String,
    expected: &'static str,
}

impl Network {
    /// Whether the address lies in it. An IPv4 address that comes as an IPv6 one (`::ffff:10.0.0.1`) is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4()
            && masked(address, self.prefix_bits) == masked(self.address, self.prefix_bits)
    }
}

/// The first bits of an address, from the top of 128; the others are zero.
fn masked(address: IpAddr, prefix_bits: u8) -> u128 {
    let bits = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    let rest = 128 - u32::from(prefix_bits);
    bits.checked_shr(rest)
        .and_then(|bits| bits.checked_shl(rest))
        .unwrap_or(0)
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let refuse = |expected| NotANetwork {
            text: text.to_owned(),
            expected,
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| {
            refuse("expected an IPv4 or IPv6 address, as in `10.1.2.3` or `10.0.0.0/8`")
        })?;
        if address.to_canonical() != address {
            return Err(refuse(
                "expected an IPv4 address in its own form, without `::ffff:`",
            ));
        }
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => bits_max,
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|bits| {
                    *bits <= bits_max && prefix.bytes().all(|byte| byte.is_ascii_digit())
                })
                .ok_or_else(|| {
                    refuse(
                        "expected a number of bits after the `/`: up to 32 for IPv4, 128 for IPv6",
                    )
                })?,
        };
        let whole = masked(address, bits_max);
        if masked(address, prefix_bits) != whole {
            return Err(refuse(
                "the address has bits beyond the prefix, so it is not clear what is meant",
            ));
        }
        Ok(Self {
            address,
            prefix_bits,
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_the_addresses_that_begin_alike() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("10.1.2.3/32", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("192.168.4.0/22", "192.168.7.255", "192.168.8.0"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::/0", "2001:db8::1", "127.0.0.1"),
            ("::1", "::1", "::2"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert!(
                parsed.contains(inside.parse().unwrap()),
                "{inside} in {network}"
            );
            assert!(
                !parsed.contains(outside.parse().unwrap()),
                "{outside} not in {network}"
            );
        }
    }

    #[test]
    fn what_is_not_a_network_is_refused() {
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.1/8",
            "10.0/8",
            "::/129",
            "host",
            "10.0.0.0/8/8",
            "::ffff:10.0.0.1",
            "10.0.0.0/ 8",
            "fe80::1%eth0",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
