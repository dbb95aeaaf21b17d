//! Listeners, workers, signals, drain.
//!
//! One control thread (the caller's) and `threads` workers. A worker is a thread with a runtime of its own that never gives
//! work to another: a connection stays on the core that accepted it, with the upstream connections it uses.

mod admission;
mod listeners;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use crate::admin::{self, Admin};
use crate::clock;
use crate::delivery::Delivery;
use crate::gateway::Settings;
use crate::inbox::Inboxes;
use crate::limits::Limits;
use crate::live::{Cause, Live};
use crate::observe::access::AccessLog;
use crate::observe::audit::AuditLog;
use crate::observe::log::LogHandle;
use crate::observe::metrics::{KeySetSample, Metrics};
use crate::observe::webhooks::WebhookLog;
use crate::proxy::body_memory;
use crate::replay::Replay;
use crate::upstream::breaker_samples;
use admission::Admission;
use listeners::Listeners;
use worker::Workers;

/// What the server is made of.
pub struct Options {
    pub live: Arc<Live>,
    pub limits: Arc<Limits>,
    pub inboxes: Arc<Inboxes>,
    pub replay: Arc<Replay>,
    pub metrics: Arc<Metrics>,
    pub logs: Logs,
}

/// The logs that are open.
pub struct Logs {
    pub access: Option<Arc<AccessLog>>,
    pub audit: Option<Arc<AuditLog>>,
    pub webhooks: Option<Arc<WebhookLog>>,
    pub errors: LogHandle,
}

impl Logs {
    fn reopen(&self) {
        if let Some(access) = &self.access {
            access.reopen();
        }
        if let Some(audit) = &self.audit {
            audit.reopen();
        }
        if let Some(webhooks) = &self.webhooks {
            webhooks.reopen();
        }
        if let Err(error) = self.errors.reopen() {
            error!(%error, "cannot reopen the log file; the old one stays in use");
        }
    }

    /// Writes the last lines. Blocks.
    fn flush(&self) {
        if let Some(access) = &self.access {
            access.flush(FLUSH_BOUND);
        }
        if let Some(audit) = &self.audit {
            audit.flush(FLUSH_BOUND);
        }
        if let Some(webhooks) = &self.webhooks {
            webhooks.flush(FLUSH_BOUND);
        }
    }
}

/// Connections the kernel holds until they are accepted.
const BACKLOG: u16 = 4096;
/// How long the last log lines may take.
const FLUSH_BOUND: Duration = Duration::from_secs(2);
/// How long the start waits for the key sets of issuers: a gateway starts without its identity provider, if it must.
const KEYS_PATIENCE: Duration = Duration::from_secs(2);
/// How often an address is tried again that could not be listened on.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Serves until a signal ends it. Fails when an address cannot be listened on at start.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let Options { live, limits, replay, inboxes, metrics, logs } = options;
    // First of all: until then a SIGHUP or SIGUSR1 would end the process.
    let mut signals = Signals::new()?;
    let settings = live.current().settings.clone();
    let identity = Arc::clone(live.current().identity.shared());
    metrics.show_key_sets(samples(&live));
    // Weak: the metrics belong to what is compiled with them.
    let running = Arc::downgrade(&live);
    metrics.show_breakers(move || {
        running.upgrade().map(|live| breaker_samples(live.current().upstreams())).unwrap_or_default()
    });
    if let Some(remote) = limits.remote().cloned() {
        tokio::spawn(async move { remote.keep().await });
    }
    let (shared, local) = (Arc::clone(&limits), Arc::clone(&limits));
    metrics.show_buckets(move || local.local.len());
    metrics.show_store(move || shared.store());
    let messages = Arc::clone(&replay);
    metrics.show_replay(move || messages.sample());
    metrics.show_body_memory(body_memory);
    let keys = Arc::clone(&identity);
    tokio::spawn(async move { keys.key_sets.keep_fetching().await });
    tokio::join!(live.resolve_names(), identity.key_sets.tried(KEYS_PATIENCE), identity.read_keys());
    let admission = Arc::new(Admission::default());
    let workers = Workers::start(settings.threads, &live, &metrics, &logs, &admission)?;
    let mut listeners = Listeners::new(workers, Arc::clone(&metrics));
    listeners.open_all(&settings.listeners)?;
    let draining = Arc::new(AtomicBool::new(false));
    let stop = Arc::new(Notify::new());
    if let Some(bind) = settings.admin {
        let connections = Arc::clone(&admission);
        let connections = move || connections.open();
        let (live, metrics) = (Arc::clone(&live), Arc::clone(&metrics));
        let admin =
            Admin::new(live, metrics, Arc::clone(&limits), Arc::clone(&inboxes), Arc::clone(&draining), connections);
        serve_admin(bind, admin, &stop).await?;
    }
    tokio::spawn(Arc::clone(&live).watch());
    tokio::spawn(Arc::clone(&live).keep_resolving());
    tokio::spawn(Arc::clone(&identity).keep());
    tokio::spawn(Arc::clone(&limits).keep());
    tokio::spawn(Arc::clone(&replay).keep());
    tell_expired(&settings);
    for (asked, bound) in listeners.bound() {
        info!(%asked, %bound, "listening");
    }
    let queue = inboxes.queue().cloned();
    let delivery = queue.map(|queue| Delivery::start(Arc::clone(&live), queue, &metrics)).transpose()?;
    control(&live, &mut listeners, &mut signals, &logs, &settings).await;
    draining.store(true, Ordering::Relaxed);
    let timeout = live.current().settings.drain_timeout;
    drain(listeners, &admission, delivery.as_ref(), timeout, &mut signals).await;
    stop.notify_waiters();
    if let Some(delivery) = &delivery {
        delivery.cut().await;
    }
    tokio::join!(identity.flush(), limits.quotas.flush(), replay.flush());
    tokio::task::spawn_blocking(move || logs.flush()).await?;
    Ok(())
}

