//! The operations that change something, in SQL.

use std::sync::Arc;

use rusqlite::{OptionalExtension, params};

use super::order::{self, advance};
use super::read::{self, time};
use super::tables::{self, Row, Stage, State, Tables};
use super::{Bounds, Claim, Claimed, Claims, Message, Outcome, Put};
use crate::inbox::packed::pack;
use crate::state::expiry::milliseconds;

/// Messages whose time has come that one claim makes ready. What is left is for the next.
const DUE_AT_ONCE: i64 = 1000;
/// Bytes after which a claim gets no further message: what a worker has in memory of it.
const CLAIM_BYTES_MAX: u64 = 32 * 1024 * 1024;

pub fn put(tables: &mut Tables<'_>, message: &Message, bounds: Bounds) -> rusqlite::Result<Put> {
    let inbox = &message.inbox;
    let there = tables
        .connection
        .prepare_cached("SELECT 1 FROM messages WHERE inbox = ?1 AND id = ?2")?
        .exists(params![inbox, message.id])?;
    if there {
        return Ok(Put::Stored);
    }
    let (tally, bytes) = (tables.tally(inbox), message.bytes());
    if tally.messages() >= bounds.messages_max || tally.bytes.saturating_add(bytes) > bounds.bytes_max {
        return Ok(Put::Full);
    }
    let seq = tables.number();
    let stage = if message.order.is_some() { Stage::Waiting } else { Stage::Ready };
    let length = i64::try_from(bytes).unwrap_or(i64::MAX);
    tables
        .connection
        .prepare_cached(
            "INSERT INTO messages (seq, inbox, id, stage, attempt, held, order_key, received, bytes)
             VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, ?6, ?7)",
        )?
        .execute(params![seq, inbox, message.id, stage, message.order, milliseconds(message.received), length])?;
    tables
        .connection
        .prepare_cached("INSERT INTO contents (seq, head, body) VALUES (?1, ?2, ?3)")?
        .execute(params![seq, pack(message), message.body.as_ref()])?;
    tables.count(inbox, None, Some(stage), bytes);
    advance(tables, inbox, message.order.as_deref())?;
    tables.wake();
    Ok(Put::Stored)
}

pub fn claim(tables: &mut Tables<'_>, inbox: &Arc<str>, most: usize, until: i64, now: i64) -> rusqlite::Result<Claims> {
    promote(tables, inbox, now)?;
    let mut claims = Claims::default();
    let mut bytes = 0_u64;
    for row in ready(tables, inbox, most)? {
        bytes = bytes.saturating_add(row.bytes);
        if bytes > CLAIM_BYTES_MAX && !claims.messages.is_empty() {
            claims.next = Some(time(now));
            return Ok(claims);
        }
        let attempt = row.state.attempt.saturating_add(1);
        let to = State { stage: Stage::Claimed, due: Some(until), attempt, held: true };
        tables.update(inbox, &row, to, None)?;
        claims.messages.push(Claimed { message: read::message(tables, inbox, row.seq)?, attempt });
    }
    let next = "SELECT due FROM messages WHERE inbox = ?1 AND due IS NOT NULL ORDER BY due LIMIT 1";
    let next = tables.connection.prepare_cached(next)?.query_row([inbox], |row| row.get(0)).optional()?;
    claims.next = next.map(time);
    Ok(claims)
}

/// Those that are delayed no longer, and those whose claim has run out: ready again, in the order they were stored.
fn promote(tables: &mut Tables<'_>, inbox: &Arc<str>, now: i64) -> rusqlite::Result<()> {
    let rows: Vec<Row> = tables
        .connection
        .prepare_cached(
            "SELECT seq, stage, due, attempt, held, order_key, bytes FROM messages
             WHERE inbox = ?1 AND due <= ?2 ORDER BY due LIMIT ?3",
        )?
        .query_map(params![inbox, now, DUE_AT_ONCE], tables::row)?
        .collect::<rusqlite::Result<_>>()?;
    for row in &rows {
        order::free(tables, inbox, row, row.state, None)?;
    }
    Ok(())
}

fn ready(tables: &Tables<'_>, inbox: &str, most: usize) -> rusqlite::Result<Vec<Row>> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    tables
        .connection
        .prepare_cached(
            "SELECT seq, stage, due, attempt, held, order_key, bytes FROM messages
             WHERE inbox = ?1 AND stage = 0 ORDER BY seq LIMIT ?2",
        )?
        .query_map(params![inbox, most], tables::row)?
        .collect()
}

/// The message of a claim that has not been settled, and that nobody else has claimed since.
fn held(tables: &Tables<'_>, claim: &Claim) -> rusqlite::Result<Option<Row>> {
    let row = tables.find(&claim.inbox, &claim.id)?;
    Ok(row.filter(|row| row.state.held && row.state.attempt == claim.attempt))
}

pub fn renew(tables: &mut Tables<'_>, claim: &Claim, until: i64) -> rusqlite::Result<bool> {
    let Some(row) = held(tables, claim)? else { return Ok(false) };
    // It ran out, and it is not its turn any more.
    if row.state.stage == Stage::Waiting {
        return Ok(false);
    }
    tables.update(&claim.inbox, &row, State { stage: Stage::Claimed, due: Some(until), ..row.state }, None)?;
    Ok(true)
}

pub fn settle(tables: &mut Tables<'_>, claim: &Claim, outcome: &Outcome) -> rusqlite::Result<bool> {
    let Some(row) = held(tables, claim)? else { return Ok(false) };
    let (inbox, state) = (&claim.inbox, State { held: false, ..row.state });
    match outcome {
        Outcome::Delivered => tables.remove(inbox, &row)?,
        Outcome::Retry { due, why } => {
            let to = State { stage: Stage::Delayed, due: Some(milliseconds(*due)), ..state };
            tables.update(inbox, &row, to, Some(why))?;
            tables.wake();
        }
        Outcome::Dead { why } => {
            tables.update(inbox, &row, State { stage: Stage::Dead, due: None, ..state }, Some(why))?;
        }
        Outcome::Returned => {
            let to = State { attempt: state.attempt.saturating_sub(1), ..state };
            order::free(tables, inbox, &row, to, None)?;
        }
    }
    advance(tables, inbox, row.order.as_deref())?;
    Ok(true)
}

pub fn replay(tables: &mut Tables<'_>, inbox: &Arc<str>, id: &str, now: i64) -> rusqlite::Result<bool> {
    let row = tables.find(inbox, id)?.filter(|row| !row.state.claimed(now));
    let Some(row) = row else { return Ok(false) };
    order::free(tables, inbox, &row, State { attempt: 0, held: false, ..row.state }, None)?;
    Ok(true)
}

pub fn discard(tables: &mut Tables<'_>, inbox: &Arc<str>, id: &str, now: i64) -> rusqlite::Result<bool> {
    let row = tables.find(inbox, id)?.filter(|row| !row.state.claimed(now));
    let Some(row) = row else { return Ok(false) };
    tables.remove(inbox, &row)?;
    advance(tables, inbox, row.order.as_deref())?;
    Ok(true)
}
