//! What the heads of requests, of responses and of trailers have in common.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::Malformed;

/// Fields of a head that are read at most, whatever the caller would take. An array of that many lies on the stack, unwritten.
pub const FIELDS_MAX: usize = 256;
/// Fields that a gateway adds to a head: the map is made with room for them.
const ROOM: usize = 8;

/// Where a head ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Not in these bytes.
    Missing,
    /// Behind its empty line.
    At(usize),
    /// It begins with an empty line, or has a line without CR where none may be.
    Odd,
}

/// Looks for the empty line that ends a head, in what came after the first `scanned` bytes. `bare`: LF may stand for CRLF. A CR
/// elsewhere is for the parser to find.
pub fn end(bytes: &[u8], scanned: usize, bare: bool) -> End {
    let scanned = scanned.min(bytes.len());
    let (before, new) = bytes.split_at(scanned);
    for at in memchr::memchr_iter(b'\n', new) {
        let at = before.len().saturating_add(at);
        let Some(lines) = bytes.get(..at) else { return End::Odd };
        match lines {
            [] | [b'\r'] => return End::Odd,
            [.., b'\n', b'\r'] => return End::At(at.saturating_add(1)),
            [.., b'\r'] => {}
            _ if !bare => return End::Odd,
            [.., b'\n'] => return End::At(at.saturating_add(1)),
            _ => {}
        }
    }
    End::Missing
}

/// Whether a head that has grown from `scanned` bytes and is not whole is worth parsing, to find out early that it never will be
/// right. When its length has doubled: who sends byte by byte causes no more work than who sends twice as much.
pub fn is_worth_parsing(bytes: &[u8], scanned: usize) -> bool {
    bytes.len().leading_zeros() < scanned.leading_zeros()
}

/// Where a slice of some bytes lies in them.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    start: usize,
    end: usize,
}

impl Span {
    /// `part` must be a slice of `whole`.
    pub fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
        Self { start, end: start.saturating_add(part.len()) }
    }

    /// The same slice of the same bytes, which are shared now.
    pub fn within(self, whole: &Bytes) -> Option<Bytes> {
        (self.start <= self.end && self.end <= whole.len()).then(|| whole.slice(self.start..self.end))
    }
}

/// Fields that were judged, while the memory that they lie in is not shared yet.
pub type Judged = SmallVec<[(HeaderName, Span); 24]>;

/// The map of fields that lie in `head`.
pub fn map(judged: Judged, head: &Bytes) -> Result<HeaderMap, Malformed> {
    let mut map = HeaderMap::with_capacity(judged.len().saturating_add(ROOM));
    for (name, span) in judged {
        let value = span.within(head).ok_or(Malformed)?;
        // The parser leaves line breaks in a value only where it is folded, and only if it was told to take that.
        let value = if memchr::memchr(b'\n', &value).is_some() { unfolded(&value) } else { value };
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Malformed)?;
        map.try_append(name, value).map_err(|_| Malformed)?;
    }
    Ok(map)
}

/// A value in one line: each line break, with the blanks around it, becomes one space.
#[cold]
fn unfolded(value: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(value.len());
    for part in value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|part| !part.is_empty()) {
        line.extend_from_slice(if line.is_empty() { b"" } else { b" " });
        line.extend_from_slice(part);
    }
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_its_empty_line() {
        for (bytes, strictly, leniently) in [
            ("", End::Missing, End::Missing),
            ("a\r\n\r\n", End::At(5), End::At(5)),
            ("a\r\nb\r\n\r\nrest\n\n", End::At(8), End::At(8)),
            ("a\r\n\r", End::Missing, End::Missing),
            ("a\r\n", End::Missing, End::Missing),
            ("a\n\n", End::Odd, End::At(3)),
            ("a\n\r\n", End::Odd, End::At(4)),
            ("a\r\n\n", End::Odd, End::At(4)),
            ("a\r\nb\n", End::Odd, End::Missing),
            ("\r\na\r\n\r\n", End::Odd, End::Odd),
            ("\na", End::Odd, End::Odd),
        ] {
            assert_eq!(end(bytes.as_bytes(), 0, false), strictly, "{bytes:?}");
            assert_eq!(end(bytes.as_bytes(), 0, true), leniently, "{bytes:?}");
            for scanned in 0..=bytes.len() {
                let (first, _) = bytes.split_at(scanned);
                if end(first.as_bytes(), 0, true) == End::Missing {
                    assert_eq!(end(bytes.as_bytes(), scanned, true), leniently, "{bytes:?} from {scanned}");
                }
            }
        }
        assert_eq!(end(b"a\r\n\r\n", 9, false), End::Missing);
    }

    #[test]
    fn it_is_parsed_as_often_as_its_length_doubles() {
        let worth = (1..=1024_usize).filter(|length| is_worth_parsing(&vec![b'x'; *length], length - 1)).count();
        assert_eq!(worth, 11);
        assert!(is_worth_parsing(b"abc", 0));
        assert!(!is_worth_parsing(b"abc", 2));
    }
}