/// Lets end what is under way, in time.
async fn drain(
    mut listeners: Listeners,
    admission: &Admission,
    delivery: Option<&Delivery>,
    timeout: Duration,
    signals: &mut Signals,
) {
    info!(connections = admission.open(), ?timeout, "draining");
    let drained = async {
        listeners.close_all().await;
        admission.none_open().await;
    };
    let drained = async { tokio::join!(drained, finish(delivery)) };
    tokio::select! {
        _ = drained => info!("drained"),
        () = tokio::time::sleep(timeout) => warn!(connections = admission.open(), "drain_timeout is over"),
        () = signals.stop() => warn!(connections = admission.open(), "told again to stop"),
    }
}

/// Waits for the deliveries under way.
async fn finish(delivery: Option<&Delivery>) {
    if let Some(delivery) = delivery {
        delivery.finish().await;
    }
}

/// What the metrics show of the key sets of the snapshot in use.
fn samples(live: &Arc<Live>) -> impl Fn() -> Vec<KeySetSample> + Send + Sync + 'static {
    // Weak, as above.
    let live = Arc::downgrade(live);
    move || {
        let Some(current) = live.upgrade().map(|live| live.current()) else { return Vec::new() };
        let sources = current.identity.issuers().filter_map(|issuer| Some((&issuer.name, issuer.source()?.status())));
        let sample = sources.map(|(issuer, status)| KeySetSample {
            issuer: issuer.to_string(),
            fetched: status.ok,
            failed: status.failed,
            keys: status.keys.unwrap_or_default(),
            loaded: status.loaded,
        });
        sample.collect()
    }
}

/// Follows signals and snapshots until it is told to stop. `fixed` are the settings it was started with.
async fn control(live: &Arc<Live>, listeners: &mut Listeners, signals: &mut Signals, logs: &Logs, fixed: &Settings) {
    let mut swapped = live.subscribe();
    let reload = reload_when_asked(live);
    let mut retry = tokio::time::interval(RETRY_INTERVAL);
    // It is waited for only while an address cannot be opened: the seconds before are not to be made up for.
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::Stop => return,
                Told::Reload => reload.notify_one(),
                Told::Reopen => logs.reopen(),
            },
            _ = swapped.changed() => {
                let current = live.current();
                listeners.follow(&current.settings.listeners);
                tell_expired(&current.settings);
                for key in fixed.changed_in(&current.settings) {
                    warn!(key, "this change takes effect when the gateway is started again");
                }
            }
            _ = retry.tick(), if listeners.incomplete() => listeners.follow(&live.current().settings.listeners),
        }
    }
}

/// Says which certificates have ended. They are used all the same: a client that does not mind is served.
fn tell_expired(settings: &Settings) {
    let now = clock::wall();
    for listener in &settings.listeners {
        let certificates = listener.tls.iter().flat_map(|tls| &tls.ends);
        for (cert, end) in certificates.filter(|(_, end)| *end < now) {
            error!(listener = %listener.address, cert, since = clock::rfc3339(*end), "this certificate has expired");
        }
    }
}

/// A task that reloads when it is notified. However often that is during a reload, one more follows: it sees all changes.
fn reload_when_asked(live: &Arc<Live>) -> Arc<Notify> {
    let asked = Arc::new(Notify::new());
    let (live, told) = (Arc::clone(live), Arc::clone(&asked));
    tokio::spawn(async move {
        loop {
            told.notified().await;
            live.reload(Cause::Signal).await;
        }
    });
    asked
}

async fn serve_admin(bind: SocketAddr, admin: Admin, stop: &Arc<Notify>) -> anyhow::Result<()> {
    use anyhow::Context as _;
    let listener = TcpListener::bind(bind).await.with_context(|| format!("cannot listen on {bind} (admin)"))?;
    info!(bound = %listener.local_addr()?, "admin address");
    let stop = Arc::clone(stop);
    tokio::spawn(admin::serve(listener, admin, async move { stop.notified().await }));
    Ok(())
}

struct Signals {
    reload: Signal,
    reopen: Signal,
    terminate: Signal,
    interrupt: Signal,
}

/// What a signal asks for.
enum Told {
    /// SIGTERM, SIGINT
    Stop,
    /// SIGHUP
    Reload,
    /// SIGUSR1
    Reopen,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.reload.recv() => Told::Reload,
            _ = self.reopen.recv() => Told::Reopen,
        }
    }

    /// Waits for a signal that ends the process.
    async fn stop(&mut self) {
        while !matches!(self.next().await, Told::Stop) {}
    }
}
