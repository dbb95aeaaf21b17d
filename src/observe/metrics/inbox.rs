//! What is counted for each inbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::MetricFamily;

use super::named::Lease;
use super::series::{ByCode, Durations, counter, counters, gauge, gauges, histograms, load};

/// The counters of one inbox.
pub struct InboxMetrics {
    name: String,
    stored: AtomicU64,
    refused: ByCode,
    delivered: AtomicU64,
    retried: AtomicU64,
    dead: AtomicU64,
    durations: Durations,
    _lease: Option<Lease<String, InboxMetrics>>,
}

/// How it stands with an inbox. Messages are those of all gateways that share it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InboxSample {
    pub inbox: String,
    /// Messages, by where they are on their way: `ready`, `delayed`, `claimed`, `dead`. Constants of the program.
    pub messages: Vec<(&'static str, u64)>,
    /// Heads and bodies of all of them.
    pub bytes: u64,
    /// How long ago the oldest arrived that is not dead. `None`: there is none.
    pub oldest: Option<Duration>,
    /// Nothing is delivered for now, because the upstream is away.
    pub is_paused: bool,
}

impl InboxMetrics {
    pub(super) fn new(name: &str, lease: Option<Lease<String, Self>>) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            name: name.to_owned(),
            stored: zero(),
            refused: ByCode::default(),
            delivered: zero(),
            retried: zero(),
            dead: zero(),
            durations: Durations::long(),
            _lease: lease,
        }
    }

    /// A message was stored.
    pub fn stored(&self) {
        self.stored.fetch_add(1, Ordering::Relaxed);
    }

    /// A message was not stored, and whoever sent it was told so. Reasons are constants of the program: `full`,
    /// `unavailable`.
    pub fn refused(&self, reason: &'static str) {
        self.refused.add(reason);
    }

    /// A message was delivered, so long after it arrived.
    pub fn delivered(&self, age: Duration) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
        self.durations.observe(age);
    }

    /// A delivery failed, and is tried again.
    pub fn retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }

    /// A message was given up.
    pub fn dead(&self) {
        self.dead.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) fn families(inboxes: &[Arc<InboxMetrics>], samples: &[InboxSample]) -> Vec<MetricFamily> {
    let count = |of: fn(&InboxMetrics) -> &AtomicU64| {
        inboxes.iter().map(move |inbox| counter(&[("inbox", &inbox.name)], load(of(inbox))))
    };
    let refused = inboxes.iter().flat_map(|inbox| {
        inbox.refused.counts().map(|(reason, count)| counter(&[("inbox", &inbox.name), ("reason", reason)], count))
    });
    let mut families = vec![
        counters("tollgate_inbox_stored_total", "Messages stored, by inbox.", count(|inbox| &inbox.stored)),
        counters("tollgate_inbox_refused_total", "Messages that were not stored, by inbox and reason.", refused),
        counters("tollgate_inbox_delivered_total", "Messages delivered, by inbox.", count(|inbox| &inbox.delivered)),
        counters(
            "tollgate_inbox_retried_total",
            "Deliveries that failed and are tried again, by inbox.",
            count(|inbox| &inbox.retried),
        ),
        counters("tollgate_inbox_dead_total", "Messages that were given up, by inbox.", count(|inbox| &inbox.dead)),
        histograms(
            "tollgate_inbox_delivery_seconds",
            "Time from the arrival of a message to its delivery.",
            inboxes.iter().filter_map(|inbox| inbox.durations.metric(&[("inbox", &inbox.name)])),
        ),
    ];
    families.extend(standings(samples));
    families
}

fn standings(samples: &[InboxSample]) -> Vec<MetricFamily> {
    let messages = samples.iter().flat_map(|sample| {
        let labelled =
            |(standing, count): &(&str, u64)| gauge(&[("inbox", &sample.inbox), ("standing", standing)], *count as f64);
        sample.messages.iter().map(labelled)
    });
    let each =
        |of: fn(&InboxSample) -> f64| samples.iter().map(move |sample| gauge(&[("inbox", &sample.inbox)], of(sample)));
    vec![
        gauges("tollgate_inbox_messages", "Messages in an inbox, by where they are on their way.", messages),
        gauges("tollgate_inbox_bytes", "Bytes of the messages in an inbox.", each(|sample| sample.bytes as f64)),
        gauges(
            "tollgate_inbox_oldest_seconds",
            "Age of the oldest message in an inbox that is still to be delivered; 0: there is none.",
            each(|sample| sample.oldest.unwrap_or_default().as_secs_f64()),
        ),
        gauges(
            "tollgate_inbox_paused",
            "1 while nothing is delivered from an inbox because its upstream is away.",
            each(|sample| f64::from(u8::from(sample.is_paused))),
        ),
    ]
}
