//! How managed keys are used: per day, by route and class of status.
//!
//! A request adds to counters of its key in memory. Beside the requests, [`ManagedKeys::flush`] adds what came together to
//! the store: several gateways may share one, so that it adds and never overwrites. At most a second of it is lost when a
//! process is killed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{ManagedKeys, from_seconds, seconds};
use crate::state::{Space, Store, StoreError};

/// Days by `ID/DATE`.
const USAGE: Space = Space("key_usage");
/// How long a day is kept.
pub const DAYS_KEPT: u64 = 90;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Most routes told apart in one day of one key; the others count as `(other)`.
const ROUTES_MAX: usize = 200;
const OTHER: &str = "(other)";
/// How often adding to a day is tried again that another gateway was faster with.
const ATTEMPTS: usize = 5;

/// Requests by class of their status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    #[serde(rename = "2xx")]
    pub success: u64,
    #[serde(rename = "3xx")]
    pub redirection: u64,
    #[serde(rename = "4xx")]
    pub client_error: u64,
    #[serde(rename = "5xx")]
    pub server_error: u64,
    /// No answer, or one that is none of these: an upgraded connection, a client that left.
    pub other: u64,
}

impl Counts {
    fn one(status: u16) -> Self {
        let mut counts = Self::default();
        let class = match status {
            200..=299 => &mut counts.success,
            300..=399 => &mut counts.redirection,
            400..=498 => &mut counts.client_error,
            500..=599 => &mut counts.server_error,
            _ => &mut counts.other,
        };
        *class = 1;
        counts
    }

    pub fn add(&mut self, more: &Self) {
        let pairs = [
            (&mut self.success, more.success),
            (&mut self.redirection, more.redirection),
            (&mut self.client_error, more.client_error),
            (&mut self.server_error, more.server_error),
            (&mut self.other, more.other),
        ];
        for (sum, more) in pairs {
            *sum = sum.saturating_add(more);
        }
    }

    /// All requests.
    pub fn sum(&self) -> u64 {
        [self.success, self.redirection, self.client_error, self.server_error, self.other]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// One day of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// Seconds since 1970.
    pub last_used: u64,
    pub routes: BTreeMap<String, Counts>,
}

impl Day {
    fn add(&mut self, more: &Self) {
        self.last_used = self.last_used.max(more.last_used);
        for (route, counts) in &more.routes {
            let known = self.routes.len() < ROUTES_MAX || self.routes.contains_key(route);
            self.routes.entry(if known { route.clone() } else { OTHER.to_owned() }).or_default().add(counts);
        }
    }
}

/// What is known of the use of a key: days by date (`2026-01-01`), the oldest first.
pub type Usage = BTreeMap<String, Day>;

/// What a key was used for since it was last added to the store.
#[derive(Default)]
pub struct Meter {
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    /// By the number of days since 1970.
    days: HashMap<u64, PendingDay>,
}

#[derive(Default)]
struct PendingDay {
    last_used: u64,
    routes: HashMap<Arc<str>, Counts>,
}

impl Meter {
    /// Counts a request; whether it is the first one since the last time.
    fn count(&self, route: &Arc<str>, status: u16, now: SystemTime) -> bool {
        let at = seconds(now);
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let first = pending.days.is_empty();
        let day = pending.days.entry(at / DAY.as_secs()).or_default();
        day.last_used = day.last_used.max(at);
        if let Some(counts) = day.routes.get_mut(route) {
            counts.add(&Counts::one(status));
        } else {
            let known = day.routes.len() < ROUTES_MAX;
            let route = if known { Arc::clone(route) } else { Arc::from(OTHER) };
            day.routes.entry(route).or_default().add(&Counts::one(status));
        }
        first
    }

    /// Takes what came together, by date.
    fn take(&self) -> Usage {
        let pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        let day = |(number, day): (u64, PendingDay)| {
            let routes = day.routes.into_iter().map(|(route, counts)| (route.to_string(), counts)).collect();
            (date(number), Day { last_used: day.last_used, routes })
        };
        pending.days.into_iter().map(day).collect()
    }

