//! IP networks.

use super::{ParseError, quoted, text_type};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

const HINT: &str = "write 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32";

/// An IP network in CIDR notation ([RFC 4632 §3.1](https://www.rfc-editor.org/rfc/rfc4632#section-3.1)), or one
/// address. Bits behind the prefix must be zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(pub ipnet::IpNet);

impl FromStr for Network {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.into()));
        }
        let network: ipnet::IpNet =
            text.parse().map_err(|_| ParseError::new(format!("{} is no IP network", quoted(text)), HINT))?;
        let right = network.trunc();
        if right != network {
            let message = format!("{} has bits set behind its prefix", quoted(text));
            let hint = format!("write {right}, or {} for the one address", network.addr());
            return Err(ParseError::new(message, hint));
        }
        Ok(Self(network))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_type!(Network, "Network", expected: "an IP network such as 10.0.0.0/8",
    pattern: "[0-9A-Fa-f:.]+(/[0-9]{1,3})?", description: "An IP network or address: 10.0.0.0/8, 192.0.2.7, 2001:db8::/32");

/// Where to listen: an IP address and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bind(pub SocketAddr);

impl FromStr for Bind {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const HINT: &str = "write 127.0.0.1:8000, 0.0.0.0:8000 for all of IPv4, or [::]:8000 for all addresses";
        let bind = text.parse().map(Self);
        bind.map_err(|_| ParseError::new(format!("{} is no IP address with a port", quoted(text)), HINT))
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_type!(Bind, "Bind", expected: "an IP address with a port such as 127.0.0.1:8000",
    pattern: "([0-9.]+|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}", description: "An IP address and a port: 127.0.0.1:8000, 0.0.0.0:8000, [::]:8000");

/// An IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address(pub IpAddr);

impl FromStr for Address {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let address = text.parse().map(Self);
        address.map_err(|_| {
            ParseError::new(format!("{} is no IP address", quoted(text)), "write 192.0.2.1 or 2001:db8::1")
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_type!(Address, "Address", expected: "an IP address such as 192.0.2.1",
    pattern: "[0-9A-Fa-f:.]+", description: "An IP address: 192.0.2.1, 2001:db8::1");
