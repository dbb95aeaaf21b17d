//! What a gateway holds of one shared bucket.
//!
//! Tokens are taken ahead only for who uses them up soon: a batch grows while it is used up in an eighth of its lifetime,
//! and shrinks when that takes longer than half of it. So few are thrown away, and a caller that asks now and then is not
//! charged for what it never used.

use std::time::{Duration, Instant};

use super::Lease;
use crate::rates::{Ask, Drawn, Rates, TOLERANCE};

/// What is held of a bucket, and what the store said of it.
pub struct Held {
    /// For which the tokens were taken.
    rates: Rates,
    /// Spent first.
    older: Batch,
    newer: Batch,
    /// How many tokens are taken at once.
    size: f64,
    /// Somebody takes more at this moment.
    is_asking: bool,
    /// When tokens were last asked for, and how many have been spent since.
    asked: Instant,
    spent: f64,
    /// What the store said last, and when.
    said: Option<(Drawn, Instant)>,
    refused: Option<Refused>,
    /// When it may be forgotten.
    idle: Instant,
}

/// Tokens that may be spent until then.
#[derive(Clone, Copy)]
struct Batch {
    tokens: f64,
    until: Instant,
}

/// So many tokens were not there.
struct Refused {
    cost: f64,
    until: Instant,
}

/// What a request for tokens has to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    /// Nothing: this is the answer.
    Known(Drawn),
    /// The same, and somebody has to take more beside the request.
    Refill(Drawn, Ask),
    /// Ask for itself alone: somebody else takes more at this moment.
    Alone,
    /// Ask for itself and for those behind it.
    Lead(Asked),
}

/// What a request asks for that leads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    pub ask: Ask,
    /// Held tokens that count in, too few by themselves, and until when they may be spent.
    own: f64,
    until: Instant,
}

/// What the store said to somebody.
#[derive(Clone, Copy)]
pub enum Answer<'a> {
    /// To one that led, for so many tokens.
    Led(Asked, f64, Drawn),
    /// To one that asked beside a request of so many tokens.
    Refilled(f64, Drawn),
    /// To one that asked for itself alone.
    Alone(&'a Rates, f64, Drawn),
    /// Nothing, to one that asked beside a request.
    Failed,
}

impl<'a> Answer<'a> {
    pub fn alone(rates: &'a Rates, cost: f64, drawn: Drawn) -> Self {
        Self::Alone(rates, cost, drawn)
    }

    pub fn refilled(cost: f64, drawn: Drawn) -> Self {
        Self::Refilled(cost, drawn)
    }
}

impl Held {
    pub fn new(rates: &Rates, cost: f64, now: Instant) -> Self {
        let nothing = Batch { tokens: 0.0, until: now };
        Self {
            rates: rates.clone(),
            older: nothing,
            newer: nothing,
            size: cost,
            is_asking: false,
            asked: now,
            spent: 0.0,
            said: None,
            refused: None,
            idle: now,
        }
    }

    pub fn is_idle(&self, now: Instant) -> bool {
        !self.is_asking && self.idle <= now
    }

    /// What somebody does who wants `cost` tokens.
    pub fn next(&mut self, rates: &Rates, cost: f64, lease: &Lease, now: Instant) -> Next {
        self.throw_away(now);
        if !self.has(rates) {
            // Others pay from the same bucket under other terms, or a reload changed them: tokens taken for those are not for these.
            if self.is_asking || self.tokens() > 0.0 {
                return Next::Alone;
            }
            *self = Self::new(rates, cost, now);
        }
        self.idle = later(now, lease.lifetime.saturating_mul(2));
        if self.tokens() + TOLERANCE >= cost {
            self.spend(cost);
            let drawn = self.known(cost, now);
            return match self.more(cost, lease, now) {
                Some(ask) => Next::Refill(drawn, ask),
                None => Next::Known(drawn),
            };
        }
        if let Some(drawn) = self.refusal(cost, now) {
            return Next::Known(drawn);
        }
        if self.is_asking {
            return Next::Alone;
        }
        self.adapt(cost, lease, now);
        self.is_asking = true;
        let own = self.tokens();
        let until = if self.older.tokens > 0.0 { self.older.until } else { self.newer.until };
        (self.older.tokens, self.newer.tokens) = (0.0, 0.0);
        let ask = Ask { least: cost - own, most: self.size.max(cost) - own };
        Next::Lead(Asked { ask, own, until })
    }

    /// Takes an answer to what was asked at `asked`, and gives what the one who asked may say.
    pub fn answered(&mut self, answer: Answer<'_>, lease: &Lease, asked: Instant) -> Option<Drawn> {
        let until = later(asked, lease.lifetime);
        match answer {
            Answer::Led(what, cost, drawn) => {
                self.is_asking = false;
                self.heard(cost, drawn, lease, asked);
                if !drawn.admitted {
                    self.keep(what.own, what.until);
                    return Some(drawn);
                }
                self.spent += cost;
                self.keep((what.own + drawn.got - cost).max(0.0), until);
                Some(Drawn { got: cost, remaining: drawn.remaining + self.tokens(), ..drawn })
            }
            Answer::Refilled(cost, drawn) => {
                self.is_asking = false;
                self.heard(cost, drawn, lease, asked);
                self.keep(drawn.got, until);
                None
            }
            Answer::Alone(rates, cost, drawn) => {
                if self.has(rates) {
                    self.heard(cost, drawn, lease, asked);
                    self.spent += drawn.got;
                }
                None
            }
            Answer::Failed => {
                self.is_asking = false;
                None
            }
        }
    }

