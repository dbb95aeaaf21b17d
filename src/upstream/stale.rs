//! Answers of a service, kept for the time when its circuit breaker lets nothing through.
//!
//! No cache that spares the service anything: while it is asked, clients get what it answers. What may be kept, and may be given
//! out when it is stale, is as [RFC 9111](https://www.rfc-editor.org/rfc/rfc9111) and
//! [RFC 5861](https://www.rfc-editor.org/rfc/rfc5861) (`stale-if-error`) say, and narrower where a mistake would show somebody
//! what is meant for somebody else.

mod directives;

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_ENCODING, AGE, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, COOKIE, SET_COOKIE, TRANSFER_ENCODING, VARY,
};
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use sha2::{Digest, Sha256};

use super::spec::field_name;
use crate::caller::{Caller, Credential};
use crate::config::StaleFallback;
use crate::head::{HeaderName, HeaderValue, Method, RequestHead, ResponseHead, StatusCode};
use crate::reply::Reply;
use crate::types::{Period, hex};
use crate::yaml::Problem;
use directives::Directives;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const MAX_AGE: Duration = Duration::from_secs(3600);
const MAX_AGE_LEAST: Period = Period(Duration::from_secs(1));
const MAX_AGE_MOST: Period = Period(Duration::from_secs(7 * 24 * 3600));
const MEMORY: u64 = 64 << 20;
const MEMORY_LEAST: u64 = 1 << 20;
const BODY_MAX: u64 = 256 << 10;
/// Most parts that lock for themselves.
const PARTS_MAX: u64 = 64;
/// What the cache wants each of its parts to have room for.
const PART_ITEMS: u64 = 32;
/// Room for the head of an answer, in bytes.
const HEAD_BYTES: u64 = 64 << 10;
/// What an answer holds besides its fields and its body, in bytes.
const ANSWER_BYTES: usize = 256;
/// Most answers to requests that differ only in what `Vary` names.
const VARIANTS_MAX: usize = 8;
/// Claims that are others in each token of the same caller (RFC 7519 §4.1).
const OF_ONE_TOKEN: [&str; 4] = ["exp", "iat", "jti", "nbf"];

/// What is kept, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    max_age: Duration,
    memory: u64,
    body_max: usize,
    by: Vec<HeaderName>,
}

/// The answers of an upstream, by request.
pub struct Stale {
    settings: Settings,
    answers: Cache<Box<str>, Arc<[Arc<Answer>]>, ByLength, RandomState>,
    served: AtomicU64,
    /// Bytes of bodies that are coming in.
    coming: AtomicU64,
}

struct Answer {
    /// When it came, and how old it was then.
    at: Instant,
    age: Duration,
    /// How old it may become.
    max_age: Duration,
    fields: Vec<(HeaderName, HeaderValue)>,
    /// What `Vary` names, and what the request had there.
    varies: Vec<(HeaderName, Vec<u8>)>,
    body: Bytes,
}

/// What tells a request from another one with the same head.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Filters of a route may tell the service what those of another do not.
    pub route: &'a str,
    pub caller: Option<&'a Caller>,
    /// Its body is not empty.
    pub has_body: bool,
}

/// The answer to one request, while it comes in.
pub struct Keeping {
    stale: Arc<Stale>,
    key: Box<str>,
    pending: Option<(Answer, BytesMut)>,
    /// What of it counts as coming in.
    held: u64,
}

#[derive(Clone)]
struct ByLength;

impl Weighter<Box<str>, Arc<[Arc<Answer>]>> for ByLength {
    fn weight(&self, key: &Box<str>, answers: &Arc<[Arc<Answer>]>) -> u64 {
        let answers: usize = answers.iter().map(|answer| answer.bytes()).sum();
        key.len().saturating_add(answers) as u64
    }
}

impl Settings {
    /// Reports what cannot be.
    pub fn check(written: &StaleFallback, problems: &mut Vec<Problem>) -> Self {
        let max_age =
            written.max_age.map_or(MAX_AGE, |age| age.within("max_age", MAX_AGE_LEAST..=MAX_AGE_MOST, problems).0);
        let memory = written.memory.map_or(MEMORY, |memory| {
            if memory.value.0 < MEMORY_LEAST {
                problems.push(Problem::new(memory.place, "`memory` must be at least 1MiB"));
            }
            memory.value.0
        });
        let body_max = written.body_max.map_or(BODY_MAX, |body_max| {
            // A larger one would push out half of all others, or not be taken at all.
            if body_max.value.0 > memory / 4 {
                problems.push(Problem::new(body_max.place, "`body_max` must be at most a quarter of `memory`"));
            }
            body_max.value.0
        });
        let by = written.by.iter().filter_map(|name| field_name(name, problems)).collect();
        Self { max_age, memory, body_max: usize::try_from(body_max).unwrap_or(usize::MAX), by }
    }

    /// What the largest answer takes, or a little less.
    fn largest(&self) -> u64 {
        (self.body_max as u64).max(HEAD_BYTES)
    }
}

