//! Whatever two gateways do, and however often they die: the queue does what a list of messages would.

use proptest::prelude::*;

use super::*;

/// How many messages an inbox takes here.
const MESSAGES_MAX: u64 = 12;

#[derive(Clone, Debug)]
enum Step {
    Put {
        gateway: usize,
        order: Option<u8>,
    },
    Claim {
        gateway: usize,
        most: usize,
        lease: u64,
    },
    /// Ends one of the claims that somebody believes to have.
    Settle {
        which: usize,
        how: u8,
        due: u64,
    },
    Renew {
        which: usize,
        lease: u64,
    },
    Replay {
        which: usize,
    },
    Discard {
        which: usize,
    },
    Crash {
        gateway: usize,
    },
    Later {
        by: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let which = || 0_usize..64;
    prop_oneof![
        4 => (0_usize..2, prop::option::weighted(0.8, 0_u8..2)).prop_map(|(gateway, order)| Step::Put { gateway, order }),
        4 => (0_usize..2, 0_usize..5, 1_u64..30)
            .prop_map(|(gateway, most, lease)| Step::Claim { gateway, most, lease }),
        6 => (which(), 0_u8..5, 0_u64..20).prop_map(|(which, how, due)| Step::Settle { which, how, due }),
        1 => (which(), 1_u64..30).prop_map(|(which, lease)| Step::Renew { which, lease }),
        2 => which().prop_map(|which| Step::Replay { which }),
        1 => which().prop_map(|which| Step::Discard { which }),
        1 => (0_usize..2).prop_map(|gateway| Step::Crash { gateway }),
        3 => (1_u64..15).prop_map(|by| Step::Later { by }),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Delayed(u64),
    Claimed(u64),
    Dead,
}

#[derive(Debug)]
struct Known {
    id: String,
    order: Option<u8>,
    state: State,
    attempts: u32,
    /// Whose claim was the last, unless it was settled.
    owner: Option<String>,
}

/// Messages in the order they were stored.
#[derive(Debug, Default)]
struct Model(Vec<Known>);

impl Model {
    /// Whether it is the first of its order, and no other one of it is claimed.
    fn is_its_turn(&self, index: usize) -> bool {
        let order = self.0[index].order;
        let same = |known: &&Known| order.is_some() && known.order == order && known.state != State::Dead;
        let mut others = self.0.iter().filter(same);
        order.is_none()
            || (others.clone().next().is_some_and(|first| first.id == self.0[index].id)
                && others.all(|known| known.id == self.0[index].id || !matches!(known.state, State::Claimed(_))))
    }

    fn claim(&mut self, gateway: &str, most: usize, lease: u64, now: u64) -> Vec<(String, u32)> {
        for known in &mut self.0 {
            if matches!(known.state, State::Delayed(due) | State::Claimed(due) if due <= now) {
                known.state = State::Ready;
            }
        }
        let mut claimed = Vec::new();
        for index in 0..self.0.len() {
            if claimed.len() < most && self.0[index].state == State::Ready && self.is_its_turn(index) {
                let known = &mut self.0[index];
                known.attempts += 1;
                known.state = State::Claimed(now + lease);
                known.owner = Some(gateway.to_owned());
                claimed.push((known.id.clone(), known.attempts));
            }
        }
        claimed
    }

    /// The message of a claim that nobody else has.
    fn held(&self, gateway: &str, claimed: &Claimed) -> Option<usize> {
        self.0.iter().position(|known| {
            known.id == claimed.message.id
                && known.attempts == claimed.attempt
                && known.owner.as_deref() == Some(gateway)
        })
    }

    fn settle(&mut self, gateway: &str, claimed: &Claimed, outcome: &Outcome) -> bool {
        let Some(index) = self.held(gateway, claimed) else { return false };
        let known = &mut self.0[index];
        known.owner = None;
        match outcome {
            Outcome::Delivered => drop(self.0.remove(index)),
            Outcome::Retry { due, .. } => known.state = State::Delayed(milliseconds(*due).unsigned_abs()),
            Outcome::Dead { .. } => known.state = State::Dead,
            Outcome::Returned => {
                known.attempts -= 1;
                known.state = State::Ready;
            }
        }
        true
    }

    fn renew(&mut self, gateway: &str, claimed: &Claimed, until: u64) -> bool {
        let Some(index) = self.held(gateway, claimed) else { return false };
        if self.0[index].state == State::Ready && !self.is_its_turn(index) {
            return false;
        }
        self.0[index].state = State::Claimed(until);
        true
    }

    fn free(&self, id: &str, now: u64) -> Option<usize> {
        let is_free = |known: &Known| !matches!(known.state, State::Claimed(until) if now < until);
        self.0.iter().position(|known| known.id == id && is_free(known))
    }

    fn standings(&self, now: u64) -> Vec<(String, Standing, u32)> {
        let standing = |known: &Known| match known.state {
            State::Dead => Standing::Dead,
            State::Delayed(due) if now < due => Standing::Delayed,
            State::Claimed(until) if now < until => Standing::Claimed,
            _ => Standing::Ready,
        };
        self.0.iter().map(|known| (known.id.clone(), standing(known), known.attempts)).collect()
    }
}

/// Both, side by side.
struct Run {
    queues: Vec<RedisQueue>,
    inbox: String,
    model: Model,
    /// What somebody believes to have.
    held: Vec<(usize, String, Claimed)>,
    now: u64,
    stored: u32,
}

impl Run {
    fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.now)
    }

    fn id(&self, which: usize) -> String {
        format!("{:04}", which % (self.stored.max(1) as usize))
    }

