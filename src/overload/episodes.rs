//! When shedding began and when it ended: two lines of the log, however many requests there were.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Priority, Reason};

/// Shed requests, by priority.
type Shed = [u64; Priority::ALL.len()];

/// An episode is over when nothing was shed for so long.
const QUIET: Duration = Duration::from_secs(5);

/// The episodes of all reasons.
#[derive(Default)]
pub struct Episodes([Episode; Reason::ALL.len()]);

/// How it stands with one reason.
#[derive(Default)]
struct Episode {
    /// What was counted when it was last looked at.
    seen: Shed,
    on: Option<On>,
}

struct On {
    began: Instant,
    /// What had been counted before it began.
    before: Shed,
    last: Instant,
}

/// What became of an episode.
#[derive(Debug, PartialEq)]
enum Change {
    Began,
    Ended { shed: Shed, lasted: Duration },
}

impl Episodes {
    /// Looks at what was counted, and writes down what has changed. Gives which episodes are on.
    pub fn look(&mut self, shed: &[Shed; Reason::ALL.len()], now: Instant) -> [bool; Reason::ALL.len()] {
        let mut on = [false; Reason::ALL.len()];
        for (((episode, shed), reason), on) in self.0.iter_mut().zip(shed).zip(Reason::ALL).zip(&mut on) {
            match episode.look(*shed, now) {
                None => {}
                Some(Change::Began) => warn!(reason = reason.name(), "shedding requests"),
                Some(Change::Ended { shed: [low, normal, high, critical], lasted }) => {
                    let seconds = lasted.as_secs();
                    info!(reason = reason.name(), seconds, low, normal, high, critical, "no longer shedding requests");
                }
            }
            *on = episode.on.is_some();
        }
        on
    }
}

impl Episode {
    fn look(&mut self, shed: Shed, now: Instant) -> Option<Change> {
        let before = std::mem::replace(&mut self.seen, shed);
        let grew = before != shed;
        match &mut self.on {
            None if grew => {
                self.on = Some(On { began: now, before, last: now });
                Some(Change::Began)
            }
            None => None,
            Some(on) if grew => {
                on.last = now;
                None
            }
            Some(on) if now.saturating_duration_since(on.last) < QUIET => None,
            Some(on) => {
                let mut during = shed;
                for (count, before) in during.iter_mut().zip(on.before) {
                    *count = count.saturating_sub(before);
                }
                let lasted = on.last.saturating_duration_since(on.began);
                self.on = None;
                Some(Change::Ended { shed: during, lasted })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn an_episode_begins_and_ends_once_and_counts_what_was_between() {
        let start = clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut episode = Episode { seen: [1, 1, 0, 0], on: None };
        assert_eq!(episode.look([1, 1, 0, 0], at(0)), None);
        assert_eq!(episode.look([3, 1, 0, 0], at(1)), Some(Change::Began));
        assert_eq!(episode.look([4, 2, 0, 0], at(2)), None);
        assert_eq!(episode.look([4, 2, 0, 0], at(6)), None, "not quiet for long enough");
        assert_eq!(episode.look([4, 3, 0, 0], at(6)), None);
        assert_eq!(episode.look([4, 3, 0, 0], at(10)), None);
        let ended = Change::Ended { shed: [3, 2, 0, 0], lasted: Duration::from_secs(5) };
        assert_eq!(episode.look([4, 3, 0, 0], at(11)), Some(ended));
        assert_eq!(episode.look([4, 3, 0, 0], at(12)), None);
        assert_eq!(episode.look([4, 3, 0, 1], at(13)), Some(Change::Began));
    }
}
