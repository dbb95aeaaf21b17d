//! Counters, in the Prometheus text format.
//!
//! Routes, targets and listeners get a handle when the configuration is compiled; from then on counting is an atomic
//! add. Handles are kept by name: a reload that keeps a name keeps its counts, and the series of a name are gone when
//! the last holder of its handle is.

mod acme;
mod breakers;
mod concurrency;
mod discovery;
mod health;
mod inbox;
mod keysets;
mod limits;
mod listener;
mod named;
mod plugins;
mod process;
mod replay;
mod route;
mod series;
mod shedding;
mod store;
mod upgrades;
mod upstream;
mod webhooks;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::TextEncoder;
use prometheus::proto::{LabelPair, Metric, MetricFamily};

pub use self::acme::AcmeSample;
pub use self::breakers::{BreakerSample, BreakersSample};
pub use self::concurrency::{ConcurrencySample, WaitEnd, Waits};
pub use self::discovery::DiscoverySample;
pub use self::health::{HealthSample, TargetHealthSample};
pub use self::inbox::{InboxMetrics, InboxSample};
pub use self::keysets::KeySetSample;
pub use self::limits::LimitMetrics;
pub use self::listener::{ListenerMetrics, OpenConnection};
pub use self::plugins::{PluginMetric, PluginSample, PluginValue};
pub use self::replay::ReplaySample;
pub use self::route::{InFlight, Mirrored, RouteMetrics};
pub use self::shedding::SheddingSample;
pub use self::store::StoreSample;
pub use self::upstream::{RetryReason, TargetMetrics, UpstreamError};

use self::named::{Budget, Named};
use self::series::{ByCode, counter, counters, gauge, gauges, load};
use self::upgrades::Upgrades;
use self::upstream::UpstreamMetrics;

/// The `Content-Type` of [`Metrics::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The name under which everything beyond the cap is counted. No route can have it: names hold no parentheses.
const OTHER: &str = "(other)";

/// All counters of one gateway. There are no globals: two gateways in one process count apart.
pub struct Metrics {
    budget: Arc<Budget>,
    routes: Arc<Named<String, RouteMetrics>>,
    upstreams: Arc<Named<String, UpstreamMetrics>>,
    targets: Arc<Named<(String, String), TargetMetrics>>,
    limits: Arc<Named<(String, String), LimitMetrics>>,
    listeners: Arc<Named<String, ListenerMetrics>>,
    inboxes: Arc<Named<String, InboxMetrics>>,
    other_route: OnceLock<Arc<RouteMetrics>>,
    other_limit: OnceLock<Arc<LimitMetrics>>,
    other_upstream: OnceLock<Arc<UpstreamMetrics>>,
    other_target: OnceLock<Arc<TargetMetrics>>,
    pub upgrades: Upgrades,
    reloads_ok: AtomicU64,
    reloads_failed: AtomicU64,
    malformed: ByCode,
    sockets_closed: ByCode,
    config: Mutex<ConfigState>,
    access_log_dropped: Dropped,
    audit_log_dropped: Dropped,
    webhook_log_dropped: Dropped,
    acme: OnceLock<Box<dyn Fn() -> Vec<AcmeSample> + Send + Sync>>,
    key_sets: OnceLock<Box<dyn Fn() -> Vec<KeySetSample> + Send + Sync>>,
    concurrency: OnceLock<Box<dyn Fn() -> Vec<ConcurrencySample> + Send + Sync>>,
    breakers: OnceLock<Box<dyn Fn() -> Vec<BreakersSample> + Send + Sync>>,
    discovery: OnceLock<Box<dyn Fn() -> Vec<DiscoverySample> + Send + Sync>>,
    health: OnceLock<Box<dyn Fn() -> Vec<HealthSample> + Send + Sync>>,
    inbox_samples: OnceLock<Box<dyn Fn() -> Vec<InboxSample> + Send + Sync>>,
    shedding: OnceLock<Box<dyn Fn() -> Vec<SheddingSample> + Send + Sync>>,
    store: OnceLock<Box<dyn Fn() -> StoreSample + Send + Sync>>,
    plugins: OnceLock<Box<dyn Fn() -> Vec<PluginSample> + Send + Sync>>,
    replay: OnceLock<Box<dyn Fn() -> ReplaySample + Send + Sync>>,
    buckets: OnceLock<Box<dyn Fn() -> usize + Send + Sync>>,
    body_memory: OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>,
}

