//! Any run of operations does what a plain list would.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::{Bounds, Claimed, Outcome, Put, Standing};
use super::{Bench, INBOX, LEASE, at, message};

/// One operation, on one of a few messages so that they meet.
#[derive(Clone, Debug)]
enum Act {
    Put {
        name: u8,
        order: Option<u8>,
    },
    Claim(usize),
    /// Of one of the claims there have been.
    Renew(prop::sample::Index),
    Settle(prop::sample::Index, End),
    Replay(u8),
    Discard(u8),
    Pass(u64),
}

#[derive(Clone, Copy, Debug)]
enum End {
    Delivered,
    Retry(u64),
    Dead,
    Returned,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let end =
        prop_oneof![Just(End::Delivered), (0_u64..2000).prop_map(End::Retry), Just(End::Dead), Just(End::Returned)];
    let order = proptest::option::of(0_u8..2);
    let act = prop_oneof![
        3 => (0_u8..8, order).prop_map(|(name, order)| Act::Put { name, order }),
        3 => (0_usize..4).prop_map(Act::Claim),
        1 => any::<prop::sample::Index>().prop_map(Act::Renew),
        3 => (any::<prop::sample::Index>(), end).prop_map(|(claim, end)| Act::Settle(claim, end)),
        1 => (0_u8..8).prop_map(Act::Replay),
        1 => (0_u8..8).prop_map(Act::Discard),
        1 => (0_u64..900).prop_map(Act::Pass),
    ];
    proptest::collection::vec(act, 0..60)
}

/// A message of the plain list, which is in the order of storing.
#[derive(Clone, Debug)]
struct Kept {
    name: String,
    order: Option<String>,
    standing: Standing,
    due: u64,
    attempts: u32,
    /// The attempt can still be settled.
    held: bool,
}

impl Kept {
    fn standing(&self, now: u64) -> Standing {
        match self.standing {
            Standing::Delayed | Standing::Claimed if self.due <= now => Standing::Ready,
            standing => standing,
        }
    }
}

/// Room for so many.
const MESSAGES_MAX: u64 = 5;

#[derive(Default)]
struct Model {
    kept: Vec<Kept>,
    now: u64,
}

impl Model {
    fn find(&mut self, name: &str) -> Option<&mut Kept> {
        self.kept.iter_mut().find(|kept| kept.name == name)
    }

    /// Whether it is the turn of a message among those with its order.
    fn turn(&self, place: usize) -> bool {
        let (kept, now) = (&self.kept[place], self.now);
        let same = |other: &&Kept| kept.order.is_some() && other.order == kept.order && other.name != kept.name;
        let before = self.kept[..place].iter().filter(same).any(|other| other.standing(now) != Standing::Dead);
        let under_way = self.kept.iter().filter(same).any(|other| other.standing(now) == Standing::Claimed);
        kept.standing(now) == Standing::Ready && !before && !under_way
    }

    fn claim(&mut self, most: usize) -> Vec<(String, u32)> {
        let mut claimed = Vec::new();
        for place in 0..self.kept.len() {
            if claimed.len() < most && self.turn(place) {
                let due = self.now + u64::try_from(LEASE.as_millis()).unwrap();
                let kept = &mut self.kept[place];
                *kept =
                    Kept { standing: Standing::Claimed, due, attempts: kept.attempts + 1, held: true, ..kept.clone() };
                claimed.push((kept.name.clone(), kept.attempts));
            }
        }
        claimed
    }

    fn held(&mut self, claimed: &Claimed) -> Option<&mut Kept> {
        self.find(&claimed.message.id).filter(|kept| kept.held && kept.attempts == claimed.attempt)
    }

    fn settle(&mut self, claimed: &Claimed, end: End) -> bool {
        let now = self.now;
        let Some(kept) = self.held(claimed) else { return false };
        kept.held = false;
        match end {
            End::Delivered => {
                let name = kept.name.clone();
                self.kept.retain(|kept| kept.name != name);
            }
            End::Retry(after) => (kept.standing, kept.due) = (Standing::Delayed, now + after),
            End::Dead => kept.standing = Standing::Dead,
            End::Returned => (kept.standing, kept.attempts) = (Standing::Ready, kept.attempts - 1),
        }
        true
    }

    fn counts(&self) -> [u64; 4] {
        let count = |standing| self.kept.iter().filter(|kept| kept.standing(self.now) == standing).count();
        [Standing::Ready, Standing::Delayed, Standing::Claimed, Standing::Dead]
            .map(|standing| u64::try_from(count(standing)).unwrap())
    }
}

fn outcome(end: End, now: u64) -> Outcome {
    match end {
        End::Delivered => Outcome::Delivered,
        End::Retry(after) => Outcome::Retry { due: at(now + after), why: "again".to_owned() },
        End::Dead => Outcome::Dead { why: "given up".to_owned() },
        End::Returned => Outcome::Returned,
    }
}

/// A queue that does the same as the list, and the claims there have been.
struct Pair {
    bench: Bench,
    model: Model,
    claims: Vec<Claimed>,
}

