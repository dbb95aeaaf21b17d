//! Whether an upstream is worth another delivery.
//!
//! The one place that decides it: [`Pause::allowance`].

use std::time::{Duration, Instant};

use crate::upstream::breaker::Room;

/// Deliveries in a row that speak against the upstream, until the inbox pauses.
const TROUBLES_MAX: u32 = 5;
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// How often a breaker is looked at that does not say when it has room.
const LOOK: Duration = Duration::from_millis(100);

/// How the deliveries of one inbox to its upstream went.
#[derive(Debug, Default)]
pub struct Pause {
    /// In a row.
    troubles: u32,
    paused: Option<Paused>,
}

#[derive(Debug)]
struct Paused {
    until: Instant,
    step: Duration,
    /// One message is under way to see whether the upstream is back.
    probing: bool,
}

/// How many messages may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    All,
    /// So many at once: a circuit breaker of the upstream is half-open.
    AtMost(usize),
    /// One, to see whether the upstream is back.
    Probe,
    Until(Instant),
    /// Not before the probe under way has ended.
    AfterProbe,
}

impl Pause {
    /// `room` is what the circuit breakers of the upstream would let through.
    pub fn allowance(&self, room: Room, now: Instant) -> Allowance {
        let closed = match room {
            Room::Until(until) => Some(until.max(after(now, LOOK))),
            // Others have the probes; whether they are done is not told.
            Room::Probes(0) => Some(after(now, LOOK)),
            Room::Probes(_) | Room::All => None,
        };
        match (&self.paused, closed, room) {
            (Some(paused), ..) if paused.probing => Allowance::AfterProbe,
            (Some(paused), closed, _) if now < paused.until => {
                Allowance::Until(closed.map_or(paused.until, |closed| closed.max(paused.until)))
            }
            (_, Some(closed), _) => Allowance::Until(closed),
            (Some(_), None, _) => Allowance::Probe,
            (None, None, Room::Probes(probes)) => Allowance::AtMost(usize::try_from(probes).unwrap_or(usize::MAX)),
            (None, None, _) => Allowance::All,
        }
    }

    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    pub fn probe_begins(&mut self) {
        if let Some(paused) = &mut self.paused {
            paused.probing = true;
        }
    }

    /// The probe told nothing: it was never sent, or nobody knows what became of it.
    pub fn probe_ends(&mut self) {
        if let Some(paused) = &mut self.paused {
            paused.probing = false;
        }
    }

    /// The upstream answered, for itself. `true`: that ends a pause.
    pub fn answered(&mut self) -> bool {
        self.troubles = 0;
        self.paused.take().is_some()
    }

    /// A delivery ended in a way that speaks against the upstream. `true`: a pause begins.
    pub fn troubled(&mut self, probe: bool, now: Instant) -> bool {
        self.troubles = self.troubles.saturating_add(1);
        (probe || self.paused.is_some() || self.troubles >= TROUBLES_MAX) && self.pause(probe, now)
    }

    /// Nobody took a connection. `true`: a pause begins.
    pub fn unreachable(&mut self, probe: bool, now: Instant) -> bool {
        self.pause(probe, now)
    }

    fn pause(&mut self, probe: bool, now: Instant) -> bool {
        let Some(paused) = &mut self.paused else {
            self.paused = Some(Paused { until: after(now, FIRST), step: FIRST, probing: false });
            return true;
        };
        // What was under way when the pause began says nothing new.
        if probe {
            paused.step = paused.step.saturating_mul(2).min(LONGEST);
            paused.until = after(now, paused.step);
            paused.probing = false;
        }
        false
    }
}

fn after(now: Instant, step: Duration) -> Instant {
    now.checked_add(step).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn five_troubles_in_a_row_pause_and_four_do_not() {
        let (mut pause, now) = (Pause::default(), clock::now());
        for _ in 0..2 {
            for _ in 0..4 {
                assert!(!pause.troubled(false, now));
            }
            assert!(!pause.answered());
        }
        for _ in 0..4 {
            assert!(!pause.troubled(false, now));
        }
        assert_eq!(pause.allowance(Room::All, now), Allowance::All);
        assert!(pause.troubled(false, now));
        assert_eq!(pause.allowance(Room::All, now), Allowance::Until(at(now, 1000)));
    }

    #[test]
    fn each_probe_that_fails_doubles_the_pause_up_to_a_minute() {
        let (mut pause, mut now) = (Pause::default(), clock::now());
        assert!(pause.unreachable(false, now));
        // The others that were under way.
        assert!(!pause.unreachable(false, now) && !pause.troubled(false, now));
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(pause.allowance(Room::All, now), Allowance::Until(now + Duration::from_secs(seconds)));
            assert_eq!(
                pause.allowance(Room::All, at(now, seconds * 1000 - 1)),
                Allowance::Until(at(now, seconds * 1000))
            );
            now = at(now, seconds * 1000);
            assert_eq!(pause.allowance(Room::All, now), Allowance::Probe);
            pause.probe_begins();
            assert_eq!(pause.allowance(Room::All, now), Allowance::AfterProbe);
            assert!(!pause.unreachable(true, now));
        }
        pause.probe_begins();
        assert!(pause.answered());
        assert_eq!(pause.allowance(Room::All, now), Allowance::All);
        assert!(pause.unreachable(false, now));
        assert_eq!(pause.allowance(Room::All, now), Allowance::Until(at(now, 1000)));
    }

    #[test]
    fn a_probe_that_told_nothing_is_repeated() {
        let (mut pause, now) = (Pause::default(), clock::now());
        pause.unreachable(false, now);
        pause.probe_begins();
        pause.probe_ends();
        assert_eq!(pause.allowance(Room::All, at(now, 1000)), Allowance::Probe);
    }

    #[test]
    fn an_open_breaker_pauses_and_a_half_open_one_lets_its_probes_through() {
        let (mut pause, now) = (Pause::default(), clock::now());
        assert_eq!(pause.allowance(Room::Until(at(now, 5000)), now), Allowance::Until(at(now, 5000)));
        assert_eq!(pause.allowance(Room::Probes(3), now), Allowance::AtMost(3));
        assert_eq!(pause.allowance(Room::Probes(0), now), Allowance::Until(at(now, 100)));
        pause.unreachable(false, now);
        // The later of both.
        assert_eq!(pause.allowance(Room::Until(at(now, 5000)), now), Allowance::Until(at(now, 5000)));
        assert_eq!(pause.allowance(Room::Until(at(now, 500)), now), Allowance::Until(at(now, 1000)));
        assert_eq!(pause.allowance(Room::Until(at(now, 5000)), at(now, 1000)), Allowance::Until(at(now, 5000)));
        assert_eq!(pause.allowance(Room::Probes(3), at(now, 1000)), Allowance::Probe);
    }
}
