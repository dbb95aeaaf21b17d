//! What the tracked commits say: patterns over hours, weekdays and authors; metrics; trends per day; an analysis of
//! a stretch of time. Hours, days and weekdays are those of UTC. SQLite does the counting.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use rusqlite::{Connection, ToSql};
use serde::Serialize;
use serde_json::{Value, json};

use crate::commits::{Selection, seconds_text};
use crate::service::answer::Failure;
use crate::service::database::Database;
use crate::service::fields::{Body, Parameters};

const DAY_SECONDS: i64 = 24 * 60 * 60;
const TREND_DAYS_DEFAULT: i64 = 30;
const TREND_DAYS_MAX: i64 = 366;
const AUTHORS_MAX: i64 = 20;
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The commits of a [`Selection`], as every query below begins.
const SELECTED: &str = "
    WITH RECURSIVE selected AS (
        SELECT * FROM commits
        WHERE (:author IS NULL OR author = :author)
            AND committed_at >= coalesce(:since, 0) AND (:until IS NULL OR committed_at < :until))";

pub fn routes() -> Router<Database> {
    Router::new()
        .route("/api/v1/analytics/patterns", get(patterns))
        .route("/api/v1/analytics/metrics", get(metrics))
        .route("/api/v1/analytics/trends", get(trends))
        .route("/api/v1/analytics/analyze", post(analyze))
}

async fn patterns(
    State(database): State<Database>,
    Parameters(mut fields): Parameters,
) -> Result<Json<Patterns>, Failure> {
    let selection = Selection::read(&mut fields)?;
    fields.finish()?;
    Ok(Json(database.call(move |connection| Patterns::of(connection, &selection)).await?))
}

async fn metrics(
    State(database): State<Database>,
    Parameters(mut fields): Parameters,
) -> Result<Json<Metrics>, Failure> {
    let selection = Selection::read(&mut fields)?;
    fields.finish()?;
    Ok(Json(database.call(move |connection| Metrics::of(connection, &selection)).await?))
}

/// Day by day, days without a commit included; by default the last 30 days up to now. `change_percent` compares with the
/// equally long time before, and is null where that had no commit.
async fn trends(State(database): State<Database>, Parameters(mut fields): Parameters) -> Result<Json<Value>, Failure> {
    let sent = Selection::read(&mut fields)?;
    let until = sent.until.unwrap_or_else(|| sent.since.map_or_else(end_of_today, default_end));
    let since = sent.since.unwrap_or_else(|| until.saturating_sub(TREND_DAYS_DEFAULT.saturating_mul(DAY_SECONDS)));
    let length = until.saturating_sub(since);
    if length > TREND_DAYS_MAX.saturating_mul(DAY_SECONDS) {
        let expected = format!("at most {TREND_DAYS_MAX} days after since");
        return Err(fields.refuse("until", &json!(seconds_text(until)), &expected));
    }
    fields.finish()?;
    let now = Selection { since: Some(since), until: Some(until), ..sent };
    let before = Selection { since: Some(since.saturating_sub(length)), until: Some(since), ..now.clone() };
    let found = database.call(move |connection| {
        let (recent, earlier) = (Metrics::of(connection, &now)?, Metrics::of(connection, &before)?);
        Ok((by_day(connection, &now)?, recent.commits, earlier.commits))
    });
    let (days, commits, commits_before) = found.await?;
    Ok(Json(json!({
        "since": seconds_text(since),
        "until": seconds_text(until),
        "days": days,
        "commits": commits,
        "commits_before": commits_before,
        "change_percent": change_percent(commits_before, commits),
    })))
}

/// The stretch from `since` to `until`, both required: its metrics and patterns, and what stands out in them.
async fn analyze(State(database): State<Database>, Body(mut fields): Body) -> Result<Json<Analysis>, Failure> {
    let selection = Selection::read(&mut fields)?;
    let since = fields.require("since", selection.since)?;
    let until = fields.require("until", selection.until)?;
    fields.finish()?;
    let found = database.call(move |connection| {
        Ok(Analysis {
            since: seconds_text(since),
            until: seconds_text(until),
            metrics: Metrics::of(connection, &selection)?,
            patterns: Patterns::of(connection, &selection)?,
            habits: habits(connection, &selection)?,
        })
    });
    found.await.map(Json)
}

