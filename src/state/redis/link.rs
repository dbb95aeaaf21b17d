//! The connections to the server, kept up beside the requests.
//!
//! They live on a thread and runtime of their own: a reload that keeps the control thread busy delays no decision. Many
//! operations share a connection, and their answers come in the order they were asked for.
//!
//! A connection is in use while the server takes writes on it. That is tried every second, and at once when an operation
//! gets no answer in time or one that says something about the server; meanwhile nobody waits for it. So of a server that
//! hangs only those operations feel anything that are under way at that moment.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use super::connect::{Dialer, is_of_the_server, pause, words};
use super::settings::Settings;

/// Operations under way at a time, of all connections together. More fail at once.
const IN_FLIGHT_MAX: usize = 4096;
/// How long connecting and logging in may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried whether the server takes writes.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What a link is for, and what that asks of it.
pub struct Terms {
    /// Whom the log names.
    pub name: &'static str,
    /// How many connections there are for [`Lane::Decision`].
    pub connections: usize,
    /// How long a decision may take.
    pub timeout: Duration,
    /// How long any other operation may take.
    pub patience: Duration,
    /// How long a server may hang until the connection is given up.
    pub probe_patience: Duration,
    /// A script on one key of no meaning that fails while the server is of no use.
    pub probe: &'static str,
}

/// Whose connection an operation takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// A request waits for it. Of the state store's, all are small.
    Decision,
    /// Anything else: a large answer must not delay a decision.
    Other,
}

