//! The service from outside, over HTTP.

use serde_json::{Value, json};

use crate::SERVICE;
use crate::service::client::Running;

/// A valid commit; `number` makes its hash.
fn commit(number: u32, author: &str, at: &str, added: i64) -> Value {
    json!({
        "commit_hash": format!("{number:040x}"), "author": author, "message": "Say why", "repository": "tollgate",
        "committed_at": at, "files_changed": 2, "lines_added": added, "lines_removed": 10,
    })
}

/// Five commits: Ada on a Monday at 09:15, 09:45 and 23:00, and on the Saturday; Ben on the Tuesday.
async fn with_commits() -> Running {
    let running = Running::start(&SERVICE).await;
    let commits = [
        commit(1, "ada", "2026-03-02T09:15:00Z", 20),
        commit(2, "ada", "2026-03-02T11:45:00+02:00", 30),
        commit(3, "ada", "2026-03-02T23:00:00Z", 490),
        commit(4, "ben", "2026-03-03T09:00:00Z", 491),
        commit(5, "ada", "2026-03-07T12:00:00Z", 40),
    ];
    let answer = running.json("POST", "/api/v1/commits/batch", &json!({ "commits": commits })).await;
    assert_eq!((answer.status, answer.body), (201, json!({"tracked": 5, "already_tracked": 0})));
    running
}

#[tokio::test]
async fn a_commit_is_tracked_once_and_read_back() {
    let running = Running::start(&SERVICE).await;
    let sent = commit(0xabc, "ada", "2026-03-02T11:45:00+02:00", 30);
    let tracked = running.json("POST", "/api/v1/commits/track", &sent).await;
    assert_eq!(tracked.status, 201, "{}", tracked.body);
    assert_eq!(tracked.body["committed_at"], json!("2026-03-02T09:45:00Z"));
    let upper = format!("{:040X}", 0xabc);
    assert_eq!(running.get(&format!("/api/v1/commits/{upper}")).await.body, tracked.body);
    let again = running.json("POST", "/api/v1/commits/track", &sent).await;
    assert_eq!((again.status, again.code()), (409, "CONFLICT"));
    assert_eq!(running.get(&format!("/api/v1/commits/{:040x}", 0xdef)).await.status, 404);
}

#[tokio::test]
async fn a_hash_is_forty_hex_digits() {
    let running = Running::start(&SERVICE).await;
    for wrong in ["abc123", &"a".repeat(39), &"a".repeat(41), &"g".repeat(40)] {
        let answer = running.get(&format!("/api/v1/commits/{wrong}")).await;
        assert_eq!((answer.status, answer.code()), (400, "VALIDATION_ERROR"));
        let details = json!({"field": "commit_id", "value": wrong, "expected": "40-character SHA-1 hash"});
        assert_eq!(answer.body["error"]["details"], details);

        let mut sent = commit(1, "ada", "2026-03-02", 1);
        sent["commit_hash"] = json!(wrong);
        let answer = running.json("POST", "/api/v1/commits/track", &sent).await;
        assert_eq!((answer.status, &answer.body["error"]["details"]["field"]), (400, &json!("commit_hash")));
    }
}

#[tokio::test]
async fn what_a_commit_may_not_be_is_refused_with_the_field() {
    let running = Running::start(&SERVICE).await;
    for (field, value) in [
        ("author", json!("")),
        ("author", Value::Null),
        ("message", json!("x".repeat(4001))),
        ("committed_at", json!("yesterday")),
        ("committed_at", json!("2026-02-29")),
        ("committed_at", json!("1969-12-31T23:59:59Z")),
        ("committed_at", Value::Null),
        ("lines_added", json!(-1)),
        ("lines_removed", json!(1_000_000_001)),
        ("files_changed", json!(1.5)),
        ("branch", json!("main")),
    ] {
        let mut sent = commit(1, "ada", "2026-03-02", 1);
        sent[field] = value;
        let answer = running.json("POST", "/api/v1/commits/track", &sent).await;
        assert_eq!((answer.status, &answer.body["error"]["details"]["field"]), (400, &json!(field)), "{sent}");
    }
    let mut longest = commit(1, "ada", "1970-01-01", 1_000_000_000);
    longest["message"] = json!("x".repeat(4000));
    assert_eq!(running.json("POST", "/api/v1/commits/track", &longest).await.status, 201);
}

#[tokio::test]
async fn a_batch_is_tracked_whole_or_not_at_all() {
    let running = with_commits().await;
    let fresh = commit(6, "ben", "2026-03-08", 1);
    let broken = json!({"commits": [fresh, {"commit_hash": "abc123"}]});
    let refused = running.json("POST", "/api/v1/commits/batch", &broken).await;
    assert_eq!(refused.body["error"]["details"]["field"], json!("commits[1].commit_hash"));
    assert_eq!(running.get("/api/v1/commits/").await.body["total"], json!(5));

    let known = commit(1, "ada", "2026-03-02T09:15:00Z", 20);
    let mixed = running.json("POST", "/api/v1/commits/batch", &json!({"commits": [known, fresh, fresh]})).await;
    assert_eq!(mixed.body, json!({"tracked": 1, "already_tracked": 2}));

    for (count, status) in [(0, 400), (500, 201), (501, 400)] {
        let commits: Vec<_> = (0..count).map(|number| commit(100 + number, "ben", "2026-03-09", 1)).collect();
        let answer = running.json("POST", "/api/v1/commits/batch", &json!({ "commits": commits })).await;
        assert_eq!(answer.status, status, "{count} commits");
    }
}

