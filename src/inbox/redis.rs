//! Inboxes in Redis or Valkey: what several gateways share.
//!
//! Keys begin with `PREFIXinbox:NAME/`; `scripts/inbox.lua` says what they hold. Ids of messages are in a stream with one
//! consumer group; what a gateway has claimed is pending there in its name, so `XPENDING` shows who has what. Each operation
//! is one script, so that it happens as a whole; a body of more than 128 KiB is brought before that and fetched after it, so
//! that the server copies it less. One server, not a cluster: Redis 6.2 or later (`XRANGE` with exclusive ends), or Valkey.
//!
//! **Connections.** Two, apart from those of the state store, on a thread of their own: one for [`Queue::put`], one for all
//! else. So a body of megabytes or an answer full of them delays no decision about a limit by more than the server needs to
//! copy it, and what goes wrong here puts nothing in doubt there. Without a server every operation fails at once, with one
//! that hangs within [`PUT_PATIENCE`] or [`PATIENCE`]; it is found again without a restart. A server without memory (`OOM`)
//! refuses to store and goes on delivering.
//!
//! **Durability** is the server's. With `appendonly yes` and `appendfsync always` what is stored is on its disk before the
//! sender hears of it, and survives `kill -9` and a power cut. With `everysec`, the server's default, up to two seconds may be
//! missing after a power cut, and after `kill -9` of the server too: while the disk is slow to synchronise, the server answers
//! before it writes. With `appendonly no` all may be missing. What a replica had not heard of is lost when it takes over. A
//! warning in the log says so once, also when `maxmemory-policy` lets the server throw out messages.
//!
//! **Rights.** An ACL needs `~tollgate:*` (the prefix) and `eval evalsha time info exists del set get persist rename unlink
//! hset hget hmget hincrby hdel sadd srem smembers zadd zrem zcard zcount zscore zrange zrangebyscore xadd xdel xack xrange
//! xclaim xgroup xreadgroup`. Without `info` the log only says that nobody could be warned.
//!
//! **An error of `put`** means that the message may be stored nevertheless: the answer was lost, or came too late. Then it is
//! delivered. The caller says 503, its sender sends again, and that is a second message with the same
//! [`Message::delivery`]: upstream gets both with one `Idempotency-Key`. Nothing is to be discarded after an error: the late
//! `put` may still be on its way and come after that, or a worker may have the message already.
//!
//! **Claims** are of one gateway and one attempt; who settles late, when somebody else has the message, is told so. They run
//! out by the server's clock. When delayed messages are due is judged by the clocks of gateways: one that is ahead by a
//! minute tries them a minute early, and one behind leaves them to others. No clock loses anything, and no clock has two
//! gateways deliver a message at once. A server whose own clock jumps ahead makes claims run out early.
//!
//! **Others' messages** are not told: [`Claims::next`] is [`LOOK_AGAIN`] away at most, so a message of a gateway that has died
//! waits that long for another one's worker.

#[cfg(test)]
pub mod tests;
mod warnings;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{FromRedisValue, Value};
use tokio::sync::Notify;

use super::packed::{pack, unpack};
use super::{Bounds, Claimed, Claims, Counts, Entry, LIST_MAX, Message, Outcome, Pending, Put, Queue, Standing};
use crate::state::StoreError;
use crate::state::expiry::milliseconds;
use crate::state::redis::link::{Lane, Link, Terms};
use crate::state::redis::scripts::{Call, Script};
use crate::state::redis::{OpenError, Settings};

/// How long a worker of another gateway may not hear of a message.
pub const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long storing a message may take; a large one has a second more for each [`BYTES_PER_SECOND`].
pub const PUT_PATIENCE: Duration = Duration::from_secs(2);
/// How long any other operation may take: their answers may hold many bodies.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// So slow may the way to the server be.
const BYTES_PER_SECOND: usize = 8 * 1024 * 1024;
/// Longest id, name of an inbox, or order, in bytes.
pub const NAME_BYTES_MAX: usize = 1024;
/// Largest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Larger bodies do not go through scripts.
const INLINE_BYTES_MAX: usize = 128 * 1024;
/// How long a body waits for its message, in milliseconds: longer than whoever stores it.
const UPLOAD_MS: u32 = 120_000;
/// Numbers are exact up to here, in scripts.
const NUMBER_MAX: u64 = (1 << 53) - 1;
/// Most messages of a claim; who asks for more is told to ask again.
const CLAIMED_AT_ONCE: usize = 128;
/// Bytes of messages that are being stored, beyond which others fail at once; one message alone may be larger.
const BYTES_IN_FLIGHT_MAX: usize = 64 * 1024 * 1024;
/// Whether the server takes writes. Unlike others, this one needs no memory: what is stored can be delivered without.
const PROBE: &str = "return redis.call('DEL', KEYS[1])";

