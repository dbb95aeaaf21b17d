//! The gateway that was started by another one, to take over from it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::Context as _;
use rustix::stdio::dup2_stdin;

use super::channel::{Channel, wait};
use super::{Handed, Note, PROTOCOL, VARIABLE};

/// Most notes with sockets that are listened to.
const NOTES_MAX: usize = 1024;

/// What the gateway before this one has handed over.
pub struct Inherited {
    pub sockets: Vec<(Handed, OwnedFd)>,
    /// How many gateways came before.
    pub generation: u64,
    socket: OwnedFd,
}

impl Inherited {
    /// Takes it from standard input, which is empty from then on. `version` is what the environment says: `None` where nobody
    /// hands over. Blocks.
    ///
    /// # Errors
    /// There is no such gateway, or it speaks another version.
    pub fn take(version: Option<&str>) -> anyhow::Result<Option<Self>> {
        let Some(version) = version else { return Ok(None) };
        anyhow::ensure!(version == PROTOCOL, "{VARIABLE} is {version}, and this gateway knows {PROTOCOL}");
        let take = || -> io::Result<Self> {
            let socket = io::stdin().as_fd().try_clone_to_owned()?;
            dup2_stdin(File::open("/dev/null")?)?;
            let (sockets, generation) = receive_all(&socket)?;
            Ok(Self { sockets, generation, socket })
        };
        let taken = take().with_context(|| {
            format!("{VARIABLE} is set, but standard input is no gateway that hands over; it is set by a gateway, for an upgrade")
        });
        taken.map(Some)
    }

    /// The gateway before this one, to talk to. Within a runtime.
    ///
    /// # Errors
    /// The system does not let it be waited for.
    pub fn predecessor(self) -> io::Result<Predecessor> {
        Channel::new(self.socket).map(Predecessor)
    }
}

/// Everything that is handed over, and the generation.
pub fn receive_all(socket: &OwnedFd) -> io::Result<(Vec<(Handed, OwnedFd)>, u64)> {
    let mut all = Vec::new();
    for _ in 0..NOTES_MAX {
        let (Note::Sockets { sockets, more, generation }, descriptors) = wait(socket)? else {
            return Err(io::Error::other("it said something else than what it hands over"));
        };
        if sockets.len() != descriptors.len() {
            return Err(io::Error::other("some of what is handed over did not arrive"));
        }
        all.extend(sockets.into_iter().zip(descriptors));
        if !more {
            return Ok((all, generation));
        }
    }
    Err(io::Error::other("it hands over without end"))
}

/// The gateway before this one.
pub struct Predecessor(Channel);

impl Predecessor {
    /// Says that all is made and nothing accepted yet, and waits to be told to.
    ///
    /// # Errors
    /// It has ended, or wants none any more.
    pub async fn ready(&self) -> io::Result<()> {
        self.0.tell(&Note::Ready, &[]).await?;
        match self.0.note().await? {
            Note::Go => Ok(()),
            note => Err(io::Error::other(format!("it said {note:?} where it had to say go"))),
        }
    }

    /// Says that this one accepts now.
    ///
    /// # Errors
    /// It has ended.
    pub async fn serving(self) -> io::Result<()> {
        self.0.tell(&Note::Serving, &[]).await
    }
}
