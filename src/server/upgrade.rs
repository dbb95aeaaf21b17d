//! An upgrade as the control thread sees it: one at a time, beside everything else.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::process;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::handover::{Handed, Prepared, Program, Successor};
use super::listeners::Listeners;
use super::systemd::Systemd;
use crate::observe::metrics::Metrics;

pub struct Upgrade {
    program: Program,
    /// Of this process.
    generation: u64,
    metrics: Arc<Metrics>,
    systemd: Arc<Systemd>,
    state_lock: Option<OwnedFd>,
    preparing: Option<JoinHandle<Result<Prepared, String>>>,
}

/// The first process of a container or a machine: when it ends, everything does.
const INIT: u32 = 1;

impl Upgrade {
    pub fn new(
        program: Program,
        generation: u64,
        metrics: &Arc<Metrics>,
        systemd: &Arc<Systemd>,
        state_lock: Option<OwnedFd>,
    ) -> Self {
        metrics.upgrades.set_generation(generation);
        let (metrics, systemd) = (Arc::clone(metrics), Arc::clone(systemd));
        Self { program, generation, metrics, systemd, state_lock, preparing: None }
    }

    pub fn systemd(&self) -> &Arc<Systemd> {
        &self.systemd
    }

    /// Starts the next gateway, unless that is under way.
    pub fn begin(&mut self, listeners: &Listeners) {
        if self.preparing.is_some() {
            info!("an upgrade is under way already");
            return;
        }
        if process::id() == INIT {
            error!(
                "no upgrade: this gateway is process 1, and its end would be that of the container; replace the container"
            );
            return;
        }
        match self.share(listeners) {
            Ok(sockets) => {
                self.systemd.reloading("upgrading");
                let next = self.program.clone().prepare(sockets, self.generation.saturating_add(1));
                self.preparing = Some(tokio::spawn(next));
            }
            Err(error) => self.failed(&error.to_string()),
        }
    }

    /// Waits until the next gateway could serve, or could not. For ever, when there is none.
    pub async fn prepared(&mut self) -> Result<Prepared, String> {
        let Some(preparing) = &mut self.preparing else { return pending().await };
        let prepared = preparing.await;
        self.preparing = None;
        prepared.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Lets it serve; gives it if it does.
    pub async fn finish(&self, prepared: Result<Prepared, String>) -> Option<Successor> {
        let served = match prepared {
            Ok(prepared) => prepared.go().await,
            Err(error) => Err(error),
        };
        match served {
            Ok(successor) => {
                self.systemd.handed_over(successor.process);
                info!(process = successor.process, "handed over: the next gateway serves");
                Some(successor)
            }
            Err(why) => {
                self.failed(&why);
                self.systemd.ready();
                None
            }
        }
    }

    /// Ends the next gateway: this one is told to stop, and so is that.
    pub fn give_up(&mut self) {
        if let Some(preparing) = self.preparing.take() {
            warn!("told to stop: the upgrade that is under way is given up");
            preparing.abort();
        }
    }

    fn share(&self, listeners: &Listeners) -> io::Result<Vec<(Handed, OwnedFd)>> {
        let mut shared = listeners.share()?;
        if let Some(lock) = &self.state_lock {
            shared.push((Handed::StateLock, lock.try_clone()?));
        }
        Ok(shared)
    }

    fn failed(&self, why: &str) {
        self.metrics.upgrades.failed();
        error!(why, "the upgrade failed; this gateway goes on as before");
    }
}
