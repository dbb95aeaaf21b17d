//! The one form of a request path that is matched, logged and forwarded.
//!
//! Two servers that read one path differently are how an access rule is walked around. So a path is brought into one
//! form before anything looks at it, and what has no single reading is refused (400) instead of guessed at:
//!
//! * percent-encoded unreserved characters are decoded, the hex digits that stay are upper case
//!   ([RFC 3986 §6.2.2](https://www.rfc-editor.org/rfc/rfc3986#section-6.2.2));
//! * `.` and `..` are resolved, also when encoded; a `..` above the root is refused;
//! * empty segments are merged: `//` is one `/`, before `..` is resolved;
//! * an encoded slash, a backslash, an encoded control character, a dot segment with a parameter (`/..;x/`) and every
//!   byte that RFC 3986 does not allow in a path are refused.
//!
//! Decoding happens once: `%2541` is the text `%41`, and stays `%2541`.

use std::borrow::Cow;

/// Why a path has no single reading. The messages are stable: clients and logs see them.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathError {
    #[error("the path must start with `/`")]
    NotAbsolute,
    #[error("the path leads above the root with `..`")]
    AboveRoot,
    #[error("the path holds an encoded slash (`%2F`)")]
    EncodedSlash,
    #[error("the path holds a backslash, raw or encoded (`%5C`)")]
    Backslash,
    #[error("the path holds an encoded control character (`%00` to `%1F`, `%7F`)")]
    EncodedControl,
    #[error("the path holds a `%` that is not followed by two hex digits")]
    BadEscape,
    #[error("the path holds a fragment (`#`)")]
    Fragment,
    #[error("the path holds a character that must be percent-encoded")]
    BadCharacter,
    #[error("the path holds a dot segment with a parameter (`/..;x/`)")]
    DotParameter,
}

/// Brings `raw` (a path without query) into its one form; borrowed, after a single scan, when it already has it.
/// `normalise(normalise(x)) == normalise(x)`, and the result is never longer than `raw`.
pub fn normalise(raw: &str) -> Result<Cow<'_, str>, PathError> {
    normalise_with(raw, b"")
}

/// Like [`normalise`], for the text of a path pattern whose parameters (`{name?}`) were already checked.
pub(super) fn normalise_pattern(text: &str) -> Result<Cow<'_, str>, PathError> {
    normalise_with(text, b"{}?")
}

/// `also` are bytes that pass as they are, beside those that RFC 3986 allows.
fn normalise_with<'a>(raw: &'a str, also: &[u8]) -> Result<Cow<'a, str>, PathError> {
    if is_normal(raw.as_bytes(), also) { Ok(Cow::Borrowed(raw)) } else { rewrite(raw, also).map(Cow::Owned) }
}

/// The fast path. `false` means "look closer", not "bad".
fn is_normal(raw: &[u8], also: &[u8]) -> bool {
    let Some((b'/', mut rest)) = raw.split_first() else {
        return false;
    };
    let mut at_start = true;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match class(byte) {
            Class::Plain => at_start = false,
            // A segment that starts with a dot may be an ordinary name (`.well-known`): only the dot segments and
            // their look-alikes leave the fast path.
            Class::Dot if at_start && starts_as_dot_segment(rest) => return false,
            Class::Dot => at_start = false,
            Class::Slash if at_start => return false,
            Class::Slash => at_start = true,
            Class::Percent => {
                let [high, low, tail @ ..] = rest else {
                    return false;
                };
                if !stays_encoded(*high, *low) {
                    return false;
                }
                rest = tail;
                at_start = false;
            }
            Class::Other if also.contains(&byte) => at_start = false,
            Class::Other => return false,
        }
    }
    true
}

/// Whether what follows the first dot of a segment makes it `.`, `..`, or one of these with a parameter. (A second dot
/// that is encoded leaves the fast path by itself.)
fn starts_as_dot_segment(after: &[u8]) -> bool {
    let tail = after.strip_prefix(b".").unwrap_or(after);
    matches!(tail, [] | [b'/' | b';', ..] | [b'%', b'3', b'B', ..])
}

