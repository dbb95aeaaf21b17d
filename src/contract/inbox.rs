//! Inboxes: what a handler that fills one says about it.

use std::sync::Arc;
use std::time::Duration;

use super::Compiler;
use crate::inbox::{Account, Bounds};
use crate::yaml::Located;

/// An inbox, and who gets what is in it.
#[derive(Clone)]
pub struct InboxUse {
    pub name: Located<String>,
    /// Its name.
    pub upstream: Located<String>,
    pub terms: Terms,
    pub account: Arc<Account>,
}

/// How an inbox is filled and emptied.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    pub bounds: Bounds,
    /// Deliveries of a message, the first included; then it is dead. At least 1.
    pub attempts: u32,
    /// Pauses between them; the last one repeats. At least one.
    pub schedule: Box<[Duration]>,
    /// By what share a pause is made longer or shorter, at random; 0 to 1.
    pub jitter: f64,
    /// Of one delivery, from the connection to the head of the answer.
    pub timeout: Duration,
    /// Deliveries at once, of one gateway. At least 1.
    pub concurrency: usize,
}

impl Terms {
    /// The pause behind the attempt of this number, the first being 1. `chance` is 0 to 1.
    pub fn pause(&self, attempt: u32, chance: f64) -> Duration {
        let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        let pause = self.schedule.get(index).or(self.schedule.last()).copied().unwrap_or_default();
        let factor = self.jitter.clamp(0.0, 1.0).mul_add(chance.clamp(0.0, 1.0).mul_add(2.0, -1.0), 1.0);
        pause.mul_f64(factor)
    }
}

impl Compiler {
    /// Says which inbox the handler fills.
    pub fn inbox(&mut self, inbox: InboxUse) {
        self.inbox = Some(inbox);
    }

    /// Whether there is a place for messages that outlives the process.
    pub fn keeps_messages(&self) -> bool {
        self.known.keeps_messages
    }

    /// Whose it is: of a handler, the name of its route.
    pub fn owner(&self) -> &str {
        &self.owner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pause_repeats_and_jitter_stays_within_its_share() {
        let seconds = Duration::from_secs;
        let terms = Terms {
            bounds: Bounds { messages_max: 1, bytes_max: 1 },
            attempts: 10,
            schedule: [seconds(5), seconds(30)].into(),
            jitter: 0.2,
            timeout: seconds(30),
            concurrency: 1,
        };
        let pauses = |chance| [1, 2, 3, u32::MAX].map(|attempt| terms.pause(attempt, chance));
        assert_eq!(pauses(0.5), [5, 30, 30, 30].map(seconds));
        assert_eq!(pauses(0.0), [4, 24, 24, 24].map(seconds));
        assert_eq!(pauses(1.0), [6, 36, 36, 36].map(seconds));
    }
}
