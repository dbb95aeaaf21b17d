//! A timer for a deadline that moves with every request, and almost never passes.
//!
//! Moving a timer, or only asking it, costs as much as a small filter. So it is left where it is when the deadline moves
//! later (it then fires too early, once, and is set anew), and it is not asked again while the task that waits is the same.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::clock;

/// A timer, when one is running.
#[derive(Default)]
pub struct Alarm(Option<Set>);

struct Set {
    at: Instant,
    sleep: Pin<Box<Sleep>>,
    /// Who is woken when it fires.
    waker: Option<Waker>,
}

impl Alarm {
    /// Ready when `deadline` after `start` has passed; otherwise the task is woken when it has.
    pub fn poll(&mut self, start: Instant, deadline: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = start.checked_add(deadline).unwrap_or(start);
        loop {
            let set = self.0.get_or_insert_with(|| Set::at(deadline));
            if set.at > deadline {
                set.at = deadline;
                set.sleep.as_mut().reset(deadline.into());
                set.waker = None;
            }
            ready!(set.poll(cx));
            self.0 = None;
            if clock::now() >= deadline {
                return Poll::Ready(());
            }
        }
    }
}

impl Set {
    fn at(at: Instant) -> Self {
        Self { at, sleep: Box::pin(tokio::time::sleep_until(at.into())), waker: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let waits = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if waits && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        let fired = self.sleep.as_mut().poll(cx);
        self.waker = fired.is_pending().then(|| cx.waker().clone());
        fired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[tokio::test]
    async fn it_fires_at_the_deadline_and_not_before() {
        let start = clock::now();
        let mut alarm = Alarm::default();
        poll_fn(|cx| alarm.poll(start, Duration::from_millis(30), cx)).await;
        assert!(start.elapsed() >= Duration::from_millis(30));
    }

    #[tokio::test]
    async fn a_deadline_that_moved_later_is_waited_for_and_an_earlier_one_is_kept() {
        let start = clock::now();
        let mut alarm = Alarm::default();
        let deadline = AtomicU64::new(20);
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            let fired = alarm.poll(start, Duration::from_millis(deadline.load(Ordering::Relaxed)), cx);
            deadline.store(60, Ordering::Relaxed);
            fired
        })
        .await;
        assert!(start.elapsed() >= Duration::from_millis(60), "{polls}");
        // Armed for an hour, then for now.
        let polled = poll_fn(|cx| Poll::Ready(alarm.poll(start, Duration::from_secs(3600), cx).is_pending())).await;
        assert!(polled);
        poll_fn(|cx| alarm.poll(start, Duration::from_millis(80), cx)).await;
        assert!(start.elapsed() >= Duration::from_millis(80));
    }

    #[tokio::test]
    async fn another_task_that_waits_is_woken() {
        let start = clock::now();
        let mut alarm = Alarm::default();
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll(start, Duration::from_millis(20), cx))).await.is_pending());
        let waited = tokio::spawn(async move { poll_fn(|cx| alarm.poll(start, Duration::from_millis(20), cx)).await });
        waited.await.unwrap();
    }
}
