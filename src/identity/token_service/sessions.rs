//! Sessions in the state store: which refresh token is the one that is still good.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::super::passwords::random_id;
use super::Refused;
use crate::state::{Space, Store, StoreError};

/// The key is the id of the session. An entry ends with the session.
const SPACE: Space = Space("session");
/// How often an exchange is tried when others are quicker. Each of them has exchanged the token, so the second look decides.
const TRIES_MAX: usize = 4;

/// The sessions of one service.
pub struct Sessions<'a> {
    pub store: &'a dyn Store,
    pub service: &'a str,
}

#[derive(Serialize, Deserialize)]
struct Record {
    service: String,
    /// The refresh token that is good.
    current: String,
    /// The one before it.
    previous: Option<String>,
    /// When it was exchanged, in milliseconds since 1970.
    exchanged: u64,
}

/// What became of a refresh token.
#[derive(Debug, PartialEq, Eq)]
pub enum Exchanged {
    /// The next one is good now, and this one no more.
    Done,
    /// It was exchanged a moment ago.
    Late,
    /// It was exchanged some time ago.
    Reused,
    /// There is no such session any more.
    Ended,
}

impl Sessions<'_> {
    /// Begins a session that ends at `ends`, in seconds since 1970; gives its id and that of its first refresh token.
    pub async fn begin(&self, ends: u64) -> Result<(String, String), Refused> {
        let session = random_id().map_err(|_| Refused::Internal)?;
        let first = random_id().map_err(|_| Refused::Internal)?;
        let record = Record { service: self.service.to_owned(), current: first.clone(), previous: None, exchanged: 0 };
        let ends = UNIX_EPOCH.checked_add(Duration::from_secs(ends));
        if !self.store.insert(SPACE, &session, encode(&record)?, ends).await? {
            return Err(Refused::Internal);
        }
        Ok((session, first))
    }

    /// Puts `next` in the place of `token`, if that is the one that is good.
    pub async fn exchange(
        &self,
        session: &str,
        token: &str,
        next: &str,
        grace: Duration,
        now: SystemTime,
    ) -> Result<Exchanged, Refused> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        for _ in 0..TRIES_MAX {
            let Some(stored) = self.store.get(SPACE, session).await? else { return Ok(Exchanged::Ended) };
            let record: Record =
                serde_json::from_slice(&stored).map_err(|_| StoreError("a session cannot be read".to_owned()))?;
            if record.service != self.service {
                return Ok(Exchanged::Ended);
            }
            if record.current != token {
                let since = now.saturating_sub(Duration::from_millis(record.exchanged));
                let late = record.previous.as_deref() == Some(token) && since < grace;
                return Ok(if late { Exchanged::Late } else { Exchanged::Reused });
            }
            let exchanged = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
            let record = Record { current: next.to_owned(), previous: Some(record.current), exchanged, ..record };
            if self.store.replace(SPACE, session, &stored, encode(&record)?).await? {
                return Ok(Exchanged::Done);
            }
        }
        Ok(Exchanged::Late)
    }

    pub async fn end(&self, session: &str) -> Result<(), Refused> {
        self.store.take(SPACE, session).await?;
        Ok(())
    }
}

fn encode(record: &Record) -> Result<Vec<u8>, Refused> {
    serde_json::to_vec(record).map_err(|_| Refused::Internal)
}
