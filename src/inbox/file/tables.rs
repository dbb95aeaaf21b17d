//! The tables, and what is known of them without looking.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};

use super::order;

/// The tables of version 1 of the file.
///
/// What changes with each attempt is apart from what never does: SQLite writes a row as a whole, the largest body
/// included. In `contents` the head comes first, so that it is read without the body.
pub const SCHEMA: &str = "
    CREATE TABLE messages (
        seq INTEGER PRIMARY KEY,
        inbox TEXT NOT NULL,
        id TEXT NOT NULL,
        stage INTEGER NOT NULL,
        due INTEGER,
        attempt INTEGER NOT NULL,
        held INTEGER NOT NULL,
        order_key TEXT,
        received INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        why TEXT,
        UNIQUE (inbox, id)
    ) STRICT;
    CREATE INDEX messages_stage ON messages (inbox, stage);
    CREATE INDEX messages_due ON messages (inbox, due) WHERE due IS NOT NULL;
    CREATE INDEX messages_order ON messages (inbox, order_key, stage) WHERE order_key IS NOT NULL;
    CREATE TABLE contents (
        seq INTEGER PRIMARY KEY,
        head BLOB NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
";

/// Where a message is, as the file says. When `due` has come, [`Stage::Delayed`] and [`Stage::Claimed`] are as good as ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The next one to be claimed; of those with the same order at most one.
    Ready = 0,
    Delayed = 1,
    Claimed = 2,
    Dead = 3,
    /// Behind another one with the same order.
    Waiting = 4,
}

impl ToSql for Stage {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((*self as i64).into())
    }
}

impl FromSql for Stage {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let stages = [Self::Ready, Self::Delayed, Self::Claimed, Self::Dead, Self::Waiting];
        let number = value.as_i64()?;
        stages.into_iter().find(|stage| *stage as i64 == number).ok_or(FromSqlError::OutOfRange(number))
    }
}

/// What the table says of a message.
pub struct Row {
    pub seq: i64,
    pub state: State,
    pub order: Option<String>,
    pub bytes: u64,
}

/// What changes of it.
#[derive(Clone, Copy)]
pub struct State {
    pub stage: Stage,
    /// Of a delayed message, when it can be claimed; of a claimed one, when the claim runs out.
    pub due: Option<i64>,
    pub attempt: u32,
    /// Whether the last attempt may still be settled: its claim was not, though it may have run out.
    pub held: bool,
}

impl State {
    /// Whether a worker has it.
    pub fn claimed(&self, now: i64) -> bool {
        self.stage == Stage::Claimed && self.due.is_some_and(|due| now < due)
    }
}

/// How much an inbox holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub ready: u64,
    pub delayed: u64,
    pub claimed: u64,
    pub dead: u64,
    pub waiting: u64,
    pub bytes: u64,
}

impl Tally {
    pub fn messages(&self) -> u64 {
        [self.ready, self.delayed, self.claimed, self.dead, self.waiting].into_iter().fold(0, u64::saturating_add)
    }

    fn of(&mut self, stage: Stage) -> &mut u64 {
        match stage {
            Stage::Ready => &mut self.ready,
            Stage::Delayed => &mut self.delayed,
            Stage::Claimed => &mut self.claimed,
            Stage::Dead => &mut self.dead,
            Stage::Waiting => &mut self.waiting,
        }
    }
}

/// How much each inbox holds, and the number of the next message. Counted when the file is opened, then kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    inboxes: BTreeMap<Arc<str>, Tally>,
    next: i64,
}

/// The tables in a transaction. What is known of them is given back once it is committed.
pub struct Tables<'t> {
    pub connection: &'t Connection,
    tallies: Tallies,
    changed: bool,
}

impl<'t> Tables<'t> {
    pub fn new(connection: &'t Connection, tallies: Tallies) -> Self {
        Self { connection, tallies, changed: false }
    }

    /// What is known now, and whether a message became ready, or due at another time.
    pub fn finish(self) -> (Tallies, bool) {
        let mut tallies = self.tallies;
        tallies.inboxes.retain(|_, tally| tally.messages() > 0);
        (tallies, self.changed)
    }

    pub fn inboxes(&self) -> Vec<String> {
        let holding = self.tallies.inboxes.iter().filter(|(_, tally)| tally.messages() > 0);
        holding.map(|(inbox, _)| inbox.as_ref().to_owned()).collect()
    }

    pub fn tally(&self, inbox: &str) -> Tally {
        self.tallies.inboxes.get(inbox).copied().unwrap_or_default()
    }

