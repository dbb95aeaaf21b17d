//! Tasks: create, list, read, change, delete; the queue; metrics.

use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, named_params};
use serde::Serialize;
use serde_json::{Value, json};

use crate::service::answer::{Failure, time_text};
use crate::service::database::Database;
use crate::service::fields::{Body, Fields, Page, Parameters, is_text};

/// Times are seconds since 1970, so that durations are a subtraction.
pub const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS tasks (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        title TEXT NOT NULL,
        kind TEXT NOT NULL,
        status TEXT NOT NULL,
        priority TEXT NOT NULL,
        objective TEXT,
        approach TEXT,
        success_criteria TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        finished_at INTEGER
    ) STRICT;
    CREATE INDEX IF NOT EXISTS tasks_by_status ON tasks (status, number);";

const STATUSES: [&str; 5] = ["pending", "in_progress", "completed", "failed", "cancelled"];
const PRIORITIES: [&str; 4] = ["critical", "high", "medium", "low"];
const KINDS: [&str; 6] = ["implement", "fix", "refactor", "test", "research", "document"];
const TITLE_CHARS_MAX: usize = 200;
const PROSE_CHARS_MAX: usize = 4000;
const CRITERIA_MAX: usize = 20;

pub fn routes() -> Router<Database> {
    let tasks = get(list).post(create);
    Router::new()
        .route("/api/v1/tasks", tasks.clone())
        .route("/api/v1/tasks/", tasks)
        .route("/api/v1/tasks/{id}", get(read).put(change).delete(delete))
        .route("/api/v1/queue", get(queue))
        .route("/api/v1/metrics", get(metrics))
}

async fn create(
    State(database): State<Database>,
    Body(mut fields): Body,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<Task>), Failure> {
    let draft = Draft::read(&mut fields)?;
    fields.require("title", draft.title.as_ref())?;
    fields.finish()?;
    let task = database.call(move |connection| insert(connection, &draft)).await?;
    let location = format!("/api/v1/tasks/{}", task.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(task)))
}

async fn list(State(database): State<Database>, Parameters(mut fields): Parameters) -> Result<Json<TaskList>, Failure> {
    let status = fields.one_of("status", &STATUSES)?;
    let page = fields.page()?;
    fields.finish()?;
    let found = database.call(move |connection| {
        let total = count(connection, status)?;
        let sql = "SELECT * FROM tasks WHERE :status IS NULL OR status = :status
                   ORDER BY number LIMIT :limit OFFSET :offset";
        let mut query = connection.prepare_cached(sql)?;
        let values = named_params! { ":status": status, ":limit": page.limit, ":offset": page.offset };
        let tasks = query.query_map(values, Task::from_row)?.collect::<Result<Vec<_>, _>>()?;
        Ok(TaskList { tasks, total, page })
    });
    found.await.map(Json)
}

async fn read(State(database): State<Database>, Path(id): Path<String>) -> Result<Json<Task>, Failure> {
    let number = number(&id)?;
    let task = database.call(move |connection| {
        let mut query = connection.prepare_cached("SELECT * FROM tasks WHERE number = ?1")?;
        Ok(query.query_row([number], Task::from_row).optional()?)
    });
    task.await?.map(Json).ok_or_else(no_such_task)
}

/// Changes the fields that are sent and leaves the others.
async fn change(
    State(database): State<Database>,
    Path(id): Path<String>,
    Body(mut fields): Body,
) -> Result<Json<Task>, Failure> {
    let number = number(&id)?;
    let status = fields.one_of("status", &STATUSES)?;
    let draft = Draft::read(&mut fields)?;
    fields.finish()?;
    let task = database.call(move |connection| update(connection, number, status, &draft));
    task.await?.map(Json).ok_or_else(no_such_task)
}

