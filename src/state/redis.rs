//! The store and the limiter in Redis or Valkey: what several gateways share.
//!
//! One server (or one name that leads to the one that takes writes), Redis 6.2 or later, Valkey; not a cluster. Each
//! operation is one command or one script, so that it happens as a whole; operations of many requests travel together.
//!
//! A gateway starts without its server, if it must, and finds it later. Whoever asks meanwhile gets an error at once, never
//! a wait: see [`link`].

mod connect;
mod limiter;
pub(crate) mod link;
pub(crate) mod scripts;
mod settings;
mod store;

use std::time::Duration;

use ::redis;
use tokio::sync::watch;

use super::expiry::{self, Now};
use link::{Lane, Link, Terms};

pub use settings::{RedisForm, RedisSettings, Server, Settings};

/// How long an operation may take that no request's decision depends on, and how long a server may hang.
const PATIENCE: Duration = Duration::from_secs(1);
/// Whether the server takes writes. The mark stays for a minute.
const PROBE: &str = "return redis.call('SET', KEYS[1], '1', 'PX', 60000)";

/// A server that several gateways share.
pub struct Redis {
    link: Link,
    prefix: String,
    now: Now,
}

/// Why a server cannot be used, whether it is there or not.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot use Redis as the state store: {0}")]
pub struct OpenError(pub(crate) String);

impl Redis {
    /// Begins to connect, and does not wait for it: [`Redis::ready`] does.
    ///
    /// # Errors
    /// There are no authorities to verify the server by, or no thread can be started.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        Self::with_clock(settings, expiry::wall())
    }

    pub(super) fn with_clock(settings: &Settings, now: Now) -> Result<Self, OpenError> {
        let terms = Terms {
            name: "the state store",
            connections: settings.connections,
            timeout: settings.timeout,
            patience: PATIENCE,
            probe_patience: PATIENCE,
            probe: PROBE,
        };
        let link = Link::open(settings, terms).map_err(OpenError)?;
        Ok(Self { link, prefix: settings.prefix.clone(), now })
    }

    /// Whether decisions can be asked for. When not, whoever asks gets an error at once.
    pub fn is_up(&self) -> bool {
        *self.link.connectivity().borrow()
    }

    /// Tells whenever [`Redis::is_up`] changes.
    pub fn connectivity(&self) -> watch::Receiver<bool> {
        self.link.connectivity()
    }

    /// Waits until decisions can be asked for, for so long; whether they can.
    pub async fn ready(&self, patience: Duration) -> bool {
        let mut up = self.link.connectivity();
        tokio::time::timeout(patience, up.wait_for(|up| *up)).await.is_ok_and(|waited| waited.is_ok())
    }

    async fn call(&self, lane: Lane, command: &redis::Cmd) -> Result<redis::Value, String> {
        self.link.call(lane, command).await.map_err(|failure| failure.to_string())
    }
}
