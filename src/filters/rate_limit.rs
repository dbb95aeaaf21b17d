//! `rate_limit`: limits how often each caller may ask, with token buckets.
//!
//! Each caller has a bucket that begins full; a request takes a token (or `cost` of them), and tokens flow back all the time. So
//! with `100/min` a hundred requests may come at once, the next is refused, and 0.6 s later one more passes.
//!
//! Place it behind `auth` to count by consumer or key, and before it to protect the gateway from guessing by address.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `rates` | 1 to 4 rates such as `60/min`, each for another span (`s`, `min`, `hour`, `day`): all must have room, or none is charged | required |
//! | `burst` | how many may come at once, for the rate with the shortest span | its count |
//! | `per` | whose limit it is: `consumer`, `key`, `ip`, `{ ip: { v4: /24, v6: /56 } }`, `{ header: NAME }`, `{ claim: NAME }`, `route`, or a list of these that is counted in combination | `consumer`; who is not known counts by address |
//! | `bucket` | a name by which several filters count together; they must agree about `rates`, `burst`, `per` and `by_role` | each entry its own; of a chain, all routes that use it |
//! | `cost` | tokens that a request takes | `1` |
//! | `by_role` | factors on rates and burst: `{ admin: 2.0, viewer: 0.5 }`; of several of the caller's roles the largest, and 1 for who has none of them | |
//! | `mode` | `enforce`; `observe`: refuses nobody and tells clients nothing, but counts; `off` | `enforce` |
//! | `store` | where the buckets are: `local`, in each gateway; `shared`, in the state store, for all gateways together | `shared` with `state: { redis: … }`, otherwise `local` |
//! | `on_store_error` | what is done while the shared store cannot be reached: `local` (each gateway keeps the limit by itself), `allow`, `deny` (503 `STATE_UNAVAILABLE`) | `local` |
//! | `lease` | tokens that a gateway takes from a shared bucket ahead: `10`, or `{ size: 10, for: 1s }` | none: each request asks the store |
//! | `fields` | which response fields tell clients: `all`, `legacy` (`X-RateLimit-*`), `standard` (`RateLimit`, `RateLimit-Policy`), `none` | `all` |
//!
//! * **Who is who.** A consumer is one however many keys it has. Who comes with a token counts by its subject and issuer
//!   (`main/alice`): nobody who may choose a name gets at the bucket of a consumer. `ip` is the client address behind
//!   `trusted_proxies`; of IPv6 its first 64 bits, since a customer has a `/64` at least and may take any address in it. What is missing
//!   (nobody known, no such field or claim) is replaced by the address: leaving something out helps nobody. A `header` is
//!   what a client says; count by one only if a proxy before the gateway writes it.
//! * **Rates of its own.** A consumer and a key (one of `consumers`, or a managed one) may have `rates`: a list for every bucket, or a
//!   map from bucket to list. That of the key counts before that of the consumer, and both before `by_role`. They apply where `per`
//!   holds `consumer` or `key`; there a request takes no more than the bucket can hold. A key with rates of its own has a bucket of
//!   its own too (`key=ID`), beside that of its consumer, for those rates.
//! * **Refused:** 429 `RATE_LIMITED` with `Retry-After` in whole seconds, rounded up, and `limit`, `remaining`, `retry_after` and
//!   the `bucket`, if it has a name, in `details`. A WebSocket too. A refused request takes nothing.
//! * **Every response** says where the caller stands: `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` (seconds
//!   since 1970, when the bucket is full again) of the limit that leaves the fewest requests; `RateLimit-Policy` and
//!   `RateLimit` of each limit, under a name from `bucket` (or `per`) and the span: `"reads-minute";q=100;w=60` and
//!   `"reads-minute";r=42;t=1`, where `t` is the time until there is more. What the service sends under these names is
//!   replaced: its limits are those of the gateway, not of its clients.
//! * A reload keeps what is used up, also when rates change, as long as the name of the bucket stays: that of `bucket`, or of the chain
//!   or route and the place among its `rate_limit`s. A preflight that a `cors` filter answers is not counted.
//! * **Where the buckets are.** In memory each gateway counts by itself, and a restart fills them. In Redis all gateways count
//!   together: [Several gateways](../../docs/limits.md#10-several-gateways) says how exactly, what a `lease` is good for, and what
//!   happens while Redis is away. No request ever waits for a store that is known to be away.
//! * `tollgate test` and `explain` take nothing: each request meets full buckets.
//! * Counted in `tollgate_rate_limit_total`.
//!
//! Refused when the configuration is read: `per` with `consumer`, `key` or `claim` and no `auth` before it, two rates of one span,
//! a role that `roles:` does not define, a `cost` that no bucket could ever hold, filters that disagree about a bucket, own rates for
//! a bucket that no `rate_limit` has.
//!
//! Source: [RFC 6585 §4](https://www.rfc-editor.org/rfc/rfc6585#section-4),
//! [draft-ietf-httpapi-ratelimit-headers](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/).
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! roles:
//!   admin: { scopes: ["*"] }
//! consumers:
//!   - name: dashboard
//!     roles: [admin]
//!     keys:
//!       # The SHA-256 of `an-example-and-no-secret`.
//!       - { id: dashboard-2026, sha256: ed2c955ec1590d74413fd5232da4b044e2c55d30f7c20ef4bf5293f96410ebfd }
//!   - name: batch
//!     rates: { reads: [1000/min] }
//! chains:
//!   api:
//!     - rate_limit: { per: ip, rates: [600/min] }
//!     - auth: { accept: [api_key], optional: true }
//! routes:
//!   - name: tasks
//!     match: GET /tasks
//!     filters:
//!       - use: api
//!       - rate_limit: { bucket: reads, rates: [100/min, 1000/hour], by_role: { admin: 2.0 } }
//!     respond: { json: { tasks: [] } }
//! tests:
//!   - request: GET /tasks
//!     expect: { status: 200, headers: { X-RateLimit-Limit: "100", X-RateLimit-Remaining: "99" } }
//!   - request: GET /tasks
//!     headers: { X-API-Key: an-example-and-no-secret }
//!     expect: { status: 200, headers: { X-RateLimit-Limit: "200", X-RateLimit-Remaining: "199" } }
//! ```

