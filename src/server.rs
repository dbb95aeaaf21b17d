//! Listeners, workers, signals, drain.
//!
//! One control thread (the caller's) and `threads` workers. A worker is a thread with a runtime of its own that never gives
//! work to another: a connection stays on the core that accepted it, with the upstream connections it uses.

mod admission;
mod announced;
mod descriptors;
mod handover;
mod listeners;
mod sockets;
mod start;
mod systemd;
mod upgrade;
mod warnings;
mod worker;

use std::net::TcpListener as StdListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use crate::acme::Acme;
use crate::admin::{self, Admin};
use crate::delivery::Delivery;
use crate::gateway::Settings;
use crate::identity::Shared;
use crate::inbox::Inboxes;
use crate::limits::Limits;
use crate::live::{Cause, Live};
use crate::observe::access::AccessLog;
use crate::observe::audit::AuditLog;
use crate::observe::log::LogHandle;
use crate::observe::metrics::{KeySetSample, Metrics};
use crate::observe::webhooks::WebhookLog;
use crate::overload::Overload;
use crate::proxy::body_memory;
use crate::replay::Replay;
use crate::upstream::discovery::discovery_samples;
use crate::upstream::{breaker_samples, health_samples};
use admission::Admission;
use handover::{Predecessor, Successor};
use listeners::Listeners;
pub use start::Start;
use systemd::Systemd;
use upgrade::Upgrade;
use worker::Workers;

/// What the server is made of.
pub struct Options {
    pub live: Arc<Live>,
    pub limits: Arc<Limits>,
    pub inboxes: Arc<Inboxes>,
    pub acme: Arc<Acme>,
    pub replay: Arc<Replay>,
    pub metrics: Arc<Metrics>,
    pub logs: Logs,
    pub start: Start,
    /// What keeps other gateways from the state file, where there is one: the next gateway gets it.
    pub state_lock: Option<OwnedFd>,
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
/// How long idle connections are left open after a handover. A client that sends a request meanwhile is answered, and told to
/// come anew: it meets the next gateway, where one that was closed at that moment would have to send its request again.
const IDLE_GRACE: Duration = Duration::from_secs(5);
/// How often an upgraded gateway looks whether one before it, that drains, has put a message into an inbox.
const INBOX_INTERVAL: Duration = Duration::from_secs(1);
/// How often an address is tried again that could not be listened on.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Serves until a signal ends it. Fails when an address cannot be listened on at start.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let Options { live, limits, replay, inboxes, acme, metrics, logs, mut start, state_lock } = options;
    // First of all: until then a SIGHUP, SIGUSR1 or SIGUSR2 would end the process.
    let mut signals = Signals::new()?;
    let settings = live.current().settings.clone();
    let identity = Arc::clone(live.current().identity.shared());
    descriptors::provide(settings.limits.connections_max);
    show_figures(&metrics, &live, &limits, &replay);
    reach_out(&limits, &identity);
    acme.load(live.current().acme.clone()).await;
    tokio::join!(live.resolve_names(), identity.key_sets.tried(KEYS_PATIENCE), identity.read_keys());
    let admission = Arc::new(Admission::default());
    let overload = keep_from_overload(settings.threads, &live, &metrics);
    let workers = Workers::start(settings.threads, &live, &metrics, &logs, &admission, &overload)?;
    let mut listeners = Listeners::new(workers, Arc::clone(&metrics), std::mem::take(&mut start.sockets));
    listeners.open_all(&settings.listeners)?;
    let admin_socket = settings.admin.map(|bind| listeners.open_admin(bind)).transpose()?;
    let systemd = Arc::new(start.systemd());
    let (predecessor, generation) = start.predecessor()?;
    if let Some(predecessor) = &predecessor {
        tokio::select! {
            go = take_over(predecessor, &identity) => go?,
            () = signals.stop() => return Ok(()),
        }
        if state_lock.is_some() {
            tokio::spawn(look_for_messages(Arc::clone(&inboxes)));
        }
    }
    listeners.accept_all(&settings.listeners)?;
    let draining = Arc::new(AtomicBool::new(false));
    let stop = Arc::new(Notify::new());
    if let Some(socket) = admin_socket {
        let connections = Arc::clone(&admission);
        let connections = move || connections.open();
        let (live, metrics) = (Arc::clone(&live), Arc::clone(&metrics));
        let admin =
            Admin::new(live, metrics, Arc::clone(&limits), Arc::clone(&inboxes), Arc::clone(&draining), connections);
        serve_admin(socket, admin, &stop)?;
    }
    spawn_keepers(&live, &identity, &limits, &replay);
    keep_certificates(&live, acme, &metrics);
    warnings::tell(&live.current());
    tell_bound(&listeners);
    let delivery =
        inboxes.queue().map(|queue| Delivery::start(Arc::clone(&live), Arc::clone(queue), &metrics)).transpose()?;
    match predecessor {
        None => systemd.ready(),
        Some(predecessor) => predecessor.serving().await.context("the gateway that hands over is gone")?,
    }
    let mut upgrade = Upgrade::new(start.program, generation, &metrics, &systemd, state_lock);
    let successor = control(&live, &mut listeners, &mut signals, &logs, &settings, &mut upgrade).await;
    let grace = if successor.is_some() { IDLE_GRACE } else { Duration::ZERO };
    match successor {
        None => systemd.stopping(),
        // Who asks at the admin address is to meet the one that serves.
        Some(_) => stop.notify_waiters(),
    }
    draining.store(true, Ordering::Relaxed);
    let timeout = live.current().settings.drain_timeout;
    drain(listeners, &admission, delivery.as_ref(), timeout, signals.end(successor.is_some()), grace).await;
    stop.notify_waiters();
    if let Some(delivery) = &delivery {
        delivery.cut().await;
    }
    tokio::join!(identity.flush(), limits.quotas.flush(), replay.flush());
    tokio::task::spawn_blocking(move || logs.flush()).await?;
    Ok(())
}

