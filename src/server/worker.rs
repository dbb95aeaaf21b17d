//! Worker threads: each accepts, and serves what it accepted.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::RETRY_AFTER;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::{error, warn};

use super::admission::{Admission, Full, Permit};
use super::announced::{self, Episodes, Failure};
use super::{BACKLOG, Logs};
use crate::clock;
use crate::gateway::Listener;
use crate::live::Live;
use crate::observe::metrics::{ListenerMetrics, Metrics};
use crate::overload::Overload;
use crate::proxy::{Arrival, Engine, EngineOptions, unread_reply};
use crate::reply::{Code, Rejection};

/// How long a worker waits when the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often it says so.
const ACCEPT_TOLD_EVERY: Duration = Duration::from_secs(10);
/// Clients that are told at a time, by each worker and listener, that they are too many; others are closed without a word.
const TURNED_AWAY_MAX: usize = 256;
/// How long such a client may take.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(1);

/// All workers.
pub struct Workers {
    commands: Vec<mpsc::UnboundedSender<Command>>,
}

enum Command {
    Listen(Listener, StdListener, Arc<ListenerMetrics>),
    Unlisten(SocketAddr),
    /// Answered when every command before it is done.
    Settle(oneshot::Sender<()>),
    /// Answered when connections will end after their next exchange.
    Leave(oneshot::Sender<()>),
    /// Answered when idle connections have been told to end.
    Drain(oneshot::Sender<()>),
}

impl Workers {
    pub fn start(
        threads: usize,
        live: &Arc<Live>,
        metrics: &Arc<Metrics>,
        logs: &Logs,
        admission: &Arc<Admission>,
        overload: &Arc<Overload>,
    ) -> std::io::Result<Self> {
        let mut commands = Vec::with_capacity(threads);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let episodes = Arc::new(Episodes::default());
        for index in 0..threads {
            let (sender, receiver) = mpsc::unbounded_channel();
            let overload = overload.worker(index);
            let options = EngineOptions {
                live: Arc::clone(live),
                metrics: Arc::clone(metrics),
                access_log: logs.access.clone(),
                webhook_log: logs.webhooks.clone(),
                overload: Arc::clone(&overload),
            };
            let shared =
                Shared { live: Arc::clone(live), admission: Arc::clone(admission), episodes: Arc::clone(&episodes) };
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let ready = ready.clone();
            thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                runtime.block_on(async move {
                    tokio::spawn(async move { overload.measure_lag().await });
                    let engine = Arc::new(Engine::new(options));
                    let _ = ready.send(());
                    drop(ready);
                    work(receiver, engine, shared).await;
                });
            })?;
            commands.push(sender);
        }
        drop(ready);
        // Without its workers the gateway would be there, and serve nobody.
        let panicked = |_| std::io::Error::other("a worker cannot start");
        (0..threads).try_for_each(|_| is_ready.recv().map_err(panicked))?;
        Ok(Self { commands })
    }

    /// Every worker accepts from the same socket: when it is closed, no connection is left in the queue of one of many.
    pub fn listen(
        &self,
        listener: &Listener,
        socket: &StdListener,
        metrics: &Arc<ListenerMetrics>,
    ) -> std::io::Result<()> {
        for commands in &self.commands {
            // A worker that is gone has panicked; the others go on.
            let _ = commands.send(Command::Listen(listener.clone(), socket.try_clone()?, Arc::clone(metrics)));
        }
        Ok(())
    }

    pub fn unlisten(&self, address: SocketAddr) {
        for commands in &self.commands {
            let _ = commands.send(Command::Unlisten(address));
        }
    }

    /// Ends connections after their next exchange. On return every connection that was accepted before is counted.
    pub async fn leave(&self) {
        // A client whose connection ends must not find one worker that still listens.
        self.all(Command::Settle).await;
        self.all(Command::Leave).await;
    }

    /// Ends idle connections.
    pub async fn drain(&self) {
        self.all(Command::Drain).await;
    }

    /// Gives every worker a command, and waits until all have answered.
    async fn all(&self, command: fn(oneshot::Sender<()>) -> Command) {
        let mut told = Vec::with_capacity(self.commands.len());
        for commands in &self.commands {
            let (done, is_done) = oneshot::channel();
            let _ = commands.send(command(done));
            told.push(is_done);
        }
        for is_done in told {
            let _ = is_done.await;
        }
    }
}

