//! How fast a body is handed on.
//!
//! Pingora looks at the client's side of an exchange only while its pipe to the upstream has room. With the last piece of a
//! body in the last place nobody would look there any more: neither that the client leaves nor that the service takes longer
//! than it may would be noticed, ever. So a few pieces are under way at most, fewer than the pipe takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

/// Pieces under way: one that is being written and the next. The pipe takes four, and two may stand in it uncounted: what
/// Pingora has kept of an attempt before, and an end that comes without a piece.
const PIECES_MAX: usize = 2;

/// The pieces of a body that are under way.
#[derive(Default)]
pub struct Pace {
    under_way: AtomicUsize,
    waiting: AtomicWaker,
}

impl Pace {
    /// Follows a piece on its way, until it is written or given up.
    pub fn follow(self: &Arc<Self>, piece: Bytes) -> Bytes {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        Bytes::from_owner(Followed { piece, pace: Arc::clone(self) })
    }

    /// Waits until another piece may go.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        self.waiting.register(cx.waker());
        // What arrived before the waker was known has woken nobody.
        if self.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn has_room(&self) -> bool {
        self.under_way.load(Ordering::Acquire) < PIECES_MAX
    }
}

/// What a filter has made of a piece, which counts as that one.
pub fn in_place_of(piece: Bytes, made: Bytes) -> Bytes {
    let same = piece.as_ptr() == made.as_ptr();
    if same || made.is_empty() { made } else { Bytes::from_owner(Made { made, _piece: piece }) }
}

struct Made {
    made: Bytes,
    _piece: Bytes,
}

impl AsRef<[u8]> for Made {
    fn as_ref(&self) -> &[u8] {
        &self.made
    }
}

struct Followed {
    piece: Bytes,
    pace: Arc<Pace>,
}

impl AsRef<[u8]> for Followed {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.pace.under_way.fetch_sub(1, Ordering::AcqRel);
        self.pace.waiting.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::task::noop_waker;

    #[test]
    fn another_piece_may_go_when_one_has_arrived() {
        let waker = noop_waker();
        let context = Context::from_waker(&waker);
        let pace: Arc<Pace> = Arc::default();
        let mut under_way = Vec::new();
        while pace.poll_room(&context).is_ready() {
            under_way.push(pace.follow(Bytes::from_static(b"piece")));
        }
        assert_eq!(under_way.len(), PIECES_MAX);
        let part = under_way.pop().unwrap().slice(1..2);
        assert!(pace.poll_room(&context).is_pending(), "a part of it is still under way");
        drop(part);
        assert!(pace.poll_room(&context).is_ready());
    }

    #[test]
    fn what_is_made_of_a_piece_is_under_way_as_long_as_that_would_be() {
        let waker = noop_waker();
        let context = Context::from_waker(&waker);
        let pace: Arc<Pace> = Arc::default();
        let piece = || pace.follow(Bytes::from_static(b"piece"));
        let made = in_place_of(piece(), Bytes::from_static(b"something else"));
        assert_eq!(made, "something else");
        let unchanged = piece();
        let unchanged = in_place_of(unchanged.clone(), unchanged);
        assert!(pace.poll_room(&context).is_pending());
        drop(unchanged);
        assert!(pace.poll_room(&context).is_ready());
        let other = piece();
        assert!(pace.poll_room(&context).is_pending(), "what was made is still under way");
        drop(made);
        assert!(pace.poll_room(&context).is_ready());
        // What holds nothing back is sent to nobody.
        let nothing = in_place_of(other, Bytes::new());
        let last = piece();
        assert!(pace.poll_room(&context).is_ready());
        drop((nothing, last));
    }
}