/// Why an operation did not happen, or may not have.
#[derive(Debug)]
pub enum Failure {
    /// The server does not know the script.
    NoScript,
    /// In words.
    Failed(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoScript => f.write_str("it does not know a script"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// The connections to one server.
pub struct Link {
    inner: Arc<Inner>,
    /// The thread ends when this is dropped.
    _alive: oneshot::Sender<()>,
}

struct Inner {
    dialer: Dialer,
    /// The first one is for [`Lane::Other`].
    slots: Box<[ArcSwapOption<Live>]>,
    next: AtomicUsize,
    in_flight: AtomicUsize,
    up: watch::Sender<bool>,
    /// Why there is no connection. Also held while that is made known, so that the last word is the newest.
    why: Mutex<String>,
    terms: Terms,
    probe: Cmd,
}

/// A connection in use.
struct Live {
    connection: MultiplexedConnection,
    /// Nobody is to wait for it before it is proved.
    in_doubt: AtomicBool,
    doubted: Notify,
}

impl Link {
    /// Begins to connect. Does not wait for it.
    ///
    /// # Errors
    /// No authority to verify the server by, or no thread can be started.
    pub fn open(settings: &Settings, terms: Terms) -> Result<Self, String> {
        let slots = (0..=terms.connections).map(|_| ArcSwapOption::empty()).collect();
        let mut probe = redis::cmd("EVAL");
        probe.arg(terms.probe).arg(1).arg(format!("{}probe", settings.prefix));
        let inner = Arc::new(Inner {
            dialer: Dialer::new(settings)?,
            slots,
            next: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            up: watch::Sender::new(false),
            why: Mutex::new("not connected yet".to_owned()),
            terms,
            probe,
        });
        let (alive, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let kept = Arc::clone(&inner);
        let run = move || {
            runtime.block_on(async {
                for slot in 0..kept.slots.len() {
                    tokio::spawn(Arc::clone(&kept).keep(slot));
                }
                // It is never sent; that it is dropped is the news.
                let _ = ended.await;
            });
        };
        let thread = std::thread::Builder::new().name("redis".to_owned()).spawn(run);
        thread.map_err(|error| format!("no thread can be started: {error}"))?;
        Ok(Self { inner, _alive: alive })
    }

    /// Whether decisions can be asked for.
    pub fn connectivity(&self) -> watch::Receiver<bool> {
        self.inner.up.subscribe()
    }

    /// How long an operation of this lane may take.
    pub fn patience(&self, lane: Lane) -> Duration {
        let terms = &self.inner.terms;
        if lane == Lane::Decision { terms.timeout } else { terms.patience.max(terms.timeout) }
    }

    /// Does one operation, in bounded time.
    ///
    /// # Errors
    /// At once when there is no connection or too much is under way; otherwise when the server does not answer in time, or
    /// with an error.
    pub async fn call(&self, lane: Lane, command: &Cmd) -> Result<Value, Failure> {
        self.call_within(self.patience(lane), lane, command).await
    }

    /// The same, with another bound.
    ///
    /// # Errors
    /// The same.
    pub async fn call_within(&self, patience: Duration, lane: Lane, command: &Cmd) -> Result<Value, Failure> {
        let inner = &self.inner;
        let _place = Place::take(&inner.in_flight).ok_or_else(|| Failure::Failed(too_many()))?;
        let live = inner.pick(lane).ok_or_else(|| Failure::Failed(inner.why()))?;
        let mut connection = live.connection.clone();
        match timeout(patience, command.query_async::<Value>(&mut connection)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if error.code() == Some("NOSCRIPT") => Err(Failure::NoScript),
            Ok(Err(error)) => {
                let why = words(&error);
                if is_of_the_server(&error) {
                    inner.doubt(&why);
                }
                Err(Failure::Failed(why))
            }
            Err(_) => {
                let why = format!("it did not answer within {patience:?}");
                inner.doubt(&why);
                Err(Failure::Failed(why))
            }
        }
    }
}

fn too_many() -> String {
    format!("{IN_FLIGHT_MAX} operations are under way")
}

/// A place among the operations under way.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(taken: &'a AtomicUsize) -> Option<Self> {
        // Counted first: whoever comes too late takes it back with the place.
        let place = Self(taken);
        (taken.fetch_add(1, Ordering::Relaxed) < IN_FLIGHT_MAX).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inner {
    fn why(&self) -> String {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A connection that nothing speaks against.
    fn pick(&self, lane: Lane) -> Option<Arc<Live>> {
        let (other, decisions) = self.slots.split_first()?;
        if lane == Lane::Other {
            return other.load_full().filter(|live| live.is_sound());
        }
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let mut places = (0..decisions.len()).filter_map(|step| {
            let index = start.wrapping_add(step).checked_rem(decisions.len())?;
            decisions.get(index)?.load_full()
        });
        places.find(|live| live.is_sound())
    }

    /// Has all connections proved before they are used again: more likely the server is in trouble than one of them.
    fn doubt(&self, why: &str) {
        for live in self.slots.iter().filter_map(ArcSwapOption::load_full) {
            live.in_doubt.store(true, Ordering::Release);
            live.doubted.notify_one();
        }
        self.tell(Some(why));
    }

    /// Makes known whether there is a connection for decisions.
    fn tell(&self, why: Option<&str>) {
        let mut last = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = why {
            why.clone_into(&mut last);
        }
        let up = self.slots.iter().skip(1).any(|slot| slot.load().as_ref().is_some_and(|live| live.is_sound()));
        self.up.send_if_modified(|known| std::mem::replace(known, up) != up);
    }

    /// Keeps one connection up, for ever.
    async fn keep(self: Arc<Self>, slot: usize) {
        let Some(place) = self.slots.get(slot) else { return };
        let mut failures = 0_u32;
        let mut told = false;
        loop {
            let why = match self.connect().await {
                Ok((live, mut driver)) => {
                    failures = 0;
                    if slot == 1 && told {
                        info!("{} answers again", self.terms.name);
                        told = false;
                    }
                    place.store(Some(Arc::clone(&live)));
                    self.tell(None);
                    let why = self.prove(&live, &mut driver).await;
                    place.store(None);
                    driver.abort();
                    why
                }
                Err(why) => why,
            };
            self.tell(Some(&why));
            failures = failures.saturating_add(1);
            // Once for each time that it is away, and by one connection for all of them.
            if slot == 1 && !told {
                warn!(why, "{} does not answer; it is tried again and again", self.terms.name);
                told = true;
            }
            tokio::time::sleep(pause(failures)).await;
        }
    }

    /// A connection on which the server takes writes.
    async fn connect(&self) -> Result<(Arc<Live>, tokio::task::JoinHandle<()>), String> {
        let made = timeout(CONNECT_PATIENCE, self.dialer.connect()).await;
        let (connection, driver) = made.map_err(|_| format!("no connection within {CONNECT_PATIENCE:?}"))??;
        let driver = tokio::spawn(driver);
        let live = Arc::new(Live { connection, in_doubt: AtomicBool::new(false), doubted: Notify::new() });
        match self.probe(&live).await {
            Ok(()) => Ok((live, driver)),
            Err(why) => {
                driver.abort();
                Err(why)
            }
        }
    }

    /// Tries a connection again and again; says what became of it when it is of no use any more.
    async fn prove(&self, live: &Live, driver: &mut tokio::task::JoinHandle<()>) -> String {
        loop {
            tokio::select! {
                _ = &mut *driver => return "the connection was closed".to_owned(),
                () = live.doubted.notified() => {}
                () = tokio::time::sleep(PROBE_INTERVAL) => {}
            }
            if let Err(why) = self.probe(live).await {
                return why;
            }
            if live.in_doubt.swap(false, Ordering::AcqRel) {
                self.tell(None);
            }
        }
    }

    async fn probe(&self, live: &Live) -> Result<(), String> {
        let mut connection = live.connection.clone();
        let mut answer = std::pin::pin!(self.probe.query_async::<Value>(&mut connection));
        let answered = match timeout(self.terms.timeout, &mut answer).await {
            Ok(answered) => answered,
            Err(_) => {
                // Nobody waits for this one until it is back.
                live.in_doubt.store(true, Ordering::Release);
                self.tell(Some("it hangs"));
                let patience = self.terms.probe_patience;
                let late = timeout(patience, answer).await;
                late.map_err(|_| format!("it did not answer within {patience:?}"))?
            }
        };
        answered.map(|_| ()).map_err(|error| words(&error))
    }
}

impl Live {
    fn is_sound(&self) -> bool {
        !self.in_doubt.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_bounded() {
        let taken = AtomicUsize::new(0);
        let mut places: Vec<_> = (0..IN_FLIGHT_MAX).map(|_| Place::take(&taken).unwrap()).collect();
        assert!(Place::take(&taken).is_none() && Place::take(&taken).is_none());
        places.pop();
        assert!(Place::take(&taken).is_some(), "and given back");
        drop(places);
        assert_eq!(taken.into_inner(), 0);
    }

    #[test]
    fn pauses_double_up_to_two_seconds() {
        for (failures, most) in [(1, 50), (2, 100), (6, 1600), (7, 2000), (1000, 2000), (u32::MAX, 2000)] {
            let pause = pause(failures).as_millis();
            assert!((most / 2..=most).contains(&pause), "{failures}: {pause} ms");
        }
    }
}
