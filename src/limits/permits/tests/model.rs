//! Permits against a plain model: whatever is done in whatever order, both agree on who is in and who waits.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Enter {
        who: usize,
        max: u32,
        queue: usize,
    },
    /// Gives back one of the permits.
    Release(prop::sample::Index),
    /// Somebody who waits goes away.
    Cancel(prop::sample::Index),
    /// The time of somebody who waits is over.
    TimeOut(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..2_usize, 1..5_u32, 0..4_usize).prop_map(|(who, max, queue)| Step::Enter { who, max, queue }),
        3 => any::<prop::sample::Index>().prop_map(Step::Release),
        1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        1 => any::<prop::sample::Index>().prop_map(Step::TimeOut),
    ]
}

/// Numbers of requests, as a plain list would keep them.
#[derive(Default)]
struct Model {
    max: u32,
    held: Vec<usize>,
    line: Vec<usize>,
}

impl Model {
    fn grant(&mut self) {
        while !self.line.is_empty() && self.held.len() < self.max as usize {
            self.held.push(self.line.remove(0));
        }
    }

    fn enter(&mut self, number: usize, max: u32, queue: usize) {
        self.max = max;
        self.grant();
        if self.line.is_empty() && self.held.len() < max as usize {
            self.held.push(number);
        } else if self.line.len() < queue {
            self.line.push(number);
        }
    }

    fn end(&mut self, number: usize) {
        self.line.retain(|waits| *waits != number);
        let before = self.held.len();
        self.held.retain(|holds| *holds != number);
        if self.held.len() < before {
            self.grant();
        }
    }
}

/// What a request has in its hands.
enum Hand {
    Permit(#[allow(dead_code, reason = "it is held for what its end does")] Permit),
    Waiting(Waiting),
}

#[derive(Default)]
struct Played {
    permits: Permits,
    hands: BTreeMap<usize, (usize, Hand)>,
    models: [Model; 2],
}

impl Played {
    fn play(&mut self, number: usize, step: &Step) {
        let bucket = self.permits.bucket("api");
        match step {
            Step::Enter { who, max, queue } => {
                self.models[*who].enter(number, *max, *queue);
                let hand = match bucket.enter(&who.to_string(), at_most(*max), *queue) {
                    Entrance::Admitted(permit) => Hand::Permit(permit),
                    Entrance::Queued(waiting) => Hand::Waiting(waiting),
                    Entrance::Full => return,
                };
                self.hands.insert(number, (*who, hand));
            }
            Step::Release(index) => self.end(index, |hand| matches!(hand, Hand::Permit(_))),
            Step::Cancel(index) => self.end(index, |hand| matches!(hand, Hand::Waiting(_))),
            Step::TimeOut(index) => {
                let Some(number) = self.pick(index, |hand| matches!(hand, Hand::Waiting(_))) else { return };
                let Some((who, Hand::Waiting(mut waiting))) = self.hands.remove(&number) else { return };
                let model = &mut self.models[who];
                assert_eq!(waiting.leave(), model.line.contains(&number));
                if let Ok(permit) = waiting.permit.try_recv() {
                    self.hands.insert(number, (who, Hand::Permit(permit)));
                } else {
                    model.end(number);
                }
            }
        }
    }

    fn pick(&self, index: &prop::sample::Index, of: fn(&Hand) -> bool) -> Option<usize> {
        let numbers: Vec<usize> =
            self.hands.iter().filter(|(_, (_, hand))| of(hand)).map(|(number, _)| *number).collect();
        (!numbers.is_empty()).then(|| *index.get(&numbers))
    }

    fn end(&mut self, index: &prop::sample::Index, of: fn(&Hand) -> bool) {
        if let Some(number) = self.pick(index, of)
            && let Some((who, hand)) = self.hands.remove(&number)
        {
            drop(hand);
            self.models[who].end(number);
        }
    }

    /// Takes what has arrived, then compares hand by hand.
    fn check(&mut self) {
        for (number, (who, hand)) in &mut self.hands {
            if let Hand::Waiting(waiting) = hand
                && let Ok(permit) = waiting.permit.try_recv()
            {
                *hand = Hand::Permit(permit);
            }
            let model = &self.models[*who];
            let (holds, waits) = (model.held.contains(number), model.line.contains(number));
            match hand {
                Hand::Permit(_) => assert!(holds && !waits, "{number} got in"),
                Hand::Waiting(_) => assert!(waits && !holds, "{number} waits"),
            }
        }
        let of_models = |count: fn(&Model) -> usize| self.models.iter().map(count).sum::<usize>();
        let (held, waiting) = (of_models(|model| model.held.len()), of_models(|model| model.line.len()));
        assert_eq!(self.hands.len(), held + waiting);
        assert_eq!(self.permits.counts("api"), (held as u64, waiting as u64));
        let busy = of_models(|model| usize::from(!model.held.is_empty() || !model.line.is_empty()));
        assert_eq!(self.permits.entries(), busy);
    }
}

proptest! {
    #[test]
    fn permits_agree_with_the_model(
        steps in prop::collection::vec(step(), 1..60),
        // What arrives is looked at now or later: a permit on its way must be as good as one in the hand.
        looks in prop::collection::vec(any::<bool>(), 60),
    ) {
        let mut played = Played::default();
        for (number, step) in steps.iter().enumerate() {
            played.play(number, step);
            if looks[number] {
                played.check();
            }
        }
        played.check();
        played.hands.clear();
        prop_assert_eq!(played.permits.entries(), 0);
    }
}
