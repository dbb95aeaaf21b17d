//! What limits have in common: settings, and what they say of themselves to those who operate them.

use std::sync::Arc;

use super::{Calling, Compiler};
use crate::limits::per::{Per, PerSettings};
use crate::limits::permits::PermitBucket;
use crate::limits::quotas;
use crate::yaml::{Located, Named, Problem};

/// Largest factor of a role.
const FACTOR_MAX: f64 = 1_000_000.0;
/// Longest name of a bucket, in bytes.
const BUCKET_BYTES_MAX: usize = 128;

/// A limit, as a filter keeps it.
pub struct Limit {
    /// The name that it counts under.
    pub bucket: Box<str>,
    /// How much it allows, in words: `60/min and 1000/hour, burst 20`.
    pub terms: String,
    /// What only this filter says of the bucket: `cost 10`.
    pub detail: Option<String>,
    /// Whom it tells apart: `consumer`, `ip+route`. `None`: all share one count.
    pub per: Option<String>,
    /// `enforce`, or what else it does: `observe`, `off`.
    pub mode: &'static str,
    pub counts: Counts,
}

/// Where that is which it has counted.
pub enum Counts {
    /// Token buckets of this gateway.
    Local,
    /// Token buckets that gateways share.
    Shared,
    /// Requests in flight.
    Permits(Arc<PermitBucket>),
    Quota(QuotaCounts),
}

/// What a quota has counted in the state store.
pub struct QuotaCounts {
    pub bucket: Arc<quotas::Bucket>,
    pub calendar: quotas::Calendar,
    /// For who has none of its own.
    pub limit: u64,
    /// Gateways count together.
    pub is_shared: bool,
}

impl Compiler {
    /// Whose limit it is; `consumer` when nothing is said. `None` when a problem was reported.
    pub fn per(&mut self, written: Option<&PerSettings>) -> Option<Per> {
        let Some(written) = written else { return Some(Per::consumer()) };
        match Per::compile(written) {
            Ok(per) => {
                if per.needs_caller() {
                    self.calling(Calling::Needs);
                }
                Some(per)
            }
            Err(problems) => {
                problems.into_iter().for_each(|problem| self.report(problem));
                None
            }
        }
    }

    /// Reports a name that no bucket can have.
    pub fn check_bucket(&mut self, name: &Located<String>) {
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > BUCKET_BYTES_MAX || !name.bytes().all(sound) {
            let message = format!("the name of a bucket has 1 to {BUCKET_BYTES_MAX} letters, digits, `.`, `_` and `-`");
            self.report(Problem::new(name.place, message));
        }
    }

    /// Factors of roles, the largest first. `None` when a problem was reported.
    pub fn factors(&mut self, written: &Named<Located<f64>>) -> Option<Vec<(Box<str>, f64)>> {
        let identity = Arc::clone(self.identity());
        let mut is_sound = true;
        for (role, factor) in written.iter() {
            if !(factor.value > 0.0 && factor.value <= FACTOR_MAX) {
                let problem = Problem::new(factor.place, format!("a factor is more than 0, and at most {FACTOR_MAX}"));
                self.report(problem.with_hint("to keep a role out, use `require`"));
                is_sound = false;
            }
            if !identity.roles().contains(role) {
                let known: Vec<&str> = identity.roles().names().collect();
                self.report(Problem::unknown(role.place, "role", role, known.into_iter()));
                is_sound = false;
            }
        }
        let mut factors: Vec<(Box<str>, f64)> =
            written.iter().map(|(role, factor)| (role.value.as_str().into(), factor.value)).collect();
        factors.sort_by(|one, other| other.1.total_cmp(&one.1));
        is_sound.then_some(factors)
    }
}
