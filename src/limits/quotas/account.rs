//! What one caller has used of a quota, and what of it this gateway may still give without asking the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::Figures;
use super::calendar::Span;

/// Largest share of a limit that is taken in advance: one in so many.
const SHARE: u64 = 100;
/// Nor more than this share of what is left: the closer the end, the smaller the blocks.
const SHARE_OF_REST: u64 = 8;
/// Most units that are taken in advance.
const BLOCK_MAX: u64 = 1000;
/// How long an account that is used up is refused on what the store said before it is asked again: another gateway may
/// have given something back.
const FRESH: Duration = Duration::from_secs(1);
/// How long an account whose question failed does without the store.
const RETRY: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    pub limit: u64,
    pub cost: u64,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Admitted,
    Refused,
    /// Only the store knows.
    Ask,
}

/// What the store is to be told, in this order.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub span: Span,
    /// Units that were admitted without the store and are to be counted.
    pub pay: u64,
    /// Units that are not needed.
    pub back: u64,
    /// Units that are wanted, as far as the limit allows.
    pub want: u64,
    pub limit: u64,
}

impl Plan {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.pay == 0 && self.back == 0 && self.want == 0
    }
}

/// What the store said to a [`Plan`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Said {
    /// Everything was done.
    pub complete: bool,
    /// What was to be paid is paid.
    pub paid: bool,
    /// What was not needed is given back.
    pub returned: bool,
    /// Units that it gave.
    pub got: u64,
    /// The counter after that.
    pub counted: Option<u64>,
}

/// What a period leaves behind that is not the current one any more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leftover {
    pub span: Span,
    pub pay: u64,
    pub back: u64,
}

impl Leftover {
    fn is_any(&self) -> bool {
        self.pay > 0 || self.back > 0
    }
}

/// What follows from what the store said.
#[derive(Debug, Default)]
pub struct Learnt {
    /// What it is to be told next.
    pub next: Option<Plan>,
    /// What it said of another period than the current one.
    pub left: Option<Leftover>,
}

/// An account in the period that it was last used in.
///
/// The counter in the store holds what all gateways have used, the blocks they have taken, and nothing of what is still to be
/// paid. So `counted - block + debt` were used, as far as this gateway knows; what others hold counts as used.
#[derive(Debug)]
pub struct Account {
    span: Span,
    /// As it was said last.
    limit: u64,
    /// What the counter said last.
    counted: u64,
    counted_at: Option<Instant>,
    /// Units that are counted and not used.
    block: u64,
    /// How many there were when it was filled.
    filled: u64,
    /// What the counter said when the block was filled: only who may use so many in all may use the block.
    top: u64,
    /// Units that are used and not counted.
    debt: u64,
    /// So much of the debt is being counted.
    paying: u64,
    /// Units that wait for the answer of the store.
    waited_for: u64,
    /// Closed when the store has answered.
    asking: Option<Arc<Semaphore>>,
    /// The store failed; it is not asked before this.
    retry_at: Option<Instant>,
    used_at: Instant,
}

impl Account {
    pub fn new(span: Span, now: Instant) -> Self {
        Self {
            span,
            limit: 0,
            counted: 0,
            counted_at: None,
            block: 0,
            filled: 0,
            top: 0,
            debt: 0,
            paying: 0,
            waited_for: 0,
            asking: None,
            retry_at: None,
            used_at: now,
        }
    }

    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Goes to another period. What the store is being told about the old one is not part of what is left.
    pub fn enter(&mut self, span: Span, milliseconds: i64) -> Option<Leftover> {
        // Units of a period that is over are of no use to anybody.
        let back = if self.span.is_over(milliseconds) { 0 } else { self.block };
        let left = Leftover { span: self.span, pay: self.debt.saturating_sub(self.paying), back };
        let asking = self.asking.take();
        *self = Self { asking, retry_at: self.retry_at, ..Self::new(span, self.used_at) };
        left.is_any().then_some(left)
    }

    /// What it leaves behind when it is removed.
    pub fn close(self) -> Option<Leftover> {
        let left = Leftover { span: self.span, pay: self.debt, back: self.block };
        left.is_any().then_some(left)
    }

    /// Takes what is wanted from the block, or says why not.
    pub fn take(&mut self, want: Want, now: Instant) -> Next {
        self.used_at = now;
        self.limit = want.limit;
        let fits = self.used().saturating_add(want.cost) <= want.limit;
        if self.block >= want.cost && self.top <= want.limit && (fits || self.debt == 0) {
            self.block = self.block.saturating_sub(want.cost);
            return Next::Admitted;
        }
        let is_fresh = self.counted_at.is_some_and(|at| now.saturating_duration_since(at) < FRESH);
        if want.cost > want.limit || (!fits && is_fresh) { Next::Refused } else { Next::Ask }
    }

    /// Takes what is wanted without the store, and remembers that it is to be counted. `false`: more than there is, as far
    /// as is known.
    pub fn borrow(&mut self, want: Want) -> bool {
        let fits = self.fits(want);
        if fits {
            let from_block = if self.top <= want.limit { self.block.min(want.cost) } else { 0 };
            self.block = self.block.saturating_sub(from_block);
            self.debt = self.debt.saturating_add(want.cost.saturating_sub(from_block));
        }
        fits
    }

