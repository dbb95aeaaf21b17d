//! The accounts of one quota.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::account::{Account, Leftover, Next, Plan, Said, Want};
use super::calendar::{Calendar, Span};
use super::teller::{Access, PATIENCE, Teller, UnderWay};
use super::{Answer, Figures, OnStoreError};
use crate::clock;
use crate::state::KEY_BYTES_MAX;
use crate::types::hex;

/// Parts that the accounts are in, so that workers seldom wait for each other.
pub const SHARDS: usize = 32;
/// Most accounts in one part: 131,072 in a bucket.
const SHARD_ACCOUNTS_MAX: usize = 4096;
/// How many accounts are looked at to find one whose place another can have.
const LOOKED_AT: usize = 16;
/// An account that nobody has used for so long gives its block back.
const IDLE: Duration = Duration::from_secs(10);
/// How often a request asks the store before it gives up: others may take what it waited for.
const ROUNDS_MAX: usize = 16;

/// How a quota is counted.
#[derive(Clone, Debug)]
pub struct Terms {
    pub calendar: Calendar,
    pub on_store_error: OnStoreError,
}

/// When something is asked.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Decides in which period it counts.
    pub wall: SystemTime,
    pub now: Instant,
}

/// By who is counted.
type Accounts = HashMap<Box<str>, Account>;

/// The accounts of one quota in this process. It outlives every snapshot that uses it.
pub struct Bucket {
    name: Box<str>,
    teller: Arc<Teller>,
    shards: [Mutex<Accounts>; SHARDS],
    hasher: RandomState,
}

/// An answer, or what has to be waited for first.
pub enum Outcome {
    Known(Answer),
    Waiting(Arc<Semaphore>),
}

/// What to do once the lock is free again.
enum Step {
    Answer(Answer),
    /// The store is asked beside the request.
    Refill(Answer, Plan),
    /// The store is asked, and the request waits.
    Ask(Plan, Arc<Semaphore>),
    Join(Arc<Semaphore>),
}

impl Bucket {
    pub fn new(name: &str, teller: &Arc<Teller>) -> Self {
        Self { name: name.into(), teller: Arc::clone(teller), shards: Default::default(), hasher: RandomState::new() }
    }

    /// Counts `want` for `who`, and waits for the store where that has to be. Never longer than [`PATIENCE`].
    pub async fn spend(self: &Arc<Self>, terms: &Terms, who: &str, want: Want, at: Moment) -> Answer {
        match self.try_spend(terms, who, want, at) {
            Outcome::Known(answer) => answer,
            Outcome::Waiting(asking) => self.spend_after(asking, terms, who, want, at).await,
        }
    }

    /// The same, after [`Bucket::try_spend`] said what to wait for.
    pub async fn spend_after(
        self: &Arc<Self>,
        mut asking: Arc<Semaphore>,
        terms: &Terms,
        who: &str,
        want: Want,
        at: Moment,
    ) -> Answer {
        let answer = tokio::time::timeout(PATIENCE, async {
            for _ in 0..ROUNDS_MAX {
                // It is never given out, only closed.
                let _ = asking.acquire().await;
                match self.try_spend(terms, who, want, at) {
                    Outcome::Known(answer) => return Some(answer),
                    Outcome::Waiting(next) => asking = next,
                }
            }
            None
        });
        match answer.await {
            Ok(Some(answer)) => return answer,
            Ok(None) => {}
            Err(_) => self.teller.lost_patience(),
        }
        self.without_store(terms, who, want, at)
    }

    /// Counts `want` for `who` when that needs no waiting.
    pub fn try_spend(self: &Arc<Self>, terms: &Terms, who: &str, want: Want, at: Moment) -> Outcome {
        let mut left = None;
        let step = self.with_account(terms, who, at, &mut left, |account| self.step(account, terms, want, at));
        self.leave(left);
        match step {
            None => Outcome::Known(self.without_room(terms, want, at)),
            Some(Step::Answer(answer)) => Outcome::Known(answer),
            Some(Step::Refill(answer, plan)) => {
                self.start(who, plan);
                Outcome::Known(answer)
            }
            Some(Step::Join(asking)) => Outcome::Waiting(asking),
            Some(Step::Ask(plan, asking)) => {
                self.start(who, plan);
                Outcome::Waiting(asking)
            }
        }
    }

