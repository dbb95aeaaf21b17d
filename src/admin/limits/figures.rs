//! What is asked of the counts of a limit, wherever they are.

use std::sync::Arc;
use std::time::Duration;

use super::shown::{Figures, RateShown};
use super::{in_time, not_to_be_reset};
use crate::buckets::{Key, Limiter, LimiterError, Seen};
use crate::clock;
use crate::contract::{Counts, Limit};
use crate::limits::Limits;
use crate::limits::permits::Occupied;
use crate::limits::quotas::Used;
use crate::reply::{Code, Rejection};

/// How long a store may take. Looking through very many buckets takes seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the counts of one limit, and forgets them.
pub struct Reader<'a> {
    limits: &'a Arc<Limits>,
    limit: &'a Limit,
}

type Found<T> = Result<T, Box<Rejection>>;

impl<'a> Reader<'a> {
    pub fn new(limits: &'a Arc<Limits>, limit: &'a Limit) -> Self {
        Self { limits, limit }
    }

    /// Those who have used the largest share.
    pub async fn top(&self, most: usize) -> Found<Vec<Figures>> {
        Ok(match &self.limit.counts {
            Counts::Local => self.local_top(most).await?.iter().map(of_bucket).collect(),
            Counts::Shared => {
                let top = in_bound(self.shared()?.top(&self.limit.bucket, most)).await?;
                top.iter().map(of_bucket).collect()
            }
            Counts::Permits(bucket) => bucket.occupied(most).iter().map(of_permits).collect(),
            Counts::Quota(quota) => {
                let top = quota.bucket.top(&quota.calendar, quota.limit, most, clock::wall());
                in_bound(top).await?.iter().map(of_quota).collect()
            }
        })
    }

    /// One caller; `None` while nothing is in use.
    pub async fn show(&self, who: &str) -> Found<Option<Figures>> {
        Ok(match &self.limit.counts {
            Counts::Local => self.limits.local.show(self.key(who), clock::now()).as_ref().map(of_bucket),
            Counts::Shared => in_bound(self.shared()?.show(self.key(who))).await?.as_ref().map(of_bucket),
            Counts::Permits(bucket) => bucket.occupied_by(who).as_ref().map(of_permits),
            Counts::Quota(quota) => {
                let used = quota.bucket.show(&quota.calendar, quota.limit, who, clock::wall());
                in_bound(used).await?.as_ref().map(of_quota)
            }
        })
    }

    /// Forgets what one caller has used: whether there was something.
    pub async fn reset(&self, who: &str) -> Found<bool> {
        let reset_local = || self.limits.local.reset(self.key(who), clock::now());
        match &self.limit.counts {
            Counts::Local => Ok(reset_local()),
            Counts::Shared => {
                let Some(remote) = self.limits.remote() else { return Ok(reset_local()) };
                // What counts while the store is away.
                let was_in_use = reset_local();
                Ok(in_bound(remote.reset(self.key(who))).await? || was_in_use)
            }
            Counts::Permits(_) => Err(not_to_be_reset()),
            Counts::Quota(quota) => in_bound(quota.bucket.reset(&quota.calendar, who, clock::wall())).await,
        }
    }

    fn key<'b>(&'b self, who: &'b str) -> Key<'b> {
        Key { bucket: &self.limit.bucket, who }
    }

    fn shared(&self) -> Found<&Arc<dyn Limiter>> {
        let limiter = self.limits.shared().and_then(|shared| shared.limiter.as_ref());
        limiter.ok_or_else(|| unavailable("it is not open"))
    }

    /// Not on the thread that answers: there may be a million buckets to look at.
    async fn local_top(&self, most: usize) -> Found<Vec<Seen>> {
        let (limits, bucket) = (Arc::clone(self.limits), self.limit.bucket.clone());
        let top = tokio::task::spawn_blocking(move || limits.local.top(&bucket, most, clock::now()));
        top.await.map_err(|_| Box::new(Rejection::new(Code::INTERNAL, "the look at the buckets broke off")))
    }
}

async fn in_bound<T, E: std::fmt::Display>(answer: impl Future<Output = Result<T, E>>) -> Found<T> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|error| unavailable(&error.to_string())),
        Err(_) => Err(unavailable(&LimiterError(format!("no answer within {PATIENCE:?}")).to_string())),
    }
}

fn unavailable(why: &str) -> Box<Rejection> {
    Box::new(Rejection::new(Code::STATE_UNAVAILABLE, why.to_owned()))
}

fn of_bucket(seen: &Seen) -> Figures {
    let full_in = |(rate, used): (&crate::rates::Rate, &f64)| rate.time_for(*used);
    let full_at = seen.rates.iter().zip(&seen.used).map(full_in).max().and_then(in_time);
    let rates = seen.rates.iter().zip(&seen.used).map(|(rate, used)| RateShown {
        rate: rate.to_string(),
        limit: rounded(rate.capacity),
        used: rounded(*used),
        remaining: rounded((rate.capacity - used).max(0.0)),
        full_in_seconds: rounded(rate.time_for(*used).as_secs_f64()),
    });
    Figures::Rates { who: seen.who.clone(), rates: rates.collect(), full_at }
}

fn of_quota(used: &Used) -> Figures {
    let figures = &used.figures;
    Figures::Quota {
        who: used.who.clone(),
        limit: figures.limit,
        used: figures.used,
        remaining: figures.limit.saturating_sub(figures.used),
        ends: clock::rfc3339(figures.ends),
    }
}

fn of_permits(occupied: &Occupied) -> Figures {
    Figures::InFlight {
        who: occupied.who.to_string(),
        max: occupied.max,
        in_flight: occupied.in_flight,
        waiting: occupied.waiting,
    }
}

/// To the thousandth.
fn rounded(tokens: f64) -> f64 {
    (tokens * 1000.0).round() / 1000.0
}
