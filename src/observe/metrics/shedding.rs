//! What is shown of requests that are shed.

use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::route::RouteMetrics;
use super::series::{counter, counters, gauge, gauges};

/// Whether requests are shed for a reason.
pub struct SheddingSample {
    pub reason: &'static str,
    pub on: bool,
}

pub(super) fn families(routes: &[Arc<RouteMetrics>], samples: &[SheddingSample]) -> Vec<MetricFamily> {
    let shed = routes.iter().flat_map(|route| {
        let counts = route.shed.counts();
        counts.map(|(reason, count)| counter(&[("reason", reason), ("route", route.name())], count))
    });
    vec![
        counters("tollgate_shed_total", "Requests shed to protect the gateway, by the limit that was reached.", shed),
        gauges(
            "tollgate_shedding",
            "1 while requests are shed because of a limit.",
            samples.iter().map(|sample| gauge(&[("reason", sample.reason)], f64::from(u8::from(sample.on)))),
        ),
    ]
}