    fn step(&self, account: &mut Account, terms: &Terms, want: Want, at: Moment) -> Step {
        match account.take(want, at.now) {
            Next::Admitted => {
                let answer = Answer::Admitted(account.figures(want.limit));
                let asks = account.is_low(want.limit)
                    && account.may_ask(at.now)
                    && self.teller.access(at.now) != Access::Closed;
                if asks { Step::Refill(answer, account.ask(want.limit)) } else { Step::Answer(answer) }
            }
            Next::Refused => Step::Answer(Answer::Refused(account.figures(want.limit))),
            Next::Ask => {
                if let Some(asking) = account.asking().filter(|_| !self.teller.is_away()) {
                    account.wait_for(want.cost);
                    return Step::Join(asking);
                }
                let access = if account.may_ask(at.now) { self.teller.access(at.now) } else { Access::Closed };
                if access == Access::Open {
                    account.wait_for(want.cost);
                    let plan = account.ask(want.limit);
                    if let Some(asking) = account.asking() {
                        return Step::Ask(plan, asking);
                    }
                }
                let answer = self.by_policy(account, terms, want);
                if access == Access::Probe {
                    Step::Refill(answer, account.ask(want.limit))
                } else {
                    Step::Answer(answer)
                }
            }
        }
    }

    /// Decides without the store.
    fn without_store(&self, terms: &Terms, who: &str, want: Want, at: Moment) -> Answer {
        let mut left = None;
        let answer = self.with_account(terms, who, at, &mut left, |account| match account.take(want, at.now) {
            Next::Admitted => Answer::Admitted(account.figures(want.limit)),
            Next::Refused => Answer::Refused(account.figures(want.limit)),
            Next::Ask => self.by_policy(account, terms, want),
        });
        self.leave(left);
        answer.unwrap_or_else(|| self.without_room(terms, want, at))
    }

    /// Decides for somebody for whom there is no room: while the store is away no account makes place, lest it be forgotten what
    /// it has used up.
    fn without_room(&self, terms: &Terms, want: Want, at: Moment) -> Answer {
        if terms.on_store_error != OnStoreError::Allow || !self.teller.is_failing() || want.cost > want.limit {
            return Answer::Unavailable;
        }
        let span = terms.calendar.span(at.wall);
        Answer::Admitted(Figures { limit: want.limit, used: 0, ends: span.end(), length: span.length() })
    }

    /// What is decided without the store. What it said last still counts.
    fn by_policy(&self, account: &mut Account, terms: &Terms, want: Want) -> Answer {
        self.teller.without().count(terms.on_store_error);
        let fits = match terms.on_store_error {
            OnStoreError::Local => account.borrow(want),
            OnStoreError::Allow | OnStoreError::Deny => account.fits(want),
        };
        match (fits, terms.on_store_error) {
            (false, _) => Answer::Refused(account.figures(want.limit)),
            (true, OnStoreError::Deny) => Answer::Unavailable,
            (true, OnStoreError::Local | OnStoreError::Allow) => Answer::Admitted(account.figures(want.limit)),
        }
    }

    /// The account of `who` in the current period. `None`: there is no room for one more. `left` is to be handed to
    /// [`Bucket::leave`] afterwards.
    fn with_account<T>(
        &self,
        terms: &Terms,
        who: &str,
        at: Moment,
        left: &mut Option<(Box<str>, Leftover)>,
        act: impl FnOnce(&mut Account) -> T,
    ) -> Option<T> {
        let milliseconds = milliseconds(at.wall);
        let mut accounts = self.shard(who);
        if let Some(account) = accounts.get_mut(who) {
            if !account.span().contains(milliseconds) {
                let leftover = account.enter(terms.calendar.span(at.wall), milliseconds);
                *left = leftover.map(|leftover| (who.into(), leftover));
            }
            return Some(act(account));
        }
        if accounts.len() >= SHARD_ACCOUNTS_MAX {
            *left = make_room(&mut accounts, self.teller.is_away())?;
        }
        let account = accounts.entry(who.into());
        let account = account.or_insert_with(|| Account::new(terms.calendar.span(at.wall), at.now));
        Some(act(account))
    }

    fn leave(&self, left: Option<(Box<str>, Leftover)>) {
        if let Some((who, leftover)) = left {
            self.teller.leave(self.key(&leftover.span, &who), leftover);
        }
    }

    fn start(self: &Arc<Self>, who: &str, plan: Plan) {
        if plan.is_empty() {
            return;
        }
        let under_way = self.teller.begin();
        let key = self.key(&plan.span, who);
        let work = Work { bucket: Arc::clone(self), who: who.into(), key, plan: Some(plan), _under_way: under_way };
        self.teller.run(work.carry_out());
    }

