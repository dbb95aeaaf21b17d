//! Asks one source again and again, for as long as a snapshot needs it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;

use super::consul::Consul;
use super::dns::Dns;
use super::file::File;
use super::registry::Registered;
use super::{Discovery, Endpoint, Settings, Source};

/// Pause after the first failure; it doubles.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// What a look brought.
pub struct Looked {
    pub endpoints: Vec<Endpoint>,
    /// Why a part of it is what was known before.
    pub lacking: Option<String>,
    /// How long it is good.
    pub pause: Duration,
}

/// Whoever looks.
enum Looker {
    Dns(Box<Dns>),
    File(Box<File>),
    Consul(Box<Consul>),
    Registry(Box<Registered>),
}

pub async fn follow(source: Weak<Source>, discovery: Arc<Discovery>) {
    let Some(begun) = source.upgrade() else { return };
    let gone = Arc::clone(&begun.gone);
    let mut looker = Looker::new(&begun.settings, &discovery);
    drop((begun, discovery));
    let mut failures = 0_u32;
    loop {
        let looked = tokio::select! {
            looked = looker.look() => looked,
            () = gone.notified() => return,
        };
        let Some(held) = source.upgrade() else { return };
        let pause = match looked {
            Ok(Looked { endpoints, lacking, pause }) => {
                failures = if lacking.is_some() { failures.saturating_add(1) } else { 0 };
                held.answered(endpoints, lacking);
                if failures == 0 { pause } else { pause.min(backoff(failures)) }
            }
            Err(why) => {
                failures = failures.saturating_add(1);
                held.without_answer(why);
                let pause = backoff(failures);
                held.settings.stale_max().map_or(pause, |max| pause.min(max.max(RETRY_FIRST)))
            }
        };
        held.tell_slots().await;
        held.progress.tried();
        drop(held);
        tokio::select! {
            () = sleep(pause) => {}
            () = looker.woken() => {}
            () = gone.notified() => return,
        }
    }
}

impl Looker {
    fn new(settings: &Settings, discovery: &Discovery) -> Self {
        match settings {
            Settings::Dns(settings) => Self::Dns(Box::new(Dns::new(settings))),
            Settings::File(settings) => Self::File(Box::new(File::new(settings))),
            Settings::Consul(settings) => Self::Consul(Box::new(Consul::new(settings))),
            Settings::Registry(service) => Self::Registry(Box::new(Registered::new(service, discovery))),
        }
    }

    /// # Errors
    /// Why there is no answer, in one line.
    async fn look(&mut self) -> Result<Looked, String> {
        match self {
            Self::Dns(dns) => dns.look().await,
            Self::File(file) => file.look().await,
            Self::Consul(consul) => consul.look().await,
            Self::Registry(registered) => registered.look().await,
        }
    }

    /// Waits until it is worth while to look before the time; for ever where nobody tells.
    async fn woken(&mut self) {
        match self {
            Self::File(file) => file.woken().await,
            Self::Registry(registered) => registered.woken().await,
            Self::Dns(_) | Self::Consul(_) => std::future::pending().await,
        }
    }
}

/// Up to a tenth less than it could be, so that many gateways do not ask in one moment.
fn backoff(failures: u32) -> Duration {
    let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
    RETRY_FIRST.saturating_mul(factor).min(RETRY_LONGEST).mul_f64(fastrand::f64().mul_add(-0.1, 1.0))
}