/// What all workers have in common.
#[derive(Clone)]
struct Shared {
    live: Arc<Live>,
    admission: Arc<Admission>,
    episodes: Arc<Episodes>,
}

async fn work(mut commands: mpsc::UnboundedReceiver<Command>, engine: Arc<Engine>, shared: Shared) {
    let mut listening: HashMap<SocketAddr, (oneshot::Sender<()>, tokio::task::JoinHandle<()>)> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Listen(listener, socket, metrics) => {
                let (stop, stopped) = oneshot::channel();
                let address = listener.address;
                let turning_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
                let (shared, engine, failing) = (shared.clone(), Arc::clone(&engine), Failing::default());
                let accepting = Accepting { shared, engine, metrics, listener, turning_away, failing };
                match TcpListener::from_std(socket) {
                    Ok(socket) => {
                        let task = tokio::spawn(accepting.accept(socket, stopped));
                        listening.insert(address, (stop, task));
                    }
                    Err(error) => error!(%address, %error, "this worker cannot listen"),
                }
            }
            Command::Unlisten(address) => {
                if let Some((stop, task)) = listening.remove(&address) {
                    drop(stop);
                    let _ = task.await;
                }
            }
            Command::Settle(done) => {
                // Nobody waits any more when the drain has timed out.
                let _ = done.send(());
            }
            Command::Leave(done) => {
                engine.leave();
                let _ = done.send(());
            }
            Command::Drain(done) => {
                engine.drain().await;
                let _ = done.send(());
            }
        }
    }
}

struct Accepting {
    shared: Shared,
    engine: Arc<Engine>,
    metrics: Arc<ListenerMetrics>,
    /// As it was when the last connection came.
    listener: Listener,
    turning_away: Arc<Semaphore>,
    failing: Failing,
}

impl Accepting {
    async fn accept(mut self, listener: TcpListener, mut stopped: oneshot::Receiver<()>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = &mut stopped => break,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer),
                // That one is gone; the next one may be fine.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.failing.tell(&error, clock::now());
                    // Connections wait in the queue of the system meanwhile; to ask for them at once would only take time.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // What the kernel has accepted by now would be reset when the socket closes; the runtime may not know of it yet.
        let Ok(listener) = listener.into_std() else { return };
        // No more than the queue can hold: who keeps connecting must not keep the socket open.
        for _ in 0..BACKLOG {
            let Ok((stream, peer)) = listener.accept() else { return };
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                self.admit(stream, peer);
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) {
        let current = self.shared.live.current();
        let limits = &current.settings.limits;
        // One that the configuration does not have any more stays what it was, for who had connected already.
        let listeners = &current.settings.listeners;
        if let Some(listener) = listeners.iter().find(|listener| listener.address == self.listener.address) {
            self.listener.clone_from(listener);
        }
        let admission = &self.shared.admission;
        let (max, max_of_address) = (limits.connections_max, limits.connections_per_address_max);
        match &self.listener.proxies {
            None => match admission.enter(peer.ip(), max, max_of_address) {
                Ok(permit) => drop(tokio::spawn(self.client().serve(stream, Arrival::direct(peer), permit))),
                Err(full) => drop(tokio::spawn(self.client().turn_away(stream, full))),
            },
            Some(proxies) if !proxies.iter().any(|network| network.contains(&peer.ip().to_canonical())) => {
                self.client().close(peer, Failure::Untrusted);
            }
            Some(_) => match admission.enter_unnamed(max) {
                Ok(permit) => {
                    let within = limits.header_timeout;
                    drop(tokio::spawn(self.client().announced(stream, peer, permit, within, max_of_address)));
                }
                Err(full) => drop(tokio::spawn(self.client().turn_away(stream, full))),
            },
        }
    }

