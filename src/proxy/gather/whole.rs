//! A body while it is gathered.

use bytes::Bytes;

use super::Bounds;
use crate::proxy::memory::Charge;

/// What the second piece is given room for at least, in bytes.
const ROOM_LEAST: u64 = 4 * 1024;

/// A body as far as it has come.
pub struct Whole {
    pieces: Pieces,
    charge: Charge,
    bounds: Bounds,
    /// As large as it says it becomes; no room is made beyond that.
    announced: u64,
}

enum Pieces {
    /// The first one is kept as it came: most bodies have no other.
    One(Bytes),
    Many(Vec<u8>),
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
        let announced = announced.unwrap_or(u64::MAX).min(bounds.body_max);
        Self { pieces: Pieces::One(Bytes::new()), charge, bounds, announced }
    }

    pub fn push(&mut self, piece: Bytes) -> Result<(), TooMuch> {
        let length = self.len().saturating_add(piece.len() as u64);
        if length > self.bounds.body_max {
            return Err(TooMuch::Body);
        }
        if self.len() == 0 {
            self.charge(length)?;
            self.pieces = Pieces::One(piece);
            return Ok(());
        }
        let many = self.room(length)?;
        many.extend_from_slice(&piece);
        Ok(())
    }

    pub fn finish(self) -> Bytes {
        match self.pieces {
            Pieces::One(piece) if piece.is_empty() => piece,
            Pieces::One(piece) => self.charge.tie(piece),
            Pieces::Many(bytes) => self.charge.tie(bytes),
        }
    }

    fn len(&self) -> u64 {
        match &self.pieces {
            Pieces::One(piece) => piece.len() as u64,
            Pieces::Many(bytes) => bytes.len() as u64,
        }
    }

    /// Bytes in one piece of memory that takes `length` of them without being moved. It doubles, so that a body that comes
    /// byte by byte is copied twice at most; a part of it at least as large has come already.
    fn room(&mut self, length: u64) -> Result<&mut Vec<u8>, TooMuch> {
        let (held, capacity): (&[u8], _) = match &self.pieces {
            Pieces::One(piece) => (piece, 0),
            Pieces::Many(bytes) => (bytes, bytes.capacity()),
        };
        if length > capacity as u64 {
            let room = length.saturating_mul(2).max(ROOM_LEAST).min(self.announced).max(length);
            if !self.charge.raise(room, self.bounds.memory_max) {
                return Err(TooMuch::Memory);
            }
            let mut larger = Vec::with_capacity(usize::try_from(room).map_err(|_| TooMuch::Memory)?);
            larger.extend_from_slice(held);
            self.pieces = Pieces::Many(larger);
        }
        match &mut self.pieces {
            Pieces::Many(bytes) => Ok(bytes),
            // A first piece has no capacity: it was replaced just now.
            Pieces::One(_) => Err(TooMuch::Memory),
        }
    }

    fn charge(&mut self, bytes: u64) -> Result<(), TooMuch> {
        if self.charge.raise(bytes, self.bounds.memory_max) { Ok(()) } else { Err(TooMuch::Memory) }
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

    #[test]
    fn a_body_in_one_piece_is_not_copied() {
        let mut body = whole(100, 100, None);
        let only = piece(100);
        let address = only.as_ptr();
        body.push(only).unwrap();
        assert_eq!(body.finish().as_ptr(), address);
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
        body.push(piece(2_501)).unwrap();
        body.push(piece(2_499)).unwrap();
        // 5,000 have come, and there is room for 10,000.
        body.push(piece(5_000)).unwrap();
        assert_eq!(body.push(piece(1)), Err(TooMuch::Memory));
    }

    #[test]
    fn no_room_is_made_beyond_what_is_announced_nor_because_of_it() {
        let mut body = whole(1 << 30, 1 << 30, Some(6_000));
        body.push(piece(10)).unwrap();
        let room = |body: &Whole| match &body.pieces {
            Pieces::One(_) => 0,
            Pieces::Many(bytes) => bytes.capacity(),
        };
        body.push(piece(10)).unwrap();
        assert_eq!(room(&body), 4_096);
        body.push(piece(4_080)).unwrap();
        assert_eq!(room(&body), 6_000);
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
            prop_assert_eq!(body.finish(), sent);
        }
    }
}
