//! Services that register themselves, kept in the state store.
//!
//! An entry ends by itself when its service does not say for the time it named that it is still there. One that is taken back
//! leaves a mark until it would have ended: what is gone from the store without a mark before its time was lost with the
//! store, and its target stays until the service says it anew or the time is over. For the same reason time stands still
//! while the store is away: nobody can say then that they are there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::endpoint::settled;
use super::follow::Looked;
use super::{Discovery, Endpoint};
use crate::clock;
use crate::state::{Entry, Space, Store, StoreError};
use crate::upstream::spec::TARGETS_MAX;

pub use super::settings::check_service;

/// Where registrations are kept: the key is `service/id`.
const SPACE: Space = Space("registry");
/// How often it is asked what other gateways wrote, and what has ended.
const EVERY: Duration = Duration::from_secs(1);
/// Entries read at once.
const PAGE: usize = 500;

/// Most instances of a service, those included that were taken back a moment ago.
const INSTANCES_MAX: usize = TARGETS_MAX * 2;

/// An instance that is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub service: String,
    pub id: String,
    pub address: SocketAddr,
    pub weight: u16,
    pub ttl: Duration,
    /// When it ends unless it is heard of again.
    pub expires: SystemTime,
}

/// What came of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    New,
    /// It was there.
    Again,
    /// There are as many instances as an upstream takes.
    Full,
}

/// An instance in the store.
#[derive(Serialize, Deserialize)]
struct Record {
    address: SocketAddr,
    weight: u16,
    ttl_ms: u64,
    expires_ms: u64,
    /// It was taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    gone: bool,
}

impl Record {
    fn of(instance: &Instance) -> Self {
        let since = instance.expires.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            address: instance.address,
            weight: instance.weight,
            ttl_ms: u64::try_from(instance.ttl.as_millis()).unwrap_or(u64::MAX),
            expires_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            gone: false,
        }
    }

    fn into_bytes(self) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(&self).map_err(|error| StoreError(error.to_string()))
    }

    fn instance(&self, service: &str, id: &str) -> Instance {
        Instance {
            service: service.to_owned(),
            id: id.to_owned(),
            address: self.address,
            weight: self.weight,
            ttl: Duration::from_millis(self.ttl_ms),
            expires: UNIX_EPOCH.checked_add(Duration::from_millis(self.expires_ms)).unwrap_or(UNIX_EPOCH),
        }
    }
}

impl Discovery {
    /// Registers an instance, or notes that it is still there.
    ///
    /// # Errors
    /// The store failed.
    pub async fn register(&self, instance: &Instance) -> Result<Registration, StoreError> {
        let store = self.store()?;
        let key = key(&instance.service, &instance.id);
        let record = store.get(SPACE, &key).await?.and_then(|value| read(&value));
        let known = record.as_ref().is_some_and(|record| !record.gone);
        if !known {
            let entries = list(&**store, &instance.service).await?;
            // The mark of one that comes back makes room for it.
            let is_more = record.is_none() && entries.len() >= INSTANCES_MAX;
            if is_more || alive(&entries).count() >= TARGETS_MAX {
                return Ok(Registration::Full);
            }
        }
        store.put(SPACE, &key, Record::of(instance).into_bytes()?, Some(instance.expires)).await?;
        self.registered.send_modify(|count| *count = count.wrapping_add(1));
        Ok(if known { Registration::Again } else { Registration::New })
    }

    /// Takes an instance back; whether it was there.
    ///
    /// # Errors
    /// The store failed.
    pub async fn deregister(&self, service: &str, id: &str) -> Result<bool, StoreError> {
        let store = self.store()?;
        let key = key(service, id);
        let record = store.get(SPACE, &key).await?.and_then(|value| read(&value)).filter(|record| !record.gone);
        let Some(record) = record else { return Ok(false) };
        let expires = record.instance(service, id).expires;
        let gone = Record { gone: true, ..record };
        store.put(SPACE, &key, gone.into_bytes()?, Some(expires)).await?;
        self.registered.send_modify(|count| *count = count.wrapping_add(1));
        Ok(true)
    }

