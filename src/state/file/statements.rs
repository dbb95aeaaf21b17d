//! The operations in SQL.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::database;
use super::{Answer, Operation};
use crate::state::{Entry, Space, Spend, Spent, counted};

/// Ended entries that are removed at once.
const SWEPT_AT_ONCE: i64 = 256;

/// The tables of version 1 of the file.
pub const SCHEMA: &str = "
    CREATE TABLE entries (
        space TEXT NOT NULL,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        expires INTEGER,
        PRIMARY KEY (space, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX entries_expires ON entries (expires) WHERE expires IS NOT NULL;
";

pub fn execute(connection: &Connection, operation: &Operation, now: i64) -> rusqlite::Result<Answer> {
    match operation {
        Operation::Get(space, key) => connection
            .prepare_cached("SELECT value FROM entries WHERE space = ?1 AND key = ?2 AND ifnull(expires > ?3, 1)")?
            .query_row(params![space.0, key, now], |row| row.get(0))
            .optional()
            .map(Answer::Value),
        Operation::Put { space, key, value, expires } => connection
            .prepare_cached("INSERT OR REPLACE INTO entries (space, key, value, expires) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![space.0, key, value, expires])
            .map(|rows| Answer::Done(rows == 1)),
        // An entry that has ended is as good as none.
        Operation::Insert { space, key, value, expires } => connection
            .prepare_cached(
                "INSERT INTO entries (space, key, value, expires) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (space, key) DO UPDATE SET value = excluded.value, expires = excluded.expires
                 WHERE entries.expires <= ?5",
            )?
            .execute(params![space.0, key, value, expires, now])
            .map(|rows| Answer::Done(rows == 1)),
        Operation::Replace { space, key, expected, value } => connection
            .prepare_cached(
                "UPDATE entries SET value = ?4
                 WHERE space = ?1 AND key = ?2 AND value = ?3 AND ifnull(expires > ?5, 1)",
            )?
            .execute(params![space.0, key, expected, value, now])
            .map(|rows| Answer::Done(rows == 1)),
        // What ends in the past is removed by the next sweep.
        Operation::Exchange { space, key, expected, value, expires } => connection
            .prepare_cached(
                "UPDATE entries SET value = ?4, expires = ?6
                 WHERE space = ?1 AND key = ?2 AND value = ?3 AND ifnull(expires > ?5, 1)",
            )?
            .execute(params![space.0, key, expected, value, now, expires])
            .map(|rows| Answer::Done(rows == 1)),
        Operation::Take(space, key) => connection
            .prepare_cached(
                "DELETE FROM entries WHERE space = ?1 AND key = ?2 AND ifnull(expires > ?3, 1) RETURNING value",
            )?
            .query_row(params![space.0, key, now], |row| row.get(0))
            .optional()
            .map(Answer::Value),
        Operation::Spend { space, key, ask, expires } => spend(connection, *space, key, *ask, *expires, now),
        Operation::GiveBack { space, key, amount } => give_back(connection, *space, key, *amount, now),
        Operation::Version => database::version(connection).map(Answer::Version),
        Operation::List { space, after, limit } => {
            let limit = i64::try_from(*limit).unwrap_or(i64::MAX);
            let mut statement = connection.prepare_cached(
                "SELECT key, value FROM entries
                 WHERE space = ?1 AND (?2 IS NULL OR key > ?2) AND ifnull(expires > ?3, 1) ORDER BY key LIMIT ?4",
            )?;
            let entry = |row: &rusqlite::Row<'_>| Ok(Entry { key: row.get(0)?, value: row.get(1)? });
            let rows = statement.query_map(params![space.0, after, now, limit], entry)?;
            rows.collect::<rusqlite::Result<_>>().map(Answer::Entries)
        }
    }
}

fn spend(
    connection: &Connection,
    space: Space,
    key: &str,
    ask: Spend,
    expires: i64,
    now: i64,
) -> rusqlite::Result<Answer> {
    let Some((value, ends)) = counter(connection, space, key, now)? else {
        let spent = ask.from(0);
        if spent.got > 0 {
            connection
                .prepare_cached("INSERT OR REPLACE INTO entries (space, key, value, expires) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![space.0, key, spent.used.to_string().as_bytes(), expires])?;
        }
        return Ok(Answer::Spent(Ok(spent)));
    };
    let spent = counted(Some(&value)).map(|used| ask.from(used));
    if let Ok(Spent { got: 1.., used }) = &spent {
        set(connection, space, key, *used, ends)?;
    }
    Ok(Answer::Spent(spent))
}

fn give_back(connection: &Connection, space: Space, key: &str, amount: u64, now: i64) -> rusqlite::Result<Answer> {
    let Some((value, ends)) = counter(connection, space, key, now)? else {
        return Ok(Answer::Spent(Ok(Spent { got: 0, used: 0 })));
    };
    let left = counted(Some(&value)).map(|used| used.saturating_sub(amount));
    if let Ok(left) = &left {
        set(connection, space, key, *left, ends)?;
    }
    Ok(Answer::Spent(left.map(|used| Spent { got: 0, used })))
}

type Counter = (Vec<u8>, Option<i64>);

/// A counter that has not ended, and when it does. Nobody comes between this and what is written: one thread does all.
fn counter(connection: &Connection, space: Space, key: &str, now: i64) -> rusqlite::Result<Option<Counter>> {
    connection
        .prepare_cached("SELECT value, expires FROM entries WHERE space = ?1 AND key = ?2 AND ifnull(expires > ?3, 1)")?
        .query_row(params![space.0, key, now], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

fn set(connection: &Connection, space: Space, key: &str, count: u64, ends: Option<i64>) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE entries SET value = ?3, expires = ?4 WHERE space = ?1 AND key = ?2")?
        .execute(params![space.0, key, count.to_string().as_bytes(), ends])
        .map(|_| ())
}

/// Removes some of what has ended.
pub fn sweep(connection: &Connection, now: i64) -> rusqlite::Result<()> {
    let ended = "SELECT space, key FROM entries WHERE expires <= ?1 LIMIT ?2";
    let any = connection.prepare_cached(ended)?.exists(params![now, 1])?;
    if any {
        connection
            .prepare_cached(&format!("DELETE FROM entries WHERE (space, key) IN ({ended})"))?
            .execute(params![now, SWEPT_AT_ONCE])?;
    }
    Ok(())
}
