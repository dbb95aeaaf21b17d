use super::*;

fn ends(source: &str, destination: &str) -> Option<Ends> {
    Some(Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
}

/// A header of version 2 with these bytes behind its length.
fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = V2_START.to_vec();
    header.extend([command, family]);
    header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
    header.extend(rest);
    header
}

const FOUR: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];

#[test]
fn a_line_names_both_ends() {
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
    assert_eq!(v1(line), Ok(ends("192.0.2.7:56324", "198.51.100.1:443")));
    let line = b"PROXY TCP6 2001:db8::7 2001:db8::1 0 65535\r\n";
    assert_eq!(v1(line), Ok(ends("[2001:db8::7]:0", "[2001:db8::1]:65535")));
    let mapped = b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n";
    assert_eq!(v1(mapped), Ok(ends("192.0.2.7:1", "[::1]:2")), "IPv4 in the clothes of IPv6");
    assert_eq!(v1(b"PROXY UNKNOWN\r\n"), Ok(None));
    assert_eq!(v1(b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n"), Ok(None));
}

#[test]
fn a_line_that_is_not_exactly_one_is_refused() {
    for line in [
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 1\r\n",
        "PROXY TCP4  192.0.2.7 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 65536\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 056324 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 -1 443\r\n",
        "PROXY TCP4 192.0.2.07 198.51.100.1 1 443\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.1 1 443\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::1 1 443\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.1 1 443\r\n",
        "PROXY TCP6 2001:db8::7%eth0 ::1 1 443\r\n",
        "PROXY UDP4 192.0.2.7 198.51.100.1 1 443\r\n",
        "PROXY UNKNOWNS\r\n",
        "proxy TCP4 192.0.2.7 198.51.100.1 1 443\r\n",
        "PROXY\r\n",
        "PROXY \r\n",
    ] {
        assert!(v1(line.as_bytes()).is_err(), "{line}");
    }
}

#[test]
fn a_binary_header_names_both_ends() {
    assert_eq!(v2(&header(0x21, 0x11, &FOUR)), Ok(ends("192.0.2.7:56324", "198.51.100.1:443")));
    let mut six = [0; 36];
    (six[0], six[1], six[15], six[31], six[33], six[35]) = (0x20, 0x01, 7, 1, 80, 81);
    assert_eq!(v2(&header(0x21, 0x21, &six)), Ok(ends("[2001::7]:80", "[::1]:81")));
    // Nobody is named: the proxy's own, no family, datagrams, sockets in files.
    assert_eq!(v2(&header(0x20, 0x11, &FOUR)), Ok(None));
    assert_eq!(v2(&header(0x20, 0xff, b"anything")), Ok(None));
    assert_eq!(v2(&header(0x21, 0x00, b"anything")), Ok(None));
    assert_eq!(v2(&header(0x21, 0x12, &FOUR)), Ok(None));
    assert_eq!(v2(&header(0x21, 0x31, &[0; 216])), Ok(None));
}

#[test]
fn a_binary_header_that_does_not_fit_is_refused() {
    for (bytes, why) in [
        (header(0x11, 0x11, &FOUR), "version 1"),
        (header(0x22, 0x11, &FOUR), "a command that there is not"),
        (header(0x21, 0x13, &FOUR), "a protocol that there is not"),
        (header(0x21, 0x41, &FOUR), "a family that there is not"),
        (header(0x21, 0x11, &FOUR[..11]), "a byte too little"),
        (header(0x21, 0x21, &FOUR), "IPv4 in the place of IPv6"),
        (header(0x21, 0x31, &FOUR), "too short for a path"),
        (header(0x21, 0x11, &FOUR)[..20].to_vec(), "cut"),
        ([header(0x21, 0x11, &FOUR), vec![0]].concat(), "a byte too much"),
        (V2_START.to_vec(), "the start alone"),
    ] {
        assert!(v2(&bytes).is_err(), "{why}");
    }
    let mut other = header(0x21, 0x11, &FOUR);
    other[11] = b'X';
    assert!(v2(&other).is_err(), "another start");
}

#[test]
fn extensions_are_skipped_and_have_to_fit() {
    let with = |extensions: &[u8]| header(0x21, 0x11, &[&FOUR[..], extensions].concat());
    let named = Ok(ends("192.0.2.7:56324", "198.51.100.1:443"));
    assert_eq!(v2(&with(&[0x01, 0, 2, b'h', b'2'])), named, "ALPN");
    assert_eq!(v2(&with(&[0x04, 0, 0, 0xe0, 0, 1, 9])), named, "padding, and one of nobody's");
    for cut in [&[0x01][..], &[0x01, 0], &[0x01, 0, 2, b'h'], &[0x01, 0xff, 0xff]] {
        assert!(v2(&with(cut)).is_err(), "{cut:?}");
    }
    let longest = V2_BYTES_MAX - V2_FIXED - FOUR.len() - 3;
    let padded = |length: usize| {
        let length_bytes = u16::try_from(length).unwrap().to_be_bytes();
        with(&[&[0x04][..], &length_bytes, &vec![0; length]].concat())
    };
    assert_eq!(v2(&padded(longest)), named);
    assert!(v2(&padded(longest + 1)).is_err());
}

#[test]
fn a_checksum_has_to_be_right() {
    assert_eq!(!crc32c(u32::MAX, b"123456789"), 0xe306_9283, "the value that RFC 3720 knows");
    let with = |sum: &[u8]| {
        let length = u8::try_from(sum.len()).unwrap();
        header(0x21, 0x11, &[&FOUR[..], &[0x04, 0, 1, 7, 0x03, 0, length], sum, &[0x04, 0, 0]].concat())
    };
    let sum = (!crc32c(u32::MAX, &with(&[0; 4]))).to_be_bytes();
    assert_eq!(v2(&with(&sum)), Ok(ends("192.0.2.7:56324", "198.51.100.1:443")));
    assert!(v2(&with(&sum[..3])).is_err());
    for at in 0..4 {
        let mut wrong = sum;
        wrong[at] ^= 1;
        assert!(v2(&with(&wrong)).is_err(), "bit {at}");
    }
    let mut changed = with(&sum);
    changed[16] ^= 1;
    assert!(v2(&changed).is_err(), "an address that was changed on the way");
}

#[test]
fn what_is_written_is_read() {
    for (source, destination) in [
        ("192.0.2.7:56324", "198.51.100.1:443"),
        ("[2001:db8::7]:1", "[2001:db8::1]:65535"),
        ("192.0.2.7:0", "0.0.0.0:0"),
    ] {
        let told = ends(source, destination).unwrap();
        assert_eq!(v1(&write(Version::V1, &told)), Ok(Some(told)));
        assert_eq!(v2(&write(Version::V2, &told)), Ok(Some(told)));
        assert!(write(Version::V1, &told).len() <= V1_BYTES_MAX);
    }
    // Of two families: both as IPv6, and read back as what they are.
    let mixed = ends("192.0.2.7:5", "[2001:db8::1]:6").unwrap();
    assert_eq!(write(Version::V1, &mixed), b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 5 6\r\n");
    assert_eq!(v1(&write(Version::V1, &mixed)), Ok(Some(mixed)));
    assert_eq!(v2(&write(Version::V2, &mixed)), Ok(Some(mixed)));
}
