//! The settings of `rate_limit`, and what they are compiled to.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{RateLimit, Terms};
use crate::contract::{BucketUse, Calling, Compiler, Settings, Step};
use crate::limits::fields::FieldsSetting;
use crate::limits::per::{Per, PerSettings};
use crate::rates::{RATES_MAX, Rates};
use crate::types::Rate;
use crate::yaml::{Located, Named, Problem};

/// Most tokens a request takes, and a burst has.
const TOKENS_MAX: u64 = 1_000_000_000;
/// Largest factor of a role.
const FACTOR_MAX: f64 = 1_000_000.0;
/// Longest name of a bucket, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// Lets a caller through so often in a time.
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
}

/// What becomes of a request for which nothing is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It passes, and is counted.
    Observe,
    /// Nothing is counted.
    Off,
}

impl Settings for RateLimitSettings {
    const NAME: &'static str = "rate_limit";
    const SUMMARY: &'static str = "lets a caller through so often in a time";

    fn build(self, compiler: &mut Compiler) -> Option<Step> {
        let per = self.per(compiler);
        let factors = self.factors(compiler);
        let cost = self.cost(compiler);
        let burst = self.burst(compiler);
        let rates = self.rates(burst.flatten(), compiler);
        let bucket = self.bucket(compiler);
        let (per, rates, cost, factors) = (per?, rates?, cost?, factors?);
        self.agree(&bucket, &per, compiler);
        let is_named = self.bucket.is_some();
        let word = if is_named { bucket.value.clone() } else { per.word() };
        let terms = |rates: Rates| {
            let tells = self.mode == Mode::Enforce;
            let policy = if tells { self.fields.policy_of(&word, &rates) } else { None };
            Terms { rates, policy }
        };
        let by_role = factors.into_iter().map(|(role, factor)| (role, terms(rates.scaled(factor)))).collect();
        burst?;
        Some(Step::filter(RateLimit {
            number: compiler.number(),
            bucket: bucket.value.into(),
            is_named,
            per,
            terms: terms(rates),
            by_role,
            cost,
            mode: self.mode,
            fields: self.fields,
            word,
            limits: Arc::clone(compiler.limits()),
        }))
    }
}

impl RateLimitSettings {
    fn per(&self, compiler: &mut Compiler) -> Option<Per> {
        let Some(written) = &self.per else { return Some(Per::consumer()) };
        match Per::compile(written) {
            Ok(per) => {
                if per.needs_caller() {
                    compiler.calling(Calling::Needs);
                }
                Some(per)
            }
            Err(problems) => {
                problems.into_iter().for_each(|problem| compiler.report(problem));
                None
            }
        }
    }

    fn rates(&self, burst: Option<u64>, compiler: &mut Compiler) -> Option<Rates> {
        let list = &self.rates;
        if !(1..=RATES_MAX).contains(&list.len()) {
            let problem = Problem::new(list.place, format!("a limit has 1 to {RATES_MAX} rates, not {}", list.len()));
            compiler.report(problem.with_hint("write `rates: [60/min, 1000/hour]`"));
            return None;
        }
        let mut is_sound = true;
        for (index, rate) in list.iter().enumerate() {
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

    /// `None` when a problem was reported.
    fn burst(&self, compiler: &mut Compiler) -> Option<Option<u64>> {
        let Some(burst) = &self.burst else { return Some(None) };
        if (1..=TOKENS_MAX).contains(&burst.value) {
            return Some(Some(burst.value));
        }
        compiler.report(Problem::new(burst.place, format!("`burst` is 1 to {TOKENS_MAX}")));
        None
    }

    fn bucket(&self, compiler: &mut Compiler) -> Located<String> {
        let Some(bucket) = &self.bucket else {
            return Located::new(compiler.own_bucket().to_owned(), compiler.place());
        };
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if bucket.is_empty() || bucket.len() > NAME_BYTES_MAX || !bucket.bytes().all(sound) {
            let message = format!("the name of a bucket has 1 to {NAME_BYTES_MAX} letters, digits, `.`, `_` and `-`");
            compiler.report(Problem::new(bucket.place, message));
        }
        bucket.clone()
    }

    fn cost(&self, compiler: &mut Compiler) -> Option<f64> {
        let Some(cost) = &self.cost else { return self.check_cost(1, None, compiler) };
        if (1..=TOKENS_MAX).contains(&cost.value) {
            return self.check_cost(cost.value, Some(cost), compiler);
        }
        let problem = Problem::new(cost.place, format!("`cost` is 1 to {TOKENS_MAX}"));
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
            let message = format!("a request takes {cost} tokens, and a bucket holds {holds} at most");
            compiler
                .report(Problem::new(place, message).with_hint("no request would ever pass: raise the smallest rate"));
            return None;
        }
        let too_small = |factor: &f64| holds.is_finite() && *factor > 0.0 && cost > holds * factor;
        if let Some((role, factor)) = self.by_role.iter().find(|(_, factor)| too_small(&factor.value)) {
            let message = format!(
                "a request takes {cost} tokens, and the bucket of `{}` holds {} at most",
                role.value,
                holds * factor.value
            );
            compiler
                .report(Problem::new(factor.place, message).with_hint("no request would ever pass: raise the factor"));
            return None;
        }
        Some(cost)
    }

    /// The largest first.
    fn factors(&self, compiler: &mut Compiler) -> Option<Vec<(Box<str>, f64)>> {
        let identity = Arc::clone(compiler.identity());
        let mut is_sound = true;
        for (role, factor) in self.by_role.iter() {
            if !(factor.value > 0.0 && factor.value <= FACTOR_MAX) {
                let problem = Problem::new(factor.place, format!("a factor is more than 0, and at most {FACTOR_MAX}"));
                compiler.report(problem.with_hint("to keep a role out, use `require`"));
                is_sound = false;
            }
            if !identity.roles().contains(role) {
                let known: Vec<&str> = identity.roles().names().collect();
                compiler.report(Problem::unknown(role.place, "role", role, known.into_iter()));
                is_sound = false;
            }
        }
        let mut factors: Vec<(Box<str>, f64)> =
            self.by_role.iter().map(|(role, factor)| (role.value.as_str().into(), factor.value)).collect();
        factors.sort_by(|one, other| other.1.total_cmp(&one.1));
        is_sound.then_some(factors)
    }

    /// Says how the bucket is used, so that all its filters are held to the same.
    fn agree(&self, bucket: &Located<String>, per: &Per, compiler: &mut Compiler) {
        let mut rates: Vec<Rate> = self.rates.iter().map(|rate| rate.value).collect();
        rates.sort_by_key(|rate| rate.per);
        let rates: Vec<String> = rates.iter().map(ToString::to_string).collect();
        let mut terms = format!("rates {} per {per}", rates.join(" and "));
        if let Some(burst) = &self.burst {
            terms.push_str(&format!(", burst {}", burst.value));
        }
        let mut roles: Vec<String> =
            self.by_role.iter().map(|(role, factor)| format!("{} × {}", role.value, factor.value)).collect();
        roles.sort_unstable();
        for role in roles {
            terms.push_str(&format!(", {role}"));
        }
        compiler.bucket(BucketUse { name: bucket.clone(), terms });
    }
}
