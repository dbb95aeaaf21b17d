//! How often somebody may try to log in.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most counts at once: of names, of addresses, and of names with addresses.
const ENTRIES_MAX: usize = 200_000;

/// How many failures within `window` are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptLimits {
    /// For one name from one address.
    pub failures: u32,
    /// For one name from anywhere: what is spread over many addresses.
    pub per_user: u32,
    /// For one address and any name: one password tried on many names.
    pub per_address: u32,
    pub window: Duration,
}

/// Counts of failures of all services, in memory.
#[derive(Default)]
pub struct Attempts {
    counts: Mutex<HashMap<u64, Count>>,
    hasher: RandomState,
}

#[derive(Clone, Copy)]
struct Count {
    failures: u32,
    /// When it starts anew.
    until: Instant,
}

/// A try that counts as failed until it is told to be otherwise: of many at once, no more get through than the limit is.
#[derive(Debug)]
pub struct Attempt {
    pair: u64,
    others: [u64; 2],
}

/// How long to wait.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany(pub Duration);

impl Attempts {
    /// Begins a try, unless there were too many.
    pub fn begin(
        &self,
        service: &str,
        user: &str,
        client: IpAddr,
        limits: &AttemptLimits,
        now: Instant,
    ) -> Result<Attempt, TooMany> {
        let client = network(client);
        // A service that knows the users may take `Ann` and ` ann` for `ann`: spellings are no more tries.
        let user = &*user.trim().to_lowercase();
        let pair = self.hasher.hash_one((service, user, client));
        let others = [self.hasher.hash_one((service, user)), self.hasher.hash_one((service, client))];
        let bounds = [(pair, limits.failures), (others[0], limits.per_user), (others[1], limits.per_address)];
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, max) in bounds {
            if let Some(count) = counts.get(&key).filter(|count| now < count.until && count.failures >= max) {
                return Err(TooMany(count.until.saturating_duration_since(now)));
            }
        }
        if counts.len().saturating_add(bounds.len()) > ENTRIES_MAX {
            counts.retain(|_, count| now < count.until);
            // Forgetting one of the others would give somebody more tries than they may have.
            if counts.len().saturating_add(bounds.len()) > ENTRIES_MAX {
                return Err(TooMany(limits.window));
            }
        }
        for (key, _) in bounds {
            let until = now.checked_add(limits.window).unwrap_or(now);
            let count = counts.entry(key).or_insert(Count { failures: 0, until });
            if count.until <= now {
                *count = Count { failures: 0, until };
            }
            count.failures = count.failures.saturating_add(1);
        }
        Ok(Attempt { pair, others })
    }

    /// The try was a success: earlier failures of this name from this address are forgotten.
    pub fn succeeded(&self, attempt: &Attempt) {
        self.take_back(&attempt.others);
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).remove(&attempt.pair);
    }

    /// Nothing was found out about the password.
    pub fn undecided(&self, attempt: &Attempt) {
        self.take_back(&attempt.others);
        self.take_back(&[attempt.pair]);
    }

    fn take_back(&self, keys: &[u64]) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            if let Some(count) = counts.get_mut(key) {
                count.failures = count.failures.saturating_sub(1);
                if count.failures == 0 {
                    counts.remove(key);
                }
            }
        }
    }
}

/// Who has one IPv6 address has 2^64 of them.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const LIMITS: AttemptLimits =
        AttemptLimits { failures: 3, per_user: 5, per_address: 7, window: Duration::from_secs(60) };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn after_so_many_failures_one_has_to_wait() {
        let (attempts, now) = (Attempts::default(), clock::now());
        let client = address("192.0.2.1");
        let begin = |at| attempts.begin("main", "ann", client, &LIMITS, at);
        for _ in 0..3 {
            begin(now).unwrap();
        }
        let almost = now + Duration::from_millis(59_999);
        assert_eq!(begin(almost).unwrap_err(), TooMany(Duration::from_millis(1)));
        begin(now + Duration::from_secs(60)).unwrap();
        attempts.begin("other", "ann", client, &LIMITS, now).unwrap();
    }

    #[test]
    fn a_success_forgets_the_failures_of_the_pair_only() {
        let (attempts, now) = (Attempts::default(), clock::now());
        let begin = |user: &str| attempts.begin("main", user, address("192.0.2.1"), &LIMITS, now);
        for _ in 0..2 {
            begin("eve").unwrap();
        }
        let own = begin("ann").unwrap();
        attempts.succeeded(&own);
        for _ in 0..3 {
            begin("ann").unwrap();
        }
        begin("eve").unwrap();
        begin("ben").unwrap();
        begin("cat").expect_err("seven failures of this address: logging in as oneself between them does not help");
    }

    #[test]
    fn a_try_that_decided_nothing_does_not_count() {
        let (attempts, now) = (Attempts::default(), clock::now());
        for _ in 0..100 {
            let attempt = attempts.begin("main", "ann", address("192.0.2.1"), &LIMITS, now).unwrap();
            attempts.undecided(&attempt);
        }
        assert!(attempts.counts.lock().unwrap().is_empty());
    }

    #[test]
    fn one_name_is_guarded_from_many_addresses_and_one_address_from_many_names() {
        let (attempts, now) = (Attempts::default(), clock::now());
        let begin = |user: &str, client: &str| attempts.begin("main", user, address(client), &LIMITS, now);
        for last in 1..=5 {
            begin("ann", &format!("192.0.2.{last}")).unwrap();
        }
        begin("ann", "192.0.2.6").unwrap_err();
        for number in 0..7 {
            begin(&format!("user-{number}"), &format!("2001:db8::{number:x}")).unwrap();
        }
        begin("zoe", "2001:db8:0:0:ffff::1").expect_err("the same /64");
        begin("zoe", "2001:db8:0:1::1").unwrap();
    }

    #[test]
    fn spellings_of_one_name_are_no_more_tries() {
        let (attempts, now) = (Attempts::default(), clock::now());
        let begin = |user: &str| attempts.begin("main", user, address("192.0.2.1"), &LIMITS, now);
        for user in ["ann", "Ann", " aNN\t"] {
            begin(user).unwrap();
        }
        begin("ANN").unwrap_err();
        begin("anna").unwrap();
    }

    #[test]
    fn a_full_table_refuses_instead_of_forgetting() {
        let (attempts, now) = (Attempts::default(), clock::now());
        let begin = |number: u32, at| attempts.begin("main", "u", IpAddr::V4(number.into()), &LIMITS, at);
        let limits = AttemptLimits { per_user: u32::MAX, ..LIMITS };
        let mut number = 0;
        while attempts.begin("main", "u", IpAddr::V4(number.into()), &limits, now).is_ok() {
            number += 1;
        }
        assert!(attempts.counts.lock().unwrap().len() <= ENTRIES_MAX && number > 90_000);
        begin(number, now + LIMITS.window).unwrap();
    }
}