#[derive(Serialize)]
struct Analysis {
    since: String,
    until: String,
    metrics: Metrics,
    patterns: Patterns,
    habits: Value,
}

#[derive(Serialize)]
struct Metrics {
    commits: i64,
    authors: i64,
    active_days: i64,
    files_changed: i64,
    lines_added: i64,
    lines_removed: i64,
    commits_per_active_day: Option<f64>,
    lines_per_commit: Option<f64>,
    first_commit: Option<String>,
    last_commit: Option<String>,
}

impl Metrics {
    fn of(connection: &Connection, selection: &Selection) -> Result<Self, Failure> {
        let sql = format!(
            "{SELECTED}
             SELECT count(*) AS commits, count(DISTINCT author) AS authors,
                 count(DISTINCT committed_at / 86400) AS active_days, coalesce(sum(files_changed), 0) AS files,
                 coalesce(sum(lines_added), 0) AS added, coalesce(sum(lines_removed), 0) AS removed,
                 round(1.0 * count(*) / count(DISTINCT committed_at / 86400), 2) AS daily,
                 round(avg(lines_added + lines_removed), 2) AS size,
                 min(committed_at) AS first, max(committed_at) AS last
             FROM selected"
        );
        let mut query = connection.prepare_cached(&sql)?;
        let found = query.query_row(selected(selection).as_slice(), |row| {
            Ok(Self {
                commits: row.get("commits")?,
                authors: row.get("authors")?,
                active_days: row.get("active_days")?,
                files_changed: row.get("files")?,
                lines_added: row.get("added")?,
                lines_removed: row.get("removed")?,
                commits_per_active_day: row.get("daily")?,
                lines_per_commit: row.get("size")?,
                first_commit: row.get::<_, Option<i64>>("first")?.map(seconds_text),
                last_commit: row.get::<_, Option<i64>>("last")?.map(seconds_text),
            })
        });
        Ok(found?)
    }
}

#[derive(Serialize)]
struct Patterns {
    busiest_hour: Option<usize>,
    busiest_weekday: Option<&'static str>,
    /// Commits in each hour of the day, midnight first.
    by_hour: [i64; 24],
    by_weekday: Vec<Value>,
    /// Those with the most commits first.
    by_author: Vec<Value>,
}

impl Patterns {
    fn of(connection: &Connection, selection: &Selection) -> Result<Self, Failure> {
        let by_hour = counts::<24>(connection, selection, "committed_at % 86400 / 3600")?;
        // The first of January 1970 was a Thursday, four days after a Sunday.
        let by_weekday = counts::<7>(connection, selection, "(committed_at / 86400 + 4) % 7")?;
        let named = WEEKDAYS.iter().zip(by_weekday);
        Ok(Self {
            busiest_hour: busiest(&by_hour),
            busiest_weekday: busiest(&by_weekday).and_then(|day| WEEKDAYS.get(day).copied()),
            by_hour,
            by_weekday: named.map(|(weekday, commits)| json!({ "weekday": weekday, "commits": commits })).collect(),
            by_author: by_author(connection, selection)?,
        })
    }
}

/// How many of the selected commits fall into each of `N` classes, numbered by the SQL expression `class`.
fn counts<const N: usize>(connection: &Connection, selection: &Selection, class: &str) -> Result<[i64; N], Failure> {
    let sql = format!("{SELECTED} SELECT {class} AS class, count(*) FROM selected GROUP BY class");
    let mut query = connection.prepare_cached(&sql)?;
    let mut rows = query.query(selected(selection).as_slice())?;
    let mut counts = [0; N];
    while let Some(row) = rows.next()? {
        if let Some(count) = counts.get_mut(usize::from(row.get::<_, u8>(0)?)) {
            *count = row.get(1)?;
        }
    }
    Ok(counts)
}

