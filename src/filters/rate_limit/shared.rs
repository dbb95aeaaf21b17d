//! Buckets that several gateways share: the settings about them, and the filter that waits for their answer.

use std::time::Duration;

use http::header::RETRY_AFTER;
use schemars::JsonSchema;
use serde::Deserialize;

use super::RateLimit;
use crate::buckets::Key;
use crate::context::{Context, Limited, Standing};
use crate::contract::{AsyncFilter, Compiler, Filter, Hooks, Pending, Verdict};
use crate::head::{HeaderValue, RequestHead, ResponseHead};
use crate::limits::Mode;
use crate::limits::fields;
use crate::limits::remote::{Lease, OnStoreError, Outcome, Terms};
use crate::reply::{Code, Rejection};
use crate::types::Period;
use crate::yaml::{Kind, Located, Node, Problem, decode};

/// Most tokens of a lease.
const LEASE_TOKENS_MAX: u32 = 100_000;
const LEASE_FOR_DEFAULT: Duration = Duration::from_secs(1);
const LEASE_FOR_MIN: Duration = Duration::from_millis(10);
const LEASE_FOR_MAX: Duration = Duration::from_secs(60);

/// Where the buckets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreSetting {
    /// In each gateway.
    Local,
    /// In the state store, for all gateways together.
    Shared,
}

/// The two forms of `lease`, for the schema.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "describes the format; never built")]
pub enum LeaseForm {
    Tokens(u32),
    Settings(LeaseSettings),
}

/// Tokens that a gateway takes ahead.
#[derive(Deserialize, JsonSchema)]
pub struct LeaseSettings {
    /// Most that it holds of one bucket.
    #[schemars(range(min = 1, max = 100_000))]
    size: Located<u32>,
    /// How long it may spend them, 10ms to 1m. Default 1s.
    r#for: Option<Located<Period>>,
}

/// The settings about it, as they are written.
pub struct Written<'a> {
    pub store: Option<&'a Located<StoreSetting>>,
    pub on_store_error: Option<&'a Located<OnStoreError>>,
    pub lease: Option<&'a Node>,
    /// Tokens that a bucket holds at least.
    pub capacity: f64,
}

impl Written<'_> {
    /// How the shared buckets are used; `Some(None)` where each gateway has its own, `None` when a problem was reported.
    pub fn compile(&self, compiler: &mut Compiler) -> Option<Option<Terms>> {
        let lease = match self.lease {
            Some(written) => Some(self.lease(written, compiler)?),
            None => None,
        };
        let terms = Terms { on_error: self.on_store_error.map(|policy| policy.value).unwrap_or_default(), lease };
        match self.store {
            Some(store) if store.value == StoreSetting::Local => {
                let useless = self.on_store_error.map(|policy| ("on_store_error", policy.place));
                let useless = useless.or(self.lease.map(|lease| ("lease", lease.place)));
                if let Some((setting, place)) = useless {
                    let message = format!("`{setting}` says how shared buckets are used, and these are not shared");
                    let problem = Problem::new(place, message).with_related("they are local", store.place);
                    compiler.report(problem.with_hint("leave one of them out"));
                    return None;
                }
                Some(None)
            }
            Some(store) if !compiler.is_shared() => {
                let problem = Problem::new(store.place, "there is no state store that gateways share");
                let hint = "write `state: { redis: redis://cache:6379 }` in gateway.yaml, or leave `store` out";
                compiler.report(problem.with_hint(hint));
                None
            }
            _ => Some(compiler.is_shared().then_some(terms)),
        }
    }

    fn lease(&self, written: &Node, compiler: &mut Compiler) -> Option<Lease> {
        let settings = if matches!(written.kind, Kind::Map(_)) {
            decode::<LeaseSettings>(written)
        } else {
            decode::<Located<u32>>(written).map(|size| LeaseSettings { size, r#for: None })
        };
        let report = |problems: Vec<Problem>, compiler: &mut Compiler| {
            problems.into_iter().for_each(|problem| compiler.report(problem));
        };
        let settings = settings.map_err(|problems| report(problems, compiler)).ok()?;
        let tokens = settings.size;
        if !(1..=LEASE_TOKENS_MAX).contains(&tokens.value) {
            compiler.report(Problem::new(tokens.place, format!("a lease has 1 to {LEASE_TOKENS_MAX} tokens")));
            return None;
        }
        if f64::from(tokens.value) > self.capacity {
            let message = format!("a lease of {} tokens, and a bucket holds {}", tokens.value, self.capacity);
            let problem = Problem::new(tokens.place, message);
            compiler.report(problem.with_hint("one gateway would take all of it: a tenth is a good lease"));
            return None;
        }
        let lifetime = settings.r#for.as_ref().map_or(LEASE_FOR_DEFAULT, |period| period.value.0);
        if let Some(period) = settings.r#for.filter(|_| !(LEASE_FOR_MIN..=LEASE_FOR_MAX).contains(&lifetime)) {
            compiler.report(Problem::new(period.place, "a lease lasts 10ms to 1m"));
            return None;
        }
        Some(Lease { tokens: tokens.value, lifetime })
    }
}

/// The filter where gateways share the bucket.
pub struct SharedLimit {
    pub limit: RateLimit,
    pub terms: Terms,
}

impl AsyncFilter for SharedLimit {
    fn hooks(&self) -> Hooks {
        self.limit.hooks()
    }

    fn on_request<'a>(&'a self, request: &'a mut dyn RequestHead, context: &'a mut Context) -> Pending<'a> {
        Box::pin(async move {
            let limits = &self.limit.limits;
            let Some(remote) = limits.remote().filter(|_| !context.preflight) else {
                return self.limit.on_request(request, context);
            };
            let asking = self.limit.asking(request, context);
            let key = Key { bucket: &self.limit.bucket, who: asking.who.as_str() };
            let now = context.now;
            let drawn = remote.draw(&limits.local, key, &asking.rates, asking.ask, &self.terms, now);
            match drawn.await {
                Outcome::Drawn(drawn) => self.limit.decide(asking, now, &drawn, context),
                Outcome::Allowed => self.undecided(Limited::Allowed, context),
                Outcome::Denied if self.limit.mode == Mode::Enforce => self.undecided(Limited::Refused, context),
                Outcome::Denied => self.undecided(Limited::Observed, context),
            }
        })
    }

    fn preview(&self, request: &mut dyn RequestHead, context: &mut Context) -> Verdict {
        self.limit.preview(request, context)
    }

    fn on_response(&self, request: &dyn RequestHead, response: &mut dyn ResponseHead, context: &Context) {
        self.limit.on_response(request, response, context);
    }
}

impl SharedLimit {
    /// What becomes of a request without anybody knowing what is in the bucket. Clients are told nothing of it.
    fn undecided(&self, outcome: Limited, context: &mut Context) -> Verdict {
        context.standings.push(Standing {
            filter: self.limit.number,
            outcome,
            at: context.now,
            limit: 0,
            remaining: 0,
            reset: Duration::ZERO,
            more: Duration::ZERO,
            policy: None,
            rate: 0,
        });
        if outcome != Limited::Refused {
            return Verdict::Continue;
        }
        let rejection = Rejection::new(Code::STATE_UNAVAILABLE, "whether you may ask cannot be said at the moment");
        let rejection = rejection.with_field(RETRY_AFTER, HeaderValue::from_static("1"));
        Verdict::Reject(Box::new(fields::refuse(rejection, context, self.limit.number)))
    }
}

#[cfg(test)]
mod tests;
