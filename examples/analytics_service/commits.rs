//! Commits: track one or many, list, read.

use std::str::FromStr;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, named_params};
use serde::Serialize;
use serde_json::{Value, json};

use crate::service::answer::{Failure, time_text};
use crate::service::database::Database;
use crate::service::fields::{Body, Fields, Page, Parameters};

/// Times are seconds since 1970, in UTC; hours and weekdays are derived from them.
pub const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS commits (
        hash TEXT PRIMARY KEY,
        author TEXT NOT NULL,
        message TEXT NOT NULL,
        repository TEXT,
        committed_at INTEGER NOT NULL,
        files_changed INTEGER NOT NULL,
        lines_added INTEGER NOT NULL,
        lines_removed INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS commits_by_time ON commits (committed_at);
    CREATE INDEX IF NOT EXISTS commits_by_author ON commits (author, committed_at);";

const HASH_CHARS: usize = 40;
const NAME_CHARS_MAX: usize = 200;
const MESSAGE_CHARS_MAX: usize = 4000;
const CHANGES_MAX: i64 = 1_000_000_000;
const BATCH_MAX: usize = 500;

pub fn routes() -> Router<Database> {
    Router::new()
        .route("/api/v1/commits", get(list))
        .route("/api/v1/commits/", get(list))
        .route("/api/v1/commits/track", post(track))
        .route("/api/v1/commits/batch", post(track_batch))
        .route("/api/v1/commits/{commit_id}", get(read))
}

/// The commits of one author, repository or stretch of time. What is absent does not restrict.
#[derive(Clone, Debug)]
pub struct Selection {
    pub author: Option<String>,
    /// The first second that counts.
    pub since: Option<i64>,
    /// The first second that no longer counts.
    pub until: Option<i64>,
}

impl Selection {
    pub fn read(fields: &mut Fields) -> Result<Self, Failure> {
        let author = fields.text("author", NAME_CHARS_MAX)?;
        let (since, until) = (time(fields, "since")?, time(fields, "until")?);
        if let (Some(since), Some(until)) = (since, until)
            && since >= until
        {
            return Err(fields.refuse("until", &json!(seconds_text(until)), "a time after since"));
        }
        Ok(Self { author, since, until })
    }
}

/// A time as RFC 3339, or a day, which stands for its first second in UTC.
fn time(fields: &mut Fields, name: &str) -> Result<Option<i64>, Failure> {
    let Some(value) = fields.take(name) else { return Ok(None) };
    let expected = "a time such as 2026-01-31T12:00:00Z, or a day such as 2026-01-31";
    value.as_str().and_then(seconds).map(Some).ok_or_else(|| fields.refuse(name, &value, expected))
}

/// Within the years 1970 to 9998, which leaves room to reckon with days on either side.
fn seconds(text: &str) -> Option<i64> {
    let is_day = text.len() == "2026-01-31".len();
    let time = if is_day { Timestamp::from_str(&format!("{text}T00:00:00Z")) } else { Timestamp::from_str(text) };
    time.ok().map(Timestamp::as_second).filter(|seconds| (0..253_370_764_800).contains(seconds))
}

pub fn seconds_text(seconds: i64) -> String {
    time_text(Timestamp::from_second(seconds).unwrap_or_default())
}

/// 201, or 409 where the commit is tracked already.
async fn track(State(database): State<Database>, Body(fields): Body) -> Result<(StatusCode, Json<Commit>), Failure> {
    let commit = Commit::read(fields)?;
    let tracked = database.call(move |connection| {
        let fresh = insert(connection, &commit)?;
        Ok(fresh.then_some(commit))
    });
    match tracked.await? {
        Some(commit) => Ok((StatusCode::CREATED, Json(commit))),
        None => Err(Failure::new(StatusCode::CONFLICT, "The commit is tracked already")),
    }
}

/// All or none: one invalid commit refuses the batch. Commits tracked already are counted and left as they are.
async fn track_batch(
    State(database): State<Database>,
    Body(mut fields): Body,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let commits = batch(&mut fields)?;
    fields.finish()?;
    let sent = commits.len();
    let tracked = database.call(move |connection| {
        let transaction = connection.transaction()?;
        let mut tracked = 0_usize;
        for commit in &commits {
            tracked = tracked.saturating_add(insert(&transaction, commit)?.into());
        }
        transaction.commit()?;
        Ok(tracked)
    });
    let tracked = tracked.await?;
    Ok((StatusCode::CREATED, Json(json!({ "tracked": tracked, "already_tracked": sent.saturating_sub(tracked) }))))
}

fn batch(fields: &mut Fields) -> Result<Vec<Commit>, Failure> {
    let sent = fields.take("commits");
    match fields.require("commits", sent)? {
        Value::Array(items) if (1..=BATCH_MAX).contains(&items.len()) => items
            .into_iter()
            .enumerate()
            .map(|(index, item)| Commit::read(Fields::new(&format!("commits[{index}]"), item)?))
            .collect(),
        other => Err(fields.refuse("commits", &other, &format!("a list of 1 to {BATCH_MAX} commits"))),
    }
}

async fn list(
    State(database): State<Database>,
    Parameters(mut fields): Parameters,
) -> Result<Json<CommitList>, Failure> {
    let selection = Selection::read(&mut fields)?;
    let repository = fields.text("repository", NAME_CHARS_MAX)?;
    let oldest_first = fields.one_of("order", &["newest", "oldest"])? == Some("oldest");
    let page = fields.page()?;
    fields.finish()?;
    let found = database.call(move |connection| {
        let condition = "(:author IS NULL OR author = :author) AND (:repository IS NULL OR repository = :repository)
                         AND committed_at >= coalesce(:since, 0) AND (:until IS NULL OR committed_at < :until)";
        let values = named_params! {
            ":author": selection.author, ":repository": repository, ":since": selection.since,
            ":until": selection.until,
        };
        let sql = format!("SELECT count(*) FROM commits WHERE {condition}");
        let total: i64 = connection.prepare_cached(&sql)?.query_row(values, |row| row.get(0))?;
        let direction = if oldest_first { "ASC" } else { "DESC" };
        let sql = format!(
            "SELECT * FROM commits WHERE {condition} ORDER BY committed_at {direction}, hash
             LIMIT :limit OFFSET :offset"
        );
        let mut query = connection.prepare_cached(&sql)?;
        let paged = [values, named_params! { ":limit": page.limit, ":offset": page.offset }].concat();
        let commits = query.query_map(paged.as_slice(), Commit::from_row)?.collect::<Result<Vec<_>, _>>()?;
        Ok(CommitList { commits, total, page })
    });
    found.await.map(Json)
}

async fn read(State(database): State<Database>, Path(id): Path<String>) -> Result<Json<Commit>, Failure> {
    let hash = hash(&id).ok_or_else(|| Failure::invalid("commit_id", &json!(id), HASH_EXPECTED))?;
    let commit = database.call(move |connection| {
        let mut query = connection.prepare_cached("SELECT * FROM commits WHERE hash = ?1")?;
        Ok(query.query_row([hash], Commit::from_row).optional()?)
    });
    commit.await?.map(Json).ok_or_else(|| Failure::not_found("Commit not found"))
}

#[derive(Serialize)]
struct CommitList {
    commits: Vec<Commit>,
    /// How many there are beyond this page too.
    total: i64,
    #[serde(flatten)]
    page: Page,
}

#[derive(Serialize)]
struct Commit {
    commit_hash: String,
    author: String,
    message: String,
    repository: Option<String>,
    #[serde(serialize_with = "as_time")]
    committed_at: i64,
    files_changed: i64,
    lines_added: i64,
    lines_removed: i64,
}

impl Commit {
    fn read(mut fields: Fields) -> Result<Self, Failure> {
        let commit = Self {
            commit_hash: commit_hash(&mut fields)?,
            author: {
                let author = fields.text("author", NAME_CHARS_MAX)?;
                fields.require("author", author)?
            },
            message: {
                let message = fields.text("message", MESSAGE_CHARS_MAX)?;
                fields.require("message", message)?
            },
            repository: fields.text("repository", NAME_CHARS_MAX)?,
            committed_at: {
                let at = time(&mut fields, "committed_at")?;
                fields.require("committed_at", at)?
            },
            files_changed: fields.integer("files_changed", 0..=CHANGES_MAX)?.unwrap_or(0),
            lines_added: fields.integer("lines_added", 0..=CHANGES_MAX)?.unwrap_or(0),
            lines_removed: fields.integer("lines_removed", 0..=CHANGES_MAX)?.unwrap_or(0),
        };
        fields.finish()?;
        Ok(commit)
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            commit_hash: row.get("hash")?,
            author: row.get("author")?,
            message: row.get("message")?,
            repository: row.get("repository")?,
            committed_at: row.get("committed_at")?,
            files_changed: row.get("files_changed")?,
            lines_added: row.get("lines_added")?,
            lines_removed: row.get("lines_removed")?,
        })
    }
}