/// Where to ask how many lines a log lost.
type Dropped = OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>;

#[derive(Default)]
struct ConfigState {
    hash: Option<String>,
    loaded_seconds: f64,
    file_errors: BTreeMap<String, u64>,
}

impl Metrics {
    /// At most `series_max` routes, limits of routes and targets, taken together, are counted by name; further ones share the name
    /// `(other)` until the next reload that finds room; the names of a configuration count until its last request
    /// is done. A route shows up to 20 lines, and one more for each method with class
    /// of status, each error code, and each result of a provider's webhooks that occurs on it; a target up to 11.
    pub fn new(series_max: usize) -> Arc<Self> {
        let budget = Budget::new(series_max);
        // Upstreams are no more than targets, listeners and inboxes a handful: the configuration bounds both.
        let unbounded = Budget::new(usize::MAX);
        Arc::new(Self {
            routes: Named::new(Arc::clone(&budget)),
            upstreams: Named::new(Arc::clone(&unbounded)),
            targets: Named::new(Arc::clone(&budget)),
            limits: Named::new(Arc::clone(&budget)),
            budget,
            listeners: Named::new(Arc::clone(&unbounded)),
            inboxes: Named::new(unbounded),
            other_route: OnceLock::new(),
            other_limit: OnceLock::new(),
            other_upstream: OnceLock::new(),
            other_target: OnceLock::new(),
            upgrades: Upgrades::default(),
            reloads_ok: AtomicU64::new(0),
            reloads_failed: AtomicU64::new(0),
            malformed: ByCode::default(),
            sockets_closed: ByCode::default(),
            config: Mutex::default(),
            access_log_dropped: OnceLock::new(),
            audit_log_dropped: OnceLock::new(),
            webhook_log_dropped: OnceLock::new(),
            acme: OnceLock::new(),
            key_sets: OnceLock::new(),
            concurrency: OnceLock::new(),
            breakers: OnceLock::new(),
            discovery: OnceLock::new(),
            health: OnceLock::new(),
            inbox_samples: OnceLock::new(),
            shedding: OnceLock::new(),
            store: OnceLock::new(),
            plugins: OnceLock::new(),
            replay: OnceLock::new(),
            buckets: OnceLock::new(),
            body_memory: OnceLock::new(),
        })
    }

    /// Changes the bound given to [`new`](Self::new). What is counted by name already stays so.
    pub fn set_series_max(&self, series_max: usize) {
        self.budget.set_max(series_max);
    }

