//! Whether a path that was put together has a single reading.

use super::is_path;

/// Whether `path` is in the one form that routes are matched against: absolute, no empty or dot segments, every escape
/// needed, in capitals, and none that hides a slash, a backslash or a control character. A `/` at the end is fine.
pub fn is_normal_path(path: &str) -> bool {
    let Some(segments) = path.strip_prefix('/') else {
        return false;
    };
    is_path(path) && escapes_are_normal(path.as_bytes()) && {
        let inner = segments.strip_suffix('/').unwrap_or(segments);
        path == "/" || inner.split('/').all(|segment| !segment.is_empty() && !is_dots(segment))
    }
}

/// `.` and `..`, also with a parameter (`..;x`): some servers strip it first and then climb.
fn is_dots(segment: &str) -> bool {
    let tail = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.'));
    tail.is_some_and(|tail| tail.is_empty() || tail.starts_with(';') || tail.starts_with("%3B"))
}

fn escapes_are_normal(mut rest: &[u8]) -> bool {
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        let Some([_, high, low, tail @ ..]) = rest.get(at..) else {
            return false;
        };
        let Some((high, low)) = digit(*high).zip(digit(*low)) else {
            return false;
        };
        let value = high << 4 | low;
        let is_unreserved = value.is_ascii_alphanumeric() || b"-._~".contains(&value);
        if is_unreserved || value.is_ascii_control() || value == b'/' || value == b'\\' {
            return false;
        }
        rest = tail;
    }
    true
}

/// A hexadecimal digit in its normal form, upper case.
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
