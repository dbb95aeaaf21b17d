//! The header that tells through a proxy of connections who the client is:
//! [the PROXY protocol](https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt), versions 1 and 2.
//!
//! Only bytes here: [`v1`] and [`v2`] read a whole header, [`write()`] makes one. Who may send one, and how long it may take, is
//! for the server to say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How a header of version 1 begins.
pub const V1_START: &[u8; 6] = b"PROXY ";
/// How a header of version 2 begins.
pub const V2_START: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What every header has at least: it can be read before one knows which version it is.
pub const START: usize = 12;
/// Longest header of version 1, with its CRLF.
pub const V1_BYTES_MAX: usize = 107;
/// What stands in a header of version 2 before addresses.
pub const V2_FIXED: usize = 16;
/// Longest header of version 2 that is read. Addresses take 52 bytes at most (216 for those of sockets in files); what proxies
/// add about TLS takes some hundred.
pub const V2_BYTES_MAX: usize = 4096;

/// A version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    V1,
    V2,
}

/// Both ends of a connection of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// The client's own address.
    pub source: SocketAddr,
    /// The address it connected to.
    pub destination: SocketAddr,
}

/// What is wrong with a header, in words for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Reads a header of version 1, from `PROXY` to its CRLF. `None`: the proxy speaks for itself, or for a client it cannot name.
pub fn v1(header: &[u8]) -> Result<Option<Ends>, Malformed> {
    let line = header.strip_suffix(b"\r\n").ok_or(Malformed("the line does not end with CRLF"))?;
    let line = line.strip_prefix(V1_START).ok_or(Malformed("it does not begin with `PROXY `"))?;
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(None);
    }
    let line = std::str::from_utf8(line).map_err(|_| Malformed("the line is not ASCII"))?;
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or(Malformed("the line is too short"));
    let (family, source, destination) = (word()?, word()?, word()?);
    let (source_port, destination_port) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(Malformed("the line is too long"));
    }
    let address = |text: &str| match family {
        "TCP4" => text.parse().map(IpAddr::V4).map_err(|_| Malformed("an address is no IPv4 address")),
        "TCP6" => text.parse().map(IpAddr::V6).map_err(|_| Malformed("an address is no IPv6 address")),
        _ => Err(Malformed("the family is none of TCP4, TCP6 and UNKNOWN")),
    };
    let (source, destination) = (address(source)?, address(destination)?);
    Ok(Some(ends((source, source_port), (destination, destination_port))))
}

/// A port in decimal, without anything in front.
fn port(text: &str) -> Result<u16, Malformed> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or(Malformed("a port is none"))
}

/// How many bytes follow the first [`V2_FIXED`] ones.
pub fn v2_rest(fixed: &[u8; V2_FIXED]) -> Result<usize, Malformed> {
    let [.., high, low] = *fixed;
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if rest > V2_BYTES_MAX.saturating_sub(V2_FIXED) {
        return Err(Malformed("it is longer than 4096 bytes"));
    }
    Ok(rest)
}

/// Reads a header of version 2, whole. `None`: as for [`v1`].
pub fn v2(header: &[u8]) -> Result<Option<Ends>, Malformed> {
    let (fixed, rest) = header.split_first_chunk::<V2_FIXED>().ok_or(Malformed("it is too short"))?;
    if !fixed.starts_with(V2_START) || v2_rest(fixed)? != rest.len() {
        return Err(Malformed("it is not what it announces"));
    }
    let [.., command, family, _, _] = *fixed;
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed("the version or the command is unknown")),
    };
    if local {
        // What follows is to be skipped, whatever it is.
        return Ok(None);
    }
    let (ends, extensions) =
        match family {
            0x11 => addresses(rest, |bytes: [u8; 4]| IpAddr::V4(Ipv4Addr::from(bytes)))
                .map(|(ends, rest)| (Some(ends), rest)),
            0x21 => addresses(rest, |bytes: [u8; 16]| IpAddr::V6(Ipv6Addr::from(bytes)))
                .map(|(ends, rest)| (Some(ends), rest)),
            // Valid, but not for us: datagrams, sockets in files, and what nobody specified. The proxy speaks for itself.
            0x00 => Ok((None, rest)),
            0x12 => skip(rest, 12),
            0x22 => skip(rest, 36),
            0x31 | 0x32 => skip(rest, 216),
            _ => Err(Malformed("the family or the protocol is unknown")),
        }?;
    // Of addresses nobody specified, the length says nothing about extensions either.
    if family != 0 {
        check_extensions(header, extensions)?;
    }
    Ok(ends)
}

