//! Where the frames end that a client is sent after an upgrade to WebSocket.
//!
//! Only headers are looked at ([RFC 6455 §5.2](https://www.rfc-editor.org/rfc/rfc6455#section-5.2)); what they mean is
//! between the client and the service.

/// Follows the bytes of a response that switches protocols, from its head on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    at: At,
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In a head: how it begins, and how much of the empty line that ends it is there.
    Head { start: [u8; STATUS.len()], seen: usize, end: usize },
    /// In the header of a frame, of which `seen` bytes are there. With none, between two frames.
    Header { bytes: [u8; HEADER_BYTES_MAX], seen: usize },
    /// In the payload of a frame.
    Payload { left: u64 },
}

/// How the head begins behind which frames come. An interim response may stand before it.
const STATUS: &[u8; 12] = b"HTTP/1.1 101";
const END: &[u8; 4] = b"\r\n\r\n";
/// Two bytes, the extended length, and a mask that a server does not use.
const HEADER_BYTES_MAX: usize = 14;

const BETWEEN: At = At::Header { bytes: [0; HEADER_BYTES_MAX], seen: 0 };
const BEFORE: At = At::Head { start: [0; STATUS.len()], seen: 0, end: 0 };

impl Default for Frames {
    fn default() -> Self {
        Self { at: BEFORE, closed: false }
    }
}

impl Frames {
    /// Takes note of bytes that were sent.
    pub fn take(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = self.step(rest);
        }
    }

    /// Takes note of bytes up to the end of the frame that has begun; says how many these are. None when none has.
    pub fn finish(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_between() {
            rest = self.step(rest);
        }
        bytes.len().saturating_sub(rest.len())
    }

    /// Whether the next byte begins a frame: another one may be put in here.
    pub fn is_between(&self) -> bool {
        matches!(self.at, At::Header { seen: 0, .. })
    }

    /// Whether a close frame was sent, after which no other may follow (RFC 6455 §5.5.1).
    pub fn said_close(&self) -> bool {
        self.closed
    }

    /// Takes some of `bytes`, at least one; gives the rest.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some((first, after)) = bytes.split_first() else { return bytes };
        match &mut self.at {
            At::Head { start, seen, end } => {
                if let Some(place) = start.get_mut(*seen) {
                    *place = *first;
                    *seen = seen.saturating_add(1);
                }
                let fits = END.get(*end) == Some(first);
                *end = if fits { end.saturating_add(1) } else { usize::from(*first == b'\r') };
                if *end == END.len() {
                    self.at = if start == STATUS { BETWEEN } else { BEFORE };
                }
                after
            }
            At::Header { bytes: header, seen } => {
                if let Some(place) = header.get_mut(*seen) {
                    *place = *first;
                }
                *seen = seen.saturating_add(1);
                if let Some((length, opcode)) = parse(header.get(..*seen).unwrap_or_default()) {
                    self.closed |= opcode == 8;
                    self.at = if length == 0 { BETWEEN } else { At::Payload { left: length } };
                }
                after
            }
            At::Payload { left } => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left = left.saturating_sub(taken as u64);
                if *left == 0 {
                    self.at = BETWEEN;
                }
                bytes.get(taken..).unwrap_or_default()
            }
        }
    }
}

/// Length of the payload and opcode, when the header is complete.
fn parse(header: &[u8]) -> Option<(u64, u8)> {
    let (first, second) = (*header.first()?, *header.get(1)?);
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let (length, extended) = match second & 0x7f {
        126 => (header.get(2..4)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), 2),
        127 => (header.get(2..10)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), 8),
        short => (u64::from(short), 0),
    };
    (header.len() >= 2_usize.saturating_add(extended).saturating_add(mask)).then_some((length, first & 0x0f))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match length {
            0..126 => bytes.push(mask | length as u8),
            126..=0xffff => {
                bytes.push(mask | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&[7; 4][..if masked { 4 } else { 0 }]);
        // A payload that looks like headers.
        bytes.extend((0..length).map(|at| [0x88, 0x02, 0x81, 0x7e][at % 4]));
        bytes
    }

    #[test]
    fn only_a_head_that_switches_is_followed_by_frames() {
        let mut frames = Frames::default();
        frames.take(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        assert!(!frames.is_between());
        assert_eq!(frames.finish(&[HEAD, b"\x81\x01a"].concat()), HEAD.len());
        assert!(frames.is_between());
    }

    #[test]
    fn a_close_frame_is_noticed_and_a_payload_like_one_is_not() {
        let mut frames = Frames::default();
        frames.take(HEAD);
        frames.take(&frame(2, 4, false));
        assert!(frames.is_between() && !frames.said_close());
        frames.take(&[0x88]);
        assert!(!frames.is_between() && !frames.said_close());
        frames.take(&[0x02, 3, 232]);
        assert!(frames.is_between() && frames.said_close());
    }

    #[test]
    fn a_length_that_no_memory_holds_is_followed() {
        let mut frames = Frames::default();
        frames.take(HEAD);
        frames.take(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(frames.at, At::Payload { left: u64::MAX });
        assert_eq!(frames.finish(&[0; 100]), 100);
        assert!(!frames.is_between());
    }

    proptest! {
        #[test]
        fn every_split_finds_the_same_ends(
            sizes in proptest::collection::vec((0_usize..300, any::<bool>(), 0_u8..3), 0..8),
            large in proptest::option::of(65_530_usize..65_545),
            cuts in proptest::collection::vec(1_usize..90, 1..400),
        ) {
            let mut stream = HEAD.to_vec();
            let mut ends = vec![stream.len()];
            let all = sizes.into_iter().chain(large.map(|size| (size, false, 2)));
            for (size, masked, opcode) in all {
                stream.extend(frame(opcode, size, masked));
                ends.push(stream.len());
            }
            let (mut frames, mut at) = (Frames::default(), 0);
            let mut whole = Frames::default();
            whole.take(&stream);
            for cut in cuts.iter().cycle() {
                let until = (at + cut).min(stream.len());
                let next = ends.iter().find(|end| **end > at).copied().unwrap_or(stream.len());
                let mut probe = frames.clone();
                // Between two frames nothing has begun; inside of one, its end is found or not reached.
                let expected = if ends.contains(&at) { 0 } else { next.min(until) - at };
                prop_assert_eq!(probe.finish(&stream[at..until]), expected);
                frames.take(&stream[at..until]);
                at = until;
                prop_assert_eq!(frames.is_between(), ends.contains(&at));
                if at == stream.len() {
                    break;
                }
            }
            prop_assert_eq!(frames, whole);
        }
    }
}