macro_rules! script {
    ($($part:literal),+) => {
        Script::new(concat!($(include_str!(concat!("redis/scripts/", $part, ".lua"))),+))
    };
}

static PUT: Script = script!("inbox", "put");
static CLAIM: Script = script!("inbox", "claim");
static RENEW: Script = script!("inbox", "renew");
static SETTLE: Script = script!("inbox", "settle");
static REPLAY: Script = script!("inbox", "replay");
static DISCARD: Script = script!("inbox", "discard");
static COUNTS: Script = script!("inbox", "counts");
static LIST: Script = script!("inbox", "view", "list");
static SHOW: Script = script!("inbox", "view", "show");

/// Inboxes on a server that several gateways share.
pub struct RedisQueue {
    link: Link,
    prefix: String,
    /// Whose claims these are. Of no other process.
    gateway: String,
    changed: Notify,
    bytes_in_flight: AtomicUsize,
    /// Whether the server was asked what becomes of messages.
    is_examined: AtomicBool,
    /// How far [`Claims::next`] is at most.
    look_again: Option<Duration>,
    /// Whether leases go by `now`, as in tests whose time stands still.
    leases_by_now: bool,
}

impl RedisQueue {
    /// Begins to connect, and does not wait for it.
    ///
    /// # Errors
    /// There are no authorities to verify the server by, no thread can be started, or the system has no random numbers.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        let terms = Terms {
            name: "the store of inboxes",
            connections: 1,
            timeout: PUT_PATIENCE,
            patience: PATIENCE,
            probe_patience: PATIENCE,
            probe: PROBE,
        };
        let link = Link::open(settings, terms).map_err(OpenError)?;
        let random = getrandom::u64().map_err(|error| OpenError(error.to_string()))?;
        Ok(Self {
            link,
            prefix: settings.prefix.clone(),
            gateway: format!("gateway-{random:016x}"),
            changed: Notify::new(),
            bytes_in_flight: AtomicUsize::new(0),
            is_examined: AtomicBool::new(false),
            look_again: Some(LOOK_AGAIN),
            leases_by_now: false,
        })
    }

    /// Waits until messages can be stored, for so long; whether they can.
    pub async fn ready(&self, patience: Duration) -> bool {
        let mut up = self.link.connectivity();
        tokio::time::timeout(patience, up.wait_for(|up| *up)).await.is_ok_and(|waited| waited.is_ok())
    }

    /// What the keys of an inbox begin with.
    fn base(&self, inbox: &str) -> String {
        format!("{}inbox:{}", self.prefix, escaped(inbox))
    }

    /// A script on one inbox.
    fn on(&self, script: &'static Script, inbox: &str, now: SystemTime) -> Call {
        let now = milliseconds(now);
        let clock = if self.leases_by_now { now.to_string() } else { String::new() };
        let keys = [self.base(inbox), format!("{}inboxes", self.prefix)];
        script.on(keys).with(now).with(clock).with(inbox)
    }

    async fn ask<T: FromRedisValue>(&self, lane: Lane, call: Call) -> Result<T, StoreError> {
        let value = call.run(&self.link, lane).await.map_err(StoreError)?;
        T::from_redis_value(value).map_err(|_| odd())
    }

    /// What answers whether it was done, and whether by it a message became ready, or due at another time.
    async fn change(&self, lane: Lane, call: Call) -> Result<bool, StoreError> {
        let (done, readied): (bool, bool) = self.ask(lane, call).await?;
        if readied {
            // Those who wait now, and whoever asks next.
            self.changed.notify_waiters();
            self.changed.notify_one();
        }
        Ok(done)
    }

    /// Says once what the server may lose.
    async fn examine(&self) {
        if self.is_examined.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(why) = warnings::log(&self.link).await {
            tracing::debug!(why, "the server was not asked what it keeps");
            self.is_examined.store(false, Ordering::Relaxed);
        }
    }

    /// Brings a large body to the server, to be found by the script that stores the message; on its way scripts would copy it
    /// several times while nobody else is served.
    async fn upload(&self, message: &Message, patience: Duration) -> Result<String, StoreError> {
        let random = getrandom::u64().map_err(|error| StoreError(error.to_string()))?;
        let key = format!("{}/u/{random:016x}", self.base(&message.inbox));
        let mut command = redis::cmd("SET");
        command.arg(&key).arg(&*message.body).arg("PX").arg(UPLOAD_MS);
        let brought = self.link.call_within(patience, Lane::Decision, &command).await;
        brought.map(|_| key).map_err(|failure| StoreError(failure.to_string()))
    }

    /// A body as scripts give it. `None`: it was thrown out.
    async fn body(&self, inbox: &str, id: &str, given: Option<Value>) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(Value::Int(size)) = given else { return part(given).map(Some) };
        let mut command = redis::cmd("GET");
        command.arg(format!("{}/b/{id}", self.base(inbox)));
        let patience = PATIENCE.saturating_add(travel(usize::try_from(size).unwrap_or(0)));
        let value = self.link.call_within(patience, Lane::Other, &command).await;
        Option::from_redis_value(value.map_err(|failure| StoreError(failure.to_string()))?).map_err(|_| odd())
    }

    /// The messages of a claim. One that cannot be had now keeps back no other: its claim runs out.
    async fn claimed(
        &self,
        inbox: &str,
        answer: impl Iterator<Item = Value>,
        now: SystemTime,
    ) -> Result<Vec<Claimed>, StoreError> {
        let (name, mut messages, mut failed) = (Arc::<str>::from(inbox), Vec::new(), None);
        for claimed in answer {
            let (id, attempt, head, body): (String, u32, Vec<u8>, Value) = part(Some(claimed))?;
            let found = self.body(inbox, &id, Some(body)).await;
            let is_gone = matches!(found, Ok(None));
            let found = found.and_then(|body| message(&name, &id, &head, body.unwrap_or_default()));
            match found {
                Ok(message) if is_gone => {
                    let why = "the server has thrown out its body".to_owned();
                    self.settle(&Claimed { message, attempt }, Outcome::Dead { why }, now).await?;
                }
                Ok(message) => messages.push(Claimed { message, attempt }),
                Err(error) => {
                    tracing::error!(inbox, id, %error, "a message cannot be delivered now; it is tried again");
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if messages.is_empty() => Err(error),
            _ => Ok(messages),
        }
    }

    /// A page of a list, with what the next one begins behind.
    async fn page(&self, call: Call, inbox: &Arc<str>) -> Result<(bool, String, Vec<Entry>), StoreError> {
        let mut answer = self.ask::<Vec<Value>>(Lane::Other, call).await?.into_iter();
        let more: bool = part(answer.next())?;
        let last: String = part(answer.next())?;
        let entries: Result<Vec<Entry>, StoreError> = answer.map(|seen| entry(seen, inbox)).collect();
        Ok((more, last, entries?))
    }
}

impl Queue for RedisQueue {
    fn put(&self, message: Message, bounds: Bounds) -> Pending<'_, Put> {
        Box::pin(async move {
            let head = pack(&message);
            let order = message.order.as_ref().map(|order| format!("={order}")).unwrap_or_default();
            for name in [&message.id, &*message.inbox, &order] {
                if name.len() > NAME_BYTES_MAX {
                    return Err(StoreError(format!("a name has at most {NAME_BYTES_MAX} bytes, not {}", name.len())));
                }
            }
            let bytes = head.len().saturating_add(message.body.len());
            if bytes > MESSAGE_BYTES_MAX {
                return Err(StoreError(format!("a message has at most {MESSAGE_BYTES_MAX} bytes, not {bytes}")));
            }
            let _place = Place::take(&self.bytes_in_flight, bytes)
                .ok_or_else(|| StoreError(format!("{BYTES_IN_FLIGHT_MAX} bytes of messages are being stored")))?;
            let patience = PUT_PATIENCE.saturating_add(travel(bytes));
            let (body, upload) = if message.body.len() > INLINE_BYTES_MAX {
                let upload = self.upload(&message, patience).await?;
                (message.body.len().to_string().into(), upload)
            } else {
                (message.body.clone(), String::new())
            };
            let call = self.on(&PUT, &message.inbox, message.received).with(&message.id).with(order);
            let call = call.with(milliseconds(message.received)).with(head).with(&*body).with(message.bytes());
            let call =
                call.with(bounds.messages_max.min(NUMBER_MAX)).with(bounds.bytes_max.min(NUMBER_MAX)).with(upload);
            drop(message);
            let is_kept = self.change(Lane::Decision, call.patient_for(patience)).await?;
            Ok(if is_kept { Put::Stored } else { Put::Full })
        })
    }

    fn claim<'a>(&'a self, inbox: &'a str, most: usize, lease: Duration, now: SystemTime) -> Pending<'a, Claims> {
        Box::pin(async move {
            self.examine().await;
            let call = self.on(&CLAIM, inbox, now).with(&self.gateway).with(most.min(CLAIMED_AT_ONCE));
            let mut answer =
                self.ask::<Vec<Value>>(Lane::Other, call.with(whole_milliseconds(lease))).await?.into_iter();
            let wait: i64 = part(answer.next())?;
            let messages = self.claimed(inbox, answer, now).await?;
            let wait = if messages.len() == CLAIMED_AT_ONCE && messages.len() < most { 0 } else { wait };
            let wait = u64::try_from(wait).ok().map(Duration::from_millis).into_iter().chain(self.look_again).min();
            Ok(Claims { messages, next: wait.and_then(|wait| now.checked_add(wait)) })
        })
    }

    fn renew<'a>(&'a self, claimed: &'a Claimed, lease: Duration, now: SystemTime) -> Pending<'a, bool> {
        Box::pin(async move {
            let call = self.on(&RENEW, &claimed.message.inbox, now).with(&self.gateway);
            let call = call.with(&claimed.message.id).with(claimed.attempt).with(whole_milliseconds(lease));
            self.ask(Lane::Other, call).await
        })
    }

    fn settle<'a>(&'a self, claimed: &'a Claimed, outcome: Outcome, now: SystemTime) -> Pending<'a, bool> {
        Box::pin(async move {
            let (ending, due, why) = match outcome {
                Outcome::Delivered => ("delivered", None, String::new()),
                Outcome::Retry { due, why } => ("retry", Some(due), why),
                Outcome::Dead { why } => ("dead", None, why),
                Outcome::Returned => ("returned", None, String::new()),
            };
            let due = due.map(|due| milliseconds(due).unsigned_abs().min(NUMBER_MAX).to_string()).unwrap_or_default();
            let call = self.on(&SETTLE, &claimed.message.inbox, now).with(&self.gateway);
            let call = call.with(&claimed.message.id).with(claimed.attempt).with(ending).with(due).with(why);
            self.change(Lane::Other, call).await
        })
    }

    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.changed.notified())
    }

    fn counts<'a>(&'a self, inbox: &'a str, now: SystemTime) -> Pending<'a, Counts> {
        Box::pin(async move {
            let call = self.on(&COUNTS, inbox, now);
            let (ready, delayed, claimed, dead, bytes, oldest) = self.ask(Lane::Other, call).await?;
            let oldest: Option<u64> = oldest;
            Ok(Counts { ready, delayed, claimed, dead, bytes, oldest: oldest.and_then(time) })
        })
    }

    fn inboxes(&self) -> Pending<'_, Vec<String>> {
        Box::pin(async move {
            let mut command = redis::cmd("SMEMBERS");
            command.arg(format!("{}inboxes", self.prefix));
            let value =
                self.link.call(Lane::Other, &command).await.map_err(|failure| StoreError(failure.to_string()))?;
            let mut names = Vec::<String>::from_redis_value(value).map_err(|_| odd())?;
            names.sort_unstable();
            Ok(names)
        })
    }

    fn list<'a>(
        &'a self,
        inbox: &'a str,
        standing: Option<Standing>,
        after: Option<&'a str>,
        limit: usize,
        now: SystemTime,
    ) -> Pending<'a, Vec<Entry>> {
        Box::pin(async move {
            let only = match standing {
                None => "",
                Some(Standing::Ready) => "r",
                Some(Standing::Delayed) => "d",
                Some(Standing::Claimed) => "c",
                Some(Standing::Dead) => "x",
            };
            let limit = limit.min(LIST_MAX);
            let pages = async {
                let (mut found, mut from) = (Vec::new(), String::new());
                while found.len() < limit {
                    let call = self.on(&LIST, inbox, now).with(only).with(after.unwrap_or_default()).with(&from);
                    let call = call.with(limit.saturating_sub(found.len()));
                    let (more, last, entries) = self.page(call, &inbox.into()).await?;
                    found.extend(entries);
                    if !more {
                        break;
                    }
                    from = last;
                }
                Ok(found)
            };
            let found = tokio::time::timeout(PATIENCE, pages).await;
            found.map_err(|_| StoreError(format!("the list took longer than {PATIENCE:?}")))?
        })
    }

    fn show<'a>(&'a self, inbox: &'a str, id: &'a str, now: SystemTime) -> Pending<'a, Option<Entry>> {
        Box::pin(async move {
            let seen: Option<Vec<Value>> = self.ask(Lane::Other, self.on(&SHOW, inbox, now).with(id)).await?;
            let Some(mut seen) = seen else { return Ok(None) };
            let body = self.body(inbox, id, seen.pop()).await?.unwrap_or_default();
            let mut entry = entry(Value::Array(seen), &inbox.into())?;
            entry.message.body = body.into();
            Ok(Some(entry))
        })
    }

    fn replay<'a>(&'a self, inbox: &'a str, id: &'a str, now: SystemTime) -> Pending<'a, bool> {
        Box::pin(async move { self.change(Lane::Other, self.on(&REPLAY, inbox, now).with(id)).await })
    }

    fn discard<'a>(&'a self, inbox: &'a str, id: &'a str, now: SystemTime) -> Pending<'a, bool> {
        Box::pin(async move { self.change(Lane::Other, self.on(&DISCARD, inbox, now).with(id)).await })
    }
}

