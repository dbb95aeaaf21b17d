//! How fast a gathered body is handed on.
//!
//! Pingora looks at the client's side of an exchange only while its pipe to the upstream has room. A body that is there at
//! once fills the pipe; with its last piece in a full one nobody would notice any more that the client leaves, or that the
//! service takes longer than it may. So a few pieces are under way at most, fewer than the pipe takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

/// Pieces under way: one that is being written and the next. The pipe takes four.
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
}