/// Whether `%` followed by these two is an escape in its normal form: upper case, and neither to be decoded nor refused.
fn stays_encoded(high: u8, low: u8) -> bool {
    let is_lower = high.is_ascii_lowercase() || low.is_ascii_lowercase();
    match hex(high).zip(hex(low)) {
        Some((high, low)) if !is_lower => matches!(decoded(high << 4 | low), Ok(None)),
        _ => false,
    }
}

fn rewrite(raw: &str, also: &[u8]) -> Result<String, PathError> {
    let Some(body) = raw.strip_prefix('/') else {
        return Err(PathError::NotAbsolute);
    };
    // Always a sequence of `/segment`, so that `..` is a cut at the last slash.
    let mut path = String::with_capacity(raw.len());
    let mut ends_with_slash = false;
    for segment in body.split('/') {
        let start = path.len();
        path.push('/');
        decode_segment(segment.as_bytes(), also, &mut path)?;
        let written = path.get(start.saturating_add(1)..).unwrap_or_default();
        ends_with_slash = matches!(written, "" | "." | "..");
        if written == ".." {
            path.truncate(start);
            let parent = path.rfind('/').ok_or(PathError::AboveRoot)?;
            path.truncate(parent);
        } else if ends_with_slash {
            path.truncate(start);
        } else if is_dot_parameter(written) {
            return Err(PathError::DotParameter);
        }
    }
    if ends_with_slash {
        path.push('/');
    }
    Ok(path)
}

/// `.;x` and `..;x`: some servers strip the parameter first and then climb. An encoded `;` counts, as some decode it
/// before they strip.
fn is_dot_parameter(segment: &str) -> bool {
    let tail = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.')).unwrap_or_default();
    tail.starts_with(';') || tail.starts_with("%3B")
}

fn decode_segment(mut segment: &[u8], also: &[u8], path: &mut String) -> Result<(), PathError> {
    while let Some((&byte, tail)) = segment.split_first() {
        segment = tail;
        match class(byte) {
            Class::Plain | Class::Dot => path.push(char::from(byte)),
            Class::Percent => {
                let [high, low, tail @ ..] = segment else {
                    return Err(PathError::BadEscape);
                };
                let value = hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low);
                match decoded(value.ok_or(PathError::BadEscape)?)? {
                    Some(character) => path.push(character),
                    None => path.extend([b'%', *high, *low].map(|byte| char::from(byte.to_ascii_uppercase()))),
                }
                segment = tail;
            }
            Class::Slash | Class::Other if also.contains(&byte) => path.push(char::from(byte)),
            Class::Slash | Class::Other => {
                return Err(match byte {
                    b'\\' => PathError::Backslash,
                    b'#' => PathError::Fragment,
                    _ => PathError::BadCharacter,
                });
            }
        }
    }
    Ok(())
}

/// What the escape of `value` becomes: the character itself, or `None` when it stays encoded.
fn decoded(value: u8) -> Result<Option<char>, PathError> {
    match value {
        b'/' => Err(PathError::EncodedSlash),
        b'\\' => Err(PathError::Backslash),
        _ if value.is_ascii_control() => Err(PathError::EncodedControl),
        b'-' | b'.' | b'_' | b'~' => Ok(Some(char::from(value))),
        _ if value.is_ascii_alphanumeric() => Ok(Some(char::from(value))),
        _ => Ok(None),
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[derive(Clone, Copy)]
enum Class {
    /// Allowed in a segment ([RFC 3986 §3.3](https://www.rfc-editor.org/rfc/rfc3986#section-3.3)) as it is.
    Plain,
    Dot,
    Slash,
    Percent,
    Other,
}

fn class(byte: u8) -> Class {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(Class::Other)
}

/// The class of every byte: one look-up instead of a comparison with each range.
static CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    let mut rest: &mut [Class] = &mut classes;
    let mut byte = 0_u8;
    while let Some((class, tail)) = rest.split_first_mut() {
        *class = class_of(byte);
        rest = tail;
        byte = byte.wrapping_add(1);
    }
    classes
};

const fn class_of(byte: u8) -> Class {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => Class::Plain,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' => Class::Plain,
        b'.' => Class::Dot,
        b'/' => Class::Slash,
        b'%' => Class::Percent,
        _ => Class::Other,
    }
}

#[cfg(test)]
mod tests;