impl Stale {
    /// The one there was, when it has the same settings.
    pub fn compile(settings: Option<&Settings>, previous: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        let settings = settings?;
        let previous = previous.filter(|previous| previous.settings == *settings).cloned();
        Some(previous.unwrap_or_else(|| Arc::new(Self::new(settings.clone()))))
    }

    fn new(settings: Settings) -> Self {
        // Each part has its share of the memory, and no part takes what is larger than that: every one has room for the largest
        // answer, and for others beside it.
        let share = settings.largest().saturating_mul(4);
        let parts = settings.memory.checked_div(share).unwrap_or(1).clamp(1, PARTS_MAX);
        let items = usize::try_from(parts.saturating_mul(PART_ITEMS)).unwrap_or(usize::MAX);
        // A keyed hash: nobody can make up requests that meet in one place.
        let answers = Cache::with(items, settings.memory, ByLength, RandomState::new(), DefaultLifecycle::default());
        Self { settings, answers, served: AtomicU64::new(0), coming: AtomicU64::new(0) }
    }

    /// Wants to keep the answer to this request, if it is of a kind that is kept.
    pub fn keep(self: &Arc<Self>, head: &dyn RequestHead, asked: Asked<'_>) -> Option<Keeping> {
        let wanted = *head.method() == Method::GET && !asked.has_body && !Directives::of(head).no_store;
        wanted.then(|| Keeping { key: self.key(head, asked), stale: Arc::clone(self), pending: None, held: 0 })
    }

    /// What stands for the answer to this request.
    pub fn answer(&self, head: &dyn RequestHead, asked: Asked<'_>, now: Instant) -> Option<Reply> {
        // What a body asks for may be something else each time.
        if !matches!(*head.method(), Method::GET | Method::HEAD) || asked.has_body {
            return None;
        }
        let answers = self.answers.get(&*self.key(head, asked))?;
        let answer = answers.iter().find(|answer| answer.is_for(head))?;
        let age = answer.age_at(now);
        if age > answer.max_age {
            return None;
        }
        self.served.fetch_add(1, Ordering::Relaxed);
        let mut fields = Vec::with_capacity(answer.fields.len().saturating_add(2));
        fields.extend_from_slice(&answer.fields);
        fields.push((AGE, HeaderValue::from(age.as_secs())));
        // RFC 9211: who it comes from, and why.
        fields.push((CACHE_STATUS, HeaderValue::from_static("gateway; hit; detail=\"stale: the service fails\"")));
        Some(Reply { status: StatusCode::OK, fields, body: answer.body.clone(), code: None })
    }

    /// Takes so many bytes more in, if all that come in together then take no more than what is kept may.
    fn comes(&self, length: u64) -> bool {
        let more = |coming: u64| coming.checked_add(length).filter(|coming| *coming <= self.settings.memory);
        self.coming.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// How many were given out, and how many bytes are held.
    pub fn usage(&self) -> (u64, u64) {
        (self.served.load(Ordering::Relaxed), self.answers.weight())
    }

    /// Host and target; the route, who asks, and by what right, as a hash: nobody gets the answer to another's request.
    fn key(&self, head: &dyn RequestHead, asked: Asked<'_>) -> Box<str> {
        let mut rights = Sha256::new();
        let mut tell = |kind: &str, value: &[u8]| {
            for part in [kind.as_bytes(), value] {
                rights.update((part.len() as u64).to_le_bytes());
                rights.update(part);
            }
        };
        tell("route:", asked.route.as_bytes());
        if let Some(caller) = asked.caller {
            tell_caller(caller, &mut tell);
        }
        for name in [&AUTHORIZATION, &COOKIE, &X_API_KEY].into_iter().chain(&self.settings.by) {
            head.each(name, &mut |value| tell(name.as_str(), value));
        }
        let host = head.host().to_ascii_lowercase();
        // Neither host nor target can hold a space.
        let mut key = format!("{host} {}", head.path());
        if let Some(query) = head.query() {
            key.push('?');
            key.push_str(query);
        }
        key.push(' ');
        key.push_str(&hex(&rights.finalize()));
        key.into()
    }
}

/// Who asks and all that is known of it: the service may have been told any of it, and two issuers may know somebody of one name.
fn tell_caller(caller: &Caller, tell: &mut impl FnMut(&str, &[u8])) {
    tell(caller.credential.kind(), caller.name.as_bytes());
    match &caller.credential {
        Credential::Token { issuer, .. } => tell("issuer:", issuer.as_bytes()),
        Credential::Key { id, .. } => tell("credential:", id.as_bytes()),
        Credential::Certificate(certificate) => tell("credential:", certificate.sha256.as_bytes()),
    }
    tell("level:", caller.level.as_str().as_bytes());
    tell("roles:", caller.fields.roles.as_bytes());
    tell("scopes:", caller.fields.scopes.as_bytes());
    for (name, value) in caller.claims.iter().filter(|(name, _)| !OF_ONE_TOKEN.contains(&name.as_str())) {
        tell(name, value.to_string().as_bytes());
    }
}

impl Answer {
    fn bytes(&self) -> usize {
        let fields = self.fields.iter().map(|(name, value)| name.as_str().len().saturating_add(value.len()));
        let varies = self.varies.iter().map(|(name, value)| name.as_str().len().saturating_add(value.len()));
        let head: usize = fields.chain(varies).map(|bytes| bytes.saturating_add(64)).sum();
        head.saturating_add(self.body.len()).saturating_add(ANSWER_BYTES)
    }