mod policies;
mod settings;
mod shared;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;

use self::policies::OwnPolicies;
pub use self::settings::RateLimitSettings;
use crate::buckets::{Key, Level};
use crate::caller::Caller;
use crate::context::{Context, Limited, Policy};
use crate::contract::{Filter, Hooks, Verdict};
use crate::head::{HeaderValue, RequestHead, ResponseHead};
use crate::limits::fields::{self, FieldsSetting};
use crate::limits::per::{Per, Who};
use crate::limits::{Limits, Mode};
use crate::rates::{Ask, Drawn, Own, Rates};
use crate::reply::{Code, Rejection};
use crate::types::seconds_up;

struct RateLimit {
    /// Tells it from every other filter.
    number: u64,
    bucket: Box<str>,
    /// Whether clients are told the name of the bucket: an operator chose it.
    is_named: bool,
    per: Per,
    terms: Terms,
    /// The largest factor first.
    by_role: Box<[(Box<str>, Terms)]>,
    cost: f64,
    mode: Mode,
    fields: FieldsSetting,
    /// What clients with rates of their own are told.
    policies: OwnPolicies,
    limits: Arc<Limits>,
}

/// Rates, and what clients are told about them.
struct Terms {
    rates: Rates,
    policy: Option<Arc<Policy>>,
}

/// What one request asks of its bucket.
struct Asking<'a> {
    who: Who,
    /// Those of the filter are not cloned: all workers would count in one place who uses them.
    rates: Cow<'a, Rates>,
    policy: Option<Arc<Policy>>,
    ask: Ask,
}

impl Filter for RateLimit {
    fn hooks(&self) -> Hooks {
        let is_on = self.mode != Mode::Off;
        Hooks { request: is_on, response: is_on && self.tells(), preflight: false }
    }

