//! What happens to an instance while no request calls it: ticks, news of queues, contexts that end late; and what comes of that for
//! exchanges that are held.

use std::time::Instant;

use super::{Failure, Vm};
use crate::wasm::host::ROOT;
use crate::wasm::mailbox::Mail;

impl Vm {
    /// Whether no exchange is with it.
    pub fn is_idle(&self) -> bool {
        self.open == 0
    }

    /// Does what is due and says when there is more. What fails is the end of the instance, and whoever waits is told.
    pub fn tend(&mut self, now: Instant) -> Option<Instant> {
        let tended = self.tick(now).and_then(|()| self.end_late(now));
        let due = if tended.is_ok() && !self.is_dead { self.store.data().due() } else { None };
        self.store.data_mut().is_tended = due.is_some();
        due
    }

    /// Tells the plugin of an item of a queue that it registered.
    pub fn queue_ready(&mut self, queue: u32) {
        if let Some(ready) = self.callbacks.queue_ready.clone() {
            let _ = self.run(ROOT, None, &ready, (ROOT, queue));
        }
    }

    fn tick(&mut self, now: Instant) -> Result<(), Failure> {
        if self.store.data_mut().ticks(now)
            && let Some(tick) = self.callbacks.tick.clone()
        {
            self.run(ROOT, None, &tick, ROOT)?;
        }
        Ok(())
    }

    /// Ends contexts that the plugin is done with now, or was waited for long enough.
    fn end_late(&mut self, now: Instant) -> Result<(), Failure> {
        let closing = &mut self.store.data_mut().closing;
        let over: Vec<u32> = closing.iter().filter(|(_, until)| *until <= now).map(|(context, _)| *context).collect();
        closing.retain(|(_, until)| *until > now);
        over.into_iter().try_for_each(|context| self.end(context, true, None))
    }

    /// Hands what the plugin wants done with an exchange that is held, said for another one, to who holds it.
    pub(super) fn leave(&mut self) {
        for (context, wish) in std::mem::take(&mut self.store.data_mut().others) {
            if let Some((_, mailbox)) = self.exchange.as_ref().filter(|(own, _)| *own == context) {
                mailbox.leave(Mail::Wish(wish));
            }
        }
    }
}
