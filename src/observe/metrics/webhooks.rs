//! What is counted for the webhooks of each route.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use prometheus::proto::MetricFamily;

use super::OTHER;
use super::route::RouteMetrics;
use super::series::{ByCode, counter, counters, load};

/// Providers of a route that are counted by name. They are names of the configuration, so there are few.
const PROVIDERS_MAX: usize = 64;

/// The counters of one route. Nothing is there before the first webhook.
#[derive(Default)]
pub(super) struct Webhooks {
    first: OnceLock<Box<Provider>>,
}

struct Provider {
    name: Box<str>,
    results: ByCode,
    delivered: AtomicU64,
    failed: AtomicU64,
    next: OnceLock<Box<Provider>>,
}

impl Provider {
    fn new(name: &str) -> Box<Self> {
        let (delivered, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        Box::new(Self { name: name.into(), results: ByCode::default(), delivered, failed, next: OnceLock::new() })
    }
}

impl Webhooks {
    /// The counters of a provider, or those that the ones beyond the bound share.
    fn provider(&self, name: &str) -> &Provider {
        let mut place = &self.first;
        let mut walked = 0_usize;
        loop {
            let known = walked < PROVIDERS_MAX;
            let found = place.get_or_init(|| Provider::new(if known { name } else { OTHER }));
            if !known || &*found.name == name {
                return found;
            }
            walked = walked.saturating_add(1);
            place = &found.next;
        }
    }

    fn providers(&self) -> impl Iterator<Item = &Provider> {
        std::iter::successors(self.first.get(), |provider| provider.next.get()).map(AsRef::as_ref)
    }
}

impl RouteMetrics {
    /// A `webhook` filter looked at a request. Results are constants of the program.
    pub fn webhook(&self, provider: &str, result: &'static str) {
        self.webhooks.provider(provider).results.add(result);
    }

    /// An accepted webhook was answered: `got_through` with 2xx.
    pub fn webhook_answered(&self, provider: &str, got_through: bool) {
        let provider = self.webhooks.provider(provider);
        let count = if got_through { &provider.delivered } else { &provider.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) fn families(routes: &[Arc<RouteMetrics>]) -> Vec<MetricFamily> {
    let providers =
        || routes.iter().flat_map(|route| route.webhooks.providers().map(move |provider| (route.name(), provider)));
    let results = providers().flat_map(|(route, provider)| {
        let labelled = move |(result, count)| {
            counter(&[("provider", &provider.name), ("result", result), ("route", route)], count)
        };
        provider.results.counts().map(labelled)
    });
    let outcomes = providers().flat_map(|(route, provider)| {
        let shown = [("delivered", &provider.delivered), ("failed", &provider.failed)];
        let shown = shown.into_iter().filter(|(_, count)| load(count) > 0);
        shown.map(move |(outcome, count)| {
            counter(&[("outcome", outcome), ("provider", &provider.name), ("route", route)], load(count))
        })
    });
    vec![
        counters("tollgate_webhooks_total", "Webhooks, by what the filter `webhook` found out.", results),
        counters(
            "tollgate_webhooks_accepted_total",
            "Webhooks that were accepted, by whether they were answered with 2xx.",
            outcomes,
        ),
    ]
}
