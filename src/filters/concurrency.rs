//! `concurrency`: lets only so many requests be in flight at once; the others wait a little, or are refused.
//!
//! A request is in flight from here until its answer is sent, whether the service, a handler or a later filter answers.
//! Use it where what matters is not how often something is asked for but how much of it is under way: to keep a slow
//! service from being drowned, or one caller from taking all of it. Its neighbour `rate_limit` bounds how often.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `max` | requests in flight at once, at least 1 | required |
//! | `per` | for each of what: `consumer`, `key`, `ip`, `{ header: NAME }`, `{ claim: NAME }`, `route`, or a list of these | one count for all |
//! | `bucket` | filters with the same name count together; `max` and `per` have to be the same for all | its own |
//! | `queue` | requests that may wait for a place, for each of `per`; at most 10000 | `0` |
//! | `wait` | how long one may wait, at most `1m` | `1s` |
//!
//! * To protect a service, name a bucket and use it on all routes of its upstream: `{ max: 100, bucket: tasks }`. Without
//!   `per` a chain counts all requests of all routes that use it. Put a bound for each caller before it, so that nobody
//!   takes all places, or the whole queue.
//! * Who waits stands in line: first come, first served. A newcomer never overtakes.
//! * A refusal is 429 `CONCURRENCY_LIMITED` where callers are told apart, since this caller has too much under way; it is
//!   503 `OVERLOADED` with `Retry-After: 1` where only routes are, or nothing is, since others have. `details` holds `max`.
//! * A place is given back however a request ends: answered, refused by a later filter, broken off by client or service,
//!   reset, or by a defect of the gateway. A WebSocket keeps its place for as long as it is open.
//! * That a client left while it stood in line is noticed when its turn comes, or when `wait` is over; until then it keeps
//!   its place in the line.
//! * A place is free when the last byte of the answer has been handed to the network. A client that asks anew on another
//!   connection the moment it has read an answer may come an instant too early: `queue: 1` bridges that.
//! * A reload resets nothing. With a lower `max` nobody gets in until enough requests have ended. A filter without `bucket`
//!   is known by the route or chain it is written in; what is in flight does not count for one of another name.
//! * Each gateway counts for itself: what is in flight here is known here only, also with a shared `state`.
//!
//! Without `queue` the filter waits for nothing and costs less than a microsecond. In `tollgate test` and `explain`, and in
//! the tests of a reload, it lets everything through and counts nothing: no other request is there.
//!
//! Refused when the configuration is read: `max: 0`, `wait` without `queue`, a bucket used in two ways.
//!
//! Source: [RFC 6585 §4](https://www.rfc-editor.org/rfc/rfc6585#section-4),
//! [RFC 9110 §10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3).
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! upstreams:
//!   tasks: { targets: [{ address: 127.0.0.1:9101 }] }
//! chains:
//!   tasks:
//!     - concurrency: { max: 5, per: ip }
//!     - concurrency: { max: 100, bucket: tasks, queue: 50, wait: 500ms }
//! routes:
//!   - name: tasks
//!     match: GET /tasks
//!     filters: [{ use: tasks }]
//!     upstream: tasks
//!   - name: reports
//!     match: GET /reports
//!     filters:
//!       - concurrency: { max: 2, per: route }
//!       - use: tasks
//!     upstream: tasks
//! tests:
//!   - { request: GET /reports, expect: { upstream: tasks } }
//! ```

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::{Context, Held};
use crate::contract::{
    AsyncFilter, BucketUse, Calling, Compiler, Counts, Filter, Hooks, Limit, Pending, Settings, Step, Verdict,
};
use crate::head::{HeaderValue, RequestHead};
use crate::limits::per::{Per, PerSettings};
use crate::limits::permits::{Entrance, Permit, PermitBucket};
use crate::reply::{Code, Rejection};
use crate::types::Period;
use crate::yaml::{Located, Problem};

/// Most requests in one line.
const QUEUE_MAX: u32 = 10_000;
const WAIT_DEFAULT: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Longest name of a bucket.
const NAME_BYTES_MAX: usize = 64;

/// Lets only so many requests be in flight at once.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ConcurrencySettings {
    /// Requests in flight at once.
    #[schemars(range(min = 1))]
    max: Located<u32>,
    /// For each of what. Default: one count for all.
    per: Option<PerSettings>,
    /// Filters with the same name count together. Default: its own.
    bucket: Option<Located<String>>,
    /// Requests that may wait for a place, at most 10000. Default 0.
    #[schemars(range(max = 10_000))]
    queue: Option<Located<u32>>,
    /// How long one may wait, at most 1m. Default 1s.
    wait: Option<Located<Period>>,
}

impl Settings for ConcurrencySettings {
    const NAME: &'static str = "concurrency";
    const SUMMARY: &'static str =
        "lets only so many requests be in flight at once; others wait a little, or are refused";