    fn is_for(&self, head: &dyn RequestHead) -> bool {
        self.varies.iter().all(|(name, value)| values(head, name) == *value)
    }

    fn age_at(&self, now: Instant) -> Duration {
        self.age.saturating_add(now.saturating_duration_since(self.at))
    }
}

impl Keeping {
    /// The head of the answer to `request`. What an attempt before this one brought is forgotten. `told`: the end of its body is
    /// told, so that one that was cut off is known.
    pub fn begin(&mut self, request: &dyn RequestHead, response: &dyn ResponseHead, told: bool, now: Instant) {
        self.forget();
        self.pending = self.answer(request, response, now).filter(|_| told).map(|answer| (answer, BytesMut::new()));
    }

    /// The next piece of its body.
    pub fn body(&mut self, piece: &[u8]) {
        let Some((_, body)) = &mut self.pending else { return };
        let length = piece.len() as u64;
        let fits = body.len().saturating_add(piece.len()) <= self.stale.settings.body_max;
        if fits && self.stale.comes(length) {
            self.held = self.held.saturating_add(length);
            body.extend_from_slice(piece);
        } else {
            self.forget();
        }
    }

    /// It is whole.
    pub fn end(mut self) {
        let Some((mut answer, body)) = self.pending.take() else { return };
        // What it grew by is not held for as long as it is kept.
        answer.body = Bytes::copy_from_slice(&body);
        let others = self.stale.answers.get(&*self.key);
        // What differs by `Vary` is in one place together.
        let mut room = self.stale.settings.largest().saturating_mul(2).saturating_sub(answer.bytes() as u64);
        let mut variants = vec![Arc::new(answer)];
        let same = |other: &&Arc<Answer>| variants.first().is_some_and(|new| new.varies == other.varies);
        let others: Vec<_> =
            others.iter().flat_map(|others| others.iter()).filter(|other| !same(other)).cloned().collect();
        let fits = |other: &Arc<Answer>| {
            let left = room.checked_sub(other.bytes() as u64);
            room = left.unwrap_or(room);
            left.is_some()
        };
        variants.extend(others.into_iter().take(VARIANTS_MAX.saturating_sub(1)).filter(fits));
        self.stale.answers.insert(std::mem::take(&mut self.key), variants.into());
    }

    fn forget(&mut self) {
        self.pending = None;
        self.stale.coming.fetch_sub(std::mem::take(&mut self.held), Ordering::Relaxed);
    }

    fn answer(&self, request: &dyn RequestHead, response: &dyn ResponseHead, now: Instant) -> Option<Answer> {
        let directives = Directives::of(response);
        // One that sets a cookie is somebody's.
        if response.status() != StatusCode::OK || !directives.may_be_kept() || response.has(&SET_COOKIE) {
            return None;
        }
        let mut fields = Vec::new();
        response.all(&mut |name, value| {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
                && ![&AGE, &CONTENT_LENGTH, &TRANSFER_ENCODING, &CACHE_STATUS].contains(&&name)
            {
                fields.push((name, value));
            }
        });
        let varies = varies(request, response)?;
        let age =
            response.text(&AGE).and_then(|age| age.trim().parse().ok()).map_or(Duration::ZERO, Duration::from_secs);
        let max_age =
            directives.usable_for().map_or(self.stale.settings.max_age, |most| most.min(self.stale.settings.max_age));
        Some(Answer { at: now, age, max_age, fields, varies, body: Bytes::new() })
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.forget();
    }
}

/// What `Vary` names, with what the request has there. None: it varies by more than a request tells.
fn varies(request: &dyn RequestHead, response: &dyn ResponseHead) -> Option<Vec<(HeaderName, Vec<u8>)>> {
    let mut names = Vec::new();
    let mut readable = true;
    response.each(&VARY, &mut |value| {
        for name in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty()) {
            match HeaderName::from_bytes(name) {
                Ok(name) if name != "*" => names.push(name),
                Ok(_) | Err(_) => readable = false,
            }
        }
    });
    if response.has(&CONTENT_ENCODING) {
        // Services forget to say so.
        names.push(ACCEPT_ENCODING);
    }
    names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    let with_value = |name: HeaderName| {
        let value = values(request, &name);
        (name, value)
    };
    readable.then(|| names.into_iter().map(with_value).collect())
}

/// All values of a field, as one text.
fn values(head: &dyn RequestHead, name: &HeaderName) -> Vec<u8> {
    let mut values = Vec::new();
    head.each(name, &mut |value| {
        values.extend_from_slice(value);
        values.push(b'\n');
    });
    values
}

#[cfg(test)]
mod tests;
