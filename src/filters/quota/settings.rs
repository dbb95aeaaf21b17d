//! The settings of `quota`, and what they are compiled to.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Quota;
use super::policies::Policies;
use crate::contract::{BucketUse, Compiler, Counts, Filter, Hooks, Limit, QuotaCounts, Settings, Step};
use crate::limits::Mode;
use crate::limits::fields::FieldsSetting;
use crate::limits::per::{Per, PerSettings};
use crate::limits::quotas::{Calendar, OnStoreError, Terms, Unit};
use crate::yaml::{Located, Named, Problem};

/// Largest limit, whatever the factor of a role.
const LIMIT_MAX: u64 = 1_000_000_000_000;
const ZONE_DEFAULT: &str = "UTC";

/// Limits how much each caller may ask for in a calendar day, week or month.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct QuotaSettings {
    /// How many requests in a period.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    limit: Located<u64>,
    /// How long a period is.
    period: Unit,
    /// Whose midnight it is: a name of the IANA database such as Europe/Berlin. Default UTC.
    time_zone: Option<Located<String>>,
    /// Whose quota it is. Default `consumer`; who is not known counts by address.
    per: Option<PerSettings>,
    /// A name by which several filters count together. Default: each entry its own.
    bucket: Option<Located<String>>,
    /// How much a request takes. Default 1.
    cost: Option<Located<u64>>,
    /// Factors on the limit; of several roles the largest.
    #[serde(default)]
    by_role: Named<Located<f64>>,
    /// Default `enforce`.
    #[serde(default)]
    mode: Mode,
    /// What becomes of requests while the state store fails. Default `local`.
    #[serde(default)]
    on_store_error: OnStoreError,
    /// Which response fields tell clients where they stand. Default `all`.
    #[serde(default)]
    fields: FieldsSetting,
}

impl Settings for QuotaSettings {
    const NAME: &'static str = "quota";
    const SUMMARY: &'static str = "limits how much each caller may ask for in a calendar day, week or month";

    fn build(self, compiler: &mut Compiler) -> Option<Step> {
        let per = compiler.per(self.per.as_ref());
        let factors = compiler.factors(&self.by_role);
        let calendar = self.calendar(compiler);
        let limit = self.limit(compiler);
        if let Some(name) = &self.bucket {
            compiler.check_bucket(name);
        }
        let (per, calendar, limit, factors) = (per?, calendar?, limit?, factors?);
        let cost = self.cost(limit, compiler)?;
        let name = self.bucket.clone().unwrap_or_else(|| {
            // A `rate_limit` at the same place has the name of the place.
            Located::new(format!("quota:{}", compiler.own_bucket()), compiler.place())
        });
        self.agree(&name, &per, &calendar, compiler);
        if self.mode == Mode::Off {
            return Some(Step::filter(Off));
        }
        let fields = if self.mode == Mode::Enforce { self.fields } else { FieldsSetting::None };
        let by_role: Box<[_]> = factors.into_iter().map(|(role, factor)| (role, scaled(limit, factor))).collect();
        let word = self.bucket.as_ref().map_or_else(|| per.word(), |name| name.value.clone());
        let limits = std::iter::once(limit).chain(by_role.iter().map(|(_, limit)| *limit));
        Some(Step::Async(Arc::new(Quota {
            number: compiler.number(),
            bucket: compiler.limits().quotas.bucket(&name),
            named: self.bucket.map(|name| name.value.into()),
            policies: Policies::new(fields, &word, self.period, limits),
            per,
            terms: Terms { calendar, on_store_error: self.on_store_error },
            limit,
            by_role,
            cost,
            mode: self.mode,
        })))
    }
}

/// Rounded down, and at most as large as any limit may be.
fn scaled(limit: u64, factor: f64) -> u64 {
    // Limits are far below 2^53; the sliver makes up for factors such as 0.1, and a conversion of floats saturates.
    ((limit as f64 * factor + 1e-6) as u64).min(LIMIT_MAX)
}

impl QuotaSettings {
    fn limit(&self, compiler: &mut Compiler) -> Option<u64> {
        let limit = self.limit.value;
        if (1..=LIMIT_MAX).contains(&limit) {
            return Some(limit);
        }
        let problem = Problem::new(self.limit.place, format!("`limit` is 1 to {LIMIT_MAX}"));
        compiler.report(problem.with_hint("`mode: off` switches a quota off"));
        None
    }

    fn calendar(&self, compiler: &mut Compiler) -> Option<Calendar> {
        let zone = self.time_zone.as_ref().map_or(ZONE_DEFAULT, |zone| zone.value.as_str());
        let calendar = Calendar::new(self.period, zone);
        if let (None, Some(zone)) = (&calendar, &self.time_zone) {
            let known: Vec<String> = Calendar::zones().collect();
            let known = known.iter().map(String::as_str);
            compiler.report(Problem::unknown(zone.place, "time zone", zone, known));
        }
        calendar
    }

    /// A request that takes more than there ever is would never be let through.
    fn cost(&self, limit: u64, compiler: &mut Compiler) -> Option<u64> {
        let (cost, place) = self.cost.as_ref().map_or((1, compiler.place()), |cost| (cost.value, cost.place));
        if cost == 0 || cost > limit {
            let problem = Problem::new(place, format!("`cost` is 1 to {limit}, as much as the limit"));
            compiler.report(problem.with_hint("`mode: off` switches a quota off"));
            return None;
        }
        if let Some((role, factor)) = self.by_role.iter().find(|(_, factor)| scaled(limit, factor.value) < cost) {
            let holds = scaled(limit, factor.value);
            let message = format!("a request takes {cost}, and the quota of `{}` is {holds}", role.value);
            let problem = Problem::new(factor.place, message);
            compiler.report(problem.with_hint("no request would ever pass: raise the factor"));
            return None;
        }
        Some(cost)
    }

    /// Says how the bucket is used, so that all its filters are held to the same.
    fn agree(&self, bucket: &Located<String>, per: &Per, calendar: &Calendar, compiler: &mut Compiler) {
        let zone = self.time_zone.as_ref().map_or(ZONE_DEFAULT, |zone| zone.value.as_str());
        let quota = format!("{} per {} in {zone}", self.limit.value, self.period.as_str());
        let mut roles: Vec<String> =
            self.by_role.iter().map(|(role, factor)| format!(", {} × {}", role.value, factor.value)).collect();
        roles.sort_unstable();
        let roles = roles.concat();
        let counts = QuotaCounts {
            bucket: compiler.limits().quotas.bucket(bucket),
            calendar: calendar.clone(),
            limit: self.limit.value,
            is_shared: compiler.is_shared(),
        };
        compiler.limit(Limit {
            bucket: bucket.as_str().into(),
            terms: format!("{quota}{roles}"),
            detail: self.cost.as_ref().map(|cost| format!("cost {}", cost.value)),
            per: Some(per.to_string()),
            mode: self.mode.as_str(),
            counts: Counts::Quota(counts),
        });
        let terms = format!("a quota of {quota}, per {per}{roles}");
        compiler.bucket(BucketUse { name: bucket.clone(), terms, takes_rates: false });
    }
}

/// A quota that is switched off.
struct Off;

impl Filter for Off {
    fn hooks(&self) -> Hooks {
        Hooks { request: false, response: false, preflight: false }
    }
}