    async fn go(&mut self, step: &Step) {
        match *step {
            Step::Put { gateway, order } => self.put(gateway, order).await,
            Step::Claim { gateway, most, lease } => self.claim(gateway, most, lease).await,
            Step::Settle { which, how, due } if !self.held.is_empty() => {
                let (gateway, name, claimed) = self.held.remove(which % self.held.len());
                let outcome = match how {
                    0 | 1 => Outcome::Delivered,
                    2 => Outcome::Retry { due: self.time() + Duration::from_millis(due), why: String::new() },
                    3 => Outcome::Dead { why: String::new() },
                    _ => Outcome::Returned,
                };
                let expected = self.model.settle(&name, &claimed, &outcome);
                let settled = self.queues[gateway].settle(&claimed, outcome, self.time()).await.unwrap();
                assert_eq!(settled, expected);
            }
            Step::Renew { which, lease } if !self.held.is_empty() => {
                let (gateway, name, claimed) = &self.held[which % self.held.len()];
                let expected = self.model.renew(name, claimed, self.now + lease);
                let lease = Duration::from_millis(lease);
                assert_eq!(self.queues[*gateway].renew(claimed, lease, self.time()).await.unwrap(), expected);
            }
            Step::Replay { which } => {
                let id = self.id(which);
                let found = self.model.free(&id, self.now);
                if let Some(index) = found {
                    let known = &mut self.model.0[index];
                    (known.state, known.attempts, known.owner) = (State::Ready, 0, None);
                }
                let replayed = self.queues[0].replay(&self.inbox, &id, self.time()).await.unwrap();
                assert_eq!(replayed, found.is_some());
            }
            Step::Discard { which } => {
                let id = self.id(which);
                let found = self.model.free(&id, self.now);
                found.map(|index| self.model.0.remove(index));
                let discarded = self.queues[0].discard(&self.inbox, &id, self.time()).await.unwrap();
                assert_eq!(discarded, found.is_some());
            }
            Step::Crash { gateway } => {
                self.held.retain(|(owner, _, _)| *owner != gateway);
                self.queues[gateway].gateway.push('+');
            }
            Step::Later { by } => self.now += by,
            Step::Settle { .. } | Step::Renew { .. } => {}
        }
    }

    async fn put(&mut self, gateway: usize, order: Option<u8>) {
        let id = format!("{:04}", self.stored);
        let text = order.map(|order| order.to_string());
        let message = Message { inbox: self.inbox.as_str().into(), ..message(&id, text.as_deref()) };
        let bounds = Bounds { messages_max: MESSAGES_MAX, ..PLENTY };
        let put = self.queues[gateway].put(message.clone(), bounds).await.unwrap();
        let fits = (self.model.0.len() as u64) < MESSAGES_MAX;
        assert_eq!(put, if fits { Put::Stored } else { Put::Full });
        if fits {
            self.stored += 1;
            self.model.0.push(Known { id, order, state: State::Ready, attempts: 0, owner: None });
            assert_eq!(self.queues[1 - gateway].put(message, bounds).await.unwrap(), Put::Stored, "again");
        }
    }

    async fn claim(&mut self, gateway: usize, most: usize, lease: u64) {
        let queue = &self.queues[gateway];
        let name = queue.gateway.clone();
        let expected = self.model.claim(&name, most, lease, self.now);
        let claims = queue.claim(&self.inbox, most, Duration::from_millis(lease), self.time()).await.unwrap();
        let found: Vec<_> =
            claims.messages.iter().map(|claimed| (claimed.message.id.clone(), claimed.attempt)).collect();
        assert_eq!(found, expected);
        let dues = self.model.0.iter().filter_map(|known| match known.state {
            State::Delayed(due) | State::Claimed(due) => Some(UNIX_EPOCH + Duration::from_millis(due)),
            State::Ready | State::Dead => None,
        });
        assert_eq!(claims.next, dues.min());
        self.held.extend(claims.messages.into_iter().map(|claimed| (gateway, name.clone(), claimed)));
    }

    async fn agrees(&self) {
        let listed = self.queues[0].list(&self.inbox, None, None, 100, self.time()).await.unwrap();
        let listed: Vec<_> =
            listed.into_iter().map(|entry| (entry.message.id, entry.standing, entry.attempts)).collect();
        let expected = self.model.standings(self.now);
        assert_eq!(listed, expected);
        let counts = self.queues[1].counts(&self.inbox, self.time()).await.unwrap();
        let count = |standing| expected.iter().filter(|(_, known, _)| *known == standing).count() as u64;
        assert_eq!(counts.ready, count(Standing::Ready));
        assert_eq!(counts.delayed, count(Standing::Delayed));
        assert_eq!(counts.claimed, count(Standing::Claimed));
        assert_eq!(counts.dead, count(Standing::Dead));
    }
}

#[test]
fn the_queue_does_what_a_list_would() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = server::shared().settings();
    let queues = runtime.block_on(async { vec![timeless(&settings).await, timeless(&settings).await] });
    let run = std::cell::RefCell::new(Run {
        queues,
        inbox: String::new(),
        model: Model::default(),
        held: Vec::new(),
        now: 1_767_268_800_000,
        stored: 0,
    });
    let config = ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..80))| {
        let mut run = run.borrow_mut();
        (run.inbox, run.stored) = (format!("i{:x}", fastrand::u64(..)), 0);
        run.held.clear();
        run.model.0.clear();
        runtime.block_on(async {
            for step in &steps {
                run.go(step).await;
                run.agrees().await;
            }
            // What is left is nothing, once all of it is gone.
            run.now += 1000;
            for id in 0..run.stored {
                let id = format!("{id:04}");
                run.queues[0].discard(&run.inbox, &id, run.time()).await.unwrap();
            }
        });
        prop_assert_eq!(keys(server::shared(), &settings), Vec::<String>::new());
    });
}
