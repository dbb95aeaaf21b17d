//! Messages with the same order: one after the other.
//!
//! At most one of them is [`Stage::Ready`], the first that is not dead, and none while one is claimed. The others are
//! [`Stage::Waiting`], so that whoever claims does not have to look at them.

use std::sync::Arc;

use rusqlite::params;

use super::tables::{Row, Stage, State, Tables};

/// Makes a message ready, or one that waits for others with the same order.
pub fn free(
    tables: &mut Tables<'_>,
    inbox: &Arc<str>,
    row: &Row,
    to: State,
    why: Option<&str>,
) -> rusqlite::Result<()> {
    let stage = if row.order.is_some() { Stage::Waiting } else { Stage::Ready };
    tables.update(inbox, row, State { stage, due: None, ..to }, why)?;
    advance(tables, inbox, row.order.as_deref())
}

/// Makes the one ready whose turn it is.
pub fn advance(tables: &mut Tables<'_>, inbox: &Arc<str>, order: Option<&str>) -> rusqlite::Result<()> {
    let Some(order) = order else { return Ok(()) };
    let first = |stage| first(tables, inbox, order, stage);
    let Some(waiting) = first(Stage::Waiting)? else { return Ok(()) };
    let before = |other: Option<i64>| other.is_some_and(|other| other < waiting);
    if first(Stage::Claimed)?.is_some() || before(first(Stage::Delayed)?) {
        return Ok(());
    }
    let ready = first(Stage::Ready)?;
    if before(ready) {
        return Ok(());
    }
    // One that had been given up comes back before it.
    if let Some(ready) = ready {
        shift(tables, inbox, ready, Stage::Ready, Stage::Waiting)?;
    }
    shift(tables, inbox, waiting, Stage::Waiting, Stage::Ready)?;
    tables.wake();
    Ok(())
}

fn first(tables: &Tables<'_>, inbox: &str, order: &str, stage: Stage) -> rusqlite::Result<Option<i64>> {
    tables
        .connection
        .prepare_cached("SELECT min(seq) FROM messages WHERE inbox = ?1 AND order_key = ?2 AND stage = ?3")?
        .query_row(params![inbox, order, stage], |row| row.get(0))
}

fn shift(tables: &mut Tables<'_>, inbox: &Arc<str>, seq: i64, from: Stage, to: Stage) -> rusqlite::Result<()> {
    tables
        .connection
        .prepare_cached("UPDATE messages SET stage = ?2 WHERE seq = ?1 AND stage = ?3")?
        .execute(params![seq, to, from])?;
    tables.count(inbox, Some(from), Some(to), 0);
    Ok(())
}
