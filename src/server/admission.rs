//! How many connections there are, in all and of each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Counts open connections. Locked once when a connection opens and once when it closes, never for a request.
#[derive(Default)]
pub struct Admission {
    open: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    empty: Notify,
}

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// `connections_max` is reached.
    All,
    /// `connections_per_address_max` is reached.
    Address,
}

impl Full {
    pub fn reason(self) -> &'static str {
        match self {
            Self::All => "connections_max",
            Self::Address => "connections_per_address_max",
        }
    }
}

/// Held as long as a connection is open.
pub struct Permit {
    admission: Arc<Admission>,
    /// `None` until it is known whose connection it is.
    address: Option<IpAddr>,
}

impl Admission {
    /// Lets a connection in, within both bounds.
    pub fn enter(self: &Arc<Self>, address: IpAddr, max: usize, max_of_address: usize) -> Result<Permit, Full> {
        let address = address.to_canonical();
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that two threads cannot both take the last place.
        if self.open.load(Ordering::Relaxed) >= max {
            return Err(Full::All);
        }
        let count = by_address.entry(address).or_default();
        if *count >= max_of_address {
            return Err(Full::Address);
        }
        *count = count.saturating_add(1);
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Permit { admission: Arc::clone(self), address: Some(address) })
    }

    /// Lets a connection in of which it is not known yet whose it is.
    pub fn enter_unnamed(self: &Arc<Self>, max: usize) -> Result<Permit, Full> {
        let _entering = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if self.open.load(Ordering::Relaxed) >= max {
            return Err(Full::All);
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Permit { admission: Arc::clone(self), address: None })
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Waits until no connection is open.
    pub async fn none_open(&self) {
        loop {
            let notified = self.empty.notified();
            if self.open() == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl Permit {
    /// Says whose connection it is. The permit goes with the error.
    pub fn name(mut self, address: IpAddr, max_of_address: usize) -> Result<Self, Full> {
        let address = address.to_canonical();
        let mut by_address = self.admission.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.get(&address).copied().unwrap_or_default();
        if count >= max_of_address {
            // Its end takes the lock.
            drop(by_address);
            return Err(Full::Address);
        }
        by_address.insert(address, count.saturating_add(1));
        drop(by_address);
        self.address = Some(address);
        Ok(self)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut by_address = self.admission.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = self.address
            && let Some(count) = by_address.get_mut(&address)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                by_address.remove(&address);
            }
        }
        if self.admission.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.admission.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
    }

    #[test]
    fn the_limit_is_let_in_and_one_more_is_not() {
        let admission = Arc::new(Admission::default());
        let first = admission.enter(address(1), 3, 2).unwrap();
        let _second = admission.enter(address(1), 3, 2).unwrap();
        assert_eq!(admission.enter(address(1), 3, 2).err(), Some(Full::Address));
        let _third = admission.enter(address(2), 3, 2).unwrap();
        assert_eq!(admission.enter(address(3), 3, 2).err(), Some(Full::All));
        drop(first);
        assert!(admission.enter(address(1), 3, 2).is_ok());
    }

    #[test]
    fn a_connection_that_is_named_later_counts_from_the_first() {
        let admission = Arc::new(Admission::default());
        let first = admission.enter_unnamed(2).unwrap();
        let second = admission.enter_unnamed(2).unwrap();
        assert_eq!(admission.enter_unnamed(2).err(), Some(Full::All));
        assert_eq!(admission.enter(address(1), 2, 2).err(), Some(Full::All));
        let first = first.name(address(1), 1).unwrap();
        assert_eq!(second.name(address(1), 1).err(), Some(Full::Address));
        assert_eq!(admission.open(), 1, "who is refused is gone");
        drop(first);
        assert_eq!(admission.open(), 0);
        assert!(admission.by_address.lock().unwrap().is_empty());
    }

    #[test]
    fn a_refused_address_leaves_nothing_behind() {
        let admission = Arc::new(Admission::default());
        drop(admission.enter(address(1), 1, 1));
        assert_eq!(admission.open(), 0);
        assert!(admission.by_address.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_last_one_out_wakes_who_waits() {
        let admission = Arc::new(Admission::default());
        let permit = admission.enter(address(1), 1, 1).unwrap();
        let waiting = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.none_open().await }
        });
        drop(permit);
        waiting.await.unwrap();
    }
}