fn as_time<S: serde::Serializer>(seconds: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&seconds_text(*seconds))
}

const HASH_EXPECTED: &str = "40-character SHA-1 hash";

fn commit_hash(fields: &mut Fields) -> Result<String, Failure> {
    let value = fields.take("commit_hash").unwrap_or_default();
    value.as_str().and_then(hash).ok_or_else(|| fields.refuse("commit_hash", &value, HASH_EXPECTED))
}

/// Forty hex digits, in lower case: the same commit has one spelling.
fn hash(text: &str) -> Option<String> {
    let valid = text.len() == HASH_CHARS && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    valid.then(|| text.to_ascii_lowercase())
}

/// Whether the commit is new.
fn insert(connection: &Connection, commit: &Commit) -> Result<bool, Failure> {
    let sql = "INSERT INTO commits VALUES
                   (:hash, :author, :message, :repository, :committed_at, :files_changed, :added, :removed)
               ON CONFLICT (hash) DO NOTHING";
    let mut query = connection.prepare_cached(sql)?;
    let values = named_params! {
        ":hash": commit.commit_hash, ":author": commit.author, ":message": commit.message,
        ":repository": commit.repository, ":committed_at": commit.committed_at,
        ":files_changed": commit.files_changed, ":added": commit.lines_added, ":removed": commit.lines_removed,
    };
    Ok(query.execute(values)? == 1)
}
