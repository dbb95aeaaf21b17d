//! The operations that only look, in SQL. None reads more than it shows.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row as SqlRow, params};

use super::tables::{Stage, Tables};
use super::{Counts, Entry, Message, Standing};
use crate::inbox::LIST_MAX;
use crate::inbox::packed::unpack;

/// A time of the file.
pub fn time(milliseconds: i64) -> SystemTime {
    let since = Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0));
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

/// A message with its body.
pub fn message(tables: &Tables<'_>, inbox: &Arc<str>, seq: i64) -> rusqlite::Result<Message> {
    tables
        .connection
        .prepare_cached("SELECT head, body FROM contents WHERE seq = ?1")?
        .query_row([seq], |row| head(inbox, row, 0, Bytes::from(row.get::<_, Vec<u8>>(1)?)))
}

fn head(inbox: &Arc<str>, row: &SqlRow<'_>, column: usize, body: Bytes) -> rusqlite::Result<Message> {
    let packed = row.get_ref(column)?.as_blob()?;
    let odd = || "it is not the head of a message".into();
    unpack(Arc::clone(inbox), packed, body)
        .ok_or_else(|| rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, odd()))
}

pub fn counts(tables: &Tables<'_>, inbox: &str, now: i64) -> rusqlite::Result<Counts> {
    let tally = tables.tally(inbox);
    let mut counts = Counts {
        ready: tally.ready.saturating_add(tally.waiting),
        delayed: tally.delayed,
        claimed: tally.claimed,
        dead: tally.dead,
        bytes: tally.bytes,
        oldest: None,
    };
    // Whose time has come, though nobody has claimed since.
    let (delayed, claimed) = tables
        .connection
        .prepare_cached(
            "SELECT count(*) FILTER (WHERE stage = 1), count(*) FILTER (WHERE stage = 2) FROM messages
             WHERE inbox = ?1 AND due <= ?2",
        )?
        .query_row(params![inbox, now], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    let (delayed, claimed) = (delayed.unsigned_abs(), claimed.unsigned_abs());
    counts.ready = counts.ready.saturating_add(delayed).saturating_add(claimed);
    counts.delayed = counts.delayed.saturating_sub(delayed);
    counts.claimed = counts.claimed.saturating_sub(claimed);
    counts.oldest = oldest(tables, inbox)?;
    Ok(counts)
}

/// When the first stored arrived that is not dead.
fn oldest(tables: &Tables<'_>, inbox: &str) -> rusqlite::Result<Option<SystemTime>> {
    let mut statement =
        tables.connection.prepare_cached("SELECT min(seq) FROM messages WHERE inbox = ?1 AND stage = ?2")?;
    let mut oldest: Option<i64> = None;
    for stage in [Stage::Ready, Stage::Delayed, Stage::Claimed, Stage::Waiting] {
        let first: Option<i64> = statement.query_row(params![inbox, stage], |row| row.get(0))?;
        oldest = oldest.into_iter().chain(first).min();
    }
    let Some(oldest) = oldest else { return Ok(None) };
    let received = "SELECT received FROM messages WHERE seq = ?1";
    tables.connection.prepare_cached(received)?.query_row([oldest], |row| row.get(0)).map(|at| Some(time(at)))
}

const ENTRY: &str = "SELECT c.head, m.stage, m.attempt, m.due, m.why, m.seq
                     FROM messages m CROSS JOIN contents c ON c.seq = m.seq";

pub fn list(
    tables: &Tables<'_>,
    inbox: &Arc<str>,
    standing: Option<Standing>,
    after: Option<&str>,
    limit: usize,
    now: i64,
) -> rusqlite::Result<Vec<Entry>> {
    let limit = limit.min(LIST_MAX);
    let (after, count) = (behind(tables, inbox, after)?, i64::try_from(limit).unwrap_or(i64::MAX));
    let mut found: Vec<(i64, Entry)> = Vec::new();
    // In the order of storing within each stage: the index has them so, and nothing has to be sorted that is not shown.
    for (stage, due) in stages(standing) {
        let mut statement = tables.connection.prepare_cached(&format!(
            "{ENTRY} WHERE m.inbox = ?1 AND m.stage = ?2 AND m.seq > ?3 AND (?4 IS NULL OR (m.due <= ?5) = ?4)
             ORDER BY m.seq LIMIT ?6"
        ))?;
        let rows = statement.query_map(params![inbox, stage, after, due, now, count], |row| {
            Ok((row.get(5)?, entry(inbox, row, Bytes::new(), now)?))
        })?;
        for row in rows {
            found.push(row?);
        }
    }
    found.sort_unstable_by_key(|(seq, _)| *seq);
    found.truncate(limit);
    Ok(found.into_iter().map(|(_, entry)| entry).collect())
}

/// Which stages a standing has, and whether their time must have come for it.
fn stages(standing: Option<Standing>) -> Vec<(Stage, Option<bool>)> {
    match standing {
        None => [Stage::Ready, Stage::Delayed, Stage::Claimed, Stage::Dead, Stage::Waiting].map(|of| (of, None)).into(),
        Some(Standing::Ready) => vec![
            (Stage::Ready, None),
            (Stage::Waiting, None),
            (Stage::Delayed, Some(true)),
            (Stage::Claimed, Some(true)),
        ],
        Some(Standing::Delayed) => vec![(Stage::Delayed, Some(false))],
        Some(Standing::Claimed) => vec![(Stage::Claimed, Some(false))],
        Some(Standing::Dead) => vec![(Stage::Dead, None)],
    }
}

/// The number of a message; of one that has gone since, that of the last before it, by the names.
fn behind(tables: &Tables<'_>, inbox: &str, after: Option<&str>) -> rusqlite::Result<i64> {
    let Some(after) = after else { return Ok(0) };
    let last = "SELECT seq FROM messages WHERE inbox = ?1 AND id <= ?2 ORDER BY id DESC LIMIT 1";
    let last = tables.connection.prepare_cached(last)?.query_row(params![inbox, after], |row| row.get(0)).optional()?;
    Ok(last.unwrap_or(0))
}

pub fn show(tables: &Tables<'_>, inbox: &Arc<str>, id: &str, now: i64) -> rusqlite::Result<Option<Entry>> {
    let Some(found) = tables.find(inbox, id)? else { return Ok(None) };
    let body = message(tables, inbox, found.seq)?.body;
    tables
        .connection
        .prepare_cached(&format!("{ENTRY} WHERE m.seq = ?1"))?
        .query_row([found.seq], |row| entry(inbox, row, body, now))
        .optional()
}

fn entry(inbox: &Arc<str>, row: &SqlRow<'_>, body: Bytes, now: i64) -> rusqlite::Result<Entry> {
    let due = row.get::<_, Option<i64>>(3)?.filter(|due| now < *due);
    let standing = match (row.get(1)?, due) {
        (Stage::Dead, _) => Standing::Dead,
        (Stage::Delayed, Some(_)) => Standing::Delayed,
        (Stage::Claimed, Some(_)) => Standing::Claimed,
        (Stage::Ready | Stage::Waiting | Stage::Delayed | Stage::Claimed, _) => Standing::Ready,
    };
    let message = head(inbox, row, 0, body)?;
    Ok(Entry { message, standing, attempts: row.get(2)?, due: due.map(time), why: row.get(4)? })
}
