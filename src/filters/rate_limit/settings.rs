//! The settings of `rate_limit`, and what they are compiled to.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::shared::{LeaseForm, SharedLimit, StoreSetting, Written};
use super::{OwnPolicies, RateLimit, Terms};
use crate::contract::{BucketUse, Compiler, Counts, Limit, Settings, Step};
use crate::limits::Mode;
use crate::limits::fields::FieldsSetting;
use crate::limits::per::{Per, PerSettings};
use crate::limits::remote::{self, OnStoreError};
use crate::rates::{COUNT_MAX, RATES_MAX, Rates};
use crate::types::Rate;
use crate::yaml::{Located, Named, Node, Problem};

/// Limits how often each caller may ask, with token buckets.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct RateLimitSettings {
    /// 1 to 4 rates, each for another span: all must have room.
    rates: Located<Vec<Located<Rate>>>,
    /// How many may come at once, for the rate with the shortest span. Default: its count.
    burst: Option<Located<u64>>,
    /// Whose limit it is. Default `consumer`; who is not known counts by address.
    per: Option<PerSettings>,
    /// A name by which several filters count together. Default: each entry its own.
    bucket: Option<Located<String>>,
    /// Tokens that a request takes. Default 1.
    cost: Option<Located<u64>>,
    /// Factors on rates and burst; of several roles the largest.
    #[serde(default)]
    by_role: Named<Located<f64>>,
    /// Default `enforce`.
    #[serde(default)]
    mode: Mode,
    /// Which response fields tell clients where they stand. Default `all`.
    #[serde(default)]
    fields: FieldsSetting,
    /// Where the buckets are. Default: `shared` where gateways share their state (`state: { redis: … }`), otherwise `local`.
    store: Option<Located<StoreSetting>>,
    /// What is done while the shared store cannot be reached. Default `local`: each gateway keeps the limit by itself.
    on_store_error: Option<Located<OnStoreError>>,
    /// Tokens that a gateway takes from a shared bucket ahead: `10`, or `{ size: 10, for: 1s }`. Default: none.
    #[schemars(with = "Option<LeaseForm>")]
    lease: Option<Node>,
}

impl Settings for RateLimitSettings {
    const NAME: &'static str = "rate_limit";
    const SUMMARY: &'static str = "limits how often each caller may ask, with token buckets";

    fn build(self, compiler: &mut Compiler) -> Option<Step> {
        let per = compiler.per(self.per.as_ref());
        let factors = compiler.factors(&self.by_role);
        let cost = self.cost(compiler);
        let burst = self.burst(compiler);
        let rates = self.rates(burst.flatten(), compiler);
        let bucket = self.bucket(compiler);
        let shared = self.shared(rates.as_ref(), compiler);
        let (per, rates, cost, factors, shared) = (per?, rates?, cost?, factors?, shared?);
        self.agree(&bucket, &per, shared.as_ref(), compiler);
        let is_named = self.bucket.is_some();
        let word = if is_named { bucket.value.clone() } else { per.word() };
        let terms = |rates: Rates| {
            let tells = self.mode == Mode::Enforce;
            let policy = if tells { self.fields.policy_of(&word, &rates) } else { None };
            Terms { rates, policy }
        };
        let by_role = factors.into_iter().map(|(role, factor)| (role, terms(rates.scaled(factor)))).collect();
        burst?;
        let limit = RateLimit {
            number: compiler.number(),
            bucket: bucket.value.into(),
            is_named,
            per,
            terms: terms(rates),
            by_role,
            cost,
            mode: self.mode,
            fields: self.fields,
            policies: OwnPolicies::new(self.fields, word),
            limits: Arc::clone(compiler.limits()),
        };
        Some(match shared {
            Some(terms) if limit.mode != Mode::Off => Step::Async(Arc::new(SharedLimit { limit, terms })),
            _ => Step::filter(limit),
        })
    }
}

impl RateLimitSettings {
    fn rates(&self, burst: Option<u64>, compiler: &mut Compiler) -> Option<Rates> {
        let list = &self.rates;
        if !(1..=RATES_MAX).contains(&list.len()) {
            let problem = Problem::new(list.place, format!("a limit has 1 to {RATES_MAX} rates, not {}", list.len()));
            compiler.report(problem.with_hint("write `rates: [60/min, 1000/hour]`"));
            return None;
        }
        let mut is_sound = true;
        for (index, rate) in list.iter().enumerate() {
            if rate.count > COUNT_MAX {
                let problem = Problem::new(rate.place, format!("`{}` is more than {COUNT_MAX}", rate.value));
                compiler.report(problem.with_hint("leave the rate out where that much is no limit"));
                is_sound = false;
            }
            let twin = list.iter().take(index).find(|other| other.per == rate.per);
            if let Some(twin) = twin {
                let message = format!("`{}` and `{}` are for the same span", twin.value, rate.value);
                let problem = Problem::new(rate.place, message).with_related("the other one", twin.place);
                compiler.report(problem.with_hint("keep the smaller one"));
                is_sound = false;
            }
        }
        Rates::new(list.iter().map(|rate| rate.value), burst).filter(|_| is_sound)
    }