    /// Takes back what counted in for one that led and was never answered.
    pub fn give_up(&mut self, asked: Asked) {
        self.is_asking = false;
        self.keep(asked.own, asked.until);
    }

    /// Throws everything away. What is under way still comes.
    pub fn clear(&mut self) {
        (self.older.tokens, self.newer.tokens, self.refused) = (0.0, 0.0, None);
    }

    /// Throws away what may not be spent any more.
    fn throw_away(&mut self, now: Instant) {
        for batch in [&mut self.older, &mut self.newer] {
            if batch.until <= now {
                batch.tokens = 0.0;
            }
        }
    }

    fn has(&self, rates: &Rates) -> bool {
        self.rates.is(rates) || self.rates == *rates
    }

    fn tokens(&self) -> f64 {
        self.older.tokens + self.newer.tokens
    }

    fn spend(&mut self, cost: f64) {
        let from_older = self.older.tokens.min(cost);
        self.older.tokens -= from_older;
        self.newer.tokens = (self.newer.tokens - (cost - from_older)).max(0.0);
        self.spent += cost;
    }

    fn keep(&mut self, tokens: f64, until: Instant) {
        if tokens <= 0.0 {
            return;
        }
        let rest = self.tokens();
        let first = if self.older.tokens > 0.0 { self.older.until } else { self.newer.until };
        self.older = Batch { tokens: rest, until: first };
        self.newer = Batch { tokens, until };
        if rest > 0.0 && until < first {
            std::mem::swap(&mut self.older, &mut self.newer);
        }
    }

    /// What to ask for beside a request, when that is due.
    fn more(&mut self, cost: f64, lease: &Lease, now: Instant) -> Option<Ask> {
        // Who takes one at a time asks when it needs one.
        if self.is_asking || self.size <= cost || self.tokens() > self.size / 2.0 {
            return None;
        }
        self.adapt(cost, lease, now);
        let most = self.size - self.tokens();
        if most < cost {
            return None;
        }
        self.is_asking = true;
        Some(Ask { least: cost, most })
    }

    /// Chooses how many tokens are taken at once, by how soon the last ones were used up.
    fn adapt(&mut self, cost: f64, lease: &Lease, now: Instant) {
        if self.spent > 0.0 {
            let since = now.saturating_duration_since(self.asked).as_secs_f64();
            let lifetime = lease.lifetime.as_secs_f64();
            // How long a batch lasts at this pace.
            let lasts = since * self.size / self.spent;
            if lasts <= lifetime / 8.0 {
                self.size *= 2.0;
            } else if lasts > lifetime / 2.0 {
                self.size /= 2.0;
            }
        }
        self.size = self.size.min(f64::from(lease.tokens)).max(cost);
        (self.asked, self.spent) = (now, 0.0);
    }

    /// Notes what the store said.
    fn heard(&mut self, cost: f64, drawn: Drawn, lease: &Lease, asked: Instant) {
        self.said = Some((drawn, asked));
        self.refused =
            (!drawn.admitted).then(|| Refused { cost, until: later(asked, drawn.retry_in.min(lease.lifetime)) });
    }

    /// The refusal that still stands: nobody gives tokens back, so they are not there any sooner than the store said.
    fn refusal(&self, cost: f64, now: Instant) -> Option<Drawn> {
        let refused = self.refused.as_ref()?;
        let (drawn, at) = self.said?;
        if now >= refused.until || cost + TOLERANCE < refused.cost {
            return None;
        }
        let since = now.saturating_duration_since(at);
        let (full_in, retry_in) = (left(drawn.full_in, since), left(drawn.retry_in, since));
        Some(Drawn { full_in, retry_in, ..drawn })
    }

    /// What is answered to who was given held tokens.
    fn known(&self, cost: f64, now: Instant) -> Drawn {
        let (said, at) = self.said.unwrap_or((self.unknown(), now));
        let remaining = said.remaining + self.tokens();
        let full_in = left(said.full_in, now.saturating_duration_since(at));
        Drawn { got: cost, admitted: true, remaining, full_in, retry_in: Duration::ZERO, ..said }
    }

    /// Tokens are held only after the store has said something; this stands for what it never said.
    fn unknown(&self) -> Drawn {
        Drawn {
            got: 0.0,
            admitted: true,
            limit: self.rates.capacity_min(),
            remaining: 0.0,
            full_in: Duration::ZERO,
            retry_in: Duration::ZERO,
        }
    }
}

fn left(of: Duration, since: Duration) -> Duration {
    // What never comes does not come closer.
    if of == Duration::MAX { of } else { of.saturating_sub(since) }
}

fn later(now: Instant, by: Duration) -> Instant {
    now.checked_add(by).unwrap_or(now)
}
