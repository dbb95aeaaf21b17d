//! Listening sockets: opened at start, and whenever a reload adds or removes one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use tracing::{error, info};

use super::BACKLOG;
use super::worker::Workers;
use crate::gateway::Listener;
use crate::observe::metrics::Metrics;

/// The sockets that are open, by the address in the configuration.
pub struct Listeners {
    workers: Workers,
    metrics: Arc<Metrics>,
    open: BTreeMap<SocketAddr, SocketAddr>,
    /// Those of the current configuration that could not be opened.
    failing: BTreeSet<SocketAddr>,
}

impl Listeners {
    pub fn new(workers: Workers, metrics: Arc<Metrics>) -> Self {
        Self { workers, metrics, open: BTreeMap::new(), failing: BTreeSet::new() }
    }

    /// Opens every address, or none.
    pub fn open_all(&mut self, listeners: &[Listener]) -> anyhow::Result<()> {
        for listener in listeners {
            self.open(listener).with_context(|| format!("cannot listen on {}", listener.address))?;
        }
        Ok(())
    }

    /// Opens what is new and closes what is gone. What cannot be opened is logged and tried again later.
    pub fn follow(&mut self, listeners: &[Listener]) {
        let wanted: BTreeSet<SocketAddr> = listeners.iter().map(|listener| listener.address).collect();
        let gone: Vec<SocketAddr> = self.open.keys().filter(|open| !wanted.contains(open)).copied().collect();
        for address in gone {
            info!(%address, "no longer listening");
            self.open.remove(&address);
            self.workers.unlisten(address);
        }
        self.failing.retain(|address| wanted.contains(address));
        for listener in listeners {
            let address = listener.address;
            if self.open.contains_key(&address) {
                continue;
            }
            match self.open(listener) {
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
        self.open.iter().map(|(asked, bound)| (*asked, *bound))
    }

    /// Stops listening, after what the kernel had accepted already; then ends idle connections.
    pub async fn close_all(&mut self) {
        for address in std::mem::take(&mut self.open).into_keys() {
            self.workers.unlisten(address);
        }
        self.workers.drain().await;
    }

    fn open(&mut self, listener: &Listener) -> anyhow::Result<SocketAddr> {
        let address = listener.address;
        let socket = bind(address)?;
        let bound = socket.local_addr()?;
        self.workers.listen(listener, &socket, &self.metrics.listener(&address.to_string()))?;
        self.open.insert(address, bound);
        Ok(bound)
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for old connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::from(BACKLOG))?;
    Ok(socket.into())
}
