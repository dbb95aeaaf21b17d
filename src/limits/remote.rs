//! Buckets that several gateways share: asked for in bounded time, and done without while they cannot be reached.
//!
//! A store that fails is not asked again on the path of a request. The first failure begins an episode; until it ends
//! each limit goes by its own [`OnStoreError`], at once. [`Remote::keep`] asks beside the requests, and ends the episode.
//!
//! With a [`Lease`] a gateway takes tokens ahead, in batches, and spends them without asking. They are charged when they
//! are taken and spent within [`Lease::lifetime`], or not at all. A bucket that holds `capacity` and gets back `count` in each
//! `period` so lets pass, in any time `t` and through `n` gateways, at most
//! `capacity + count × t / period + min(n × tokens, count × lifetime / period)`: what was spent within `t` was taken within `t` or
//! held before; and it was taken within `t + lifetime`.

mod lease;
mod leases;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Deserialize;

use self::lease::{Answer, Next};
use self::leases::Leases;
use crate::buckets::{Key, Limiter, Local};
use crate::observe::metrics::StoreSample;
use crate::rates::{Ask, Drawn, Rates};
use crate::state::availability::{Availability, PROBE_INTERVAL, Words};
use crate::types;

/// The bucket that is asked for to find out whether the store answers. No limit has it: names hold no parentheses.
const PROBE_KEY: Key<'_> = Key { bucket: "(probe)", who: "" };
const WORDS: Words = Words {
    failed: "shared limits cannot be kept: the state store failed. Look at Redis and the way to it; until it answers, \
             each limit goes by its `on_store_error`",
    again: "shared limits are kept again: the state store answers",
};

/// The rates of that bucket: it never runs out.
fn probe_rates() -> Option<Rates> {
    Rates::new([types::Rate { count: 1_000_000, per: Duration::from_secs(1) }], None)
}

/// How a limit uses shared buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    pub on_error: OnStoreError,
    /// `None`: every request asks.
    pub lease: Option<Lease>,
}

/// What a limit does while the store cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStoreError {
    /// Each gateway keeps the limit by itself.
    #[default]
    Local,
    /// Every request passes.
    Allow,
    /// No request passes.
    Deny,
}

impl OnStoreError {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// Tokens that a gateway takes ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Most that it holds of one bucket.
    pub tokens: u32,
    /// How long it may spend them, and how long it goes by a refusal.
    pub lifetime: Duration,
}

/// What became of a request for tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    Drawn(Drawn),
    /// The store cannot be reached, and the limit lets everything pass then.
    Allowed,
    /// The store cannot be reached, and the limit lets nothing pass then.
    Denied,
}

/// The buckets of several gateways.
pub struct Remote {
    limiter: Arc<dyn Limiter>,
    /// How long it is waited for.
    bound: Duration,
    availability: Availability,
    leases: Leases,
    /// Decisions made without the store.
    without: Without,
}

/// How many decisions were made without the store, by policy.
#[derive(Default)]
pub struct Without {
    local: AtomicU64,
    allow: AtomicU64,
    deny: AtomicU64,
}

impl Remote {
    /// No request waits for `limiter` longer than `bound`.
    pub fn new(limiter: Arc<dyn Limiter>, bound: Duration) -> Self {
        Self {
            limiter,
            bound,
            availability: Availability::new(PROBE_INTERVAL, WORDS),
            leases: Leases::default(),
            without: Without::default(),
        }
    }

    /// Takes tokens. `local` decides while the store cannot be reached, where the limit wants that.
    pub async fn draw(
        self: &Arc<Self>,
        local: &Local,
        key: Key<'_>,
        rates: &Rates,
        ask: Ask,
        terms: &Terms,
        now: Instant,
    ) -> Outcome {
        let drawn = match &terms.lease {
            // Who only looks, or takes what there is, wants to know what the store says.
            Some(lease) if ask.least == ask.most && ask.least > 0.0 => {
                self.draw_leased(key, rates, ask.least, lease, now).await
            }
            _ => self.ask(key, rates, ask).await,
        };
        match drawn {
            Some(drawn) => Outcome::Drawn(drawn),
            None => self.without(local, key, rates, ask, terms.on_error, now),
        }
    }

    /// Fills a bucket: what this gateway holds of it is thrown away. `false` when nothing of it was in use.
    pub async fn reset(&self, key: Key<'_>) -> Result<bool, crate::buckets::LimiterError> {
        self.leases.forget(key);
        self.limiter.reset(key).await
    }