    /// The counters of the route `name`, for as long as the handle is held.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        self.routes
            .get(name.to_owned(), |lease| RouteMetrics::new(name, Some(lease)))
            .unwrap_or_else(|| Arc::clone(self.other_route.get_or_init(|| Arc::new(RouteMetrics::new(OTHER, None)))))
    }

    /// The counters of a bucket on the route `name`, for as long as the handle is held.
    pub fn limit(&self, name: &str, bucket: &str) -> Arc<LimitMetrics> {
        let key = (name.to_owned(), bucket.to_owned());
        let other = || Arc::clone(self.other_limit.get_or_init(|| Arc::new(LimitMetrics::new(OTHER, OTHER, None))));
        self.limits.get(key, |lease| LimitMetrics::new(name, bucket, Some(lease))).unwrap_or_else(other)
    }

    /// The counters of one target of the upstream `name`, for as long as the handle is held.
    pub fn upstream(&self, name: &str, target: &str) -> Arc<TargetMetrics> {
        let key = (name.to_owned(), target.to_owned());
        let found = self.targets.get(key, |lease| TargetMetrics::new(target, self.upstream_totals(name), Some(lease)));
        found.unwrap_or_else(|| {
            let upstream = self.other_upstream.get_or_init(|| Arc::new(UpstreamMetrics::new(OTHER, None)));
            let target = || Arc::new(TargetMetrics::new(OTHER, Arc::clone(upstream), None));
            Arc::clone(self.other_target.get_or_init(target))
        })
    }

    /// The counters of the listener `name`, its address as written.
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        let found = self.listeners.get(name.to_owned(), |lease| ListenerMetrics::new(name, Some(lease)));
        found.unwrap_or_else(|| Arc::new(ListenerMetrics::new(name, None)))
    }

    /// The counters of the inbox `name`, for as long as the handle is held.
    pub fn inbox(&self, name: &str) -> Arc<InboxMetrics> {
        let found = self.inboxes.get(name.to_owned(), |lease| InboxMetrics::new(name, Some(lease)));
        found.unwrap_or_else(|| Arc::new(InboxMetrics::new(name, None)))
    }

    /// A reload was applied, or refused.
    pub fn reloaded(&self, ok: bool) {
        let count = if ok { &self.reloads_ok } else { &self.reloads_failed };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// The configuration in use from `at` on; takes the place of the one before.
    pub fn config_loaded(&self, hash: &str, at: SystemTime) {
        let mut config = self.config();
        config.hash = Some(hash.to_owned());
        config.loaded_seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    }

    /// How many errors each file holds; takes the place of what was said before, so files left out are gone.
    pub fn config_file_errors<'a>(&self, files: impl IntoIterator<Item = (&'a str, u64)>) {
        self.config().file_errors = files.into_iter().map(|(file, errors)| (file.to_owned(), errors)).collect();
    }

    /// A request was refused before it had a route. Reasons are constants of the program.
    pub fn malformed(&self, reason: &'static str) {
        self.malformed.add(reason);
    }

    /// A WebSocket was closed because its caller may not have it any more. Reasons are constants of the program.
    pub fn socket_closed(&self, reason: &'static str) {
        self.sockets_closed.add(reason);
    }

    /// Where to ask how many lines the access log lost. The first one given stays.
    pub fn count_access_log_dropped(&self, dropped: impl Fn() -> u64 + Send + Sync + 'static) {
        let _ = self.access_log_dropped.set(Box::new(dropped));
    }

    /// Where to ask how many lines the audit log lost. The first one given stays.
    pub fn count_audit_log_dropped(&self, dropped: impl Fn() -> u64 + Send + Sync + 'static) {
        let _ = self.audit_log_dropped.set(Box::new(dropped));
    }

    /// Where to ask how many lines the webhook log lost. The first one given stays.
    pub fn count_webhook_log_dropped(&self, dropped: impl Fn() -> u64 + Send + Sync + 'static) {
        let _ = self.webhook_log_dropped.set(Box::new(dropped));
    }

    /// Where to ask how it goes with certificates that come by ACME. The first one given stays.
    pub fn show_acme(&self, samples: impl Fn() -> Vec<AcmeSample> + Send + Sync + 'static) {
        let _ = self.acme.set(Box::new(samples));
    }

    /// Where to ask how it goes with the key sets that are fetched. The first one given stays.
    pub fn show_key_sets(&self, samples: impl Fn() -> Vec<KeySetSample> + Send + Sync + 'static) {
        let _ = self.key_sets.set(Box::new(samples));
    }

    /// Where to ask how it stands with circuit breakers. The first one given stays.
    pub fn show_breakers(&self, samples: impl Fn() -> Vec<BreakersSample> + Send + Sync + 'static) {
        let _ = self.breakers.set(Box::new(samples));
    }

    /// Where to ask how it goes with discoveries. The first one given stays.
    pub fn show_discovery(&self, samples: impl Fn() -> Vec<DiscoverySample> + Send + Sync + 'static) {
        let _ = self.discovery.set(Box::new(samples));
    }

    /// Where to ask how it stands with the health of targets. The first one given stays.
    pub fn show_health(&self, samples: impl Fn() -> Vec<HealthSample> + Send + Sync + 'static) {
        let _ = self.health.set(Box::new(samples));
    }

    /// Where to ask how many requests are in flight, and wait, by bucket. The first one given stays.
    pub fn show_concurrency(&self, samples: impl Fn() -> Vec<ConcurrencySample> + Send + Sync + 'static) {
        let _ = self.concurrency.set(Box::new(samples));
    }

    /// Where to ask whether requests are shed. The first one given stays.
    pub fn show_shedding(&self, samples: impl Fn() -> Vec<SheddingSample> + Send + Sync + 'static) {
        let _ = self.shedding.set(Box::new(samples));
    }

    /// Where to ask how it goes with the store that limits are kept in. The first one given stays.
    pub fn show_store(&self, sample: impl Fn() -> StoreSample + Send + Sync + 'static) {
        let _ = self.store.set(Box::new(sample));
    }

    /// Where to ask how it stands with plugins. The first one given stays.
    pub fn show_plugins(&self, samples: impl Fn() -> Vec<PluginSample> + Send + Sync + 'static) {
        let _ = self.plugins.set(Box::new(samples));
    }

    /// Where to ask how it goes with messages that must not pass twice. The first one given stays.
    pub fn show_replay(&self, sample: impl Fn() -> ReplaySample + Send + Sync + 'static) {
        let _ = self.replay.set(Box::new(sample));
    }

    /// How it stood with inboxes when somebody last looked; nothing where nothing is delivered.
    pub fn inbox_samples(&self) -> Vec<InboxSample> {
        self.inbox_samples.get().map(|samples| samples()).unwrap_or_default()
    }

    /// Where to ask what inboxes hold. The first one given stays.
    pub fn show_inboxes(&self, samples: impl Fn() -> Vec<InboxSample> + Send + Sync + 'static) {
        let _ = self.inbox_samples.set(Box::new(samples));
    }

    /// Where to ask how many token buckets are in memory. The first one given stays.
    pub fn show_buckets(&self, count: impl Fn() -> usize + Send + Sync + 'static) {
        let _ = self.buckets.set(Box::new(count));
    }

    /// Where to ask how many bytes of memory request bodies take. The first one given stays.
    pub fn show_body_memory(&self, bytes: impl Fn() -> u64 + Send + Sync + 'static) {
        let _ = self.body_memory.set(Box::new(bytes));
    }

    /// Everything, in the text exposition format 0.0.4; see [`CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let mut families = self.gateway_families();
        let mut routes = self.routes.all();
        routes.extend(self.other_route.get().cloned());
        let mut limits = self.limits.all();
        limits.extend(self.other_limit.get().cloned());
        let mut upstreams = self.upstreams.all();
        upstreams.extend(self.other_upstream.get().cloned());
        let mut targets = self.targets.all();
        targets.extend(self.other_target.get().cloned());
        families.extend(self.log_families());
        families.extend(listener::families(&self.listeners.all()));
        families.extend(route::families(&routes));
        families.extend(webhooks::families(&routes));
        families.extend(shedding::families(&routes, &self.shedding.get().map(|samples| samples()).unwrap_or_default()));
        families.extend(limits::families(&limits));
        families.extend(upstream::families(&upstreams, &targets));
        families.extend(acme::families(&self.acme.get().map(|samples| samples()).unwrap_or_default()));
        families.extend(keysets::families(&self.key_sets.get().map(|samples| samples()).unwrap_or_default()));
        families.extend(concurrency::families(&self.concurrency.get().map(|samples| samples()).unwrap_or_default()));
        families.extend(breakers::families(&self.breakers.get().map(|samples| samples()).unwrap_or_default()));
        families.extend(discovery::families(&self.discovery.get().map(|samples| samples()).unwrap_or_default()));
        families.extend(health::families(&self.health.get().map(|samples| samples()).unwrap_or_default()));
        families.extend(plugins::families(&self.plugins.get().map(|samples| samples()).unwrap_or_default()));
        families.extend(store::families(self.store.get().map(|sample| sample())));
        families.extend(replay::families(self.replay.get().map(|sample| sample())));
        families.extend(inbox::families(&self.inboxes.all(), &self.inbox_samples()));
        families.extend(self.upgrades.families());
        families.extend(process::families());
        // The encoder refuses families without a sample.
        families.retain(|family| !family.get_metric().is_empty());
        for family in &mut families {
            family.mut_metric().sort_by(|one, other| label_values(one).cmp(label_values(other)));
        }
        families.sort_by(|one, other| one.name().cmp(other.name()));
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| {
            tracing::error!("metrics cannot be shown: {error}");
            String::new()
        })
    }

    fn upstream_totals(&self, name: &str) -> Arc<UpstreamMetrics> {
        let found = self.upstreams.get(name.to_owned(), |lease| UpstreamMetrics::new(name, Some(lease)));
        found.unwrap_or_else(|| Arc::new(UpstreamMetrics::new(name, None)))
    }

    fn gateway_families(&self) -> Vec<MetricFamily> {
        let config = self.config();
        let hash = config.hash.as_deref();
        let reloads = [("failed", &self.reloads_failed), ("ok", &self.reloads_ok)];
        let capped = f64::from(u8::from(self.capped()));
        vec![
            counters(
                "tollgate_reloads_total",
                "Reloads of the configuration, by result.",
                reloads.map(|(result, count)| counter(&[("result", result)], load(count))),
            ),
            gauges(
                "tollgate_config_info",
                "The configuration in use, by its hash.",
                hash.map(|hash| gauge(&[("hash", hash)], 1.0)),
            ),
            gauges(
                "tollgate_config_loaded_timestamp_seconds",
                "When the configuration in use was loaded, in seconds since 1970.",
                hash.map(|_| gauge(&[], config.loaded_seconds)),
            ),
            gauges(
                "tollgate_config_file_errors",
                "Errors in each file of the configuration on disk.",
                config.file_errors.iter().map(|(file, errors)| gauge(&[("file", file)], *errors as f64)),
            ),
            counters(
                "tollgate_malformed_requests_total",
                "Requests refused before they had a route, by reason.",
                self.malformed.counts().map(|(reason, count)| counter(&[("reason", reason)], count)),
            ),
            counters(
                "tollgate_websockets_closed_total",
                "WebSockets closed because the credential of their caller ended, by reason.",
                self.sockets_closed.counts().map(|(reason, count)| counter(&[("reason", reason)], count)),
            ),
            gauges(
                "tollgate_rate_limit_buckets",
                "Token buckets in the memory of this gateway.",
                self.buckets.get().map(|count| gauge(&[], count() as f64)),
            ),
            gauges(
                "tollgate_body_memory_bytes",
                "Memory that request bodies take which are gathered as a whole.",
                self.body_memory.get().map(|bytes| gauge(&[], bytes() as f64)),
            ),
            gauges(
                "tollgate_metrics_series_capped",
                "1 when routes or targets are counted as (other) because there were too many names.",
                [gauge(&[], capped)],
            ),
            gauges(
                "tollgate_build_info",
                "The version that runs.",
                [gauge(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)],
            ),
        ]
    }

    fn log_families(&self) -> impl Iterator<Item = MetricFamily> {
        let logs = [
            ("tollgate_access_log_dropped_total", "Access", &self.access_log_dropped),
            ("tollgate_audit_log_dropped_total", "Audit", &self.audit_log_dropped),
            ("tollgate_webhook_log_dropped_total", "Webhook", &self.webhook_log_dropped),
        ];
        logs.into_iter().map(|(name, log, dropped)| {
            let help = format!("{log} log lines lost because the target was too slow or could not be written.");
            counters(name, &help, [counter(&[], dropped.get().map_or(0, |dropped| dropped()))])
        })
    }

    /// Whether somebody holds a handle that is not counted by its own name.
    fn capped(&self) -> bool {
        self.other_route.get().is_some_and(|route| Arc::strong_count(route) > 1)
            || self.other_target.get().is_some_and(|target| Arc::strong_count(target) > 1)
    }

    fn config(&self) -> MutexGuard<'_, ConfigState> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The crate orders labels by their names alone, which are the same within a family.
fn label_values(metric: &Metric) -> impl Iterator<Item = &str> {
    metric.get_label().iter().map(LabelPair::value)
}

#[cfg(test)]
mod tests;
