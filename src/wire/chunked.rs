//! Chunked bodies (RFC 9112 §7.1).

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use httparse::Status;

use super::Malformed;
use super::fields::{self, End};

/// Digits of a size: as many as 64 bits have.
const DIGITS_MAX: usize = 16;
/// Longest line with a size: what is over is an extension, and nobody has a use for those.
const LINE_BYTES_MAX: usize = 4 << 10;
const TRAILERS_BYTES_MAX: usize = 8 << 10;
const TRAILERS_MAX: usize = 64;

/// Reads a chunked body strictly.
#[derive(Debug, Default)]
pub struct Chunked {
    at: At,
    /// How much of an unfinished line, or of unfinished trailers, was looked at.
    scanned: usize,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Size,
    /// So much data of the chunk.
    Data(u64),
    /// The end of a chunk's data.
    Line,
    Trailers,
    End,
}

#[derive(Debug)]
pub enum Piece {
    /// More bytes are needed.
    More,
    Data(Bytes),
    /// The end; trailers if there were any. What follows in the bytes is not the body's.
    End(Option<HeaderMap>),
}

impl Chunked {
    /// Takes the next piece off the front of `bytes`: data as it came, without a copy, and as much of the chunk as is there.
    pub fn next(&mut self, bytes: &mut BytesMut) -> Result<Piece, Malformed> {
        loop {
            match self.at {
                At::Size => {
                    let Some((size, length)) = size(bytes, &mut self.scanned)? else { return Ok(Piece::More) };
                    self.take(bytes, length);
                    self.at = if size == 0 { At::Trailers } else { At::Data(size) };
                }
                At::Data(left) => {
                    if bytes.is_empty() {
                        return Ok(Piece::More);
                    }
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let left = left.saturating_sub(u64::try_from(here).unwrap_or(u64::MAX));
                    self.at = if left == 0 { At::Line } else { At::Data(left) };
                    return Ok(Piece::Data(bytes.split_to(here).freeze()));
                }
                At::Line => match &**bytes {
                    [b'\r', b'\n', ..] => {
                        self.take(bytes, 2);
                        self.at = At::Size;
                    }
                    [] | [b'\r'] => return Ok(Piece::More),
                    _ => return Err(Malformed),
                },
                At::Trailers => {
                    let Some((trailers, length)) = trailers(bytes, &mut self.scanned)? else { return Ok(Piece::More) };
                    self.take(bytes, length);
                    self.at = At::End;
                    return Ok(Piece::End(trailers));
                }
                At::End => return Ok(Piece::End(None)),
            }
        }
    }

    fn take(&mut self, bytes: &mut BytesMut, length: usize) {
        drop(bytes.split_to(length));
        self.scanned = 0;
    }
}

/// Reads the line with a size: the size, and how long the line is.
fn size(bytes: &[u8], scanned: &mut usize) -> Result<Option<(u64, usize)>, Malformed> {
    let mut size = 0_u64;
    let mut digits = 0_usize;
    for byte in bytes {
        let digit = match byte {
            b'0'..=b'9' => byte.wrapping_sub(b'0'),
            b'a'..=b'f' => byte.wrapping_sub(b'a').wrapping_add(10),
            b'A'..=b'F' => byte.wrapping_sub(b'A').wrapping_add(10),
            _ => break,
        };
        digits = digits.saturating_add(1);
        if digits > DIGITS_MAX {
            return Err(Malformed);
        }
        size = size << 4 | u64::from(digit);
    }
    let rest = bytes.get(digits..).unwrap_or_default();
    match rest {
        [] => Ok(None),
        _ if digits == 0 => Err(Malformed),
        [b'\r', b'\n', ..] => Ok(Some((size, digits.saturating_add(2)))),
        [b'\r'] => Ok(None),
        [b';', ..] => Ok(line_end(bytes, scanned)?.map(|length| (size, length))),
        _ => Err(Malformed),
    }
}

/// Where a line with an extension ends. What it says is not looked at, but it has no control bytes in it.
fn line_end(bytes: &[u8], scanned: &mut usize) -> Result<Option<usize>, Malformed> {
    let line = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let new = line.get(*scanned..).unwrap_or_default();
    let odd = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if let Some(at) = new.iter().position(odd) {
        *scanned = scanned.saturating_add(at);
        match line.get(*scanned..).unwrap_or_default() {
            [b'\r', b'\n', ..] => return Ok(Some(scanned.saturating_add(2))),
            [b'\r'] if line.len() < LINE_BYTES_MAX => return Ok(None),
            _ => return Err(Malformed),
        }
    }
    *scanned = line.len();
    if line.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Malformed) }
}

/// Reads what stands behind the last chunk: the trailers, and how long they are with their empty line.
fn trailers(bytes: &[u8], scanned: &mut usize) -> Result<Option<(Option<HeaderMap>, usize)>, Malformed> {
    match bytes {
        [b'\r', b'\n', ..] => return Ok(Some((None, 2))),
        [] | [b'\r'] => return Ok(None),
        [b'\r', ..] => return Err(Malformed),
        _ => {}
    }
    let section = bytes.get(..TRAILERS_BYTES_MAX).unwrap_or(bytes);
    match fields::end(section, std::mem::replace(scanned, section.len()), false) {
        End::At(length) => {
            let map = parse(section.get(..length).ok_or(Malformed)?)?;
            Ok(Some((Some(map), length)))
        }
        End::Missing if section.len() < TRAILERS_BYTES_MAX => Ok(None),
        End::Missing | End::Odd => Err(Malformed),
    }
}

fn parse(section: &[u8]) -> Result<HeaderMap, Malformed> {
    let mut places = [httparse::EMPTY_HEADER; TRAILERS_MAX];
    let Ok(Status::Complete((length, parsed))) = httparse::parse_headers(section, &mut places) else {
        return Err(Malformed);
    };
    if length != section.len() {
        return Err(Malformed);
    }
    let mut map = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
        if is_of_a_head(name.as_str()) {
            return Err(Malformed);
        }
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Malformed)?;
        map.try_append(name, value).map_err(|_| Malformed)?;
    }
    Ok(map)
}

/// Fields that say where a message ends, whom it is for or how it is passed on: they come too late (RFC 9110 §6.5.1), and who
/// believed them would read another message.
fn is_of_a_head(name: &str) -> bool {
    matches!(name, "content-length" | "transfer-encoding" | "host" | "connection" | "upgrade" | "te" | "trailer")
}

#[cfg(test)]
mod tests;