    /// Whether there is so much left, as far as is known.
    pub fn fits(&self, want: Want) -> bool {
        self.used().saturating_add(want.cost) <= want.limit
    }

    /// Whether it is time to fill the block, while there is still some of it.
    pub fn is_low(&self, limit: u64) -> bool {
        self.block < self.filled / 2 && self.counted < limit && self.asking.is_none()
    }

    /// Says that somebody waits for so much.
    pub fn wait_for(&mut self, cost: u64) {
        self.waited_for = self.waited_for.saturating_add(cost);
    }

    /// What is closed when the store has answered.
    pub fn asking(&self) -> Option<Arc<Semaphore>> {
        self.asking.clone()
    }

    /// Whether the store may be asked now.
    pub fn may_ask(&self, now: Instant) -> bool {
        self.asking.is_none() && self.retry_at.is_none_or(|at| at <= now)
    }

    /// What to ask the store for somebody with this limit. From here until [`Account::learn`] nobody else asks.
    pub fn ask(&mut self, limit: u64) -> Plan {
        let plan = self.plan(limit);
        self.begin(plan)
    }

    fn plan(&mut self, limit: u64) -> Plan {
        // A block that lies behind this limit does not serve whoever has it, and keeps the counter from showing what is left.
        let back = if self.top > limit { std::mem::take(&mut self.block) } else { 0 };
        let left = limit.saturating_sub(self.counted);
        let block = (limit / SHARE).min(left / SHARE_OF_REST).clamp(1, BLOCK_MAX);
        let want = block.max(self.waited_for).saturating_sub(self.block);
        Plan { span: self.span, pay: self.debt, back, want, limit }
    }

    /// What to tell the store when nobody asks for anything: what is owed, and what `is_idle` leaves over.
    pub fn settle(&mut self, is_idle: bool) -> Plan {
        let back = if is_idle { std::mem::take(&mut self.block) } else { 0 };
        self.begin(Plan { span: self.span, pay: self.debt, back, want: 0, limit: 0 })
    }

    fn begin(&mut self, plan: Plan) -> Plan {
        if !plan.is_empty() {
            self.paying = plan.pay;
            self.waited_for = 0;
            self.asking = Some(Arc::new(Semaphore::new(0)));
        }
        plan
    }

    /// Takes in what the store said. `may_go_on`: when more is waited for by now than there is, the store is asked again at
    /// once, before anybody is woken.
    pub fn learn(&mut self, plan: &Plan, said: Said, now: Instant, may_go_on: bool) -> Learnt {
        self.retry_at = if said.complete { None } else { now.checked_add(RETRY) };
        if plan.span != self.span {
            self.wake();
            let pay = if said.paid { 0 } else { plan.pay };
            let left = Leftover { span: plan.span, pay, back: said.got };
            return Learnt { next: None, left: left.is_any().then_some(left) };
        }
        self.paying = 0;
        if said.paid {
            self.debt = self.debt.saturating_sub(plan.pay);
        }
        if said.returned {
            self.counted = self.counted.saturating_sub(plan.back);
        }
        if let Some(counted) = said.counted {
            self.counted = counted;
            self.counted_at = Some(now);
        }
        if said.got > 0 {
            self.block = self.block.saturating_add(said.got);
            self.filled = self.block;
            self.top = self.counted;
        }
        let is_short = said.complete && self.waited_for > self.block && said.got == plan.want;
        if may_go_on && is_short && plan.want > 0 {
            let next = self.plan(plan.limit);
            self.paying = next.pay;
            self.waited_for = 0;
            return Learnt { next: Some(next), left: None };
        }
        self.wake();
        Learnt::default()
    }

    fn wake(&mut self) {
        self.waited_for = 0;
        if let Some(asking) = self.asking.take() {
            asking.close();
        }
    }

    /// Whether nobody used it for so long.
    pub fn is_idle(&self, now: Instant, idle: Duration) -> bool {
        now.saturating_duration_since(self.used_at) >= idle
    }

    pub fn used_at(&self) -> Instant {
        self.used_at
    }

    /// Whether nothing would be lost with it but the memory of what the store said.
    pub fn is_settled(&self) -> bool {
        self.block == 0 && self.debt == 0 && self.asking.is_none()
    }

    pub fn owes(&self) -> bool {
        self.debt > 0
    }

    pub fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    /// How it stands when its counter says `counted`, by the limit that was said last.
    pub fn figures_at(&self, counted: u64) -> Figures {
        let used = counted.saturating_sub(self.block).saturating_add(self.debt);
        Figures { used, ..self.figures(self.limit) }
    }

    /// Forgets what was used, also what is still to be counted.
    pub fn reset(&mut self) {
        let (asking, limit) = (self.asking.take(), self.limit);
        *self = Self { asking, limit, ..Self::new(self.span, self.used_at) };
    }

    pub fn figures(&self, limit: u64) -> Figures {
        Figures { limit, used: self.used(), ends: self.span.end(), length: self.span.length() }
    }

    fn used(&self) -> u64 {
        self.counted.saturating_sub(self.block).saturating_add(self.debt)
    }
}

#[cfg(test)]
impl Account {
    pub fn held(&self) -> u64 {
        self.block
    }

    pub fn owed(&self) -> u64 {
        self.debt
    }
}

#[cfg(test)]
mod tests;