impl Pair {
    async fn act(&mut self, act: Act) -> Result<(), TestCaseError> {
        let (queue, model) = (Arc::clone(&self.bench.queue), &mut self.model);
        let (now, time) = (model.now, at(model.now));
        match act {
            Act::Put { name, order } => {
                let (name, order) = (format!("m{name}"), order.map(|order| order.to_string()));
                let bounds = Bounds { messages_max: MESSAGES_MAX, bytes_max: u64::MAX };
                let put = queue.put(message(&name, order.as_deref()), bounds).await.unwrap();
                let there = model.find(&name).is_some();
                let room = u64::try_from(model.kept.len()).unwrap() < MESSAGES_MAX;
                prop_assert_eq!(put, if there || room { Put::Stored } else { Put::Full });
                if !there && room {
                    let standing = Standing::Ready;
                    model.kept.push(Kept { name, order, standing, due: 0, attempts: 0, held: false });
                }
            }
            Act::Claim(most) => {
                let claimed = queue.claim(INBOX, most, LEASE, time).await.unwrap().messages;
                let got: Vec<_> = claimed.iter().map(|one| (one.message.id.clone(), one.attempt)).collect();
                prop_assert_eq!(got, model.claim(most));
                self.claims.extend(claimed);
            }
            Act::Renew(claim) if !self.claims.is_empty() => {
                let claimed = claim.get(&self.claims);
                let lease = Duration::from_millis(300);
                // One that has run out may be lost: that depends on who has asked since.
                let kept = model.held(claimed).filter(|kept| kept.standing(now) == Standing::Claimed);
                if let Some(kept) = kept {
                    prop_assert!(queue.renew(claimed, lease, time).await.unwrap());
                    kept.due = now + 300;
                }
            }
            Act::Settle(claim, end) if !self.claims.is_empty() => {
                let claimed = claim.get(&self.claims);
                let settled = queue.settle(claimed, outcome(end, now), time).await.unwrap();
                prop_assert_eq!(settled, model.settle(claimed, end));
            }
            Act::Renew(_) | Act::Settle(..) => {}
            Act::Replay(name) => {
                let name = format!("m{name}");
                let kept = model.find(&name).filter(|kept| kept.standing(now) != Standing::Claimed);
                prop_assert_eq!(queue.replay(INBOX, &name, time).await.unwrap(), kept.is_some());
                if let Some(kept) = kept {
                    (kept.standing, kept.attempts, kept.held) = (Standing::Ready, 0, false);
                }
            }
            Act::Discard(name) => {
                let name = format!("m{name}");
                let kept = model.find(&name).filter(|kept| kept.standing(now) != Standing::Claimed);
                prop_assert_eq!(queue.discard(INBOX, &name, time).await.unwrap(), kept.is_some());
                if kept.is_some() {
                    model.kept.retain(|kept| kept.name != name);
                }
            }
            Act::Pass(milliseconds) => model.now += milliseconds,
        }
        self.compare().await
    }

    async fn compare(&self) -> Result<(), TestCaseError> {
        let (queue, model) = (&self.bench.queue, &self.model);
        prop_assert_eq!(self.bench.standing(model.now).await, model.counts());
        let listed = queue.list(INBOX, None, None, 100, at(model.now)).await.unwrap();
        let listed: Vec<_> = listed.into_iter().map(|one| (one.message.id, one.standing, one.attempts)).collect();
        let kept = model.kept.iter().map(|kept| (kept.name.clone(), kept.standing(model.now), kept.attempts));
        prop_assert_eq!(listed, kept.collect::<Vec<_>>());
        Ok(())
    }
}

async fn checked(bench: Bench, acts: Vec<Act>) -> Result<Pair, TestCaseError> {
    let mut pair = Pair { bench, model: Model::default(), claims: Vec::new() };
    for act in acts {
        pair.act(act).await?;
    }
    Ok(pair)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Where nothing waits for a disk, if there is such a place.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_file_is_like_a_list(acts in acts()) {
        runtime().block_on(checked(Bench::file_in(folder()), acts))?;
    }

    #[test]
    fn a_file_is_like_a_list_when_it_is_opened_again(acts in acts(), more in acts()) {
        runtime().block_on(async {
            let Pair { bench, mut model, .. } = checked(Bench::file_in(folder()), acts).await?;
            let before = bench.counts(model.now).await;
            let folder = bench.folder.unwrap();
            drop(bench.queue);
            for kept in &mut model.kept {
                kept.held = false;
                if kept.standing == Standing::Claimed {
                    kept.standing = Standing::Ready;
                }
            }
            let mut pair = Pair { bench: Bench::file_in(folder), model, claims: Vec::new() };
            let after = pair.bench.counts(pair.model.now).await;
            prop_assert_eq!((after.bytes, after.oldest), (before.bytes, before.oldest));
            pair.compare().await?;
            for act in more {
                pair.act(act).await?;
            }
            Ok(())
        })?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn redis_is_like_a_list(acts in acts()) {
        runtime().block_on(async { checked(Bench::redis().await, acts).await.map(|_| ()) })?;
    }
}
