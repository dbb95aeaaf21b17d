//! The memory that gathered bodies may take together.
//!
//! Who gathers a body holds a [`Charge`], raises it before it allocates, and ties it to the body when it is whole
//! ([`Charge::tie`]): what is charged is given back when the last one who has a view of the body lets go of it.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// The bodies of this process. Not of one snapshot: what is held is held, under whichever configuration it came in.
pub static BODIES: Memory = Memory::new();

/// Bytes of memory that gathered bodies take now.
pub fn body_memory() -> u64 {
    BODIES.held()
}

/// How much is charged. No order with other memory has to be kept: it is a sum and guards nothing.
pub struct Memory {
    charged: AtomicU64,
}

impl Memory {
    pub const fn new() -> Self {
        Self { charged: AtomicU64::new(0) }
    }

    fn held(&self) -> u64 {
        self.charged.load(Ordering::Relaxed)
    }

    /// A charge of nothing yet.
    pub fn charge(&'static self) -> Charge {
        Charge { memory: self, bytes: 0 }
    }
}

/// A part of the memory, given back when it is dropped.
pub struct Charge {
    memory: &'static Memory,
    bytes: u64,
}

impl Charge {
    /// Makes it `bytes` in all, unless more than `max` would then be charged by all together.
    pub fn raise(&mut self, bytes: u64, max: u64) -> bool {
        self.raise_by(bytes.saturating_sub(self.bytes), max)
    }

    /// The same, by so many bytes.
    pub fn raise_by(&mut self, more: u64, max: u64) -> bool {
        let raised = |charged: u64| charged.checked_add(more).filter(|charged| *charged <= max);
        let fits = self.memory.charged.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raised).is_ok();
        if fits {
            self.bytes = self.bytes.saturating_add(more);
        }
        fits
    }

    /// The bytes, charged as long as anybody has a part of them.
    pub fn tie(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Tied { bytes, _charge: self })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.memory.charged.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Tied<T> {
    bytes: T,
    _charge: Charge,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Tied<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> &'static Memory {
        Box::leak(Box::new(Memory::new()))
    }

    #[test]
    fn what_fits_is_charged_and_one_byte_more_is_not() {
        let memory = memory();
        let (mut first, mut second) = (memory.charge(), memory.charge());
        assert!(first.raise(60, 100) && second.raise(40, 100));
        assert!(!first.raise(61, 100) && !second.raise(41, 100));
        assert_eq!(memory.held(), 100, "a refusal charges nothing");
        assert!(first.raise(10, 100), "it holds that much already");
        drop(second);
        assert_eq!(memory.held(), 60);
        assert!(first.raise(100, 100));
        drop(first);
        assert_eq!(memory.held(), 0);
        assert!(!memory.charge().raise(1, 0) && !memory.charge().raise(u64::MAX, 100));
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn a_body_is_charged_until_its_last_part_is_gone() {
        let memory = memory();
        let mut charge = memory.charge();
        assert!(charge.raise(8, 8));
        let whole = charge.tie(b"12345678".to_vec());
        let part = whole.slice(6..);
        drop(whole);
        assert_eq!((memory.held(), &*part), (8, b"78".as_slice()));
        drop(part);
        assert_eq!(memory.held(), 0);
    }
}
