//! What the answers hold.

use serde::{Deserialize, Serialize};

use super::listed::{Listed, Used};
use crate::contract::Counts;
use crate::gateway::Gateway;
use crate::limits::Limits;

/// Most limits in one answer.
const LIMITS_MAX: usize = 1000;
/// Most filters of one limit, and routes of one filter.
const USES_MAX: usize = 20;

/// `/limits`
#[derive(Debug, Serialize, Deserialize)]
pub struct All {
    pub limits: Vec<LimitShown>,
    /// How many there are: a long list is cut.
    pub total: usize,
}

/// A limit.
#[derive(Debug, Serialize, Deserialize)]
pub struct LimitShown {
    pub bucket: String,
    /// The filter: `rate_limit`, `quota`, `concurrency`.
    pub kind: String,
    /// How much it allows, in words.
    pub terms: String,
    /// Whom it tells apart; absent where all share one count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<String>,
    /// Whether several gateways count together.
    pub shared: bool,
    /// Callers that this gateway knows something of; absent where only the shared store knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callers: Option<usize>,
    pub uses: Vec<Use>,
    pub uses_total: usize,
}

/// A filter that counts in a bucket.
#[derive(Debug, Serialize, Deserialize)]
pub struct Use {
    /// `file:line:column`
    pub place: String,
    /// The chain it stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<String>,
    pub mode: String,
    /// What only this filter says: `cost 10`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    pub routes: Vec<String>,
    pub routes_total: usize,
}

/// `/limits/{bucket}`
#[derive(Debug, Serialize, Deserialize)]
pub struct Top {
    pub limit: LimitShown,
    /// Those who have used the largest share, in this order.
    pub top: Vec<Figures>,
}

/// `/limits/{bucket}/{who}`
#[derive(Debug, Serialize, Deserialize)]
pub struct One {
    pub bucket: String,
    pub kind: String,
    pub who: String,
    /// `None`: nothing is in use.
    pub figures: Option<Figures>,
}

/// What became of `DELETE /limits/{bucket}/{who}`
#[derive(Debug, Serialize, Deserialize)]
pub struct Reset {
    pub bucket: String,
    pub kind: String,
    pub who: String,
    pub was_in_use: bool,
}

/// How it stands with one caller.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Figures {
    /// Of a `rate_limit`.
    Rates {
        who: String,
        rates: Vec<RateShown>,
        /// When nothing is in use any more.
        full_at: Option<String>,
    },
    /// Of a `quota`.
    Quota { who: String, limit: u64, used: u64, remaining: u64, ends: String },
    /// Of a `concurrency`.
    InFlight { who: String, max: u32, in_flight: u32, waiting: usize },
}

/// How it stands with one rate of a bucket. Tokens flow back all the time, so there are parts of them.
#[derive(Debug, Serialize, Deserialize)]
pub struct RateShown {
    /// `60/min`
    pub rate: String,
    pub limit: f64,
    pub used: f64,
    pub remaining: f64,
    pub full_in_seconds: f64,
}

pub fn all(limits: &[Listed<'_>], gateway: &Gateway, known: &Limits) -> All {
    let shown = limits.iter().take(LIMITS_MAX).map(|listed| limit(listed, gateway, known));
    All { limits: shown.collect(), total: limits.len() }
}

pub fn limit(listed: &Listed<'_>, gateway: &Gateway, known: &Limits) -> LimitShown {
    let limit = listed.limit;
    let (shared, callers) = match &limit.counts {
        Counts::Local => (false, Some(known.local.len_of(&limit.bucket))),
        Counts::Shared => (true, None),
        Counts::Permits(bucket) => (false, Some(bucket.len())),
        Counts::Quota(quota) => (quota.is_shared, Some(quota.bucket.accounts())),
    };
    LimitShown {
        bucket: limit.bucket.to_string(),
        kind: listed.kind.to_owned(),
        terms: limit.terms.clone(),
        per: limit.per.clone(),
        shared,
        callers,
        uses: listed.uses.iter().take(USES_MAX).map(|used| shown_use(used, gateway)).collect(),
        uses_total: listed.uses.len(),
    }
}

fn shown_use(used: &Used<'_>, gateway: &Gateway) -> Use {
    Use {
        place: gateway.sources.locate(used.link.place),
        chain: used.link.via.as_deref().map(str::to_owned),
        mode: used.limit.mode.to_owned(),
        detail: used.limit.detail.clone(),
        routes: used.routes.iter().take(USES_MAX).map(|route| (*route).to_owned()).collect(),
        routes_total: used.routes.len(),
    }
}
