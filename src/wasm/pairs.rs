//! Fields as the ABI writes them: a count, the two lengths of each pair, then names and values, each behind it a zero byte.
//!
//! Proxy-Wasm ABI 0.2.1, section *Serialization*. Integers are 32 bit, little-endian.

use super::status::Status;

/// Most pairs that a plugin may hand over at once.
const PAIRS_MAX: usize = 1024;

/// Writes pairs one by one.
#[derive(Default)]
pub struct Writer {
    sizes: Vec<u8>,
    texts: Vec<u8>,
    count: u32,
}

impl Writer {
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        // No head of a message is anywhere near 4 GiB.
        let length = |text: &[u8]| u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
        self.count = self.count.saturating_add(1);
        self.sizes.extend_from_slice(&length(name));
        self.sizes.extend_from_slice(&length(value));
        for text in [name, value] {
            self.texts.extend_from_slice(text);
            self.texts.push(0);
        }
    }

    pub fn finish(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.sizes.len().saturating_add(self.texts.len()).saturating_add(4));
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.sizes);
        bytes.extend_from_slice(&self.texts);
        bytes
    }
}

/// Names and values.
pub type Pairs<'a> = Vec<(&'a [u8], &'a [u8])>;

/// Reads what a plugin wrote. Nothing, and a single zero byte, is no pair.
///
/// # Errors
/// `BAD_ARGUMENT` when the bytes are no such list or hold more than [`PAIRS_MAX`] pairs.
pub fn read(bytes: &[u8]) -> Result<Pairs<'_>, Status> {
    if bytes.is_empty() || bytes == [0] {
        return Ok(Vec::new());
    }
    let bad = Status::BadArgument;
    let number = |at: usize| {
        let bytes = bytes.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let count = number(0).filter(|count| *count <= PAIRS_MAX).ok_or(bad)?;
    let mut at = count.checked_mul(8).and_then(|sizes| sizes.checked_add(4)).ok_or(bad)?;
    let mut text = |size: usize| {
        let end = at.checked_add(size)?;
        let text = bytes.get(at..end)?;
        if *bytes.get(end)? != 0 {
            return None;
        }
        at = end.checked_add(1)?;
        Some(text)
    };
    let mut pairs = Vec::with_capacity(count);
    for index in 0..count {
        let sizes = index.checked_mul(8).and_then(|offset| offset.checked_add(4)).ok_or(bad)?;
        let name = number(sizes).and_then(&mut text).ok_or(bad)?;
        let value = sizes.checked_add(4).and_then(number).and_then(&mut text).ok_or(bad)?;
        pairs.push((name, value));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut writer = Writer::default();
        pairs.iter().for_each(|(name, value)| writer.push(name, value));
        writer.finish()
    }

    #[test]
    fn pairs_are_written_as_the_specification_says() {
        let bytes = written(&[(b"a", b"1"), (b"b", b"22")]);
        assert_eq!(bytes, b"\x02\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x02\0\0\0a\x001\0b\x0022\0");
        assert_eq!(written(&[]), [0; 4]);
    }

    #[test]
    fn what_is_written_is_read() {
        for pairs in [&[][..], &[(&b""[..], &b""[..])], &[(b"a", b"1"), (b"b", b""), (b"a", b"\x00\xff")]] {
            assert_eq!(read(&written(pairs)).unwrap(), pairs);
        }
        assert_eq!(read(b"").unwrap(), []);
        assert_eq!(read(b"\0").unwrap(), []);
    }

    #[test]
    fn what_is_cut_or_lies_about_its_size_is_refused() {
        let whole = written(&[(b"name", b"value"), (b"x", b"y")]);
        for end in 2..whole.len() {
            assert_eq!(read(&whole[..end]), Err(Status::BadArgument), "{end}");
        }
        for at in 0..20 {
            let mut bytes = whole.clone();
            bytes[at] = 0xff;
            assert_eq!(read(&bytes), Err(Status::BadArgument), "{at}");
        }
        let many = written(&vec![(&b"a"[..], &b"b"[..]); PAIRS_MAX + 1]);
        assert_eq!(read(&many), Err(Status::BadArgument));
        assert_eq!(read(&written(&vec![(&b"a"[..], &b"b"[..]); PAIRS_MAX])).unwrap().len(), PAIRS_MAX);
    }
}