/// Room among the bytes under way.
struct Place<'a>(&'a AtomicUsize, usize);

impl<'a> Place<'a> {
    fn take(taken: &'a AtomicUsize, bytes: usize) -> Option<Self> {
        // Counted first: whoever comes too late takes it back with the place.
        let place = Self(taken, bytes);
        let before = taken.fetch_add(bytes, Ordering::Relaxed);
        (before == 0 || before.saturating_add(bytes) <= BYTES_IN_FLIGHT_MAX).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// A message as it stands, without its body.
fn entry(seen: Value, inbox: &Arc<str>) -> Result<Entry, StoreError> {
    let mut parts = Vec::<Value>::from_redis_value(seen).map_err(|_| odd())?.into_iter();
    let id: String = part(parts.next())?;
    let standing = match part::<String>(parts.next())?.as_str() {
        "r" => Standing::Ready,
        "d" => Standing::Delayed,
        "c" => Standing::Claimed,
        "x" => Standing::Dead,
        _ => return Err(odd()),
    };
    let attempts = part(parts.next())?;
    let due: String = part(parts.next())?;
    let (has_why, why): (bool, String) = (part(parts.next())?, part(parts.next())?);
    let head: Vec<u8> = part(parts.next())?;
    let due = due.parse().ok().and_then(time);
    let message = message(inbox, &id, &head, Vec::new())?;
    Ok(Entry { message, standing, attempts, due, why: has_why.then_some(why) })
}

fn message(inbox: &Arc<str>, id: &str, head: &[u8], body: Vec<u8>) -> Result<Message, StoreError> {
    let message = unpack(Arc::clone(inbox), head, body.into());
    message.ok_or_else(|| StoreError(format!("the message {id} makes no sense, or is of a newer gateway")))
}

fn part<T: FromRedisValue>(value: Option<Value>) -> Result<T, StoreError> {
    value.and_then(|value| T::from_redis_value(value).ok()).ok_or_else(odd)
}

fn odd() -> StoreError {
    StoreError("its answer makes no sense".to_owned())
}

fn time(milliseconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))
}

/// How much longer a large message takes.
fn travel(bytes: usize) -> Duration {
    Duration::from_secs(u64::try_from(bytes / BYTES_PER_SECOND).unwrap_or(u64::MAX))
}

/// Rounded up: no lease is shorter than it was asked for.
fn whole_milliseconds(lease: Duration) -> u64 {
    u64::try_from(lease.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).min(NUMBER_MAX / 2)
}

/// A name in a key, between characters that it does not have.
fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02x}")),
        }
    }
    escaped
}
