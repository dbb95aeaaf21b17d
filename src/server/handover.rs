//! One gateway hands over to the next: the binary is replaced, and not one connection is lost.
//!
//! Told so (SIGUSR2), the gateway that runs starts the binary that is now at the path it was started with. The two talk over
//! a pair of sockets that nobody else can reach: the standard input of the new one is an end of it.
//!
//! | old | new |
//! |---|---|
//! | [`Note::Sockets`]: every listening socket, and the lock of the state | loads the configuration, opens logs and state, makes everything that it serves with |
//! | goes on serving | [`Note::Ready`] |
//! | [`Note::Go`] | accepts from the same sockets |
//! | stops accepting, drains, ends | [`Note::Serving`] |
//!
//! Until the last line the old one serves as if nothing were; whatever goes wrong before it ends the new one. Both accept for a
//! moment, from the same queue of the kernel: no connection waits in one that is closed.

mod channel;
mod predecessor;
mod successor;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use predecessor::{Prepared, Program, Successor};
pub use successor::{Inherited, Predecessor};

/// Tells a new process that its standard input is such a socket. The value is the version of what is said there.
pub const VARIABLE: &str = "TOLLGATE_HANDOVER";
const PROTOCOL: &str = "1";

/// What the two say.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Note {
    Sockets {
        /// One for each descriptor that comes along.
        sockets: Vec<Handed>,
        /// Another note with sockets follows.
        more: bool,
        /// How many gateways came before the one that is told so.
        generation: u64,
    },
    Ready,
    Go,
    Serving,
}

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Handed {
    /// Listens at an address, written so in the configuration.
    Listening(SocketAddr),
    /// The same of the admin address.
    Admin(SocketAddr),
    /// The same, and belongs to whoever started the first gateway: the address it is bound to.
    Activated(SocketAddr),
    /// The lock of the state file.
    StateLock,
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;

    use super::channel::Channel;
    use super::*;

    #[tokio::test]
    async fn sockets_arrive_with_what_they_are() {
        let (ours, theirs) = Channel::pair().unwrap();
        let listeners: Vec<_> = (0..100).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let handed = listeners.into_iter().zip(&addresses);
        let handed = handed.map(|(listener, address)| (Handed::Listening(*address), OwnedFd::from(listener)));
        let (sent, received) = tokio::join!(
            predecessor::send_all(&ours, handed.collect(), 7),
            tokio::task::spawn_blocking(move || successor::receive_all(&theirs))
        );
        sent.unwrap();
        let (sockets, generation) = received.unwrap().unwrap();
        assert_eq!(generation, 7);
        let found: Vec<_> = sockets
            .into_iter()
            .map(|(handed, descriptor)| {
                let bound = TcpListener::from(descriptor).local_addr().unwrap();
                assert_eq!(handed, Handed::Listening(bound));
                bound
            })
            .collect();
        assert_eq!(found, addresses);
    }

    #[tokio::test]
    async fn the_end_of_the_other_one_is_an_error() {
        let (ours, theirs) = Channel::pair().unwrap();
        drop(theirs);
        assert!(ours.note().await.is_err());
        let (ours, theirs) = Channel::pair().unwrap();
        drop(ours);
        assert!(successor::receive_all(&theirs).is_err());
    }
}
