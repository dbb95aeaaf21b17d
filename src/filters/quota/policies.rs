//! What clients are told about a quota. It changes with the period: months differ in length, and so do days on which clocks change.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::context::Policy;
use crate::limits::fields::FieldsSetting;
use crate::limits::quotas::{Figures, Unit};

pub struct Policies {
    fields: FieldsSetting,
    /// `consumer-month`
    name: String,
    /// That of everybody, and those of roles.
    limits: Box<[u64]>,
    current: ArcSwapOption<OfLength>,
}

/// The policies of all limits, in periods of one length.
struct OfLength {
    length: Duration,
    by_limit: Vec<(u64, Option<Arc<Policy>>)>,
}

impl Policies {
    pub fn new(fields: FieldsSetting, word: &str, unit: Unit, limits: impl Iterator<Item = u64>) -> Self {
        let name = format!("{word}-{}", unit.as_str());
        Self { fields, name, limits: limits.collect(), current: ArcSwapOption::empty() }
    }

    /// Whether clients are told anything.
    pub fn tell(&self) -> bool {
        self.fields != FieldsSetting::None
    }

    /// That of a limit in a period.
    pub fn of(&self, figures: &Figures) -> Option<Arc<Policy>> {
        if !self.tell() {
            return None;
        }
        let current = self.current.load();
        match current.as_deref().filter(|current| current.length == figures.length) {
            Some(current) => current.of(figures.limit),
            None => {
                let new = self.of_length(figures.length);
                let policy = new.of(figures.limit);
                self.current.store(Some(Arc::new(new)));
                policy
            }
        }
    }

    fn of_length(&self, length: Duration) -> OfLength {
        let policy = |limit: u64| {
            let parameters = format!("q={limit};w={}", length.as_secs());
            (limit, self.fields.policy([(self.name.clone(), parameters)]))
        };
        OfLength { length, by_limit: self.limits.iter().map(|limit| policy(*limit)).collect() }
    }
}

impl OfLength {
    fn of(&self, limit: u64) -> Option<Arc<Policy>> {
        let found = self.by_limit.iter().find(|(of, _)| *of == limit);
        found.and_then(|(_, policy)| policy.clone())
    }
}
