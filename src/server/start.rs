//! What a process was started with: by a shell, by systemd, or by the gateway that it takes over from.

use std::os::fd::OwnedFd;

use super::handover::{Handed, Inherited, Predecessor, Program, VARIABLE};
use super::sockets::Sockets;
use super::systemd::Systemd;
use crate::config::load::Environment;

/// To be handed to the server.
pub struct Start {
    pub(super) program: Program,
    pub(super) sockets: Sockets,
    /// The gateway that hands over to this one.
    inherited: Option<Inherited>,
    state_lock: Option<OwnedFd>,
    notify_socket: Option<String>,
    watchdog: Option<String>,
}

impl Start {
    /// To be asked once, and first of all. Blocks while another gateway hands over.
    ///
    /// # Errors
    /// What the environment says is not so.
    pub fn take(environment: &Environment) -> anyhow::Result<Self> {
        let program = Program::of_this_process()?;
        let mut inherited = Inherited::take(environment.get(VARIABLE).as_deref())?;
        let mut start = Self {
            program,
            sockets: Sockets::default(),
            inherited: None,
            state_lock: None,
            notify_socket: environment.get("NOTIFY_SOCKET"),
            watchdog: environment.get("WATCHDOG_USEC"),
        };
        match &mut inherited {
            None => start.sockets = Sockets::from_systemd(),
            Some(inherited) => {
                for (handed, descriptor) in inherited.sockets.drain(..) {
                    match handed {
                        Handed::StateLock => start.state_lock = Some(descriptor),
                        Handed::Listening(_) | Handed::Admin(_) | Handed::Activated(_) => {
                            start.sockets.hand(handed, descriptor);
                        }
                    }
                }
            }
        }
        start.inherited = inherited;
        Ok(start)
    }

    /// The lock of the state file, where another gateway has handed it over.
    pub fn take_state_lock(&mut self) -> Option<OwnedFd> {
        self.state_lock.take()
    }

    /// Who hands over to this process, if somebody does, and how many gateways came before.
    pub(super) fn predecessor(&mut self) -> std::io::Result<(Option<Predecessor>, u64)> {
        let Some(inherited) = self.inherited.take() else { return Ok((None, 0)) };
        let generation = inherited.generation;
        Ok((Some(inherited.predecessor()?), generation))
    }

    pub(super) fn systemd(&self) -> Systemd {
        Systemd::new(self.notify_socket.as_deref(), self.watchdog.as_deref())
    }
}