    /// Looks after the store for as long as the process lives: finds out whether it can be reached, before the first
    /// request and after each failure.
    pub async fn keep(&self) {
        if let Err(why) = self.probe().await {
            self.availability.failed(self.availability.noted(), &why);
        }
        let probe = || async { self.probe().await.is_ok() };
        self.availability.keep(probe, || self.without.total()).await;
    }

    /// How it goes with the store.
    pub fn sample(&self) -> StoreSample {
        StoreSample {
            is_up: self.availability.is_up(),
            errors: self.availability.errors(),
            without: self.without.sample(),
        }
    }

    async fn draw_leased(
        self: &Arc<Self>,
        key: Key<'_>,
        rates: &Rates,
        cost: f64,
        lease: &Lease,
        now: Instant,
    ) -> Option<Drawn> {
        let asked = match self.leases.next(key, rates, cost, lease, now) {
            Next::Known(drawn) => return Some(drawn),
            Next::Refill(drawn, ask) => {
                self.refill(key, rates, ask, cost, lease, now);
                return Some(drawn);
            }
            Next::Alone => {
                let drawn = self.ask(key, rates, Ask::exactly(cost)).await?;
                self.leases.answered(key, Answer::alone(rates, cost, drawn), lease, now);
                return Some(drawn);
            }
            Next::Lead(asked) => asked,
        };
        // A request whose client goes away leaves the lease as it was.
        let mut leading = self.leases.leading(key, asked);
        let drawn = self.ask(key, rates, asked.ask).await?;
        Some(leading.answered(cost, drawn, lease, now))
    }

    /// Takes more tokens beside a request that came at `asked`: before the store is asked, so that they are not spent later
    /// than they may be.
    fn refill(self: &Arc<Self>, key: Key<'_>, rates: &Rates, ask: Ask, cost: f64, lease: &Lease, asked: Instant) {
        let (remote, rates, lease) = (Arc::clone(self), rates.clone(), *lease);
        let (bucket, who): (Box<str>, Box<str>) = (key.bucket.into(), key.who.into());
        tokio::spawn(async move {
            let key = Key { bucket: &bucket, who: &who };
            let answer = match remote.ask(key, &rates, ask).await {
                Some(drawn) => Answer::refilled(cost, drawn),
                None => Answer::Failed,
            };
            remote.leases.answered(key, answer, &lease, asked);
        });
    }

    /// Asks the store, unless it is known not to answer.
    async fn ask(&self, key: Key<'_>, rates: &Rates, ask: Ask) -> Option<Drawn> {
        let noted = self.availability.noted();
        if !noted.is_up() {
            return None;
        }
        match self.ask_anyway(key, rates, ask).await {
            Ok(drawn) => Some(drawn),
            Err(why) => {
                self.availability.failed(noted, &why);
                None
            }
        }
    }

    async fn ask_anyway(&self, key: Key<'_>, rates: &Rates, ask: Ask) -> Result<Drawn, String> {
        match tokio::time::timeout(self.bound, self.limiter.draw(key, rates, ask)).await {
            Ok(Ok(drawn)) => Ok(drawn),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {:?}", self.bound)),
        }
    }

    /// Whether the store decides. It has to write: one that is full, or only a replica, answers and cannot.
    async fn probe(&self) -> Result<(), String> {
        let Some(rates) = probe_rates() else { return Ok(()) };
        self.ask_anyway(PROBE_KEY, &rates, Ask::exactly(1.0)).await.map(drop)
    }

    fn without(
        &self,
        local: &Local,
        key: Key<'_>,
        rates: &Rates,
        ask: Ask,
        policy: OnStoreError,
        now: Instant,
    ) -> Outcome {
        self.without.count(policy);
        match policy {
            OnStoreError::Local => Outcome::Drawn(local.draw(key, rates, ask, now)),
            OnStoreError::Allow => Outcome::Allowed,
            OnStoreError::Deny => Outcome::Denied,
        }
    }
}

impl Without {
    pub fn count(&self, policy: OnStoreError) {
        self.of(policy).fetch_add(1, Ordering::Relaxed);
    }

    pub fn sample(&self) -> [(&'static str, u64); 3] {
        [OnStoreError::Local, OnStoreError::Allow, OnStoreError::Deny]
            .map(|policy| (policy.as_str(), self.of(policy).load(Ordering::Relaxed)))
    }

    fn of(&self, policy: OnStoreError) -> &AtomicU64 {
        match policy {
            OnStoreError::Local => &self.local,
            OnStoreError::Allow => &self.allow,
            OnStoreError::Deny => &self.deny,
        }
    }

    fn total(&self) -> u64 {
        [&self.local, &self.allow, &self.deny].map(|count| count.load(Ordering::Relaxed)).iter().sum()
    }
}

#[cfg(test)]
mod tests;