async fn delete(State(database): State<Database>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    let number = number(&id)?;
    let sql = "DELETE FROM tasks WHERE number = ?1";
    match database.call(move |connection| Ok(connection.execute(sql, [number])?)).await? {
        0 => Err(no_such_task()),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

/// Pending tasks, the most urgent first and among equals the oldest.
async fn queue(State(database): State<Database>, Parameters(mut fields): Parameters) -> Result<Json<Queue>, Failure> {
    let page = fields.page()?;
    fields.finish()?;
    let found = database.call(move |connection| {
        let depth = count(connection, Some("pending"))?;
        let updated: Option<i64> = connection.query_row("SELECT max(updated_at) FROM tasks", [], |row| row.get(0))?;
        let sql = "SELECT * FROM tasks WHERE status = 'pending'
                   ORDER BY CASE priority WHEN 'critical' THEN 0 WHEN 'high' THEN 1 WHEN 'medium' THEN 2 ELSE 3 END,
                            number
                   LIMIT ?1 OFFSET ?2";
        let mut query = connection.prepare_cached(sql)?;
        let tasks = query.query_map([page.limit, page.offset], Task::from_row)?.collect::<Result<Vec<_>, _>>()?;
        Ok(Queue { depth, tasks, last_updated: updated.map(seconds_text) })
    });
    found.await.map(Json)
}

/// `success_rate` and `average_duration` (seconds from creation to completion) are null until a task has ended.
async fn metrics(State(database): State<Database>) -> Result<Json<Value>, Failure> {
    let found = database.call(|connection| {
        let mut by_status = serde_json::Map::new();
        for status in STATUSES {
            by_status.insert(status.to_owned(), json!(count(connection, Some(status))?));
        }
        let sql = "SELECT avg(status = 'completed') FILTER (WHERE status IN ('completed', 'failed')),
                          avg(finished_at - created_at) FILTER (WHERE status = 'completed')
                   FROM tasks";
        let rates = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok((by_status, rates))
    });
    let (by_status, (success_rate, average_duration)): (_, (Option<f64>, Option<f64>)) = found.await?;
    Ok(Json(json!({
        "tasks_completed": by_status.get("completed"),
        "success_rate": success_rate,
        "average_duration": average_duration,
        "uptime_seconds": database.age_seconds(),
        "by_status": by_status,
    })))
}

#[derive(Serialize)]
struct TaskList {
    tasks: Vec<Task>,
    /// How many there are beyond this page too.
    total: i64,
    #[serde(flatten)]
    page: Page,
}

#[derive(Serialize)]
struct Queue {
    /// How many are pending beyond this page too.
    depth: i64,
    tasks: Vec<Task>,
    last_updated: Option<String>,
}

#[derive(Serialize)]
struct Task {
    id: String,
    title: String,
    #[serde(rename = "type")]
    kind: String,
    status: String,
    priority: String,
    objective: Option<String>,
    approach: Option<String>,
    success_criteria: Value,
    created_at: String,
    updated_at: String,
    finished_at: Option<String>,
}

impl Task {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let criteria: String = row.get("success_criteria")?;
        Ok(Self {
            id: format!("TASK-{:03}", row.get::<_, i64>("number")?),
            title: row.get("title")?,
            kind: row.get("kind")?,
            status: row.get("status")?,
            priority: row.get("priority")?,
            objective: row.get("objective")?,
            approach: row.get("approach")?,
            success_criteria: serde_json::from_str(&criteria).unwrap_or_default(),
            created_at: seconds_text(row.get("created_at")?),
            updated_at: seconds_text(row.get("updated_at")?),
            finished_at: row.get::<_, Option<i64>>("finished_at")?.map(seconds_text),
        })
    }
}

/// What a client says about a task; what it leaves out keeps its value, or gets the default in a new one.
struct Draft {
    title: Option<String>,
    kind: Option<&'static str>,
    priority: Option<&'static str>,
    objective: Option<String>,
    approach: Option<String>,
    success_criteria: Option<String>,
}

impl Draft {
    fn read(fields: &mut Fields) -> Result<Self, Failure> {
        Ok(Self {
            title: fields.text("title", TITLE_CHARS_MAX)?,
            kind: fields.one_of("type", &KINDS)?,
            priority: fields.one_of("priority", &PRIORITIES)?,
            objective: fields.text("objective", PROSE_CHARS_MAX)?,
            approach: fields.text("approach", PROSE_CHARS_MAX)?,
            success_criteria: criteria(fields)?,
        })
    }
}

/// A list of texts, as JSON.
fn criteria(fields: &mut Fields) -> Result<Option<String>, Failure> {
    let Some(value) = fields.take("success_criteria") else { return Ok(None) };
    let is_criterion = |item: &Value| item.as_str().is_some_and(|text| is_text(text, TITLE_CHARS_MAX));
    match value.as_array() {
        Some(items) if items.len() <= CRITERIA_MAX && items.iter().all(is_criterion) => Ok(Some(value.to_string())),
        _ => {
            let expected = format!("at most {CRITERIA_MAX} texts of 1 to {TITLE_CHARS_MAX} characters");
            Err(fields.refuse("success_criteria", &value, &expected))
        }
    }
}

fn insert(connection: &Connection, draft: &Draft) -> Result<Task, Failure> {
    let sql = "INSERT INTO tasks
                   (title, kind, status, priority, objective, approach, success_criteria, created_at, updated_at)
               VALUES (:title, coalesce(:kind, 'implement'), 'pending', coalesce(:priority, 'medium'), :objective,
                   :approach, coalesce(:success_criteria, '[]'), :now, :now)
               RETURNING *";
    let mut query = connection.prepare_cached(sql)?;
    let values = named_params! {
        ":title": draft.title, ":kind": draft.kind, ":priority": draft.priority, ":objective": draft.objective,
        ":approach": draft.approach, ":success_criteria": draft.success_criteria, ":now": now(),
    };
    Ok(query.query_row(values, Task::from_row)?)
}

/// A task that ends keeps the time of its first end; one that is taken up again loses it.
fn update(connection: &Connection, number: i64, status: Option<&str>, draft: &Draft) -> Result<Option<Task>, Failure> {
    let sql = "UPDATE tasks SET
                   title = coalesce(:title, title), kind = coalesce(:kind, kind),
                   status = coalesce(:status, status), priority = coalesce(:priority, priority),
                   objective = coalesce(:objective, objective), approach = coalesce(:approach, approach),
                   success_criteria = coalesce(:success_criteria, success_criteria), updated_at = :now,
                   finished_at = CASE WHEN coalesce(:status, status) IN ('completed', 'failed', 'cancelled')
                                      THEN coalesce(finished_at, :now) END
               WHERE number = :number RETURNING *";
    let mut query = connection.prepare_cached(sql)?;
    let values = named_params! {
        ":number": number, ":status": status, ":title": draft.title, ":kind": draft.kind,
        ":priority": draft.priority, ":objective": draft.objective, ":approach": draft.approach,
        ":success_criteria": draft.success_criteria, ":now": now(),
    };
    Ok(query.query_row(values, Task::from_row).optional()?)
}

fn count(connection: &Connection, status: Option<&str>) -> Result<i64, Failure> {
    let sql = "SELECT count(*) FROM tasks WHERE ?1 IS NULL OR status = ?1";
    Ok(connection.prepare_cached(sql)?.query_row([status], |row| row.get(0))?)
}

/// `TASK-007` → 7. What does not have this form names no task.
fn number(id: &str) -> Result<i64, Failure> {
    let digits = id.strip_prefix("TASK-").filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(no_such_task)
}

fn no_such_task() -> Failure {
    Failure::not_found("Task not found")
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

fn seconds_text(seconds: i64) -> String {
    time_text(Timestamp::from_second(seconds).unwrap_or_default())
}