/// Waits until the gateway before this one lets it serve.
async fn take_over(predecessor: &Predecessor, identity: &Shared) -> anyhow::Result<()> {
    predecessor.ready().await.context("the gateway that hands over does not any more")?;
    // What that one took back while this one was made. Where it cannot be read, tokens are refused until it can.
    let _ = tokio::join!(identity.load(), identity.read_keys());
    Ok(())
}

/// Turns to the state store and to those who sign tokens: the start does not wait for them long.
fn reach_out(limits: &Limits, identity: &Arc<Shared>) {
    if let Some(remote) = limits.remote().cloned() {
        tokio::spawn(async move { remote.keep().await });
    }
    let keys = Arc::clone(identity);
    tokio::spawn(async move { keys.key_sets.keep_fetching().await });
}

/// What goes on beside the requests, to the end.
fn spawn_keepers(live: &Arc<Live>, identity: &Arc<Shared>, limits: &Arc<Limits>, replay: &Arc<Replay>) {
    tokio::spawn(Arc::clone(live).watch());
    tokio::spawn(Arc::clone(live).keep_resolving());
    tokio::spawn(Arc::clone(live).keep_checking());
    tokio::spawn(Arc::clone(identity).keep());
    tokio::spawn(Arc::clone(limits).keep());
    tokio::spawn(Arc::clone(replay).keep());
}

/// Lets end what is under way, in time.
async fn drain(
    mut listeners: Listeners,
    admission: &Admission,
    delivery: Option<&Delivery>,
    timeout: Duration,
    told: impl Future<Output = ()>,
    grace: Duration,
) {
    info!(connections = admission.open(), ?timeout, "draining");
    let grace = async {
        let _ = tokio::time::timeout(grace, admission.none_open()).await;
    };
    let drained = async {
        listeners.close_all(grace).await;
        admission.none_open().await;
    };
    let drained = async { tokio::join!(drained, finish(delivery)) };
    tokio::select! {
        _ = drained => info!("drained"),
        () = tokio::time::sleep(timeout) => warn!(connections = admission.open(), "drain_timeout is over"),
        () = told => warn!(connections = admission.open(), "told again to stop"),
    }
}

/// Waits for the deliveries under way.
async fn finish(delivery: Option<&Delivery>) {
    if let Some(delivery) = delivery {
        delivery.finish().await;
    }
}

/// Sees what another process put into an inbox of the state file: nobody wakes this one for that.
async fn look_for_messages(inboxes: Arc<Inboxes>) {
    let mut ticks = tokio::time::interval(INBOX_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(queue) = inboxes.queue() {
            // A failure is told by whoever delivers.
            let _ = queue.inboxes().await;
        }
    }
}

/// Tells the metrics where to look.
fn show_figures(metrics: &Arc<Metrics>, live: &Arc<Live>, limits: &Arc<Limits>, replay: &Arc<Replay>) {
    metrics.show_key_sets(samples(live));
    // Weak: the metrics belong to what is compiled with them.
    let running = Arc::downgrade(live);
    metrics.show_breakers(move || {
        running.upgrade().map(|live| breaker_samples(&live.current().upstreams())).unwrap_or_default()
    });
    let running = Arc::downgrade(live);
    metrics.show_discovery(move || {
        running.upgrade().map(|live| discovery_samples(live.current().slots())).unwrap_or_default()
    });
    let running = Arc::downgrade(live);
    metrics.show_health(move || {
        running.upgrade().map(|live| health_samples(&live.current().upstreams())).unwrap_or_default()
    });
    let (shared, local) = (Arc::clone(limits), Arc::clone(limits));
    metrics.show_buckets(move || local.local.len());
    metrics.show_store(move || shared.store());
    let messages = Arc::clone(replay);
    metrics.show_replay(move || messages.sample());
    metrics.show_body_memory(body_memory);
    #[cfg(feature = "plugins")]
    metrics.show_plugins(crate::wasm::record::samples);
}

