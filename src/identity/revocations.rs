//! Tokens that were taken back before they ended.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::caller::{Caller, Credential};
use crate::state::{Mark, Space, Store, StoreError};

/// Most that one part remembers at once, so that all of them hold a million. Each is forgotten when its token has ended.
const SHARD_ENTRIES_MAX: usize = 1_000_000 / SHARDS;
/// Where they are kept: the key is the id, the value the milliseconds since 1970 at which it may be forgotten.
const SPACE: Space = Space("revoked");
/// The claim that names what one login gave out: all of it is taken back together.
pub const SESSION_CLAIM: &str = "sid";
/// Entries read at once.
const PAGE: usize = 1000;
/// A verifier may take a token for so much longer as its clock may differ.
const LEEWAY_MAX: Duration = Duration::from_secs(300);
/// Parts that the entries are in; more than the threads of any machine that runs this, so that two rarely meet.
const SHARDS: usize = 64;
/// Fewer in one part are not worth a sweep.
const SWEEP_MIN: usize = 16;

/// The ids of tokens (`jti`) and of logins (`sid`) that are not to be accepted any more.
///
/// An id is 128 random bits, so it names no issuer: an issuer that is configured under two names is no way around.
///
/// Every request with a token asks here, so that the entries are in parts, each behind its own lock.
pub struct Revocations {
    shards: Box<[RwLock<Entries>]>,
    hasher: RandomState,
    /// How many there are, so that nobody waits for a lock while there are none.
    count: AtomicUsize,
}

#[derive(Default)]
struct Entries {
    /// When each may be forgotten.
    by_id: HashMap<Box<str>, i64>,
    /// How many make a sweep worth while.
    sweep_at: usize,
}

impl Default for Revocations {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, hasher: RandomState::new(), count: AtomicUsize::new(0) }
    }
}

impl Revocations {
    /// Whether a token with this id, from this login, was taken back.
    pub fn contains(&self, token: Option<&str>, session: Option<&str>) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let is_one = |id: &str| {
            let entries = self.shard(id).map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner));
            entries.is_some_and(|entries| entries.by_id.contains_key(id))
        };
        [token, session].into_iter().flatten().any(is_one)
    }

    /// Whether the token of a caller was taken back.
    pub fn cover(&self, caller: &Caller) -> bool {
        let Credential::Token { id, .. } = &caller.credential else { return false };
        self.contains(id.as_deref(), caller.claims.get(SESSION_CLAIM).and_then(|session| session.as_str()))
    }

    /// Takes back the token or login `id`, whose last token ends at `ends`. When the store fails it holds in this process
    /// nevertheless, and the failure is told.
    pub async fn add(&self, store: &dyn Store, id: &str, ends: SystemTime, now: SystemTime) -> Result<(), StoreError> {
        let until = ends.checked_add(LEEWAY_MAX).unwrap_or(ends);
        self.remember(id, milliseconds(until), milliseconds(now))?;
        store.put(SPACE, id, milliseconds(until).to_string().into_bytes(), Some(until)).await
    }

    /// Reads what an earlier process kept.
    pub async fn load(&self, store: &dyn Store, now: SystemTime) -> Result<(), StoreError> {
        let mut after: Option<String> = None;
        loop {
            let page = store.list(SPACE, after.as_deref(), PAGE).await?;
            let last = page.len() < PAGE;
            after = page.last().map(|entry| entry.key.clone());
            for entry in page {
                self.remember(&entry.key, until(&entry.value), milliseconds(now))?;
            }
            if last {
                return Ok(());
            }
        }
    }

    /// Takes over what was revoked since `mark`, by whichever gateway; whether anything was.
    ///
    /// # Errors
    /// The store failed; `mark` stays.
    pub async fn follow(&self, store: &dyn Store, mark: &mut Mark, now: SystemTime) -> Result<bool, StoreError> {
        let changes = store.changes(SPACE, mark).await?;
        let mut changed = changes.keys.is_none();
        match changes.keys {
            None => self.load(store, now).await?,
            Some(ids) => {
                for id in ids {
                    // Nothing is taken out of here: what is gone has ended.
                    if let Some(value) = store.get(SPACE, &id).await? {
                        self.remember(&id, until(&value), milliseconds(now))?;
                        changed = true;
                    }
                }
            }
        }
        *mark = changes.mark;
        Ok(changed)
    }

    fn remember(&self, id: &str, until: i64, now: i64) -> Result<(), StoreError> {
        let Some(shard) = self.shard(id) else { return Ok(()) };
        let mut entries = shard.write().unwrap_or_else(PoisonError::into_inner);
        if entries.by_id.len() >= entries.sweep_at.max(SWEEP_MIN) {
            let before = entries.by_id.len();
            entries.by_id.retain(|_, until| now < *until);
            entries.sweep_at = entries.by_id.len().saturating_mul(2).min(SHARD_ENTRIES_MAX);
            self.count.fetch_sub(before.saturating_sub(entries.by_id.len()), Ordering::AcqRel);
        }
        if entries.by_id.len() >= SHARD_ENTRIES_MAX {
            return Err(StoreError("a million revocations are remembered, and there is no room for more".to_owned()));
        }
        if entries.by_id.insert(id.into(), until).is_none() {
            self.count.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    fn shard(&self, id: &str) -> Option<&RwLock<Entries>> {
        // The rest is below the number of shards, and that fits.
        let place = usize::try_from(self.hasher.hash_one(id) % SHARDS as u64).ok()?;
        self.shards.get(place)
    }
}

/// When an entry may be forgotten. One that cannot be read never is: that is the safe side.
fn until(value: &[u8]) -> i64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(i64::MAX)
}