    /// The name of a counter in the store: bucket, period, whose it is.
    pub(super) fn key(&self, span: &Span, who: &str) -> String {
        let key = format!("{}/{span}/{who}", self.name);
        if key.len() <= KEY_BYTES_MAX {
            return key;
        }
        let digest = Sha256::new().chain_update(&*self.name).chain_update([0]).chain_update(who).finalize();
        format!("{span}/sha256:{}", hex(&digest))
    }

    fn learn(&self, who: &str, plan: &Plan, said: Said, may_go_on: bool) -> Option<Plan> {
        let learnt = match self.shard(who).entry(who.into()) {
            Entry::Occupied(mut account) => account.get_mut().learn(plan, said, clock::now(), may_go_on),
            // One that is asking is not removed.
            Entry::Vacant(_) => return None,
        };
        self.leave(learnt.left.map(|left| (who.into(), left)));
        learnt.next
    }

    /// Has accounts of one part that nobody uses give back what they hold, and all of them pay what they owe. `all`: nobody
    /// is to use any of them any more.
    pub fn sweep(self: &Arc<Self>, shard: usize, now: Instant, all: bool) {
        let mut plans: Vec<(Box<str>, Plan)> = Vec::new();
        {
            let Some(shard) = self.shards.get(shard) else { return };
            let mut accounts = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let is_away = self.teller.is_away();
            accounts.retain(|who, account| {
                let is_idle = all || account.is_idle(now, IDLE);
                if account.is_settled() {
                    // What the store said last is worth keeping while it says nothing more.
                    return !is_idle || is_away;
                }
                let asks = all || (is_idle || account.owes()) && account.may_ask(now);
                if asks && !account.is_asking() && (all || self.teller.access(now) != Access::Closed) {
                    plans.push((who.clone(), account.settle(is_idle)));
                }
                true
            });
        }
        for (who, plan) in plans {
            self.start(&who, plan);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).is_empty())
    }

    pub(super) fn teller(&self) -> &Teller {
        &self.teller
    }

    /// How many callers this gateway knows something of.
    pub fn accounts(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    pub(super) fn shard(&self, who: &str) -> MutexGuard<'_, Accounts> {
        let index = usize::try_from(self.hasher.hash_one(who)).unwrap_or_default() % SHARDS;
        // The remainder is always an index; the first shard is never taken in its place.
        let shard = self.shards.get(index).unwrap_or(&self.shards[0]);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Bucket {
    fn sum(&self, of: impl Fn(&Account) -> u64) -> u64 {
        self.shards.iter().map(|shard| shard.lock().unwrap().values().map(&of).sum::<u64>()).sum()
    }

    pub fn len(&self) -> u64 {
        self.sum(|_| 1)
    }

    /// Units that all accounts hold in advance.
    pub fn held(&self) -> u64 {
        self.sum(Account::held)
    }

    /// Units that all accounts have used and not counted.
    pub fn owed(&self) -> u64 {
        self.sum(Account::owed)
    }
}

/// Removes the account that was used the longest time ago, of some. `None`: none of them can go.
#[allow(clippy::option_option, reason = "whether there is room, and whether something is left of what made it")]
fn make_room(accounts: &mut HashMap<Box<str>, Account>, is_away: bool) -> Option<Option<(Box<str>, Leftover)>> {
    let may_go = |account: &Account| !account.is_asking() && !account.owes() && !is_away;
    let some = accounts.iter().filter(|(_, account)| may_go(account)).take(LOOKED_AT);
    let (who, _) = some.min_by_key(|(_, account)| account.used_at())?;
    let who = who.clone();
    let account = accounts.remove(&who)?;
    Some(account.close().map(|left| (who, left)))
}

fn milliseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A plan on its way to the store.
struct Work {
    bucket: Arc<Bucket>,
    who: Box<str>,
    key: String,
    /// `None` once the account knows what the store said.
    plan: Option<Plan>,
    _under_way: UnderWay,
}

impl Work {
    async fn carry_out(mut self) {
        // A second time for those who came while the store was asked the first time.
        for may_go_on in [true, false] {
            let Some(plan) = &self.plan else { return };
            let said = self.bucket.teller.tell(&self.key, plan).await;
            self.plan = self.bucket.learn(&self.who, plan, said, may_go_on);
        }
    }
}

impl Drop for Work {
    /// Work that is broken off has failed: nobody must wait for it.
    fn drop(&mut self) {
        if let Some(plan) = self.plan.take() {
            self.bucket.learn(&self.who, &plan, Said::default(), false);
        }
    }
}
