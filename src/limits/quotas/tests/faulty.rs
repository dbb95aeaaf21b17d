//! A store that fails when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::SystemTime;

use tokio::sync::Semaphore;

use crate::state::{Entry, Memory, Pending, Space, Spend, Spent, Store, StoreError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Nothing is done.
    Fails,
    /// It is done, and said not to be.
    Lies,
    /// Nothing is done and nothing said, until it is released.
    Hangs,
}

const FAULTS: [Fault; 4] = [Fault::None, Fault::Fails, Fault::Lies, Fault::Hangs];

pub struct Faulty {
    inner: Arc<Memory>,
    fault: AtomicU8,
    release: Semaphore,
    pub asked: AtomicUsize,
}

impl Faulty {
    pub fn new(inner: Arc<Memory>) -> Self {
        Self { inner, fault: AtomicU8::new(0), release: Semaphore::new(0), asked: AtomicUsize::new(0) }
    }

    pub fn set(&self, fault: Fault) {
        let index = FAULTS.iter().position(|known| *known == fault).unwrap();
        self.fault.store(u8::try_from(index).unwrap(), Ordering::SeqCst);
    }

    /// Lets one operation that hangs go on.
    pub fn release(&self) {
        self.release.add_permits(1);
    }

    async fn with<T>(&self, operation: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match FAULTS[usize::from(self.fault.load(Ordering::SeqCst))] {
            Fault::None => operation.await,
            Fault::Fails => Err(StoreError("told to fail".to_owned())),
            Fault::Lies => operation.await.and(Err(StoreError("told to lie".to_owned()))),
            Fault::Hangs => {
                self.release.acquire().await.unwrap().forget();
                operation.await
            }
        }
    }
}

impl Store for Faulty {
    fn spend<'a>(&'a self, space: Space, key: &'a str, ask: Spend, expires: SystemTime) -> Pending<'a, Spent> {
        Box::pin(self.with(self.inner.spend(space, key, ask, expires)))
    }

    fn give_back<'a>(&'a self, space: Space, key: &'a str, amount: u64) -> Pending<'a, ()> {
        Box::pin(self.with(self.inner.give_back(space, key, amount)))
    }

    fn get<'a>(&'a self, space: Space, key: &'a str) -> Pending<'a, Option<Vec<u8>>> {
        self.inner.get(space, key)
    }

    fn put<'a>(&'a self, space: Space, key: &'a str, value: Vec<u8>, expires: Option<SystemTime>) -> Pending<'a, ()> {
        self.inner.put(space, key, value, expires)
    }

    fn insert<'a>(
        &'a self,
        space: Space,
        key: &'a str,
        value: Vec<u8>,
        expires: Option<SystemTime>,
    ) -> Pending<'a, bool> {
        self.inner.insert(space, key, value, expires)
    }

    fn replace<'a>(&'a self, space: Space, key: &'a str, expected: &'a [u8], value: Vec<u8>) -> Pending<'a, bool> {
        self.inner.replace(space, key, expected, value)
    }

    fn exchange<'a>(
        &'a self,
        space: Space,
        key: &'a str,
        expected: &'a [u8],
        value: Vec<u8>,
        expires: Option<SystemTime>,
    ) -> Pending<'a, bool> {
        self.inner.exchange(space, key, expected, value, expires)
    }

    fn take<'a>(&'a self, space: Space, key: &'a str) -> Pending<'a, Option<Vec<u8>>> {
        self.inner.take(space, key)
    }

    fn list<'a>(&'a self, space: Space, after: Option<&'a str>, limit: usize) -> Pending<'a, Vec<Entry>> {
        self.inner.list(space, after, limit)
    }
}