    /// The number of a new message: above that of all others.
    pub fn number(&mut self) -> i64 {
        let number = self.tallies.next;
        self.tallies.next = number.saturating_add(1);
        number
    }

    /// Somebody who waits for messages has to look again.
    pub fn wake(&mut self) {
        self.changed = true;
    }

    /// Counts a message that goes from one stage to another, comes or goes.
    pub fn count(&mut self, inbox: &Arc<str>, from: Option<Stage>, to: Option<Stage>, bytes: u64) {
        let tally = self.tallies.inboxes.entry(Arc::clone(inbox)).or_default();
        if let Some(from) = from {
            let count = tally.of(from);
            *count = count.saturating_sub(1);
            tally.bytes = tally.bytes.saturating_sub(bytes);
        }
        if let Some(to) = to {
            let count = tally.of(to);
            *count = count.saturating_add(1);
            tally.bytes = tally.bytes.saturating_add(bytes);
        }
    }

    pub fn find(&self, inbox: &str, id: &str) -> rusqlite::Result<Option<Row>> {
        self.connection
            .prepare_cached(
                "SELECT seq, stage, due, attempt, held, order_key, bytes FROM messages WHERE inbox = ?1 AND id = ?2",
            )?
            .query_row(params![inbox, id], row)
            .optional()
    }

    /// Writes how a message stands, and lets the next with its order go if it is in its way no longer.
    pub fn update(&mut self, inbox: &Arc<str>, row: &Row, to: State, why: Option<&str>) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "UPDATE messages SET stage = ?2, due = ?3, attempt = ?4, held = ?5, why = ifnull(?6, why)
                 WHERE seq = ?1",
            )?
            .execute(params![row.seq, to.stage, to.due, to.attempt, to.held, why])?;
        self.count(inbox, Some(row.state.stage), Some(to.stage), row.bytes);
        if to.stage == Stage::Ready {
            self.wake();
        }
        Ok(())
    }

    /// Removes a message.
    pub fn remove(&mut self, inbox: &Arc<str>, row: &Row) -> rusqlite::Result<()> {
        self.connection.prepare_cached("DELETE FROM messages WHERE seq = ?1")?.execute([row.seq])?;
        self.connection.prepare_cached("DELETE FROM contents WHERE seq = ?1")?.execute([row.seq])?;
        self.count(inbox, Some(row.state.stage), None, row.bytes);
        Ok(())
    }
}

pub fn row(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    let state = State { stage: row.get(1)?, due: row.get(2)?, attempt: row.get(3)?, held: row.get(4)? };
    Ok(Row { seq: row.get(0)?, state, order: row.get(5)?, bytes: row.get::<_, i64>(6)?.unsigned_abs() })
}

/// Counts everything, and frees what somebody held who is dead now.
pub fn load(connection: &mut Connection) -> rusqlite::Result<Tallies> {
    let transaction = connection.transaction()?;
    let mut tables = Tables::new(&transaction, tallies(&transaction)?);
    transaction.execute("UPDATE messages SET held = 0 WHERE held <> 0", [])?;
    let claimed: Vec<(Arc<str>, Row)> = transaction
        .prepare("SELECT seq, stage, due, attempt, held, order_key, bytes, inbox FROM messages WHERE stage = 2")?
        .query_map([], |found| Ok((found.get(7)?, row(found)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (inbox, row) in &claimed {
        order::free(&mut tables, inbox, row, State { held: false, ..row.state }, None)?;
    }
    let (tallies, _) = tables.finish();
    transaction.commit()?;
    Ok(tallies)
}

/// Counts everything.
pub fn tallies(connection: &Connection) -> rusqlite::Result<Tallies> {
    let next: i64 = connection.query_row("SELECT ifnull(max(seq), 0) + 1 FROM messages", [], |row| row.get(0))?;
    Ok(Tallies { inboxes: count(connection)?, next })
}

/// Counts what is in the tables.
fn count(connection: &Connection) -> rusqlite::Result<BTreeMap<Arc<str>, Tally>> {
    let mut inboxes = BTreeMap::<Arc<str>, Tally>::new();
    let mut statement =
        connection.prepare("SELECT inbox, stage, count(*), sum(bytes) FROM messages GROUP BY inbox, stage")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let tally = inboxes.entry(row.get(0)?).or_default();
        *tally.of(row.get(1)?) = row.get::<_, i64>(2)?.unsigned_abs();
        tally.bytes = tally.bytes.saturating_add(row.get::<_, i64>(3)?.unsigned_abs());
    }
    Ok(inboxes)
}
