//! Listening sockets: opened at start, and whenever a reload adds or removes one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Context as _;
use tracing::{error, info};

use super::handover::Handed;
use super::sockets::Sockets;
use super::worker::Workers;
use crate::gateway::Listener;
use crate::observe::metrics::Metrics;

/// The sockets that are open, by the address in the configuration.
pub struct Listeners {
    workers: Workers,
    metrics: Arc<Metrics>,
    sockets: Sockets,
    open: BTreeMap<SocketAddr, Open>,
    admin: Option<(SocketAddr, TcpListener)>,
    /// Those of the current configuration that could not be opened.
    failing: BTreeSet<SocketAddr>,
}

/// A socket that listens. Workers have it too.
struct Open {
    bound: SocketAddr,
    /// For the next gateway.
    socket: TcpListener,
}

impl Listeners {
    pub fn new(workers: Workers, metrics: Arc<Metrics>, sockets: Sockets) -> Self {
        Self { workers, metrics, sockets, open: BTreeMap::new(), admin: None, failing: BTreeSet::new() }
    }

    /// Opens every address, or none. Who connects waits in the queue of the kernel.
    pub fn open_all(&mut self, listeners: &[Listener]) -> anyhow::Result<()> {
        for Listener { address, .. } in listeners {
            self.open(*address).with_context(|| format!("cannot listen on {address}"))?;
        }
        Ok(())
    }

    /// Opens the admin address; it is handed over like the others.
    ///
    /// # Errors
    /// The address is not free, or not allowed.
    pub fn open_admin(&mut self, address: SocketAddr) -> anyhow::Result<TcpListener> {
        let socket = self.sockets.open_admin(address);
        let socket = socket.with_context(|| format!("cannot listen on {address} (admin)"))?;
        let own = socket.try_clone()?;
        self.admin = Some((address, own));
        Ok(socket)
    }

    /// Accepts at every address that is open.
    pub fn accept_all(&mut self, listeners: &[Listener]) -> io::Result<()> {
        for listener in listeners {
            if let Some(Open { socket, .. }) = self.open.get(&listener.address) {
                self.accept(listener, socket)?;
            }
        }
        self.sockets.settle();
        Ok(())
    }

    /// Everything that listens, for the next gateway.
    pub fn share(&self) -> io::Result<Vec<(Handed, OwnedFd)>> {
        let mut shared = self.sockets.share()?;
        let listening = self.open.iter().map(|(address, Open { socket, .. })| (Handed::Listening(*address), socket));
        let admin = self.admin.iter().map(|(address, socket)| (Handed::Admin(*address), socket));
        for (handed, socket) in listening.chain(admin) {
            if !self.sockets.is_activated(handed) {
                shared.push((handed, OwnedFd::from(socket.try_clone()?)));
            }
        }
        Ok(shared)
    }

    /// Opens what is new and closes what is gone. What cannot be opened is logged and tried again later.
    pub fn follow(&mut self, listeners: &[Listener]) {
        let wanted: BTreeSet<SocketAddr> = listeners.iter().map(|listener| listener.address).collect();
        let gone: Vec<SocketAddr> = self.open.keys().filter(|open| !wanted.contains(open)).copied().collect();
        for address in gone {
            info!(%address, "no longer listening");
            // First, so that none is left when the workers have accepted what waits.
            self.open.remove(&address);
            self.workers.unlisten(address);
        }
        self.failing.retain(|address| wanted.contains(address));
        for listener in listeners {
            let address = listener.address;
            if self.open.contains_key(&address) {
                continue;
            }
            match self.open_and_accept(listener) {
                Ok(bound) => {
                    self.failing.remove(&address);
                    info!(%address, %bound, "listening");
                }
                // Told once for each address, not for each try.
                Err(error) if self.failing.insert(address) => {
                    error!(%address, error = format!("{error:#}"), "cannot listen; trying again every second");
                }
                Err(_) => {}
            }
        }
    }

    pub fn incomplete(&self) -> bool {
        !self.failing.is_empty()
    }

    /// Addresses as written, and as bound: a port 0 has become a real one.
    pub fn bound(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> + '_ {
        self.open.iter().map(|(asked, open)| (*asked, open.bound))
    }

    /// Stops listening, after what the kernel had accepted already; then ends idle connections, after `grace`.
    pub async fn close_all(&mut self, grace: impl Future<Output = ()>) {
        let open: Vec<SocketAddr> = self.open.keys().copied().collect();
        self.open.clear();
        for address in open {
            self.workers.unlisten(address);
        }
        self.workers.leave().await;
        grace.await;
        self.workers.drain().await;
    }

    fn open_and_accept(&mut self, listener: &Listener) -> io::Result<SocketAddr> {
        let bound = self.open(listener.address)?;
        let accepts = self.open.get(&listener.address).map(|open| self.accept(listener, &open.socket));
        if let Some(Err(error)) = accepts {
            self.open.remove(&listener.address);
            return Err(error);
        }
        Ok(bound)
    }

    fn open(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        let socket = self.sockets.open(address)?;
        let bound = socket.local_addr()?;
        self.open.insert(address, Open { bound, socket });
        Ok(bound)
    }

    fn accept(&self, listener: &Listener, socket: &TcpListener) -> io::Result<()> {
        self.workers.listen(listener, socket, &self.metrics.listener(&listener.address.to_string()))
    }
}
