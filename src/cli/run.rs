//! `tollgate run`: serve.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime;
use tracing::warn;

use super::EXIT_CONFIGURATION;
use crate::buckets::Limiter;
use crate::config::load::Environment;
use crate::config::{Log, LogFormat};
#[cfg(feature = "plugins")]
use crate::delivery::Calls;
use crate::gateway::{Services, preview};
use crate::inbox::{self, Queue, RedisQueue};
use crate::limits;
use crate::lines::expand_home;
use crate::live::Live;
use crate::observe::access::AccessLog;
use crate::observe::audit::AuditLog;
use crate::observe::log::{self, LogHandle, LogTarget};
use crate::observe::metrics::Metrics;
use crate::observe::webhooks::WebhookLog;
use crate::server::{self, Logs, Start};
use crate::state::{self, Backend, Guard, Memory, Redis, Store};

/// How long the start waits for a store that gateways share: a gateway starts without it, if it must.
const STATE_PATIENCE: Duration = Duration::from_secs(2);

/// Serves until a signal ends it.
pub fn run(config: &Path) -> ExitCode {
    let environment = Environment::Process;
    // First of all: later there are threads.
    let mut start = match Start::take(&environment) {
        Ok(start) => start,
        Err(error) => return fail(&error),
    };
    let home = environment.get("HOME").map(PathBuf::from);
    let metrics = Metrics::new(usize::MAX);
    let services = Services::new(Arc::clone(&metrics));
    let permits = services.limits.permits.clone();
    metrics.show_concurrency(move || permits.samples());
    let live = match Live::start(config.to_owned(), environment, services.clone(), preview::check_tests) {
        Ok(live) => live,
        Err(problems) => {
            for problem in problems {
                eprintln!("{problem}\n");
            }
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    let opened = open_state(&live.current().settings.state, config, start.take_state_lock());
    let served = opened.and_then(|state| {
        services.identity.attach(Arc::clone(&state.store));
        services.replay.attach(Arc::clone(&state.store));
        services.discovery.attach(Arc::clone(&state.store));
        if let Some(queue) = state.queue {
            services.inboxes.attach(queue);
        }
        let limiter = state.shared.clone().map(|redis| redis as Arc<dyn Limiter>);
        services.limits.attach(limits::Shared { store: state.store, limiter });
        serve(live, services, home.as_deref(), state.shared.as_deref(), (start, state.lock))
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("tollgate: {error:#}");
    ExitCode::FAILURE
}

fn serve(
    live: Arc<Live>,
    services: Services,
    home: Option<&Path>,
    shared: Option<&Redis>,
    (start, state_lock): (Start, Option<OwnedFd>),
) -> anyhow::Result<()> {
    #[cfg(feature = "plugins")]
    let plugins = Arc::clone(&services.plugins);
    let Services { metrics, identity, limits, replay, inboxes, acme, .. } = services;
    let settings = live.current().settings.clone();
    let log = open_log(&settings.log, home)?;
    let access_log = match &settings.access_log {
        Some(settings) => Some(AccessLog::open(settings, home).context("cannot open the access log")?),
        None => None,
    };
    if let Some(access_log) = &access_log {
        let access_log = Arc::clone(access_log);
        metrics.count_access_log_dropped(move || access_log.dropped());
    }
    let audit_log = match &settings.audit_log {
        Some(settings) => Some(AuditLog::open(settings, home).context("cannot open the audit log")?),
        None => None,
    };
    if let Some(audit_log) = &audit_log {
        live.current().identity.shared().attach_audit(Arc::clone(audit_log));
        let audit_log = Arc::clone(audit_log);
        metrics.count_audit_log_dropped(move || audit_log.dropped());
    }
    let webhook_log = match &settings.webhook_log {
        Some(settings) => Some(WebhookLog::open(settings, home).context("cannot open the webhook log")?),
        None => None,
    };
    if let Some(webhook_log) = &webhook_log {
        inboxes.attach_log(Arc::clone(webhook_log));
        let webhook_log = Arc::clone(webhook_log);
        metrics.count_webhook_log_dropped(move || webhook_log.dropped());
    }
    let logs = Logs { access: access_log, audit: audit_log, webhooks: webhook_log, errors: log };
    // The control thread: signals, reloads, the admin address. Requests are served by the workers.
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if let Some(redis) = shared {
            redis.ready(STATE_PATIENCE).await;
        }
        match identity.load().await {
            // It is tried again beside the requests; until then no token is accepted.
            Err(error) if shared.is_some() => warn!(%error, "revocations could not be read; tokens are refused"),
            loaded => loaded?,
        }
        #[cfg(feature = "plugins")]
        plugins.outlet().open(Arc::new(Calls::new(&live)));
        server::run(server::Options { live, metrics, logs, limits, replay, inboxes, acme, start, state_lock }).await
    })
}

/// Where state is kept.
struct Opened {
    store: Arc<dyn Store>,
    /// The same, where gateways share it.
    shared: Option<Arc<Redis>>,
    /// Where messages are kept, if they are.
    queue: Option<Arc<dyn Queue>>,
    /// What keeps other gateways from the file, where there is one.
    lock: Option<OwnedFd>,
}

/// Opens what outlives a reload. A path is relative to the folder of `gateway.yaml`. `handed` is the lock of the gateway that
/// hands over to this one: it has the files open.
fn open_state(settings: &Backend, config: &Path, handed: Option<OwnedFd>) -> anyhow::Result<Opened> {
    Ok(match settings {
        Backend::Memory => {
            let store = Arc::new(Memory::new(state::Limits::default()));
            Opened { store, shared: None, queue: None, lock: None }
        }
        Backend::File(file) => {
            let file = config.parent().unwrap_or(Path::new("")).join(file);
            let inbox = inbox::File::beside(&file);
            // Whether there is an inbox or not: a reload may bring the first one. It makes its file when something is stored.
            let (store, queue) = match handed.and_then(|handed| Guard::adopt(&file, handed)) {
                None => (state::File::open(&file)?, inbox::File::open(&inbox)?),
                Some(guard) => (state::File::open_beside(&file, guard)?, inbox::File::open_beside(&inbox)?),
            };
            let lock = Some(store.guard().share()?);
            Opened { store: Arc::new(store), shared: None, queue: Some(Arc::new(queue)), lock }
        }
        Backend::Redis(settings) => {
            let redis = Arc::new(Redis::open(settings)?);
            let queue = Arc::new(RedisQueue::open(settings)?);
            Opened { store: Arc::clone(&redis) as Arc<dyn Store>, shared: Some(redis), queue: Some(queue), lock: None }
        }
    })
}

fn open_log(settings: &Log, home: Option<&Path>) -> anyhow::Result<LogHandle> {
    let format = match settings.format {
        LogFormat::Human => log::LogFormat::Human,
        LogFormat::Json => log::LogFormat::Json,
    };
    let target = match &settings.file {
        Some(file) => LogTarget::File(expand_home(Path::new(file), home)?),
        None => LogTarget::Stderr,
    };
    Ok(log::init(&settings.level, format, target)?)
}
