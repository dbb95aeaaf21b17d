//! Properties that a plugin sets itself: kept for each exchange, under a bound.

use bytes::Bytes;

/// Most properties of one exchange.
pub const PROPERTIES_MAX: usize = 64;
/// Most bytes of their paths and values together.
pub const PROPERTY_BYTES_MAX: usize = 64 * 1024;

/// What a plugin set, by the context that it set it for.
#[derive(Debug, Default)]
pub struct Kept(Vec<Property>);

#[derive(Debug)]
struct Property {
    context: u32,
    path: Box<[u8]>,
    value: Bytes,
}

impl Kept {
    pub fn get(&self, context: u32, path: &[u8]) -> Option<Bytes> {
        self.of(context).find(|property| *property.path == *path).map(|property| property.value.clone())
    }

    /// Whether there was room for it.
    pub fn set(&mut self, context: u32, path: &[u8], value: &[u8]) -> bool {
        let others = || self.of(context).filter(|property| *property.path != *path);
        let bytes = others().map(Property::bytes).sum::<usize>();
        let own = path.len().saturating_add(value.len());
        if others().count() >= PROPERTIES_MAX || bytes.saturating_add(own) > PROPERTY_BYTES_MAX {
            return false;
        }
        let value = Bytes::copy_from_slice(value);
        match self.0.iter_mut().find(|property| property.context == context && *property.path == *path) {
            Some(property) => property.value = value,
            None => self.0.push(Property { context, path: path.into(), value }),
        }
        true
    }

    /// Ends with its exchange.
    pub fn forget(&mut self, context: u32) {
        self.0.retain(|property| property.context != context);
    }

    fn of(&self, context: u32) -> impl Iterator<Item = &Property> {
        self.0.iter().filter(move |property| property.context == context)
    }
}

impl Property {
    fn bytes(&self) -> usize {
        self.path.len().saturating_add(self.value.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read_by_the_same_exchange_only_and_ends_with_it() {
        let mut kept = Kept::default();
        assert!(kept.set(2, b"a\0b", b"one") && kept.set(2, b"a\0b", b"two") && kept.set(3, b"c", b""));
        assert_eq!(kept.get(2, b"a\0b").as_deref(), Some(&b"two"[..]));
        assert_eq!((kept.get(3, b"a\0b"), kept.get(3, b"c").as_deref()), (None, Some(&b""[..])));
        kept.forget(2);
        assert_eq!(kept.get(2, b"a\0b"), None);
        assert!(kept.get(3, b"c").is_some());
    }

    #[test]
    fn no_more_is_kept_than_there_may_be() {
        let mut kept = Kept::default();
        for number in 0..PROPERTIES_MAX {
            assert!(kept.set(2, &number.to_le_bytes(), b""));
        }
        assert!(!kept.set(2, b"one more", b""));
        assert!(kept.set(2, &0_usize.to_le_bytes(), b"changed") && kept.set(3, b"another exchange", b""));
        let mut kept = Kept::default();
        assert!(!kept.set(2, b"a", &vec![0; PROPERTY_BYTES_MAX]));
        assert!(kept.set(2, b"a", &vec![0; PROPERTY_BYTES_MAX - 1]));
        assert!(!kept.set(2, b"", b"1") && kept.set(2, b"a", b"1") && kept.set(2, b"b", b"1"));
    }
}