    fn client(&self) -> Client {
        let (engine, metrics) = (Arc::clone(&self.engine), Arc::clone(&self.metrics));
        let turning_away = Arc::clone(&self.turning_away);
        Client { shared: self.shared.clone(), engine, metrics, listener: self.listener.clone(), turning_away }
    }
}

/// What becomes of one connection.
struct Client {
    shared: Shared,
    engine: Arc<Engine>,
    metrics: Arc<ListenerMetrics>,
    listener: Listener,
    turning_away: Arc<Semaphore>,
}

impl Client {
    async fn serve(self, stream: TcpStream, arrival: Arrival, permit: Permit) {
        // Small answers must not wait for the acknowledgement of earlier ones. Fails only on a dead socket.
        let _ = stream.set_nodelay(true);
        let open = self.metrics.accepted();
        match &self.listener.tls {
            None => self.engine.serve(stream, arrival, self.listener.https_port).await,
            Some(tls) => self.engine.serve_tls(stream, arrival, tls, &self.metrics).await,
        }
        drop((permit, open));
    }

    /// One that begins with the header of a proxy.
    async fn announced(
        self,
        mut stream: TcpStream,
        peer: SocketAddr,
        permit: Permit,
        within: Duration,
        max_of_address: usize,
    ) {
        let arrival = match announced::header(&mut stream, within).await {
            Ok(ends) => Arrival::announced(peer, ends),
            Err(failure) => return self.close(peer, failure),
        };
        match permit.name(arrival.peer.ip(), max_of_address) {
            Ok(permit) => self.serve(stream, arrival, permit).await,
            Err(full) => self.turn_away(stream, full).await,
        }
    }

    /// Counts one that is closed without a word: who speaks another protocol would not understand it.
    fn close(&self, peer: SocketAddr, failure: Failure) {
        if let Some(reason) = failure.reason() {
            self.metrics.refused(reason);
        }
        self.shared.episodes.tell(self.listener.address, peer, failure, clock::now());
    }

    async fn turn_away(self, stream: TcpStream, full: Full) {
        self.metrics.refused(full.reason());
        let rejection = Rejection::new(Code::OVERLOADED, "the gateway has too many connections");
        let rejection = rejection.with_field(RETRY_AFTER, HeaderValue::from_static("1"));
        // Who expects a handshake could not read it.
        let tls = self.listener.tls.is_some();
        let answer = if tls { Vec::new() } else { unread_reply(rejection, &self.shared.live) };
        if let Ok(_permit) = self.turning_away.try_acquire() {
            turn_away(stream, answer).await;
        }
    }
}

/// Tells a client that is one too many, if it takes that at once.
async fn turn_away(mut stream: TcpStream, answer: Vec<u8>) {
    let told = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        // What it sends and nobody reads would reset the connection, and the answer might be lost.
        let mut unread = [0_u8; 1024];
        while stream.read(&mut unread).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Whether it arrives or not, the connection is over.
    let _ = tokio::time::timeout(TURN_AWAY_TIMEOUT, told).await;
}

/// Connections that cannot be accepted.
#[derive(Default)]
struct Failing {
    told: Option<Instant>,
    since: u64,
}

impl Failing {
    fn tell(&mut self, error: &std::io::Error, now: Instant) {
        self.since = self.since.saturating_add(1);
        if self.told.is_none_or(|told| now.saturating_duration_since(told) >= ACCEPT_TOLD_EVERY) {
            let tries = std::mem::take(&mut self.since);
            warn!(%error, tries, "cannot accept connections; is the limit on open files too low?");
            self.told = Some(now);
        }
    }
}