    fn shared(&self, rates: Option<&Rates>, compiler: &mut Compiler) -> Option<Option<remote::Terms>> {
        let written = Written {
            store: self.store.as_ref(),
            on_store_error: self.on_store_error.as_ref(),
            lease: self.lease.as_ref(),
            capacity: rates.map_or(f64::INFINITY, Rates::capacity_min),
        };
        written.compile(compiler)
    }

    /// `None` when a problem was reported.
    fn burst(&self, compiler: &mut Compiler) -> Option<Option<u64>> {
        let Some(burst) = &self.burst else { return Some(None) };
        if (1..=COUNT_MAX).contains(&burst.value) {
            return Some(Some(burst.value));
        }
        compiler.report(Problem::new(burst.place, format!("`burst` is 1 to {COUNT_MAX}")));
        None
    }

    fn bucket(&self, compiler: &mut Compiler) -> Located<String> {
        let Some(bucket) = &self.bucket else {
            return Located::new(compiler.own_bucket().to_owned(), compiler.place());
        };
        compiler.check_bucket(bucket);
        bucket.clone()
    }

    fn cost(&self, compiler: &mut Compiler) -> Option<f64> {
        let Some(cost) = &self.cost else { return self.check_cost(1, None, compiler) };
        if (1..=COUNT_MAX).contains(&cost.value) {
            return self.check_cost(cost.value, Some(cost), compiler);
        }
        let problem = Problem::new(cost.place, format!("`cost` is 1 to {COUNT_MAX}"));
        compiler.report(problem.with_hint("`mode: off` switches a limit off"));
        None
    }

    /// A request that takes more than a bucket holds is never let through.
    fn check_cost(&self, cost: u64, written: Option<&Located<u64>>, compiler: &mut Compiler) -> Option<f64> {
        let cost = cost as f64;
        let burst = self.burst.as_ref().map(|burst| burst.value);
        let rates = Rates::new(self.rates.iter().map(|rate| rate.value), burst);
        let holds = rates.map_or(f64::INFINITY, |rates| rates.capacity_min());
        if cost > holds {
            let place = written.map_or(compiler.place(), |cost| cost.place);
            let message = format!("a request costs {cost}, and a bucket holds {holds} at most");
            compiler
                .report(Problem::new(place, message).with_hint("no request would ever pass: raise the smallest rate"));
            return None;
        }
        let too_small = |factor: &f64| holds.is_finite() && *factor > 0.0 && cost > holds * factor;
        if let Some((role, factor)) = self.by_role.iter().find(|(_, factor)| too_small(&factor.value)) {
            let message = format!(
                "a request costs {cost}, and the bucket of `{}` holds {} at most",
                role.value,
                holds * factor.value
            );
            compiler
                .report(Problem::new(factor.place, message).with_hint("no request would ever pass: raise the factor"));
            return None;
        }
        Some(cost)
    }

    /// Says how the bucket is used, so that all its filters are held to the same.
    fn agree(&self, bucket: &Located<String>, per: &Per, shared: Option<&remote::Terms>, compiler: &mut Compiler) {
        let mut rates: Vec<Rate> = self.rates.iter().map(|rate| rate.value).collect();
        rates.sort_by_key(|rate| rate.per);
        let rates: Vec<String> = rates.iter().map(ToString::to_string).collect();
        let rates = rates.join(" and ");
        let mut more = String::new();
        if let Some(burst) = &self.burst {
            more.push_str(&format!(", burst {}", burst.value));
        }
        let mut roles: Vec<String> =
            self.by_role.iter().map(|(role, factor)| format!("{} × {}", role.value, factor.value)).collect();
        roles.sort_unstable();
        for role in roles {
            more.push_str(&format!(", {role}"));
        }
        compiler.limit(Limit {
            bucket: bucket.as_str().into(),
            terms: format!("{rates}{more}"),
            detail: self.cost.as_ref().map(|cost| format!("cost {}", cost.value)),
            per: Some(per.to_string()),
            mode: self.mode.as_str(),
            counts: if shared.is_some() { Counts::Shared } else { Counts::Local },
        });
        let mut terms = format!("rates {rates} per {per}{more}");
        if compiler.is_shared() && shared.is_none() {
            terms.push_str(", local");
        }
        if let Some(lease) = shared.and_then(|shared| shared.lease) {
            terms.push_str(&format!(", lease of {} for {:?}", lease.tokens, lease.lifetime));
        }
        compiler.bucket(BucketUse { name: bucket.clone(), terms, takes_rates: per.knows_caller() });
    }
}
