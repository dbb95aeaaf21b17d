//! Beside the request path: gets what is missing, renews what ends, and goes about failures slowly.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::certified::Held;
use super::order::{Failure, obtain};
use super::storage::Storage;
use super::{Acme, Managed, Settings, Site, Standing};
use crate::clock;

/// Longest time between two looks: a clock may jump, and others may have stored something.
const LOOK: Duration = Duration::from_secs(60);
/// How long to wait while another gateway orders.
const OTHERS: Duration = Duration::from_secs(5);
/// Longest pause after failures, unless the authority asks for a longer one.
const PAUSE_MAX: Duration = Duration::from_secs(6 * 3600);
/// Longest pause an authority may ask for.
const HOLD_MAX: Duration = Duration::from_secs(48 * 3600);
/// How long an order may take in all.
const ORDER_MAX: Duration = Duration::from_secs(300);

impl Acme {
    /// Takes what is stored, for a start without the authority.
    pub async fn load(&self, site: Option<Arc<Site>>) {
        if let Some(site) = site {
            for managed in &site.certificates {
                take_stored(&site, managed).await;
            }
        }
    }

    /// Keeps the certificates of the snapshot in use, for good.
    pub async fn keep<T>(self: Arc<Self>, current: impl Fn() -> Option<Arc<Site>>, mut changed: watch::Receiver<T>) {
        loop {
            let pause = match current() {
                None => LOOK,
                Some(site) => self.round(&site).await,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                told = changed.changed() => if told.is_err() { return },
            }
        }
    }

    /// Looks at every certificate once; how long until the next look.
    async fn round(&self, site: &Arc<Site>) -> Duration {
        let mut pause = LOOK;
        for managed in &site.certificates {
            if !managed.standing().loaded {
                take_stored(site, managed).await;
            }
            let mut wait = self.wait(site, managed);
            if wait.is_zero() {
                self.attempt(site, managed).await;
                wait = self.wait(site, managed);
            }
            pause = pause.min(wait);
        }
        pause.max(Duration::from_millis(100))
    }

    /// How long until there is something to do for a certificate.
    fn wait(&self, site: &Site, managed: &Managed) -> Duration {
        let now = clock::now();
        let until = |at: Option<Instant>| at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let hold = *self.hold.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let paused = until(managed.standing().next).max(until(hold));
        let due = managed.held.load().as_ref().map_or(Duration::ZERO, |held| {
            let at = held.renew_at(site.settings.renew_before);
            at.duration_since(clock::wall()).unwrap_or_default()
        });
        paused.max(due)
    }

    /// Orders a certificate, unless another gateway does or did.
    async fn attempt(&self, site: &Arc<Site>, managed: &Arc<Managed>) {
        let storage = Storage::new(&site.settings);
        let lock = match storage.lock() {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                managed.standing().next = clock::now().checked_add(jittered(OTHERS));
                take_stored(site, managed).await;
                return;
            }
            Err(error) => {
                let folder = site.settings.storage.display();
                // Without it every start would order anew, until the authority has enough.
                let failure = Failure::local(format!("`acme.storage` {folder} cannot be used: {error}"));
                return self.failed(&site.settings, managed, &failure);
            }
        };
        // Another one may have renewed it since we looked.
        take_stored(site, managed).await;
        if !self.wait(site, managed).is_zero() {
            return;
        }
        let obtained = match tokio::time::timeout(ORDER_MAX, obtain(site, managed, &storage)).await {
            Ok(obtained) => obtained,
            Err(_) => Err(Failure::local("the order took longer than 5 minutes")),
        };
        let read = obtained.and_then(|pem| {
            Held::read(&pem, &managed.domains, clock::wall())
                .map_err(|why| Failure::local(format!("what the authority issued cannot be used: {why}")))
        });
        match read {
            Ok(held) => take_new(&storage, &site.settings, managed, held),
            Err(failure) => self.failed(&site.settings, managed, &failure),
        }
        drop(lock);
    }

    fn failed(&self, settings: &Settings, managed: &Managed, failure: &Failure) {
        managed.failed.fetch_add(1, Ordering::Relaxed);
        let now = clock::now();
        let mut standing = managed.standing();
        let pause = pause(settings.retry_min, standing.failures, failure.retry_after);
        standing.failures = standing.failures.saturating_add(1);
        standing.next = now.checked_add(pause);
        let known = standing.error.replace(failure.why.clone()).is_some_and(|before| before == failure.why);
        drop(standing);
        if failure.unreachable || failure.limited {
            // The others would fare no better, and count against the same limits.
            *self.hold.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = now.checked_add(pause);
        }
        // Once for each kind of failure: the metric counts the rest.
        if !known {
            let (certificate, why, again_in) = (managed.name(), &failure.why, pause);
            match managed.held.load().as_ref() {
                None => error!(
                    certificate,
                    why,
                    ?again_in,
                    "no certificate could be got, and there is none: handshakes for it fail"
                ),
                Some(held) => {
                    let until = clock::rfc3339(held.not_after);
                    warn!(certificate, why, ?again_in, %until, "the certificate could not be renewed; the one there is stays in use");
                }
            }
        }
    }
}