    fn build(self, compiler: &mut Compiler) -> Option<Step> {
        let max = NonZeroU32::new(self.max.value);
        if max.is_none() {
            let problem = Problem::new(self.max.place, "with `max: 0` no request would ever get in");
            compiler.report(problem.with_hint("at least 1"));
        }
        let per = self.per.as_ref().map(|written| {
            Per::compile(written).map_err(|problems| problems.into_iter().for_each(|problem| compiler.report(problem)))
        });
        let (queue, wait) = line(self.queue, self.wait, compiler);
        if let Some(name) = self.bucket.as_ref().filter(|name| !is_name(name)) {
            let problem = Problem::new(name.place, format!("`{}` is no name of a bucket", name.value));
            compiler.report(problem.with_hint(format!("1 to {NAME_BYTES_MAX} letters, digits, `.`, `_` and `-`")));
        }
        let (max, per) = (max?, per.transpose().ok()?);
        if per.as_ref().is_some_and(Per::needs_caller) {
            compiler.calling(Calling::Needs);
        }
        let bucket = match self.bucket {
            None => compiler.limits().permits.bucket(compiler.own_bucket()),
            Some(name) => {
                let bucket = compiler.limits().permits.bucket(&name);
                let each = per.as_ref().map_or_else(|| "all".to_owned(), |per| format!("each {per}"));
                let terms = format!("{max} at once for {each}");
                compiler.shared_bucket(BucketUse { name, terms, takes_rates: false });
                bucket
            }
        };
        compiler.limit(Limit {
            bucket: bucket.name().into(),
            terms: format!("{max} at once"),
            detail: (queue > 0).then(|| format!("{queue} may wait {}", Period(wait))),
            per: per.as_ref().map(ToString::to_string),
            mode: "enforce",
            counts: Counts::Permits(Arc::clone(&bucket)),
        });
        let tells_callers_apart = per.as_ref().is_some_and(|per| per.word() != "route");
        let concurrency = Concurrency { max, per, bucket, tells_callers_apart };
        Some(match queue {
            0 => Step::filter(concurrency),
            queue => Step::Async(Arc::new(Queued { concurrency, queue, wait })),
        })
    }
}

/// How many may wait, and how long.
fn line(queue: Option<Located<u32>>, wait: Option<Located<Period>>, compiler: &mut Compiler) -> (usize, Duration) {
    let length = queue.as_ref().map_or(0, |queue| queue.value);
    if let Some(queue) = queue.filter(|queue| queue.value > QUEUE_MAX) {
        let problem = Problem::new(queue.place, format!("a queue of {} is too long", queue.value));
        compiler.report(problem.with_hint(format!("at most {QUEUE_MAX}; who waits keeps a connection open")));
    }
    if let Some(wait) = &wait {
        if length == 0 {
            let problem = Problem::new(wait.place, "nobody can `wait` without a `queue`");
            compiler.report(problem.with_hint("say how many may wait: `queue: 10`"));
        } else if wait.value.0.is_zero() || wait.value.0 > WAIT_MAX {
            let problem = Problem::new(wait.place, format!("`{}` is no time to wait", wait.value));
            compiler.report(problem.with_hint("more than 0, at most 1m"));
        }
    }
    (usize::try_from(length).unwrap_or(usize::MAX), wait.map_or(WAIT_DEFAULT, |wait| wait.value.0))
}

/// It stands in metrics; the names of own buckets hold a `:`.
fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

struct Concurrency {
    max: NonZeroU32,
    /// `None`: one count for all.
    per: Option<Per>,
    bucket: Arc<PermitBucket>,
    tells_callers_apart: bool,
}

impl Filter for Concurrency {
    fn hooks(&self) -> Hooks {
        Hooks::REQUEST
    }

    fn on_request(&self, request: &mut dyn RequestHead, context: &mut Context) -> Verdict {
        match self.enter(request, context, 0) {
            Entrance::Admitted(permit) => keep(permit, context),
            Entrance::Queued(_) | Entrance::Full => self.refuse(),
        }
    }

    fn preview(&self, _: &mut dyn RequestHead, _: &mut Context) -> Verdict {
        Verdict::Continue
    }
}

/// The same with a line to wait in.
struct Queued {
    concurrency: Concurrency,
    queue: usize,
    wait: Duration,
}

impl AsyncFilter for Queued {
    fn on_request<'a>(&'a self, request: &'a mut dyn RequestHead, context: &'a mut Context) -> Pending<'a> {
        let verdict = match self.concurrency.enter(request, context, self.queue) {
            Entrance::Admitted(permit) => keep(permit, context),
            Entrance::Full => self.concurrency.refuse(),
            Entrance::Queued(waiting) => {
                return Box::pin(async move {
                    match waiting.within(self.wait).await {
                        Some(permit) => keep(permit, context),
                        None => self.concurrency.refuse(),
                    }
                });
            }
        };
        Box::pin(std::future::ready(verdict))
    }

    fn preview(&self, _: &mut dyn RequestHead, _: &mut Context) -> Verdict {
        Verdict::Continue
    }
}

impl Concurrency {
    fn enter(&self, request: &dyn RequestHead, context: &Context, queue: usize) -> Entrance {
        match &self.per {
            Some(per) => self.bucket.enter(per.who(request, context).as_str(), self.max, queue),
            None => self.bucket.enter("", self.max, queue),
        }
    }

    fn refuse(&self) -> Verdict {
        let rejection = if self.tells_callers_apart {
            Rejection::new(Code::CONCURRENCY_LIMITED, "too many of your requests are in flight; let some end first")
        } else {
            Rejection::new(Code::OVERLOADED, "too many requests are in flight; try again in a moment")
                .with_field(RETRY_AFTER, HeaderValue::from_static("1"))
        };
        Verdict::Reject(Box::new(rejection.with_detail("max", self.max.get())))
    }
}

/// For as long as the exchange lasts.
fn keep(permit: Permit, context: &mut Context) -> Verdict {
    context.held.push(Held::new(permit));
    Verdict::Continue
}

#[cfg(test)]
mod tests;