/// Addresses and ports of both ends, and what follows them.
fn addresses<const N: usize>(bytes: &[u8], of: fn([u8; N]) -> IpAddr) -> Result<(Ends, &[u8]), Malformed> {
    let read = || {
        let (source, bytes) = bytes.split_first_chunk::<N>()?;
        let (destination, bytes) = bytes.split_first_chunk::<N>()?;
        let (source_port, bytes) = bytes.split_first_chunk::<2>()?;
        let (destination_port, bytes) = bytes.split_first_chunk::<2>()?;
        let port = |bytes: &[u8; 2]| u16::from_be_bytes(*bytes);
        Some((ends((of(*source), port(source_port)), (of(*destination), port(destination_port))), bytes))
    };
    read().ok_or(Malformed("it is too short for its addresses"))
}

fn skip(bytes: &[u8], length: usize) -> Result<(Option<Ends>, &[u8]), Malformed> {
    bytes.get(length..).map(|rest| (None, rest)).ok_or(Malformed("it is too short for its addresses"))
}

/// An IPv4 address in the clothes of IPv6 is an IPv4 address: limits and lists of networks must not see two.
fn ends(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Ends {
    let canonical = |(address, port): (IpAddr, u16)| SocketAddr::new(address.to_canonical(), port);
    Ends { source: canonical(source), destination: canonical(destination) }
}

/// The kind of the extension that holds a checksum over the whole header.
const CHECKSUM: u8 = 0x03;

/// Walks over the extensions: each has to fit, and a checksum has to be right.
fn check_extensions(header: &[u8], mut rest: &[u8]) -> Result<(), Malformed> {
    let mut sum_seen = false;
    while let Some((kind, after)) = rest.split_first() {
        let short = Malformed("an extension is longer than the header");
        let (length, after) = after.split_first_chunk::<2>().ok_or(short)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (value, after) = after.split_at_checked(length).ok_or(short)?;
        if *kind == CHECKSUM {
            let sent = <[u8; 4]>::try_from(value).map_err(|_| Malformed("the checksum has not four bytes"))?;
            let before = header.len().saturating_sub(after.len()).saturating_sub(sent.len());
            let (head, tail) = (header.get(..before).unwrap_or_default(), after);
            // The checksum itself counts as zeroes.
            let sum = [head, &[0; 4], tail].into_iter().fold(u32::MAX, crc32c);
            if std::mem::replace(&mut sum_seen, true) || !sum != u32::from_be_bytes(sent) {
                return Err(Malformed("the checksum is wrong"));
            }
        }
        rest = after;
    }
    Ok(())
}

/// CRC-32C (RFC 3720 appendix B.4) of some more bytes. Headers are short and come once for each connection: no table.
fn crc32c(sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 })
    })
}

/// The header that a connection begins with which is made for a client.
pub fn write(version: Version, ends: &Ends) -> Vec<u8> {
    let canonical = |end: SocketAddr| (end.ip().to_canonical(), end.port());
    let ((source, source_port), (destination, destination_port)) =
        (canonical(ends.source), canonical(ends.destination));
    // One family for both: where only one end is of IPv4, it is told as one of IPv6.
    let four = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Some((source, destination)),
        _ => None,
    };
    let six = |address: IpAddr| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    match version {
        Version::V1 => match four {
            Some((source, destination)) => {
                format!("PROXY TCP4 {source} {destination} {source_port} {destination_port}\r\n").into_bytes()
            }
            None => {
                let (source, destination) = (six(source), six(destination));
                format!("PROXY TCP6 {source} {destination} {source_port} {destination_port}\r\n").into_bytes()
            }
        },
        Version::V2 => {
            let mut header = V2_START.to_vec();
            match four {
                Some((source, destination)) => {
                    header.extend([0x21, 0x11, 0, 12]);
                    header.extend(source.octets());
                    header.extend(destination.octets());
                }
                None => {
                    header.extend([0x21, 0x21, 0, 36]);
                    header.extend(six(source).octets());
                    header.extend(six(destination).octets());
                }
            }
            header.extend(source_port.to_be_bytes());
            header.extend(destination_port.to_be_bytes());
            header
        }
    }
}

#[cfg(test)]
mod tests;
