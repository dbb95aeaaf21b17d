//! Keeps one key set fresh, for as long as a snapshot needs it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::fetch::{self, Fetched};
use super::{Pace, Source, shown};
use crate::clock;

pub async fn follow(source: Weak<Source>, pace: Pace) {
    let Some((url, wanted)) = source.upgrade().map(|source| (source.url.clone(), Arc::clone(&source.wanted))) else {
        return;
    };
    // Made with the first fetch, and again until it can be: it reads the certificates of the system.
    let mut client = None;
    let mut failures = 0_u32;
    loop {
        let started = Instant::from_std(clock::now());
        let fetched = match client.get_or_insert_with(|| fetch::client(&url, pace.timeout)) {
            Ok(client) => fetch::fetch(client, &url).await,
            Err(why) => Err(why.clone()),
        };
        client = client.filter(Result::is_ok);
        let Some(held) = source.upgrade() else { return };
        let pause = match fetched {
            Ok(fetched) => {
                failures = 0;
                let pause = fetched.max_age.unwrap_or(pace.refresh).clamp(pace.refresh_min, pace.refresh_max);
                held.take(fetched);
                pause
            }
            Err(why) => {
                failures = failures.saturating_add(1);
                held.failed_because(&why);
                let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
                pace.cooldown.saturating_mul(factor).min(pace.retry_max)
            }
        };
        held.progress.tried();
        drop(held);
        let earliest = started + pace.cooldown;
        tokio::select! {
            () = sleep_until((started + jittered(pause)).max(earliest)) => {}
            () = wanted.notified() => {
                // Either nobody needs the source any more, or a key is missing.
                if source.strong_count() == 0 {
                    return;
                }
                sleep_until(earliest).await;
            }
        }
    }
}

/// Up to a tenth less, so that many gateways do not ask in one moment.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(fastrand::f64().mul_add(-0.1, 1.0))
}

impl Source {
    /// Puts fetched keys in use. The same ones again change nothing, so that tokens verified by them stay so.
    fn take(&self, Fetched { keys, digest, .. }: Fetched) {
        self.ok.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        state.loaded = Some(clock::wall());
        let recovered = state.error.take().is_some();
        let changed = state.digest.replace(digest) != Some(digest);
        drop(state);
        if changed || recovered {
            let skipped: Vec<String> = keys.skipped.iter().map(ToString::to_string).collect();
            info!(jwks = shown(&self.url), keys = keys.len(), ?skipped, "key set fetched");
        }
        if changed {
            self.keys.store(Some(Arc::new(keys)));
            self.changed.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    fn failed_because(&self, why: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        let known = state.error.as_deref() == Some(why);
        state.error = Some(why.to_owned());
        drop(state);
        // Once for each kind of failure: the metric counts the rest.
        if !known {
            let stale = self.keys.load().is_some();
            warn!(jwks = shown(&self.url), why, stale, "the key set cannot be fetched; the keys there are stay in use");
        }
    }
}
