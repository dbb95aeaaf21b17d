//! What checks say of a target, as a function of their results. Nothing here reads a clock or logs.

/// How many results in a row change the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    pub unhealthy_after: u32,
    pub healthy_after: u32,
}

/// Healthy until a check says otherwise: a gateway that starts has to serve at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    healthy: bool,
    /// Whether any result was heard. The first one decides alone: until then nothing was known.
    settled: bool,
    /// Results in a row that speak against it.
    against: u32,
}

impl Verdict {
    pub fn new() -> Self {
        Self { healthy: true, settled: false, against: 0 }
    }

    pub fn is_healthy(self) -> bool {
        self.healthy
    }

    /// Results in a row that speak against it.
    pub fn against(self) -> u32 {
        self.against
    }

    /// Other questions are asked from now on: the next result decides alone, and until then nothing changes.
    pub fn renew(&mut self) {
        self.settled = false;
        self.against = 0;
    }

    /// Hears a result. `true`: the verdict is another one now.
    pub fn hear(&mut self, good: bool, thresholds: Thresholds) -> bool {
        let first = !std::mem::replace(&mut self.settled, true);
        if good == self.healthy {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let needed = if self.healthy { thresholds.unhealthy_after } else { thresholds.healthy_after };
        let turns = first || self.against >= needed;
        if turns {
            self.healthy = good;
            self.against = 0;
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn thresholds(unhealthy_after: u32, healthy_after: u32) -> Thresholds {
        Thresholds { unhealthy_after, healthy_after }
    }

    #[test]
    fn the_first_result_decides_alone() {
        let thresholds = thresholds(3, 2);
        let mut verdict = Verdict::new();
        assert!(verdict.is_healthy(), "healthy before anything is known");
        assert!(verdict.hear(false, thresholds) && !verdict.is_healthy());
        assert!(!verdict.hear(true, thresholds), "from then on thresholds count");
        verdict.renew();
        assert!(!verdict.is_healthy(), "nothing changes before the next result");
        assert!(verdict.hear(true, thresholds) && verdict.is_healthy());
        assert!(!Verdict::new().hear(true, thresholds));
    }

    #[test]
    fn n_minus_one_is_not_enough_and_n_is() {
        let thresholds = thresholds(3, 2);
        let mut verdict = Verdict::new();
        verdict.hear(true, thresholds);
        assert!(!verdict.hear(false, thresholds) && !verdict.hear(false, thresholds));
        // One that succeeds: they have to be in a row.
        assert!(!verdict.hear(true, thresholds));
        assert!(!verdict.hear(false, thresholds) && !verdict.hear(false, thresholds));
        assert_eq!((verdict.is_healthy(), verdict.against()), (true, 2));
        assert!(verdict.hear(false, thresholds) && !verdict.is_healthy());
        assert!(!verdict.hear(true, thresholds));
        assert!(!verdict.hear(false, thresholds));
        assert!(!verdict.hear(true, thresholds) && verdict.hear(true, thresholds));
        assert!(verdict.is_healthy());
    }

    proptest! {
        /// The verdict changes exactly where the last results, as many as needed, all speak against it.
        #[test]
        fn it_follows_the_last_results(
            results in proptest::collection::vec(any::<bool>(), 1..200),
            unhealthy_after in 1_u32..6,
            healthy_after in 1_u32..6,
        ) {
            let thresholds = thresholds(unhealthy_after, healthy_after);
            let mut verdict = Verdict::new();
            let (mut healthy, mut run) = (true, 0);
            for (place, good) in results.iter().enumerate() {
                run = if *good == healthy { 0 } else { run + 1 };
                let needed = if healthy { unhealthy_after } else { healthy_after };
                let turns = run > 0 && (place == 0 || run == needed);
                if turns {
                    healthy = *good;
                    run = 0;
                }
                prop_assert_eq!(verdict.hear(*good, thresholds), turns);
                prop_assert_eq!(verdict.is_healthy(), healthy);
            }
        }
    }
}