/// The first of the largest; none where nothing was counted.
fn busiest(counts: &[i64]) -> Option<usize> {
    let most = counts.iter().max().filter(|most| **most > 0)?;
    counts.iter().position(|count| count == most)
}

fn by_author(connection: &Connection, selection: &Selection) -> Result<Vec<Value>, Failure> {
    let sql = format!(
        "{SELECTED}
         SELECT author, count(*) AS commits, sum(lines_added), sum(lines_removed) FROM selected
         GROUP BY author ORDER BY commits DESC, author LIMIT {AUTHORS_MAX}"
    );
    let mut query = connection.prepare_cached(&sql)?;
    let rows = query.query_map(selected(selection).as_slice(), |row| {
        Ok(json!({
            "author": row.get::<_, String>(0)?, "commits": row.get::<_, i64>(1)?,
            "lines_added": row.get::<_, i64>(2)?, "lines_removed": row.get::<_, i64>(3)?,
        }))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// One row for every day that `selection` touches; both its ends must be set.
fn by_day(connection: &Connection, selection: &Selection) -> Result<Vec<Value>, Failure> {
    let sql = format!(
        "{SELECTED},
         days(day) AS (
             SELECT :since / 86400 UNION ALL SELECT day + 1 FROM days WHERE day < (:until - 1) / 86400)
         SELECT date(day * 86400, 'unixepoch'), count(hash), coalesce(sum(lines_added), 0),
             coalesce(sum(lines_removed), 0)
         FROM days LEFT JOIN selected ON committed_at / 86400 = day GROUP BY day ORDER BY day"
    );
    let mut query = connection.prepare_cached(&sql)?;
    let rows = query.query_map(selected(selection).as_slice(), |row| {
        Ok(json!({
            "day": row.get::<_, String>(0)?, "commits": row.get::<_, i64>(1)?,
            "lines_added": row.get::<_, i64>(2)?, "lines_removed": row.get::<_, i64>(3)?,
        }))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Shares in percent of the commits, null where there is none: at night (22:00 to 06:00), at the weekend, of more
/// than 500 lines, and within an hour after another one of the same author.
fn habits(connection: &Connection, selection: &Selection) -> Result<Value, Failure> {
    let sql = format!(
        "{SELECTED},
         spaced AS (
             SELECT *, committed_at - lag(committed_at) OVER (PARTITION BY author ORDER BY committed_at) AS pause
             FROM selected)
         SELECT round(100.0 * avg(committed_at % 86400 / 3600 NOT BETWEEN 6 AND 21), 1),
             round(100.0 * avg((committed_at / 86400 + 4) % 7 IN (0, 6)), 1),
             round(100.0 * avg(lines_added + lines_removed > 500), 1),
             round(100.0 * avg(coalesce(pause <= 3600, 0)), 1)
         FROM spaced"
    );
    let mut query = connection.prepare_cached(&sql)?;
    let found = query.query_row(selected(selection).as_slice(), |row| {
        Ok(json!({
            "night_percent": row.get::<_, Option<f64>>(0)?, "weekend_percent": row.get::<_, Option<f64>>(1)?,
            "large_percent": row.get::<_, Option<f64>>(2)?, "in_a_row_percent": row.get::<_, Option<f64>>(3)?,
        }))
    });
    Ok(found?)
}

/// The values of [`SELECTED`].
fn selected(selection: &Selection) -> [(&'static str, &dyn ToSql); 3] {
    let Selection { author, since, until } = selection;
    [(":author", author), (":since", since), (":until", until)]
}

fn change_percent(before: i64, now: i64) -> Option<f64> {
    let change = now.saturating_sub(before) as f64 / before as f64 * 100.0;
    (before > 0).then(|| (change * 10.0).round() / 10.0)
}

fn default_end(since: i64) -> i64 {
    since.saturating_add(TREND_DAYS_DEFAULT.saturating_mul(DAY_SECONDS))
}

/// The first second of tomorrow.
fn end_of_today() -> i64 {
    let now = Timestamp::now().as_second();
    now.saturating_sub(now.rem_euclid(DAY_SECONDS)).saturating_add(DAY_SECONDS)
}