fn milliseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::caller::{CallerFields, Level, Scopes};
    use crate::clock;
    use crate::state::{Limits, Memory};

    fn caller(id: Option<&str>, session: Option<&str>) -> Caller {
        let mut claims = serde_json::Map::new();
        if let Some(session) = session {
            claims.insert(SESSION_CLAIM.to_owned(), session.into());
        }
        Caller {
            name: Arc::from("ann"),
            credential: Credential::Token { issuer: Arc::from("main"), id: id.map(Box::from), key: 0 },
            level: Level::User,
            roles: Box::default(),
            scopes: Scopes::default(),
            claims,
            expires: None,
            fields: CallerFields::new("ann", &[], &Scopes::default()).unwrap(),
            rates: None,
        }
    }

    #[tokio::test]
    async fn a_token_is_covered_by_its_id_or_its_login() {
        let (revocations, store, now) = (Revocations::default(), Memory::new(Limits::default()), clock::wall());
        assert!(!revocations.cover(&caller(Some("a"), Some("s"))));
        revocations.add(&store, "a", now, now).await.unwrap();
        revocations.add(&store, "s", now, now).await.unwrap();
        assert!(revocations.cover(&caller(Some("a"), None)) && revocations.cover(&caller(Some("b"), Some("s"))));
        assert!(!revocations.cover(&caller(Some("b"), Some("t"))) && !revocations.cover(&caller(None, None)));
        let mut key = caller(Some("a"), Some("s"));
        key.credential = Credential::Key { id: Arc::from("a"), managed: false, version: 0 };
        assert!(!revocations.cover(&key), "the id of a key is none of a token");
    }

    #[tokio::test]
    async fn they_are_there_in_the_next_process() {
        let (store, now) = (Memory::new(Limits::default()), clock::wall());
        let before = Revocations::default();
        for number in 0..2500 {
            before.add(&store, &format!("{number:04}"), now + Duration::from_secs(60), now).await.unwrap();
        }
        before.add(&store, "ended", now - LEEWAY_MAX - Duration::from_secs(1), now).await.unwrap();
        let after = Revocations::default();
        after.load(&store, now).await.unwrap();
        assert!((0..2500).all(|number| after.contains(Some(&format!("{number:04}")), None)));
        assert!(!after.contains(Some("ended"), None));
    }

    #[tokio::test]
    async fn they_are_kept_for_the_leeway_and_forgotten_then() {
        let (revocations, now) = (Revocations::default(), 1_000_000);
        let (later, count) = (now + 1000, 4 * SHARDS * SWEEP_MIN);
        for number in 0..count {
            revocations.remember(&number.to_string(), later, now).unwrap();
        }
        revocations.remember("one more", i64::MAX, later - 1).unwrap();
        revocations.remember("one more", i64::MAX, later - 1).unwrap();
        assert!((0..count).all(|number| revocations.contains(Some(&number.to_string()), None)), "not ended yet");
        assert_eq!(revocations.count.load(Ordering::Relaxed), count + 1);
        for number in 0..4 * count {
            revocations.remember(&format!("x{number}"), i64::MAX, later).unwrap();
        }
        assert!(!(0..count).any(|number| revocations.contains(Some(&number.to_string()), None)), "ended");
        assert!(revocations.contains(Some("one more"), None) && revocations.contains(None, Some("x0")));
        assert_eq!(revocations.count.load(Ordering::Relaxed), 4 * count + 1);
    }

    #[test]
    fn what_is_taken_back_while_others_ask_holds_from_then_on() {
        let revocations = Revocations::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let revocations = &revocations;
                scope.spawn(move || {
                    for number in 0..2000 {
                        let id = format!("{thread}-{number}");
                        assert!(!revocations.contains(Some(&id), Some("kept")));
                        revocations.remember(&id, i64::MAX, 0).unwrap();
                        assert!(revocations.contains(Some("kept"), Some(&id)));
                    }
                });
            }
        });
        assert_eq!(revocations.count.load(Ordering::Relaxed), 8000);
        let most = revocations.shards.iter().map(|shard| shard.read().unwrap().by_id.len()).max();
        assert!(most < Some(8000 / SHARDS * 3), "they are spread: {most:?}");
    }

    #[test]
    fn a_full_part_takes_no_more_until_some_have_ended() {
        let revocations = Revocations::default();
        let same = |id: &String| std::ptr::eq(revocations.shard(id).unwrap(), &raw const revocations.shards[0]);
        let mut ids = (0..).map(|number: u64| number.to_string()).filter(same);
        let refused = ids.find(|id| revocations.remember(id, 10, 5).is_err()).unwrap();
        assert_eq!(revocations.count.load(Ordering::Relaxed), SHARD_ENTRIES_MAX);
        assert!(!revocations.contains(Some(&refused), None));
        revocations.remember(&refused, 20, 10).unwrap();
        assert!(revocations.contains(Some(&refused), None));
    }
}
