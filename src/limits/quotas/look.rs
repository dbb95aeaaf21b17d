//! A quota as those see it who operate it: who has used how much, and to forget it.
//!
//! What is shown is what the counter in the store says, less what this gateway has taken in advance and not used. What other
//! gateways hold in advance counts as used.

use std::time::SystemTime;

use super::Figures;
use super::account::Account;
use super::bucket::Bucket;
use super::calendar::{Calendar, Span};
use crate::state::StoreError;

/// Counters that are looked at for a list of those that have used the most.
const LOOKED_AT_MAX: usize = 100_000;

/// How much of a quota somebody has used in the current period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    pub who: String,
    pub figures: Figures,
}

impl Bucket {
    /// What `who` has used; `None` where that is nothing. `limit` counts for who has not asked this gateway for a while.
    pub async fn show(
        &self,
        calendar: &Calendar,
        limit: u64,
        who: &str,
        wall: SystemTime,
    ) -> Result<Option<Used>, StoreError> {
        let span = calendar.span(wall);
        let counted = self.teller().counter(&self.key(&span, who)).await?;
        let used = self.used(&span, limit, who, counted);
        Ok((used.figures.used > 0).then_some(used))
    }

    /// Those who have used the largest share of their limit, in this order. Of very many counters only the first are looked at.
    pub async fn top(
        &self,
        calendar: &Calendar,
        limit: u64,
        most: usize,
        wall: SystemTime,
    ) -> Result<Vec<Used>, StoreError> {
        let span = calendar.span(wall);
        let counters = self.teller().counters(&self.key(&span, ""), LOOKED_AT_MAX).await?;
        let used = counters.into_iter().map(|(who, counted)| self.used(&span, limit, &who, counted));
        let mut found: Vec<Used> = used.filter(|used| used.figures.used > 0).collect();
        let share = |used: &Used| used.figures.used as f64 / used.figures.limit.max(1) as f64;
        found.sort_by(|one, other| share(other).total_cmp(&share(one)).then_with(|| one.who.cmp(&other.who)));
        found.truncate(most);
        Ok(found)
    }

    /// Gives `who` all of the quota back. `false` where nothing of it was used. What other gateways hold in advance they keep,
    /// and what they refuse they go on refusing for up to a second.
    pub async fn reset(&self, calendar: &Calendar, who: &str, wall: SystemTime) -> Result<bool, StoreError> {
        let span = calendar.span(wall);
        let counted = self.teller().remove(&self.key(&span, who)).await?;
        // Only now: an account that was new before would have been told what the old counter says.
        let used = self.with_known(&span, who, |account| {
            let used = account.figures_at(counted).used;
            account.reset();
            used
        });
        Ok(used.unwrap_or(counted) > 0)
    }

    fn used(&self, span: &Span, limit: u64, who: &str, counted: u64) -> Used {
        let known = self.with_known(span, who, |account| account.figures_at(counted));
        let unknown = || Figures { limit, used: counted, ends: span.end(), length: span.length() };
        Used { who: who.to_owned(), figures: known.unwrap_or_else(unknown) }
    }

    /// The account of `who`, if there is one of this period.
    fn with_known<T>(&self, span: &Span, who: &str, act: impl FnOnce(&mut Account) -> T) -> Option<T> {
        let mut accounts = self.shard(who);
        accounts.get_mut(who).filter(|account| account.span() == span).map(act)
    }
}