fn take_new(storage: &Storage, settings: &Settings, managed: &Managed, held: Held) {
    if let Err(error) = storage.save_certificate(managed, &held.pem) {
        let certificate = managed.name();
        error!(certificate, %error, "a new certificate is in use, but cannot be stored: the next start will order another one");
    }
    let (until, domains) = (clock::rfc3339(held.not_after), &managed.domains);
    managed.held.store(Some(Arc::new(held)));
    managed.issued.fetch_add(1, Ordering::Relaxed);
    // One that seems to end at once, because a clock is wrong, must not lead to the next order at once.
    let next = clock::now().checked_add(jittered(settings.retry_min));
    *managed.standing() = Standing { loaded: true, next, ..Standing::default() };
    info!(certificate = managed.name(), ?domains, %until, "a new certificate is in use");
}

/// Takes what is stored, if it is good and lasts longer than what there is.
async fn take_stored(site: &Arc<Site>, managed: &Arc<Managed>) {
    let (site, managed) = (Arc::clone(site), Arc::clone(managed));
    // The disk may be slow, and connections are accepted elsewhere; a task that ends early has panicked, and took nothing.
    let _ = tokio::task::spawn_blocking(move || read_stored(&site, &managed)).await;
}

fn read_stored(site: &Site, managed: &Managed) {
    managed.standing().loaded = true;
    let read = match Storage::new(&site.settings).certificate(managed) {
        Ok(None) => return,
        Ok(Some(pem)) => Held::read(&pem, &managed.domains, clock::wall()),
        Err(error) => Err(error.to_string()),
    };
    let current = managed.held.load_full();
    match read {
        Ok(held) => {
            if current.is_none_or(|current| held.not_after > current.not_after) {
                let until = clock::rfc3339(held.not_after);
                info!(certificate = managed.name(), %until, "the stored certificate is in use");
                managed.held.store(Some(Arc::new(held)));
            }
        }
        Err(why) => {
            let known = managed.standing().error.replace(why.clone()).is_some_and(|before| before == why);
            if !known {
                let certificate = managed.name();
                warn!(certificate, why, in_use = current.is_some(), "the stored certificate cannot be used");
            }
        }
    }
}

/// The pause after one more failure: doubled with each, at least what the authority asks for, and never the same for all gateways.
fn pause(first: Duration, failures: u32, asked: Option<Duration>) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(PAUSE_MAX.max(first));
    jittered(doubled.max(asked.unwrap_or_default().min(HOLD_MAX)))
}

/// Up to a tenth more: never earlier than asked for.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(fastrand::f64().mul_add(0.1, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_never_shorter_than_the_authority_asks() {
        let (first, seconds) = (Duration::from_secs(60), Duration::from_secs);
        for (failures, asked, least) in [
            (0, None, seconds(60)),
            (1, None, seconds(120)),
            (5, None, seconds(1920)),
            (30, None, PAUSE_MAX),
            (0, Some(seconds(30)), seconds(60)),
            (0, Some(seconds(7200)), seconds(7200)),
            (9, Some(Duration::MAX), HOLD_MAX),
        ] {
            let pause = pause(first, failures, asked);
            assert!(pause >= least && pause <= least.mul_f64(1.1), "{failures} {asked:?}: {pause:?}");
        }
    }
}
