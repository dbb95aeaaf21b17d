//! The gateway that runs: starts the next one, and hands over to it.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::Duration;

use tokio::time::{interval, timeout};
use tracing::{error, info};

use super::channel::{Channel, DESCRIPTORS_MAX};
use super::{Handed, Note, PROTOCOL, VARIABLE};

/// How long the next gateway may take until it could serve.
const READY_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take from then until it serves.
const SERVING_PATIENCE: Duration = Duration::from_secs(10);
/// How long it is waited for the exit status of one that let go of its end.
const EXIT_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether it has ended.
const EXIT_INTERVAL: Duration = Duration::from_millis(20);
/// What tells a process of systemd's which descriptors and which watchdog are its own: not those of the next one.
const NOT_INHERITED: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// How this process was started.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// To be asked early: later another file may be where the binary was.
    ///
    /// # Errors
    /// The system does not say.
    pub fn of_this_process() -> io::Result<Self> {
        let running = env::current_exe()?;
        let mut arguments = env::args_os();
        // As written, a link to the current version included: where it leads is found anew for the next one.
        let written = arguments.next().map(PathBuf::from).filter(|path| path.components().count() > 1);
        let written = written.and_then(|path| std::path::absolute(path).ok());
        let written = written.filter(|path| path.canonicalize().is_ok_and(|path| path == running));
        Ok(Self { path: written.unwrap_or(running), arguments: arguments.collect() })
    }

    /// Starts the next gateway, gives it what it needs, and waits until it could serve.
    ///
    /// # Errors
    /// It cannot, for this reason. It has ended then, or is made to.
    pub async fn prepare(self, sockets: Vec<(Handed, OwnedFd)>, generation: u64) -> Result<Prepared, String> {
        let (channel, theirs) = Channel::pair().map_err(|error| error.to_string())?;
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env(VARIABLE, PROTOCOL).stdin(theirs);
        for variable in NOT_INHERITED {
            command.env_remove(variable);
        }
        let child = command.spawn().map_err(|error| format!("`{}` cannot be started: {error}", self.path.display()))?;
        // The command holds the other end too: without this the end of the next gateway would go unnoticed.
        drop(command);
        let next = Next { child: Some(child), channel };
        info!(process = next.id(), program = %self.path.display(), "the next gateway starts");
        let ready = async {
            send_all(&next.channel, sockets, generation).await?;
            next.channel.note().await
        };
        match timeout(READY_PATIENCE, ready).await {
            Ok(Ok(Note::Ready)) => Ok(Prepared(next)),
            Ok(Ok(note)) => Err(format!("it said {note:?} where it had to say that it is ready")),
            Ok(Err(error)) => Err(next.why(&error).await),
            Err(_) => Err(format!("it was not ready within {READY_PATIENCE:?}")),
        }
    }
}

/// Hands over descriptors, as many at a time as fit.
pub async fn send_all(channel: &Channel, sockets: Vec<(Handed, OwnedFd)>, generation: u64) -> io::Result<()> {
    let mut rest = sockets.as_slice();
    loop {
        let (now, later) = rest.split_at_checked(DESCRIPTORS_MAX).unwrap_or((rest, &[]));
        let handed = now.iter().map(|(handed, _)| *handed).collect();
        let descriptors: Vec<BorrowedFd<'_>> = now.iter().map(|(_, descriptor)| descriptor.as_fd()).collect();
        let note = Note::Sockets { sockets: handed, more: !later.is_empty(), generation };
        channel.tell(&note, &descriptors).await?;
        if later.is_empty() {
            return Ok(());
        }
        rest = later;
    }
}

/// A gateway that could serve, and waits to be told so.
pub struct Prepared(Next);

impl Prepared {
    /// Lets it serve. From here on two gateways do, until this one stops.
    ///
    /// # Errors
    /// It does not, for this reason, and is made to end.
    pub async fn go(self) -> Result<Successor, String> {
        let Self(mut next) = self;
        let serving = async {
            next.channel.tell(&Note::Go, &[]).await?;
            next.channel.note().await
        };
        match timeout(SERVING_PATIENCE, serving).await {
            Ok(Ok(Note::Serving)) => {
                let successor = Successor { process: next.id() };
                if let Some(child) = next.child.take() {
                    watch(child);
                }
                Ok(successor)
            }
            Ok(Ok(note)) => Err(format!("it said {note:?} where it had to say that it serves")),
            Ok(Err(error)) => Err(next.why(&error).await),
            Err(_) => Err(format!("it did not serve within {SERVING_PATIENCE:?}")),
        }
    }
}

/// The gateway that serves now.
#[derive(Clone, Copy, Debug)]
pub struct Successor {
    pub process: u32,
}

/// The process of the next gateway. Killed when dropped, unless it was let go.
struct Next {
    child: Option<Child>,
    channel: Channel,
}

impl Next {
    fn id(&self) -> u32 {
        self.child.as_ref().map(Child::id).unwrap_or_default()
    }

    /// Why it has let go of its end: how it ended says more.
    async fn why(mut self, error: &io::Error) -> String {
        let Some(child) = &mut self.child else { return error.to_string() };
        let ended = async {
            let mut ticks = interval(EXIT_INTERVAL);
            loop {
                ticks.tick().await;
                match child.try_wait() {
                    Ok(None) => {}
                    ended => return ended,
                }
            }
        };
        match timeout(EXIT_PATIENCE, ended).await {
            Ok(Ok(Some(status))) => format!("it ended before it served: {}", told(status)),
            _ => format!("it does not speak any more: {error}"),
        }
    }
}

/// An exit status, and where the reason is.
fn told(status: ExitStatus) -> String {
    match status.code() {
        Some(64) => format!("{status}, a mistake in the configuration; it stands above"),
        Some(_) => format!("{status}; the reason stands above"),
        None => status.to_string(),
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            reap(child, |_| {});
        }
    }
}

/// Says so if the gateway that serves now ends before this one has drained.
fn watch(child: Child) {
    let process = child.id();
    reap(child, move |status| error!(process, %status, "the gateway that took over has ended"));
}

/// Waits for the end of a process, so that nothing is left of it.
fn reap(mut child: Child, then: impl FnOnce(ExitStatus) + Send + 'static) {
    // Where there is no thread for that, it is done when this process ends.
    let _ = thread::Builder::new().name("next gateway".to_owned()).spawn(move || {
        if let Ok(status) = child.wait() {
            then(status);
        }
    });
}
