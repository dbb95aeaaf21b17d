//! What is counted for each certificate that comes by ACME.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::proto::MetricFamily;

use super::series::{counter, counters, gauge, gauges};

/// How it goes with a certificate.
pub struct AcmeSample {
    /// Its first name.
    pub certificate: String,
    /// `None`: there is none yet.
    pub not_after: Option<SystemTime>,
    pub issued: u64,
    pub failed: u64,
}

pub(super) fn families(samples: &[AcmeSample]) -> Vec<MetricFamily> {
    let orders = samples.iter().flat_map(|sample| {
        [("failed", sample.failed), ("ok", sample.issued)]
            .map(|(result, count)| counter(&[("certificate", &sample.certificate), ("result", result)], count))
    });
    let expires = samples.iter().map(|sample| {
        let until = sample.not_after.and_then(|end| end.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        gauge(&[("certificate", &sample.certificate)], until.as_secs_f64())
    });
    vec![
        counters("tollgate_acme_orders_total", "Orders of certificates, by certificate and result.", orders),
        gauges(
            "tollgate_acme_certificate_expires_timestamp_seconds",
            "When a certificate that comes by ACME ends, in seconds since 1970; 0 while there is none.",
            expires,
        ),
    ]
}
