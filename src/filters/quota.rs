//! `quota`: limits how much each caller may ask for in a calendar day, week or month.
//!
//! For numbers that are part of an offer ("100,000 a month"): they begin anew at midnight of a time zone, all at once, and outlive a
//! restart. Its neighbour `rate_limit` protects from bursts: place one before it. Place it behind `auth` to count by consumer.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `limit` | how many requests (or how much `cost`) in a period, at most 1,000,000,000,000 | required |
//! | `period` | `day`, `week` (from Monday on) or `month` | required |
//! | `time_zone` | whose midnight it is: a name of the IANA database such as `Europe/Berlin` | `UTC` |
//! | `per` | whose quota it is: `consumer`, `key`, `ip`, `{ header: NAME }`, `{ claim: NAME }`, `route`, or a list, as in `rate_limit` | `consumer`; who is not known counts by address |
//! | `bucket` | a name by which several filters count together; they must agree about `limit`, `period`, `time_zone`, `per` and `by_role` | each entry its own; of a chain, all routes that use it |
//! | `cost` | how much a request takes | `1` |
//! | `by_role` | factors on the limit: `{ admin: 2.0, viewer: 0.5 }`, rounded down; of several of the caller's roles the largest | |
//! | `mode` | `enforce`; `observe`: counts up to the limit, refuses nobody and tells clients nothing; `off` | `enforce` |
//! | `on_store_error` | while the state store fails: `local`, the gateway counts in memory, and in the store what was used once it is back; `allow`, requests go on uncounted; `deny`, they are refused with 503 `STATE_UNAVAILABLE` | `local` |
//! | `fields` | which response fields tell clients, as in `rate_limit` | `all` |
//!
//! * **Refused:** 429 `QUOTA_EXCEEDED` with `Retry-After` until the period ends, and `limit`, `used`, `period` and `resets_at` in `details`.
//!   A refused request takes nothing.
//! * **Every response** says where the caller stands, beside what `rate_limit` says: `X-RateLimit-*` of the limit that leaves the fewest
//!   requests, and a line of `RateLimit-Policy` and `RateLimit`, under a name from `bucket` (or `per`) and the period:
//!   `"consumer-month";q=100000;w=2678400`, where `w` is how long this month is. What other gateways hold counts as used.
//! * **Where it is counted.** In the state store: with `state: memory` it ends with the process, with a file it does not, with Redis gateways share it.
//!   A request does not wait for the store as a rule: the gateway takes 1 % of the limit ahead (1 to 1000, less when little is left)
//!   and more when half of that is used. A request waits only where nothing is left of it, for 1 s at most: with a limit below 200, or close
//!   to the end, that is each one.
//! * **Never more than the limit** is admitted, by all gateways together, while the store answers. **Less** by what a gateway held that was
//!   killed: at most those 1 %, and what requests waited for. One that ends as it should, or that a caller has not used for 10 s, gives it back.
//! * While the store fails, `local` keeps the limit in each gateway by what it knows: several together may admit more, and one that was
//!   started meanwhile knows of nothing used. What was used up before stays so, with `allow` too. What a failing store did although it said that
//!   it did not counts twice. Log and store failures are told once for each episode.
//! * A reload changes nothing about what is used, nor does a change of `limit` or `time_zone` (the day or month is the key).
//!   A clock that is set back goes on with the count of that day; counts are kept for two days behind their period.
//! * At most 131,072 callers of a bucket are in memory at once; the others are in the store alone. A preflight that a `cors` filter answers
//!   is not counted.
//! * `tollgate test` and `explain` take nothing: each request meets a quota of which nothing is used.
//!
//! Refused when the configuration is read: an unknown time zone, a `cost` above the limit, `per` with `consumer`, `key` or `claim` and no
//! `auth` before it, a role that `roles:` does not define, filters that disagree about a bucket.
//!
//! Source: [RFC 6585 §4](https://www.rfc-editor.org/rfc/rfc6585#section-4),
//! [draft-ietf-httpapi-ratelimit-headers](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/),
//! [RFC 6557](https://www.rfc-editor.org/rfc/rfc6557) (the time zone database).
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! roles:
//!   partner: { scopes: ["read:*"] }
//! consumers:
//!   - name: maps
//!     roles: [partner]
//!     keys:
//!       # The SHA-256 of `an-example-and-no-secret`.
//!       - { id: maps-2026, sha256: ed2c955ec1590d74413fd5232da4b044e2c55d30f7c20ef4bf5293f96410ebfd }
//! routes:
//!   - name: geocode
//!     match: GET /geocode
//!     filters:
//!       - auth: { accept: [api_key], optional: true }
//!       - quota: { limit: 1000, period: day, time_zone: Europe/Berlin, by_role: { partner: 100 } }
//!     respond: { json: { places: [] } }
//! tests:
//!   - request: GET /geocode
//!     expect: { status: 200, headers: { X-RateLimit-Limit: "1000", X-RateLimit-Remaining: "999" } }
//!   - request: GET /geocode
//!     headers: { X-API-Key: an-example-and-no-secret }
//!     expect: { status: 200, headers: { X-RateLimit-Limit: "100000", X-RateLimit-Remaining: "99999" } }
//! ```

mod policies;
mod settings;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;

