//! Entries in Redis.
//!
//! An entry is a key of the server: `tollgate:{SPACE}:KEY`. The names of a space are in a sorted set (`…{SPACE}/names`), for
//! lists; those of entries that end in another one (`…/ends`), so that writes sweep what has ended from the first; what was
//! written last in a stream (`…/changes`), for other gateways.
//!
//! Whether an entry has ended is judged by the gateway's clock, sent along. The server removes it a minute later by its own.

use std::time::SystemTime;

use redis::{FromRedisValue, Value};

use super::scripts::{self, Call, Script};
use super::{Lane, Redis};
use crate::state::expiry::milliseconds;
use crate::state::{Changes, Entry, Mark, Pending, Space, Spend, Spent, Store, StoreError, check};

/// Counters are exact up to here, in scripts.
const COUNT_MAX: u64 = (1 << 53) - 1;
/// More entries are not given by one script, so that none is long.
const PAGE: usize = 256;
/// Most changes that are told one by one.
const CHANGES_MAX: usize = 1000;

impl Redis {
    fn base(&self, space: Space) -> String {
        // All of a space is in one slot of a cluster.
        format!("{}{{{}}}", self.prefix, space.0)
    }

    /// A script on one entry.
    fn on(&self, script: &'static Script, space: Space, key: &str) -> Call {
        let base = self.base(space);
        let keys =
            [format!("{base}:{key}"), format!("{base}/names"), format!("{base}/ends"), format!("{base}/changes")];
        script.on(keys).with(self.now()).with(key)
    }

    fn now(&self) -> i64 {
        milliseconds((self.now)())
    }

    async fn ask<T: FromRedisValue>(&self, lane: Lane, call: Call) -> Result<T, StoreError> {
        let value = call.run(&self.link, lane).await.map_err(StoreError)?;
        T::from_redis_value(value).map_err(|_| odd())
    }
}

fn odd() -> StoreError {
    StoreError::new("its answer makes no sense")
}

/// When an entry ends, as scripts take it.
fn end(expires: Option<SystemTime>) -> String {
    expires.map(|expires| milliseconds(expires).to_string()).unwrap_or_default()
}