#[tokio::test]
async fn a_list_is_filtered_ordered_and_paged() {
    let running = with_commits().await;
    let numbers = async |query: &str| {
        let answer = running.get(&format!("/api/v1/commits/?{query}")).await;
        let commits = answer.body["commits"].as_array().unwrap_or_else(|| panic!("{query}: {}", answer.body)).clone();
        let last = |commit: &Value| commit["commit_hash"].as_str().unwrap().chars().last().unwrap();
        (commits.iter().map(last).collect::<String>(), answer.body["total"].as_i64().unwrap())
    };
    assert_eq!(numbers("").await, ("54321".to_owned(), 5));
    assert_eq!(numbers("author=ada&order=oldest&limit=2&offset=1").await, ("23".to_owned(), 4));
    assert_eq!(numbers("repository=other").await, (String::new(), 0));
    // `since` counts, `until` does not.
    assert_eq!(numbers("since=2026-03-02T09:45:00Z&until=2026-03-03T09:00:00Z").await, ("32".to_owned(), 2));
    for query in ["since=2026-03-02&until=2026-03-02", "order=best", "limit=201", "since=now"] {
        assert_eq!(running.get(&format!("/api/v1/commits?{query}")).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn patterns_count_hours_weekdays_and_authors() {
    let running = with_commits().await;
    let patterns = running.get("/api/v1/analytics/patterns").await.body;
    assert_eq!((&patterns["busiest_hour"], &patterns["busiest_weekday"]), (&json!(9), &json!("Monday")));
    let mut hours = [0; 24];
    (hours[9], hours[12], hours[23]) = (3, 1, 1);
    assert_eq!(patterns["by_hour"], json!(hours));
    let weekdays: Vec<_> = patterns["by_weekday"].as_array().unwrap().iter().map(|day| &day["commits"]).collect();
    assert_eq!(weekdays, [0, 3, 1, 0, 0, 0, 1]);
    assert_eq!(
        patterns["by_author"],
        json!([
            {"author": "ada", "commits": 4, "lines_added": 580, "lines_removed": 40},
            {"author": "ben", "commits": 1, "lines_added": 491, "lines_removed": 10},
        ])
    );
    let none = running.get("/api/v1/analytics/patterns?author=cleo").await.body;
    assert_eq!((&none["busiest_hour"], &none["by_author"]), (&Value::Null, &json!([])));
}

#[tokio::test]
async fn metrics_sum_up_the_selection() {
    let running = with_commits().await;
    let ada = running.get("/api/v1/analytics/metrics?author=ada").await.body;
    let expected = json!({
        "commits": 4, "authors": 1, "active_days": 2, "files_changed": 8, "lines_added": 580, "lines_removed": 40,
        "commits_per_active_day": 2.0, "lines_per_commit": 155.0,
        "first_commit": "2026-03-02T09:15:00Z", "last_commit": "2026-03-07T12:00:00Z",
    });
    assert_eq!(ada, expected);
    let none = running.get("/api/v1/analytics/metrics?until=2026-03-01").await.body;
    assert_eq!(
        (&none["commits"], &none["lines_added"], &none["lines_per_commit"]),
        (&json!(0), &json!(0), &Value::Null)
    );
}

#[tokio::test]
async fn trends_show_every_day_and_compare_with_the_time_before() {
    let running = with_commits().await;
    let trends = running.get("/api/v1/analytics/trends?since=2026-03-03&until=2026-03-05").await.body;
    assert_eq!(
        trends["days"],
        json!([
            {"day": "2026-03-03", "commits": 1, "lines_added": 491, "lines_removed": 10},
            {"day": "2026-03-04", "commits": 0, "lines_added": 0, "lines_removed": 0},
        ])
    );
    assert_eq!((&trends["commits"], &trends["commits_before"]), (&json!(1), &json!(3)));
    assert_eq!(trends["change_percent"], json!(-66.7));
    let days = async |query: &str| {
        let answer = running.get(&format!("/api/v1/analytics/trends?{query}")).await;
        (answer.status, answer.body["days"].as_array().map_or(0, Vec::len))
    };
    assert_eq!(days("").await, (200, 30));
    assert_eq!(days("since=2026-03-01").await, (200, 30));
    assert_eq!(days("until=2026-03-01").await, (200, 30));
    assert_eq!(days("since=2026-03-03T12:00:00Z&until=2026-03-05T12:00:00Z").await, (200, 3));
    assert_eq!(days("since=2025-01-01&until=2026-01-02").await, (200, 366));
    assert_eq!(days("since=2025-01-01&until=2026-01-02T00:00:01Z").await, (400, 0));
    assert_eq!(days("until=1970-01-01").await.0, 200);
}

#[tokio::test]
async fn an_analysis_needs_a_range_and_names_habits() {
    let running = with_commits().await;
    let range = json!({"since": "2026-03-02", "until": "2026-03-08"});
    let analysis = running.json("POST", "/api/v1/analytics/analyze", &range).await.body;
    assert_eq!((&analysis["metrics"]["commits"], &analysis["patterns"]["busiest_hour"]), (&json!(5), &json!(9)));
    assert_eq!(
        analysis["habits"],
        json!({"night_percent": 20.0, "weekend_percent": 20.0, "large_percent": 20.0, "in_a_row_percent": 20.0})
    );
    for missing in [json!({"since": "2026-03-02"}), json!({"until": "2026-03-02"}), json!({})] {
        let answer = running.json("POST", "/api/v1/analytics/analyze", &missing).await;
        assert_eq!((answer.status, answer.code()), (400, "VALIDATION_ERROR"), "{missing}");
    }
    let quiet = json!({"since": "2020-01-01", "until": "2020-01-02", "author": "ada"});
    let analysis = running.json("POST", "/api/v1/analytics/analyze", &quiet).await.body;
    assert_eq!(analysis["habits"]["night_percent"], Value::Null);
}