use self::policies::Policies;
pub use self::settings::QuotaSettings;
use crate::clock;
use crate::context::{Context, Limited, Standing};
use crate::contract::{AsyncFilter, Hooks, Pending, Verdict};
use crate::head::{HeaderValue, RequestHead, ResponseHead};
use crate::limits::Mode;
use crate::limits::fields;
use crate::limits::per::Per;
use crate::limits::quotas::{Answer, Bucket, Figures, Moment, Outcome, Terms, Want};
use crate::reply::{Code, Rejection};
use crate::types::seconds_up;

struct Quota {
    /// Tells it from every other filter.
    number: u64,
    bucket: Arc<Bucket>,
    /// What an operator calls the bucket.
    named: Option<Box<str>>,
    per: Per,
    terms: Terms,
    limit: u64,
    /// The largest limit first.
    by_role: Box<[(Box<str>, u64)]>,
    cost: u64,
    mode: Mode,
    policies: Policies,
}

impl AsyncFilter for Quota {
    fn hooks(&self) -> Hooks {
        Hooks { response: self.policies.tell(), ..Hooks::REQUEST }
    }

    fn on_request<'a>(&'a self, request: &'a mut dyn RequestHead, context: &'a mut Context) -> Pending<'a> {
        if context.preflight {
            // A filter behind this one answers it: no handler ever sees it.
            return Box::pin(std::future::ready(Verdict::Continue));
        }
        let who = self.per.who(request, context);
        let want = self.want(context);
        let at = Moment { wall: clock::wall(), now: context.now };
        match self.bucket.try_spend(&self.terms, who.as_str(), want, at) {
            Outcome::Known(answer) => Box::pin(std::future::ready(self.verdict(answer, want, at.wall, context))),
            Outcome::Waiting(asking) => Box::pin(async move {
                let answer = self.bucket.spend_after(asking, &self.terms, who.as_str(), want, at).await;
                self.verdict(answer, want, at.wall, context)
            }),
        }
    }

    fn preview(&self, _: &mut dyn RequestHead, context: &mut Context) -> Verdict {
        if context.preflight {
            return Verdict::Continue;
        }
        let (want, now) = (self.want(context), clock::wall());
        let span = self.terms.calendar.span(now);
        let figures = Figures { limit: want.limit, used: want.cost, ends: span.end(), length: span.length() };
        self.verdict(Answer::Admitted(figures), want, now, context)
    }

    fn on_response(&self, _: &dyn RequestHead, response: &mut dyn ResponseHead, context: &Context) {
        fields::write(response, context, self.number);
    }
}

impl Quota {
    fn want(&self, context: &Context) -> Want {
        let of_role = context.caller.as_deref().and_then(|caller| {
            let has = |role: &str| caller.roles.iter().any(|own| **own == *role);
            self.by_role.iter().find(|(role, _)| has(role)).map(|(_, limit)| *limit)
        });
        Want { limit: of_role.unwrap_or(self.limit), cost: self.cost }
    }

    fn verdict(&self, answer: Answer, want: Want, now: SystemTime, context: &mut Context) -> Verdict {
        let refused = if self.mode == Mode::Enforce { Limited::Refused } else { Limited::Observed };
        let (outcome, figures) = match answer {
            Answer::Admitted(figures) => (Limited::Allowed, Some(figures)),
            Answer::Refused(figures) => (refused, Some(figures)),
            Answer::Unavailable => (refused, None),
        };
        let left = figures.map_or(Duration::ZERO, |figures| left_until(figures.ends, now));
        context.standings.push(Standing {
            filter: self.number,
            outcome,
            at: context.now,
            limit: want.limit,
            remaining: figures.map_or(0, |figures| figures.limit.saturating_sub(figures.used)),
            reset: left,
            more: left,
            policy: figures.and_then(|figures| self.policies.of(&figures)),
            rate: 0,
        });
        match (outcome, figures) {
            (Limited::Allowed | Limited::Observed, _) => Verdict::Continue,
            (Limited::Refused, Some(figures)) => Verdict::Reject(Box::new(self.refusal(&figures, left, context))),
            (Limited::Refused, None) => {
                let rejection = Rejection::new(Code::STATE_UNAVAILABLE, "the quota cannot be counted at the moment");
                Verdict::Reject(Box::new(rejection.with_field(RETRY_AFTER, HeaderValue::from_static("1"))))
            }
        }
    }

    #[cold]
    fn refusal(&self, figures: &Figures, left: Duration, context: &Context) -> Rejection {
        let period = self.terms.calendar.unit().as_str();
        let message = format!("the quota of {} in a {period} is used up", figures.limit);
        let mut rejection = Rejection::new(Code::QUOTA_EXCEEDED, message)
            .with_detail("limit", figures.limit)
            .with_detail("used", figures.used)
            .with_detail("period", period)
            .with_detail("resets_at", clock::rfc3339(figures.ends))
            .with_field(RETRY_AFTER, HeaderValue::from(seconds_up(left).max(1)));
        if let Some(name) = &self.named {
            rejection = rejection.with_detail("bucket", &**name);
        }
        fields::refuse(rejection, context, self.number)
    }
}

fn left_until(end: SystemTime, now: SystemTime) -> Duration {
    end.duration_since(now).unwrap_or_default()
}

#[cfg(test)]
mod tests;
