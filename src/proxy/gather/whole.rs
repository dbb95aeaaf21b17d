//! A body while it is gathered.

use std::mem;

use bytes::Bytes;

use super::Bounds;
use crate::proxy::memory::Charge;

/// What a body is given room for, in bytes, once its second piece comes.
const ROOM_LEAST: u64 = 4 * 1024;
/// The largest part, in bytes, unless more comes at once. All large bodies have parts of this size, so that memory which one
/// has given back fits the next.
const PART_MAX: u64 = 64 * 1024;

/// A body as far as it has come.
///
/// It is kept in parts that never move: while a body grows, nothing of it is in memory twice. When it is whole, they are
/// put together, without waiting for anything: so there are two of one body for each thread at most. Room made at once for all
/// that is announced, and charged as it fills, was measured to take more.
pub struct Whole {
    parts: Parts,
    /// How much has come.
    length: u64,
    charge: Charge,
    bounds: Bounds,
    /// As large as it says it becomes.
    announced: Option<u64>,
}

enum Parts {
    /// All of it, as it came: most bodies come in one piece.
    One(Bytes),
    /// Those that are full, and the one that is being filled.
    Many(Vec<Vec<u8>>, Vec<u8>),
}

/// Why a piece has no room.
#[derive(Debug, PartialEq, Eq)]
pub enum TooMuch {
    /// The body is too large.
    Body,
    /// All bodies together are.
    Memory,
}

impl Whole {
    pub fn new(charge: Charge, bounds: Bounds, announced: Option<u64>) -> Self {
        Self { parts: Parts::Many(Vec::new(), Vec::new()), length: 0, charge, bounds, announced }
    }

    pub fn push(&mut self, piece: Bytes) -> Result<(), TooMuch> {
        let length = self.length.saturating_add(piece.len() as u64);
        if length > self.bounds.body_max {
            return Err(TooMuch::Body);
        }
        if self.length == 0 && self.announced == Some(length) {
            self.charge.raise(length, self.bounds.memory_max).then_some(()).ok_or(TooMuch::Memory)?;
            self.parts = Parts::One(piece);
        } else {
            // Copied also when it is the first: over HTTP/2 a piece of one byte keeps the buffer that it came in, and whoever
            // sends one such piece of each body and no more would have memory that nobody charges.
            self.append(&piece)?;
        }
        self.length = length;
        Ok(())
    }

    pub fn finish(self) -> Bytes {
        match self.parts {
            Parts::One(piece) if piece.is_empty() => piece,
            Parts::One(piece) => self.charge.tie(piece),
            Parts::Many(full, last) if full.is_empty() && last.is_empty() => Bytes::new(),
            Parts::Many(full, last) if full.is_empty() => self.charge.tie(last),
            Parts::Many(full, last) => {
                let parts = full.into_iter().chain([last]);
                let mut whole = Vec::with_capacity(usize::try_from(self.length).unwrap_or_default());
                // Each is given back as soon as it is copied.
                parts.for_each(|part| whole.extend_from_slice(&part));
                self.charge.tie(whole)
            }
        }
    }