    /// Gives back what could not be stored.
    fn give_back(&self, date: &str, day: &Day) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let known = pending.days.entry(day_number(date)).or_default();
        known.last_used = known.last_used.max(day.last_used);
        for (route, counts) in &day.routes {
            known.routes.entry(Arc::from(route.as_str())).or_default().add(counts);
        }
    }
}

/// Meters that hold something the store does not, by the id of their key.
pub type Dirty = Mutex<HashMap<String, Arc<Meter>>>;

impl ManagedKeys {
    /// Counts a request that ended.
    pub fn count(&self, id: &str, route: &Arc<str>, status: u16, now: SystemTime) {
        // A key that was revoked meanwhile counts no more.
        let Some(key) = self.get(id) else { return };
        if key.meter.count(route, status, now) {
            self.remember(id, &key.meter);
        }
    }

    fn remember(&self, id: &str, meter: &Arc<Meter>) {
        let mut dirty = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        dirty.insert(id.to_owned(), Arc::clone(meter));
    }

    /// Adds to the store what came together since the last time.
    ///
    /// # Errors
    /// The store failed; what was not added stays, for the next time.
    pub async fn flush(&self, store: &dyn Store) -> Result<(), StoreError> {
        let dirty = std::mem::take(&mut *self.usage.lock().unwrap_or_else(PoisonError::into_inner));
        let mut result = Ok(());
        for (id, meter) in dirty {
            // Behind a failure the others would fail too, and each wait for it.
            if result.is_ok() {
                result = self.settle(store, &id, &meter).await;
            } else {
                self.remember(&id, &meter);
            }
        }
        result
    }

    /// Adds what a meter holds to the store.
    async fn settle(&self, store: &dyn Store, id: &str, meter: &Arc<Meter>) -> Result<(), StoreError> {
        let mut result = Ok(());
        for (date, day) in meter.take() {
            if result.is_ok() {
                result = add_day(store, &format!("{id}/{date}"), &date, &day).await;
            }
            if result.is_err() {
                meter.give_back(&date, &day);
                self.remember(id, meter);
            }
        }
        result
    }

    /// How a key was used in the last 90 days, up to this moment.
    ///
    /// # Errors
    /// The store failed.
    pub async fn usage(&self, store: &dyn Store, id: &str) -> Result<Usage, StoreError> {
        if let Some(key) = self.get(id) {
            self.settle(store, id, &key.meter).await?;
        }
        let prefix = format!("{id}/");
        let entries = store.list(USAGE, Some(&prefix), usize::try_from(DAYS_KEPT).unwrap_or_default() + 2).await?;
        let own = entries.iter().map_while(|entry| Some((entry.key.strip_prefix(&prefix)?, &entry.value)));
        Ok(own.filter_map(|(date, value)| Some((date.to_owned(), serde_json::from_slice(value).ok()?))).collect())
    }
}

async fn add_day(store: &dyn Store, key: &str, date: &str, day: &Day) -> Result<(), StoreError> {
    let write = |day: &Day| serde_json::to_vec(day).map_err(|error| StoreError(error.to_string()));
    for _ in 0..ATTEMPTS {
        let added = match store.get(USAGE, key).await? {
            Some(stored) => {
                // A damaged day begins again.
                let mut sum: Day = serde_json::from_slice(&stored).unwrap_or_default();
                sum.add(day);
                store.replace(USAGE, key, &stored, write(&sum)?).await?
            }
            None => {
                let begin = day_number(date).saturating_mul(DAY.as_secs());
                let ends = begin.saturating_add((DAYS_KEPT + 1).saturating_mul(DAY.as_secs()));
                store.insert(USAGE, key, write(day)?, Some(from_seconds(ends))).await?
            }
        };
        if added {
            return Ok(());
        }
    }
    Err(StoreError("a day of use was changed by others all the time".to_owned()))
}

/// `2026-01-01`
fn date(day: u64) -> String {
    let at = i64::try_from(day.saturating_mul(DAY.as_secs())).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_second(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d").to_string()
}

/// The days from 1970 to a date.
fn day_number(date: &str) -> u64 {
    let time = format!("{date}T00:00:00Z").parse::<jiff::Timestamp>();
    time.map_or(0, |time| u64::try_from(time.as_second()).unwrap_or_default() / DAY.as_secs())
}