    /// The instances of a service.
    ///
    /// # Errors
    /// The store failed.
    pub async fn instances(&self, service: &str) -> Result<Vec<Instance>, StoreError> {
        let entries = list(&**self.store()?, service).await?;
        Ok(alive(&entries).map(|(id, record)| record.instance(service, id)).collect())
    }

    fn store(&self) -> Result<&Arc<dyn Store>, StoreError> {
        self.store.get().ok_or_else(|| StoreError("it is not open".to_owned()))
    }
}

/// The instances of one service, looked at again and again.
pub struct Registered {
    service: Arc<str>,
    store: OnceLock<Arc<dyn Store>>,
    registered: watch::Receiver<u64>,
    known: HashMap<String, Known>,
}

/// An instance that was seen, and until when it is taken to be there.
struct Known {
    endpoint: Endpoint,
    ttl: Duration,
    until: SystemTime,
}

impl Registered {
    pub fn new(service: &Arc<str>, discovery: &Discovery) -> Self {
        Self {
            service: Arc::clone(service),
            store: discovery.store.clone(),
            registered: discovery.registered.subscribe(),
            known: HashMap::new(),
        }
    }

    pub async fn look(&mut self) -> Result<Looked, String> {
        self.registered.mark_unchanged();
        let Some(store) = self.store.get() else { return Err("the state store is not open".to_owned()) };
        let listed = list(&**store, &self.service).await;
        let now = clock::wall();
        match listed {
            Ok(records) => self.take(records, now),
            Err(error) => {
                for known in self.known.values_mut() {
                    known.until = now.checked_add(known.ttl).unwrap_or(now);
                }
                return Err(error.to_string());
            }
        }
        let endpoints = settled(self.known.values().map(|known| known.endpoint.clone()).collect());
        Ok(Looked { endpoints, lacking: None, pause: EVERY })
    }

    fn take(&mut self, records: Vec<(String, Record)>, now: SystemTime) {
        for (id, record) in records {
            if record.gone {
                self.known.remove(&id);
                continue;
            }
            let Instance { address, weight, ttl, expires, .. } = record.instance(&self.service, &id);
            let endpoint = Endpoint { weight, ..Endpoint::new(address.to_string()) };
            self.known.insert(id, Known { endpoint, ttl, until: expires });
        }
        self.known.retain(|_, known| now < known.until);
    }

    /// Waits until something is registered at this gateway.
    pub async fn woken(&mut self) {
        if self.registered.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The entries of a service, in the order of their ids. One that cannot be read was not written by a gateway of this kind.
async fn list(store: &dyn Store, service: &str) -> Result<Vec<(String, Record)>, StoreError> {
    let prefix = format!("{service}/");
    let (mut after, mut found) = (prefix.clone(), Vec::new());
    loop {
        let page = store.list(SPACE, Some(&after), PAGE).await?;
        let full = page.len() >= PAGE;
        for Entry { key, value } in page {
            let Some(id) = key.strip_prefix(&prefix) else { return Ok(found) };
            if let Some(record) = read(&value) {
                found.push((id.to_owned(), record));
            }
            after = key;
        }
        // Some more than there should be: several gateways may have taken the last place.
        if !full || found.len() >= INSTANCES_MAX + PAGE {
            return Ok(found);
        }
    }
}

fn alive(entries: &[(String, Record)]) -> impl Iterator<Item = (&str, &Record)> {
    entries.iter().filter(|(_, record)| !record.gone).map(|(id, record)| (id.as_str(), record))
}

fn read(value: &[u8]) -> Option<Record> {
    serde_json::from_slice(value).ok()
}

fn key(service: &str, id: &str) -> String {
    format!("{service}/{id}")
}

#[cfg(test)]
mod tests;
