//! Where listening sockets come from: a gateway that hands over, systemd, or they are bound.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};
use tracing::{info, warn};

use super::BACKLOG;
use super::handover::Handed;

/// Sockets that listen already.
#[derive(Default)]
pub struct Sockets {
    /// What was passed and is none.
    useless: Vec<String>,
    /// By the address in the configuration of the gateway before this one. Each is used once, and then it is like one that was bound.
    handed: BTreeMap<SocketAddr, TcpListener>,
    admin: Option<(SocketAddr, TcpListener)>,
    /// By the address that they are bound to. Whoever made them has them open too, so they are kept even while no listener
    /// uses them: nobody could bind such an address anew.
    activated: BTreeMap<SocketAddr, TcpListener>,
    used: BTreeSet<SocketAddr>,
}

impl Sockets {
    /// Those that systemd passes to this process (`LISTEN_FDS`). To be called once, before there is a second thread.
    pub fn from_systemd() -> Self {
        let mut passed = ListenFd::from_env();
        let mut sockets = Self::default();
        for index in 0..passed.len() {
            match passed.take_tcp_listener(index) {
                Ok(Some(listener)) => sockets.activate(listener),
                Ok(None) => {}
                // Told later: there is no log yet.
                Err(error) => sockets.useless.push(error.to_string()),
            }
        }
        sockets
    }

    fn activate(&mut self, listener: TcpListener) {
        match listener.local_addr() {
            Ok(address) => {
                self.activated.insert(address, listener);
            }
            Err(error) => self.useless.push(error.to_string()),
        }
    }

    /// Adds one that another gateway has handed over.
    pub fn hand(&mut self, handed: Handed, descriptor: OwnedFd) {
        match handed {
            Handed::Listening(address) => {
                self.handed.insert(address, TcpListener::from(descriptor));
            }
            Handed::Admin(address) => self.admin = Some((address, TcpListener::from(descriptor))),
            Handed::Activated(_) => self.activate(TcpListener::from(descriptor)),
            Handed::StateLock => {}
        }
    }

    /// A socket that listens at this address: one that is there, or a new one.
    ///
    /// # Errors
    /// The address is not free, or not allowed.
    pub fn open(&mut self, address: SocketAddr) -> io::Result<TcpListener> {
        let handed = self.handed.remove(&address);
        self.taken(handed, address)
    }

    /// The same for the admin address.
    ///
    /// # Errors
    /// As of [`Sockets::open`].
    pub fn open_admin(&mut self, address: SocketAddr) -> io::Result<TcpListener> {
        let handed = self.admin.take().filter(|(admin, _)| *admin == address);
        self.taken(handed.map(|(_, socket)| socket), address)
    }

    fn taken(&mut self, handed: Option<TcpListener>, address: SocketAddr) -> io::Result<TcpListener> {
        let socket = match (handed, self.activated.get(&address)) {
            (Some(handed), _) => handed,
            (None, Some(activated)) => {
                self.used.insert(address);
                activated.try_clone()?
            }
            (None, None) => return bind(address),
        };
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// What the next gateway gets of these, those aside that are in use as well.
    pub fn share(&self) -> io::Result<Vec<(Handed, OwnedFd)>> {
        let share = |(address, socket): (&SocketAddr, &TcpListener)| {
            Ok((Handed::Activated(*address), OwnedFd::from(socket.try_clone()?)))
        };
        self.activated.iter().map(share).collect()
    }

    /// Whether it was passed to this gateway, and stays open whatever the configuration says.
    pub fn is_activated(&self, handed: Handed) -> bool {
        let (Handed::Listening(address) | Handed::Admin(address) | Handed::Activated(address)) = handed else {
            return false;
        };
        self.activated.contains_key(&address)
    }

    /// Says which are left over, and closes those of the gateway before this one.
    pub fn settle(&mut self) {
        for (address, _) in std::mem::take(&mut self.handed).into_iter().chain(self.admin.take()) {
            info!(%address, "no longer listening");
        }
        for error in self.useless.drain(..) {
            warn!(error, "what was passed to the gateway is no listening TCP socket");
        }
        for address in self.activated.keys().filter(|address| !self.used.contains(address)) {
            warn!(
                %address,
                "a socket was passed to the gateway that no listener uses: write this address as `bind`, or take it away"
            );
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for old connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::from(BACKLOG))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn what_was_handed_over_is_used_once() {
        let mut sockets = Sockets::default();
        let handed = bind(any()).unwrap();
        let bound = handed.local_addr().unwrap();
        sockets.hand(Handed::Listening(any()), handed.into());
        let first = sockets.open(any()).unwrap();
        assert_eq!(first.local_addr().unwrap(), bound);
        assert_ne!(sockets.open(any()).unwrap().local_addr().unwrap(), bound);
        drop(first);
        assert_eq!(sockets.open(bound).unwrap().local_addr().unwrap(), bound, "nobody has it any more");
    }

    #[test]
    fn what_was_passed_stays() {
        let mut sockets = Sockets::default();
        let passed = bind(any()).unwrap();
        let bound = passed.local_addr().unwrap();
        sockets.activate(passed);
        for _ in 0..2 {
            assert_eq!(sockets.open(bound).unwrap().local_addr().unwrap(), bound);
        }
        sockets.settle();
        let shared = sockets.share().unwrap();
        assert_eq!(shared.iter().map(|(handed, _)| *handed).collect::<Vec<_>>(), [Handed::Activated(bound)]);
        let mut next = Sockets::default();
        for (handed, descriptor) in shared {
            next.hand(handed, descriptor);
        }
        drop(sockets);
        assert!(next.is_activated(Handed::Listening(bound)));
        assert!(bind(bound).is_err(), "it is open still");
    }
}