impl Store for Redis {
    fn get<'a>(&'a self, space: Space, key: &'a str) -> Pending<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            let mut command = redis::cmd("GET");
            command.arg(format!("{}:{key}", self.base(space)));
            let value = self.call(Lane::Other, &command).await.map_err(StoreError)?;
            let Some(raw) = Option::<Vec<u8>>::from_redis_value(value).map_err(|_| odd())? else { return Ok(None) };
            let mut parts = raw.splitn(2, |byte| *byte == b':');
            let (Some(end), Some(value)) = (parts.next(), parts.next()) else { return Err(odd()) };
            let end: Option<i64> = match std::str::from_utf8(end) {
                Ok("") => None,
                Ok(end) => Some(end.parse().map_err(|_| odd())?),
                Err(_) => return Err(odd()),
            };
            Ok(end.is_none_or(|end| self.now() < end).then(|| value.to_owned()))
        })
    }

    fn put<'a>(&'a self, space: Space, key: &'a str, value: Vec<u8>, expires: Option<SystemTime>) -> Pending<'a, ()> {
        Box::pin(async move {
            check(key, &value)?;
            let call = self.on(&scripts::PUT, space, key).with(value).with(end(expires));
            self.ask::<bool>(Lane::Other, call).await.map(|_| ())
        })
    }

    fn insert<'a>(
        &'a self,
        space: Space,
        key: &'a str,
        value: Vec<u8>,
        expires: Option<SystemTime>,
    ) -> Pending<'a, bool> {
        Box::pin(async move {
            check(key, &value)?;
            self.ask(Lane::Other, self.on(&scripts::INSERT, space, key).with(value).with(end(expires))).await
        })
    }

    fn replace<'a>(&'a self, space: Space, key: &'a str, expected: &'a [u8], value: Vec<u8>) -> Pending<'a, bool> {
        Box::pin(async move {
            check(key, &value)?;
            self.ask(Lane::Other, self.on(&scripts::REPLACE, space, key).with(expected).with(value)).await
        })
    }

    fn exchange<'a>(
        &'a self,
        space: Space,
        key: &'a str,
        expected: &'a [u8],
        value: Vec<u8>,
        expires: Option<SystemTime>,
    ) -> Pending<'a, bool> {
        Box::pin(async move {
            check(key, &value)?;
            let call = self.on(&scripts::EXCHANGE, space, key).with(expected).with(value);
            self.ask(Lane::Other, call.with(end(expires))).await
        })
    }

    fn take<'a>(&'a self, space: Space, key: &'a str) -> Pending<'a, Option<Vec<u8>>> {
        Box::pin(async move { self.ask(Lane::Other, self.on(&scripts::TAKE, space, key)).await })
    }

    fn spend<'a>(&'a self, space: Space, key: &'a str, ask: Spend, expires: SystemTime) -> Pending<'a, Spent> {
        Box::pin(async move {
            check(key, &[])?;
            let call = self.on(&scripts::SPEND, space, key);
            let call = call.with(ask.least).with(ask.most.min(COUNT_MAX)).with(ask.limit.min(COUNT_MAX));
            let (got, used): (String, String) = self.ask(Lane::Decision, call.with(end(Some(expires)))).await?;
            let number = |text: &str| text.parse().map_err(|_| StoreError::new("an entry is no counter"));
            Ok(Spent { got: number(&got)?, used: number(&used)? })
        })
    }

    fn give_back<'a>(&'a self, space: Space, key: &'a str, amount: u64) -> Pending<'a, ()> {
        Box::pin(async move {
            let call = self.on(&scripts::GIVE_BACK, space, key).with(amount);
            self.ask::<bool>(Lane::Decision, call).await.map(|_| ())
        })
    }

    fn list<'a>(&'a self, space: Space, after: Option<&'a str>, limit: usize) -> Pending<'a, Vec<Entry>> {
        Box::pin(async move {
            let base = self.base(space);
            let mut found = Vec::new();
            let mut from = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
            while found.len() < limit {
                let keys = [format!("{base}:"), format!("{base}/names"), format!("{base}/ends")];
                let most = limit.saturating_sub(found.len()).min(PAGE);
                let call = scripts::LIST.on(keys).with(self.now()).with(from).with(most);
                let mut answer: std::vec::IntoIter<Value> =
                    self.ask::<Vec<Value>>(Lane::Other, call).await?.into_iter();
                let more: bool = next(&mut answer)?;
                let last: String = next(&mut answer)?;
                while answer.len() > 0 {
                    found.push(Entry { key: next(&mut answer)?, value: next(&mut answer)? });
                }
                if !more {
                    break;
                }
                from = format!("({last}");
            }
            Ok(found)
        })
    }

    fn changes<'a>(&'a self, space: Space, since: &'a Mark) -> Pending<'a, Changes> {
        Box::pin(async move {
            let call = scripts::CHANGES.on([format!("{}/changes", self.base(space))]).with(&since.0).with(CHANGES_MAX);
            let mut answer = self.ask::<Vec<Value>>(Lane::Other, call).await?.into_iter();
            let mark = Mark(next(&mut answer)?);
            let complete: bool = next(&mut answer)?;
            let keys: Result<Vec<String>, StoreError> =
                answer.map(|value| String::from_redis_value(value).map_err(|_| odd())).collect();
            Ok(Changes { mark, keys: if complete { Some(keys?) } else { None } })
        })
    }
}

fn next<T: FromRedisValue>(answer: &mut std::vec::IntoIter<Value>) -> Result<T, StoreError> {
    answer.next().and_then(|value| T::from_redis_value(value).ok()).ok_or_else(odd)
}
