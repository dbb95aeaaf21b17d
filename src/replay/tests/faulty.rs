//! A store that fails when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::SystemTime;

use tokio::sync::Semaphore;

use crate::state::{Entry, Pending, Space, Spend, Spent, Store, StoreError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Nothing is done.
    Fails,
    /// It is done, and said not to be.
    Lies,
    /// It is done, and nothing is said before that is over.
    Hangs,
}

const FAULTS: [Fault; 4] = [Fault::None, Fault::Fails, Fault::Lies, Fault::Hangs];

pub struct Faulty {
    inner: Arc<dyn Store>,
    fault: AtomicU8,
    /// Operations done well before the fault begins.
    spared: AtomicUsize,
    release: Semaphore,
    pub asked: AtomicUsize,
}

impl Faulty {
    pub fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        let (spared, asked) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { inner, fault: AtomicU8::new(0), spared, release: Semaphore::new(0), asked })
    }

    pub fn set(&self, fault: Fault) {
        self.set_after(0, fault);
    }

    /// The fault begins when so many operations more are done.
    pub fn set_after(&self, operations: usize, fault: Fault) {
        self.spared.store(operations, Ordering::SeqCst);
        let index = FAULTS.iter().position(|known| *known == fault).unwrap();
        self.fault.store(u8::try_from(index).unwrap(), Ordering::SeqCst);
        self.release.add_permits(if fault == Fault::None { 1000 } else { 0 });
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn with<T>(&self, operation: Pending<'_, T>) -> Result<T, StoreError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let fault = FAULTS[usize::from(self.fault.load(Ordering::SeqCst))];
        let less = |spared: usize| spared.checked_sub(1);
        if fault != Fault::None && self.spared.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            return operation.await;
        }
        match fault {
            Fault::None => operation.await,
            Fault::Fails => Err(StoreError("told to fail".to_owned())),
            Fault::Lies => operation.await.and(Err(StoreError("told to lie".to_owned()))),
            Fault::Hangs => {
                let done = operation.await;
                self.release.acquire().await.unwrap().forget();
                done
            }
        }
    }
}

impl Store for Faulty {
    fn get<'a>(&'a self, space: Space, key: &'a str) -> Pending<'a, Option<Vec<u8>>> {
        Box::pin(self.with(self.inner.get(space, key)))
    }

    fn put<'a>(&'a self, space: Space, key: &'a str, value: Vec<u8>, expires: Option<SystemTime>) -> Pending<'a, ()> {
        Box::pin(self.with(self.inner.put(space, key, value, expires)))
    }

    fn insert<'a>(
        &'a self,
        space: Space,
        key: &'a str,
        value: Vec<u8>,
        expires: Option<SystemTime>,
    ) -> Pending<'a, bool> {
        Box::pin(self.with(self.inner.insert(space, key, value, expires)))
    }

    fn replace<'a>(&'a self, space: Space, key: &'a str, expected: &'a [u8], value: Vec<u8>) -> Pending<'a, bool> {
        Box::pin(self.with(self.inner.replace(space, key, expected, value)))
    }

    fn exchange<'a>(
        &'a self,
        space: Space,
        key: &'a str,
        expected: &'a [u8],
        value: Vec<u8>,
        expires: Option<SystemTime>,
    ) -> Pending<'a, bool> {
        Box::pin(self.with(self.inner.exchange(space, key, expected, value, expires)))
    }

    fn take<'a>(&'a self, space: Space, key: &'a str) -> Pending<'a, Option<Vec<u8>>> {
        Box::pin(self.with(self.inner.take(space, key)))
    }

    fn spend<'a>(&'a self, space: Space, key: &'a str, ask: Spend, expires: SystemTime) -> Pending<'a, Spent> {
        self.inner.spend(space, key, ask, expires)
    }

    fn give_back<'a>(&'a self, space: Space, key: &'a str, amount: u64) -> Pending<'a, ()> {
        self.inner.give_back(space, key, amount)
    }

    fn list<'a>(&'a self, space: Space, after: Option<&'a str>, limit: usize) -> Pending<'a, Vec<Entry>> {
        Box::pin(self.with(self.inner.list(space, after, limit)))
    }
}