/// Gets and renews the certificates of the snapshot in use that come by ACME.
fn keep_certificates(live: &Arc<Live>, acme: Arc<Acme>, metrics: &Metrics) {
    // Weak: the metrics belong to what is compiled with them.
    let running = Arc::downgrade(live);
    metrics.show_acme(move || {
        let site = running.upgrade().and_then(|live| live.current().acme.clone());
        site.iter().flat_map(|site| &site.certificates).map(|managed| managed.sample()).collect()
    });
    let (live, changed) = (Arc::clone(live), live.subscribe());
    tokio::spawn(acme.keep(move || live.current().acme.clone(), changed));
}

/// Sets the limits beyond which requests are shed, and watches over them.
fn keep_from_overload(threads: usize, live: &Arc<Live>, metrics: &Metrics) -> Arc<Overload> {
    let overload = Overload::new(threads);
    let bounds = {
        let live = Arc::clone(live);
        move || live.current().settings.limits.overload
    };
    // Before the first request.
    overload.follow(&bounds());
    let shown = Arc::clone(&overload);
    metrics.show_shedding(move || shown.samples());
    tokio::spawn(Arc::clone(&overload).keep(bounds));
    overload
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
/// Gives the gateway that serves from now on, when there is one.
async fn control(
    live: &Arc<Live>,
    listeners: &mut Listeners,
    signals: &mut Signals,
    logs: &Logs,
    fixed: &Settings,
    upgrade: &mut Upgrade,
) -> Option<Successor> {
    let mut swapped = live.subscribe();
    let mut connections_max = fixed.limits.connections_max;
    let reload = reload_when_asked(live, upgrade.systemd());
    let mut alive = tokio::time::interval(upgrade.systemd().watchdog().unwrap_or(Duration::MAX));
    let mut retry = tokio::time::interval(RETRY_INTERVAL);
    // It is waited for only while an address cannot be opened: the seconds before are not to be made up for.
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::Stop => {
                    upgrade.give_up();
                    return None;
                }
                Told::Reload => reload.notify_one(),
                Told::Reopen => logs.reopen(),
                Told::Upgrade => upgrade.begin(listeners),
            },
            prepared = upgrade.prepared() => {
                if let Some(successor) = upgrade.finish(prepared).await {
                    return Some(successor);
                }
            }
            _ = alive.tick() => upgrade.systemd().alive(),
            _ = swapped.changed() => {
                let current = live.current();
                listeners.follow(&current.settings.listeners);
                warnings::tell(&current);
                let wanted = std::mem::replace(&mut connections_max, current.settings.limits.connections_max);
                if wanted != connections_max {
                    descriptors::provide(connections_max);
                }
                for key in fixed.changed_in(&current.settings) {
                    warn!(key, "this change takes effect when the gateway is started again");
                }
            }
            _ = retry.tick(), if listeners.incomplete() => listeners.follow(&live.current().settings.listeners),
        }
    }
}

fn tell_bound(listeners: &Listeners) {
    for (asked, bound) in listeners.bound() {
        info!(%asked, %bound, "listening");
    }
}

/// A task that reloads when it is notified. However often that is during a reload, one more follows: it sees all changes.
fn reload_when_asked(live: &Arc<Live>, systemd: &Arc<Systemd>) -> Arc<Notify> {
    let asked = Arc::new(Notify::new());
    let (live, systemd, told) = (Arc::clone(live), Arc::clone(systemd), Arc::clone(&asked));
    tokio::spawn(async move {
        loop {
            told.notified().await;
            systemd.reloading("reloading");
            live.reload(Cause::Signal).await;
            systemd.ready();
        }
    });
    asked
}

fn serve_admin(socket: StdListener, admin: Admin, stop: &Arc<Notify>) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(socket)?;
    info!(bound = %listener.local_addr()?, "admin address");
    let stop = Arc::clone(stop);
    tokio::spawn(admin::serve(listener, admin, async move { stop.notified().await }));
    Ok(())
}

struct Signals {
    reload: Signal,
    reopen: Signal,
    upgrade: Signal,
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
    /// SIGUSR2
    Upgrade,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
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
            _ = self.upgrade.recv() => Told::Upgrade,
        }
    }

    /// Waits until a drain has to end at once. One that hands over was not told to stop yet: the first time changes nothing.
    async fn end(&mut self, handed_over: bool) {
        if handed_over {
            self.stop().await;
            info!("told to stop: it drains already");
        }
        self.stop().await;
    }

    /// Waits for a signal that ends the process.
    async fn stop(&mut self) {
        while !matches!(self.next().await, Told::Stop) {}
    }
}