    fn on_request(&self, request: &mut dyn RequestHead, context: &mut Context) -> Verdict {
        if context.preflight {
            // A filter behind this one answers it: no handler ever sees it.
            return Verdict::Continue;
        }
        let asking = self.asking(request, context);
        let key = Key { bucket: &self.bucket, who: asking.who.as_str() };
        let drawn = self.limits.local.draw(key, &asking.rates, asking.ask, context.now);
        self.decide(asking, context.now, &drawn, context)
    }

    fn preview(&self, request: &mut dyn RequestHead, context: &mut Context) -> Verdict {
        if context.preflight {
            return Verdict::Continue;
        }
        let asking = self.asking(request, context);
        let drawn = Level::full(&asking.rates, Duration::ZERO).draw(&asking.rates, asking.ask, Duration::ZERO);
        self.decide(asking, context.now, &drawn, context)
    }

    fn on_response(&self, _: &dyn RequestHead, response: &mut dyn ResponseHead, context: &Context) {
        fields::write(response, context, self.number);
    }
}

impl RateLimit {
    fn tells(&self) -> bool {
        self.mode == Mode::Enforce && self.fields != FieldsSetting::None
    }

    /// Whose bucket it is, and which rates it has.
    fn asking(&self, request: &dyn RequestHead, context: &Context) -> Asking<'_> {
        let caller = context.caller.as_deref();
        if let Some(own) = caller.and_then(|caller| self.own(caller)) {
            let who =
                if own.is_of_key { self.per.who_by_key(request, context) } else { self.per.who(request, context) };
            let policy = if self.tells() { self.policies.of(&own.rates) } else { None };
            // Nobody knew the cost when they were written.
            let ask = Ask::exactly(self.cost.min(own.rates.capacity_min()));
            return Asking { who, rates: Cow::Owned(own.rates.clone()), policy, ask };
        }
        let who = self.per.who(request, context);
        let of_role = caller.and_then(|caller| {
            let has = |role: &str| caller.roles.iter().any(|own| **own == *role);
            self.by_role.iter().find(|(role, _)| has(role)).map(|(_, terms)| terms)
        });
        let terms = of_role.unwrap_or(&self.terms);
        let (rates, policy) = (Cow::Borrowed(&terms.rates), terms.policy.clone());
        Asking { who, rates, policy, ask: Ask::exactly(self.cost) }
    }

    fn own<'a>(&self, caller: &'a Caller) -> Option<&'a Own> {
        let own = caller.rates.as_ref()?;
        if self.per.knows_caller() { own.of(&self.bucket) } else { None }
    }

    /// What becomes of the request.
    fn decide(&self, asking: Asking<'_>, at: Instant, drawn: &Drawn, context: &mut Context) -> Verdict {
        let outcome = match self.mode {
            _ if drawn.admitted => Limited::Allowed,
            Mode::Observe | Mode::Off => Limited::Observed,
            Mode::Enforce => Limited::Refused,
        };
        context.standings.push(fields::standing(self.number, at, drawn, &asking.rates, outcome, asking.policy));
        match outcome {
            Limited::Allowed | Limited::Observed => Verdict::Continue,
            Limited::Refused => Verdict::Reject(Box::new(self.refusal(drawn, context))),
        }
    }

    #[cold]
    fn refusal(&self, drawn: &Drawn, context: &Context) -> Rejection {
        let wait = seconds_up(drawn.retry_in).max(1);
        let standing = context.standings.last();
        let mut rejection = Rejection::new(Code::RATE_LIMITED, format!("too many requests; try again in {wait} s"))
            .with_detail("limit", standing.map_or(0, |standing| standing.limit))
            .with_detail("remaining", standing.map_or(0, |standing| standing.remaining))
            .with_detail("retry_after", wait)
            .with_field(RETRY_AFTER, HeaderValue::from(wait));
        if self.is_named {
            rejection = rejection.with_detail("bucket", &*self.bucket);
        }
        fields::refuse(rejection, context, self.number)
    }
}

#[cfg(test)]
mod tests;
