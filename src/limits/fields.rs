//! The response fields that tell clients where they stand.
//!
//! * `X-RateLimit-Limit`, `X-RateLimit-Remaining`, `X-RateLimit-Reset` (seconds since 1970, when all may be made again): of the
//!   limit that leaves the fewest requests.
//! * `RateLimit-Policy: "consumer-minute";q=60;w=60` and `RateLimit: "consumer-minute";r=42;t=1` of the draft
//!   `draft-ietf-httpapi-ratelimit-headers`: one line for each limit. `t` is the time until more is there.
//!
//! Of several limits on one way, the first one writes for all of them, on the way out. What the service says under these
//! names is replaced: its limits are not those that a client of the gateway meets.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::clock;
use crate::context::{Context, Limited, Policy, Standing};
use crate::head::{HeaderName, HeaderValue, Headers};
use crate::rates::{Drawn, Rate, Rates};
use crate::reply::Rejection;
use crate::types::seconds_up;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const STANDARD_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STANDARD: HeaderName = HeaderName::from_static("ratelimit");

/// Fields that one limit is told in.
const FIELDS: usize = 5;
/// Bytes that these take, more or less.
const FIELDS_BYTES: usize = 256;
/// Room for a value, in bytes.
const VALUE_BYTES: usize = 64;
/// Largest integer that a structured field holds (RFC 9651 §3.3.1): a factor may lead beyond it.
const INTEGER_MAX: u64 = 999_999_999_999_999;

