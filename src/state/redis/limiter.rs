//! Token buckets in Redis, drawn from by several gateways.
//!
//! One script is one decision. It reads the server's clock, so that those of the gateways need not agree; the arithmetic is
//! that of [`Level`](crate::buckets::Level). A bucket is one key, `tollgate:{LIMIT|WHO}`, and goes when it is full again.

use std::time::Duration;

use futures_util::future::join_all;
use redis::FromRedisValue;
use tokio::time::timeout;

use super::scripts::{self, Call};
use super::{Lane, Redis};
use crate::buckets::{Key, Limiter, LimiterError, Pending, Seen, admission, refusal, short};
use crate::rates::{Ask, Drawn, RATES_MAX, Rate, Rates};

/// More tokens are not asked for at once: beyond that, doubles skip whole numbers.
const TOKENS_MAX: f64 = 9e15;
/// Keys that are looked at for a list of buckets, of whatever kind.
const SCANNED_MAX: usize = 2_000_000;
/// Keys that the server looks at before it does something else.
const SCANNED_AT_ONCE: usize = 1000;
/// Buckets that are looked at together.
const LOOKS_AT_ONCE: usize = 128;
/// How long a list of buckets may take.
const TOP_PATIENCE: Duration = Duration::from_secs(5);

impl Redis {
    /// What the keys of one limit begin with. No name of a limit is the beginning of another one here.
    fn limit(&self, bucket: &str) -> String {
        let mut name = format!("{}{{", self.prefix);
        for byte in bucket.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b':' | b'#' => name.push(byte.into()),
                _ => name.push_str(&format!("%{byte:02x}")),
            }
        }
        name.push('|');
        name
    }

    fn bucket(&self, key: Key<'_>) -> String {
        format!("{}{}}}", self.limit(key.bucket), short(key.who))
    }

    async fn numbers(&self, call: Call, lane: Lane) -> Result<Vec<f64>, LimiterError> {
        let value = call.run(&self.link, lane).await.map_err(LimiterError)?;
        Vec::from_redis_value(value).map_err(|_| odd())
    }

    /// The share that is in use, and what of each rate. `reset` fills the bucket.
    async fn look(&self, key: String, reset: bool) -> Result<Option<Looked>, LimiterError> {
        let call = scripts::LOOK.on([key]).with(u8::from(reset));
        let numbers = self.numbers(call, Lane::Other).await?;
        let Some((share, numbers)) = numbers.split_first() else { return Ok(None) };
        let mut looked = Looked { share: *share, rates: Vec::new(), used: Vec::new() };
        for rate in numbers.chunks(4) {
            let [level, speed, micros, capacity] = *rate else { return Err(odd()) };
            let period = Duration::try_from_secs_f64(micros / 1e6).map_err(|_| odd())?;
            // What the division by the period took away.
            let count = (speed * micros * 1e6).round() / 1e6;
            looked.rates.push(Rate { count, period, capacity });
            looked.used.push(level);
        }
        Ok(Some(looked))
    }

    async fn busiest(&self, bucket: &str, most: usize) -> Result<Vec<Seen>, LimiterError> {
        let limit = self.limit(bucket);
        let mut found: Vec<(f64, Seen)> = Vec::new();
        let mut cursor = 0_u64;
        for _ in 0..SCANNED_MAX / SCANNED_AT_ONCE {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{limit}*")).arg("COUNT").arg(SCANNED_AT_ONCE);
            let value = self.call(Lane::Other, &scan).await.map_err(LimiterError)?;
            let (next, keys): (u64, Vec<Vec<u8>>) = FromRedisValue::from_redis_value(value).map_err(|_| odd())?;
            let names: Vec<String> = keys.into_iter().filter_map(|key| String::from_utf8(key).ok()).collect();
            for names in names.chunks(LOOKS_AT_ONCE) {
                let looks = join_all(names.iter().map(|name| self.look(name.clone(), false))).await;
                for (name, seen) in names.iter().zip(looks) {
                    let who = name.strip_prefix(&limit).and_then(|rest| rest.strip_suffix('}'));
                    if let (Some(who), Some(looked)) = (who, seen?) {
                        found.push((looked.share, looked.seen(bucket, who.to_owned())));
                    }
                }
            }
            if found.len() > most.saturating_mul(2) {
                keep_busiest(&mut found, most);
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        keep_busiest(&mut found, most);
        Ok(found.into_iter().map(|(_, seen)| seen).collect())
    }
}

/// What is in use of a bucket.
struct Looked {
    /// The largest share of a capacity.
    share: f64,
    rates: Vec<Rate>,
    used: Vec<f64>,
}

impl Looked {
    fn seen(self, bucket: &str, who: String) -> Seen {
        Seen { bucket: bucket.to_owned(), who, rates: self.rates, used: self.used }
    }
}

/// The `most` of which the largest share is in use, in this order. The server may name a key twice.
fn keep_busiest(found: &mut Vec<(f64, Seen)>, most: usize) {
    found.sort_by(|(_, one), (_, other)| one.who.cmp(&other.who));
    found.dedup_by(|(_, one), (_, other)| one.who == other.who);
    // The order of names stays among equals.
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    found.truncate(most);
}

fn odd() -> LimiterError {
    LimiterError("its answer makes no sense".to_owned())
}

impl Limiter for Redis {
    fn draw<'a>(&'a self, key: Key<'a>, rates: &'a Rates, ask: Ask) -> Pending<'a, Drawn> {
        Box::pin(async move {
            let least = ask.least.clamp(0.0, f64::MAX);
            let mut call = scripts::DRAW.on([self.bucket(key)]);
            // `max` makes 0 of what is no number.
            call = call.with(number(least)).with(number(ask.most.max(0.0).min(TOKENS_MAX.max(least))));
            for rate in rates.as_slice() {
                let micros = rate.period.as_secs_f64() * 1e6;
                call = call.with(number(rate.count / micros)).with(number(micros)).with(number(rate.capacity));
            }
            let answer = self.numbers(call, Lane::Decision).await?;
            let [admitted, got, levels @ ..] = answer.as_slice() else { return Err(odd()) };
            if levels.len() != rates.as_slice().len() || answer.iter().any(|number| !number.is_finite()) {
                return Err(odd());
            }
            let mut used = [0.0; RATES_MAX];
            used.iter_mut().zip(levels).for_each(|(used, level)| *used = *level);
            Ok(if *admitted == 1.0 { admission(rates, &used, *got) } else { refusal(rates, &used, least) })
        })
    }

    fn show<'a>(&'a self, key: Key<'a>) -> Pending<'a, Option<Seen>> {
        Box::pin(async move {
            let seen = self.look(self.bucket(key), false).await?;
            Ok(seen.map(|looked| looked.seen(key.bucket, short(key.who).into_owned())))
        })
    }

    fn reset<'a>(&'a self, key: Key<'a>) -> Pending<'a, bool> {
        Box::pin(async move { Ok(self.look(self.bucket(key), true).await?.is_some()) })
    }

    fn top<'a>(&'a self, bucket: &'a str, most: usize) -> Pending<'a, Vec<Seen>> {
        Box::pin(async move {
            let found = timeout(TOP_PATIENCE, self.busiest(bucket, most)).await;
            found.map_err(|_| LimiterError(format!("the list took longer than {TOP_PATIENCE:?}")))?
        })
    }
}

/// A number as scripts read it back, bit by bit.
fn number(value: f64) -> String {
    format!("{value:e}")
}