    fn append(&mut self, piece: &[u8]) -> Result<(), TooMuch> {
        let Parts::Many(full, last) = &mut self.parts else {
            // More than was announced: the engine gives no such piece.
            return if piece.is_empty() { Ok(()) } else { Err(TooMuch::Body) };
        };
        let room = last.capacity().saturating_sub(last.len()).min(piece.len());
        let (now, rest) = piece.split_at_checked(room).unwrap_or((piece, &[]));
        if rest.is_empty() {
            last.extend_from_slice(now);
            return Ok(());
        }
        // As large as all before it, so that a body which comes byte by byte has few parts; never beyond what is announced.
        let so_far = self.length.saturating_add(now.len() as u64);
        let left = self.announced.unwrap_or(u64::MAX).min(self.bounds.body_max).saturating_sub(so_far);
        let more = if so_far == 0 { 0 } else { so_far.max(ROOM_LEAST.saturating_sub(so_far)).min(PART_MAX) };
        let size = more.min(left).max(rest.len() as u64);
        if !self.charge.raise_by(size, self.bounds.memory_max) {
            return Err(TooMuch::Memory);
        }
        last.extend_from_slice(now);
        let mut next = Vec::with_capacity(usize::try_from(size).map_err(|_| TooMuch::Memory)?);
        next.extend_from_slice(rest);
        let before = mem::replace(last, next);
        if !before.is_empty() {
            full.push(before);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::memory::Memory;
    use proptest::prelude::*;
    use std::time::Duration;

    fn bounds(body_max: u64, memory_max: u64) -> Bounds {
        Bounds { body_max, memory_max, within: Duration::ZERO }
    }

    fn whole(body_max: u64, memory_max: u64, announced: Option<u64>) -> Whole {
        let memory: &'static Memory = Box::leak(Box::new(Memory::new()));
        Whole::new(memory.charge(), bounds(body_max, memory_max), announced)
    }

    fn piece(length: usize) -> Bytes {
        Bytes::from(vec![b'a'; length])
    }

    /// What is allocated for it.
    fn room(body: &Whole) -> usize {
        match &body.parts {
            Parts::One(piece) => piece.len(),
            Parts::Many(full, last) => full.iter().map(Vec::capacity).sum::<usize>() + last.capacity(),
        }
    }

    #[test]
    fn a_body_in_one_piece_is_not_copied() {
        let mut body = whole(100, 100, Some(100));
        let only = piece(100);
        let address = only.as_ptr();
        body.push(only).unwrap();
        body.push(Bytes::new()).unwrap();
        assert_eq!(body.push(piece(1)), Err(TooMuch::Body));
        assert_eq!(body.finish().as_ptr(), address);
    }

    /// One byte over HTTP/2 is a view of the buffer that the connection was read into.
    #[test]
    fn a_piece_of_a_body_that_is_not_whole_does_not_keep_the_buffer_it_came_in() {
        struct Buffer(std::sync::Arc<[u8; 16_384]>);
        impl AsRef<[u8]> for Buffer {
            fn as_ref(&self) -> &[u8] {
                &*self.0
            }
        }
        for announced in [None, Some(2)] {
            let mut body = whole(100, 100_000, announced);
            let alive = std::sync::Arc::new([b'a'; 16_384]);
            let read = Bytes::from_owner(Buffer(std::sync::Arc::clone(&alive)));
            body.push(read.slice(..1)).unwrap();
            drop(read);
            assert_eq!(std::sync::Arc::strong_count(&alive), 1, "{announced:?}");
            assert_eq!(body.finish().as_ref(), b"a");
        }
    }

    #[test]
    fn one_byte_more_than_the_body_may_have_is_refused() {
        let mut body = whole(100, 10_000, None);
        assert_eq!(body.push(piece(101)), Err(TooMuch::Body));
        body.push(piece(50)).unwrap();
        body.push(piece(50)).unwrap();
        body.push(Bytes::new()).unwrap();
        assert_eq!(body.push(piece(1)), Err(TooMuch::Body));
        assert_eq!(body.finish().len(), 100);
    }

    #[test]
    fn memory_is_charged_before_it_is_taken() {
        let mut body = whole(1 << 30, 10_000, None);
        assert_eq!(body.push(piece(10_001)), Err(TooMuch::Memory));
        body.push(piece(2_000)).unwrap();
        assert_eq!(room(&body), 2_000);
        body.push(piece(2_096)).unwrap();
        // 4,096 have come, and there is room for as many; the rest would be a part of its own.
        body.push(piece(4_096)).unwrap();
        assert_eq!(body.push(piece(1)), Err(TooMuch::Memory));
        assert_eq!(room(&body), 8_192);
    }

    #[test]
    fn no_room_is_made_beyond_what_is_announced_nor_because_of_it() {
        let mut body = whole(1 << 30, 1 << 30, Some(6_000));
        body.push(piece(10)).unwrap();
        assert_eq!(room(&body), 10);
        body.push(piece(1)).unwrap();
        assert_eq!(room(&body), 4_096);
        body.push(piece(4_086)).unwrap();
        assert_eq!(room(&body), 6_000);
        body.push(piece(1_903)).unwrap();
        assert_eq!((room(&body), body.finish().len()), (6_000, 6_000));
    }

    #[test]
    fn a_large_body_has_hardly_more_room_than_it_needs() {
        let mut body = whole(1 << 30, 1 << 30, None);
        for _ in 0..1_000 {
            body.push(piece(1_000)).unwrap();
        }
        assert!(room(&body) < 1_000_000 + 64 * 1024, "{}", room(&body));
        let Parts::Many(full, _) = &body.parts else { panic!("many pieces have come") };
        assert!(full.len() < 22, "{}", full.len());
    }

    proptest! {
        #[test]
        fn bytes_are_kept_in_order_and_charged_at_twice_their_number_at_most(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9_000), 0..12),
        ) {
            let sent = pieces.concat();
            let most = (sent.len() as u64 * 2).max(ROOM_LEAST);
            let mut body = whole(u64::MAX, most, None);
            for piece in pieces {
                prop_assert_eq!(body.push(piece.into()), Ok(()));
            }
            prop_assert!(room(&body) as u64 <= most);
            prop_assert_eq!(body.finish(), sent);
        }
    }
}