/// Which response fields tell clients about a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FieldsSetting {
    #[default]
    All,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset`.
    Legacy,
    /// `RateLimit` and `RateLimit-Policy`.
    Standard,
    None,
}

impl FieldsSetting {
    /// A policy of these items: the name of each, and the parameters behind it (`q=60;w=60`). `None` when clients are told
    /// nothing.
    pub fn policy(self, items: impl IntoIterator<Item = (String, String)>) -> Option<Arc<Policy>> {
        if self == Self::None {
            return None;
        }
        let (mut names, mut value) = (Vec::new(), String::new());
        for (name, parameters) in items {
            // A string of RFC 9651 §3.3.3: visible ASCII in quotes, of which names here hold none.
            let name: String = name.chars().filter(|c| c.is_ascii_graphic() && !"\"\\".contains(*c)).collect();
            let name = format!("\"{name}\"");
            let comma = if value.is_empty() { "" } else { ", " };
            let _ = write!(value, "{comma}{name};{parameters}");
            names.push(Box::from(name));
        }
        let standard = matches!(self, Self::All | Self::Standard).then(|| value.into());
        Some(Arc::new(Policy { standard, names: names.into(), legacy: matches!(self, Self::All | Self::Legacy) }))
    }

    /// The policy of a token bucket. `name` is that of the bucket, or a word for whose it is.
    pub fn policy_of(self, name: &str, rates: &Rates) -> Option<Arc<Policy>> {
        self.policy(rates.as_slice().iter().map(|rate| {
            let window = rate.period.as_secs().max(1);
            (format!("{name}-{}", span(rate.period)), format!("q={};w={window}", whole(rate.count)))
        }))
    }
}

/// The word for a period in the name of a policy.
fn span(period: Duration) -> String {
    match period.as_secs() {
        1 => "second".to_owned(),
        60 => "minute".to_owned(),
        3600 => "hour".to_owned(),
        86_400 => "day".to_owned(),
        other => format!("{other}s"),
    }
}

/// What a bucket said, for the client.
pub fn standing(
    filter: u64,
    at: Instant,
    drawn: &Drawn,
    rates: &Rates,
    outcome: Limited,
    policy: Option<Arc<Policy>>,
) -> Standing {
    let is_tightest = |rate: &Rate| rate.capacity == drawn.limit;
    let rate = rates.as_slice().iter().position(is_tightest).unwrap_or(0);
    let more = match rates.as_slice().get(rate) {
        _ if !drawn.admitted => drawn.retry_in,
        Some(rate) => rate.time_for(1.0 - drawn.remaining.fract()).min(drawn.full_in),
        None => drawn.full_in,
    };
    let (limit, remaining) = (whole(drawn.limit), whole(drawn.remaining));
    Standing { filter, outcome, at, limit, remaining, reset: drawn.full_in, more, policy, rate }
}

/// Tokens that are there as a whole.
fn whole(tokens: f64) -> u64 {
    // A conversion of floats saturates, and rounds down: the sliver makes up for how they are counted.
    ((tokens + 1e-6) as u64).min(INTEGER_MAX)
}

/// Tells the client on a response, if it is for this filter to do so.
pub fn write(response: &mut (impl Headers + ?Sized), context: &Context, filter: u64) {
    if !is_writer(context, filter) {
        return;
    }
    // A walk over the names costs less than looking for each of these, which are there seldom.
    let mut says_so_itself = false;
    response.all(&mut |name, _| says_so_itself |= name.strip_prefix("x-").unwrap_or(name).starts_with("ratelimit"));
    if says_so_itself {
        [LIMIT, REMAINING, RESET, STANDARD_POLICY, STANDARD].iter().for_each(|name| response.remove(name));
    }
    response.reserve(FIELDS);
    response.reserve_text(FIELDS_BYTES);
    each(context, |name, value| response.append_text(name, value));
}

/// Tells the client on a refusal of this filter, which no response hook of its own will see, if no filter before it will.
#[must_use]
pub fn refuse(mut rejection: Rejection, context: &Context, filter: u64) -> Rejection {
    if is_writer(context, filter) {
        each(context, |name, value| {
            // Digits and the names of policies are always a valid field value; nothing else is written.
            rejection.fields.extend(HeaderValue::from_str(value).map(|value| (name.clone(), value)));
        });
    }
    rejection
}

fn shown(context: &Context) -> impl Iterator<Item = (&Standing, &Policy)> {
    context.standings.iter().filter_map(|standing| Some((standing, &**standing.policy.as_ref()?)))
}

fn is_writer(context: &Context, filter: u64) -> bool {
    shown(context).next().is_some_and(|(standing, _)| standing.filter == filter)
}

/// Calls `put` with each field.
fn each(context: &Context, mut put: impl FnMut(&HeaderName, &str)) {
    let since = |standing: &Standing| context.now.saturating_duration_since(standing.at);
    if let Some(tightest) = tightest(context) {
        let reset = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let reset = reset.saturating_add(tightest.reset).saturating_sub(since(tightest));
        let mut digits = itoa::Buffer::new();
        put(&LIMIT, digits.format(tightest.limit));
        put(&REMAINING, digits.format(tightest.remaining));
        put(&RESET, digits.format(seconds_up(reset)));
    }
    let mut text = String::new();
    for (standing, policy) in shown(context) {
        let (Some(terms), Some(name)) = (&policy.standard, policy.names.get(standing.rate)) else { continue };
        text.clear();
        service_limit(&mut text, name, standing, since(standing));
        put(&STANDARD, &text);
        put(&STANDARD_POLICY, terms);
    }
}

/// The limit that leaves the fewest requests, of those that are told in `X-RateLimit-*`.
fn tightest(context: &Context) -> Option<&Standing> {
    let mut legacy = shown(context).filter(|(_, policy)| policy.legacy).map(|(standing, _)| standing);
    let first = legacy.next()?;
    // Mostly there is one.
    Some(legacy.fold(first, |one, other| if tightness(other) < tightness(one) { other } else { one }))
}

/// Smaller is tighter: refused, then few left, then long until all are back.
fn tightness(standing: &Standing) -> (bool, u64, std::cmp::Reverse<Duration>) {
    (standing.outcome != Limited::Refused, standing.remaining, std::cmp::Reverse(standing.reset))
}

/// `"consumer-minute";r=42;t=1`. Without `t` where nothing more will come. `since`: for how long that holds by now.
fn service_limit(text: &mut String, name: &str, standing: &Standing, since: Duration) {
    text.reserve(VALUE_BYTES);
    text.push_str(name);
    text.push_str(";r=");
    number(text, standing.remaining);
    if standing.remaining < standing.limit && standing.more < Duration::MAX {
        text.push_str(";t=");
        number(text, seconds_up(standing.more.saturating_sub(since)));
    }
}

fn number(text: &mut String, number: u64) {
    text.push_str(itoa::Buffer::new().format(number));
}

#[cfg(test)]
mod tests;
