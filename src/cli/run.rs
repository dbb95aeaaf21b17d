//! `tollgate run`: serve.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::runtime;

use super::EXIT_CONFIGURATION;
use crate::config::load::Environment;
use crate::config::{Log, LogFormat, State};
use crate::gateway::{Services, preview};
use crate::identity::Shared;
use crate::lines::expand_home;
use crate::live::Live;
use crate::observe::access::AccessLog;
use crate::observe::audit::AuditLog;
use crate::observe::log::{self, LogHandle, LogTarget};
use crate::observe::metrics::Metrics;
use crate::server::{self, Logs};
use crate::state::{self, Memory, Store};

/// Serves until a signal ends it.
pub fn run(config: &Path) -> ExitCode {
    let environment = Environment::Process;
    let home = environment.get("HOME").map(PathBuf::from);
    let metrics = Metrics::new(usize::MAX);
    let services = Services::new(Arc::clone(&metrics));
    let identity = Arc::clone(&services.identity);
    let permits = services.limits.permits.clone();
    metrics.show_concurrency(move || permits.samples());
    let live = match Live::start(config.to_owned(), environment, services, preview::check_tests) {
        Ok(live) => live,
        Err(problems) => {
            for problem in problems {
                eprintln!("{problem}\n");
            }
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    let opened = open_state(&live.current().settings.state, config);
    let served = opened.and_then(|store| {
        identity.attach(store);
        serve(live, &identity, metrics, home.as_deref())
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tollgate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(live: Arc<Live>, identity: &Shared, metrics: Arc<Metrics>, home: Option<&Path>) -> anyhow::Result<()> {
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
    let logs = Logs { access: access_log, audit: audit_log, errors: log };
    // The control thread: signals, reloads, the admin address. Requests are served by the workers.
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        identity.load().await?;
        server::run(server::Options { live, metrics, logs }).await
    })
}

/// Opens what outlives a reload. A path is relative to the folder of `gateway.yaml`.
fn open_state(settings: &State, config: &Path) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match settings {
        State::Memory => Arc::new(Memory::new(state::Limits::default())),
        State::File(file) => {
            let folder = config.parent().unwrap_or(Path::new(""));
            Arc::new(state::File::open(&folder.join(file))?)
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
