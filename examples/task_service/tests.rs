//! The service from outside, over HTTP.

use serde_json::{Value, json};

use crate::SERVICE;
use crate::service::client::Running;

/// Creates a task and returns its id.
async fn created(running: &Running, body: &Value) -> String {
    let answer = running.json("POST", "/api/v1/tasks", body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.body["id"].as_str().unwrap().to_owned()
}

fn ids(body: &Value) -> Vec<&str> {
    body["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_task_is_created_read_changed_and_deleted() {
    let running = Running::start(&SERVICE).await;
    let wish = json!({
        "title": "Write the guide", "type": "document", "priority": "high", "objective": "Readers start at once",
        "approach": "Start with the two commands", "success_criteria": ["A newcomer gets through"],
    });
    let answer = running.json("POST", "/api/v1/tasks", &wish).await;
    assert_eq!((answer.status, answer.header("location")), (201, Some("/api/v1/tasks/TASK-001")));
    for (field, value) in wish.as_object().unwrap() {
        assert_eq!(&answer.body[field], value);
    }
    assert_eq!(answer.body["status"], json!("pending"));

    assert_eq!(running.get("/api/v1/tasks/TASK-001").await.body, answer.body);

    let done = running.json("PUT", "/api/v1/tasks/TASK-001", &json!({"status": "completed"})).await;
    assert_eq!((done.status, &done.body["status"]), (200, &json!("completed")));
    assert_eq!(done.body["title"], wish["title"]);
    assert_eq!(done.body["finished_at"], done.body["updated_at"]);
    let again = running.json("PUT", "/api/v1/tasks/TASK-001", &json!({"status": "pending"})).await;
    assert_eq!(again.body["finished_at"], Value::Null);

    assert_eq!(running.send("DELETE", "/api/v1/tasks/TASK-001", "", "").await.status, 204);
    assert_eq!(running.get("/api/v1/tasks/TASK-001").await.status, 404);
    assert_eq!(running.send("DELETE", "/api/v1/tasks/TASK-001", "", "").await.status, 404);
    // A deleted number is not given away again.
    assert_eq!(created(&running, &json!({"title": "next"})).await, "TASK-002");
}

#[tokio::test]
async fn an_unknown_task_is_not_found_however_its_id_looks() {
    let running = Running::start(&SERVICE).await;
    for id in ["TASK-1", "TASK-", "TASK--1", "1", "TASK-99999999999999999999", "%27%20OR%201=1"] {
        let answer = running.get(&format!("/api/v1/tasks/{id}")).await;
        assert_eq!((answer.status, answer.code()), (404, "NOT_FOUND"), "{id}");
    }
    let change = running.json("PUT", "/api/v1/tasks/TASK-1", &json!({"title": "x"})).await;
    assert_eq!(change.status, 404);
}

#[tokio::test]
async fn a_list_is_filtered_and_paged() {
    let running = Running::start(&SERVICE).await;
    for title in ["one", "two", "three"] {
        created(&running, &json!({ "title": title })).await;
    }
    running.json("PUT", "/api/v1/tasks/TASK-002", &json!({"status": "in_progress"})).await;

    let all = running.get("/api/v1/tasks/").await.body;
    assert_eq!((ids(&all), &all["total"]), (vec!["TASK-001", "TASK-002", "TASK-003"], &json!(3)));
    let pending = running.get("/api/v1/tasks?status=pending&limit=1&offset=1").await.body;
    assert_eq!((ids(&pending), &pending["total"]), (vec!["TASK-003"], &json!(2)));
    assert_eq!(ids(&running.get("/api/v1/tasks?offset=3").await.body), Vec::<&str>::new());
    for query in ["status=open", "limit=0", "limit=201", "limit=1&limit=2", "sort=title"] {
        let answer = running.get(&format!("/api/v1/tasks?{query}")).await;
        assert_eq!((answer.status, answer.code()), (400, "VALIDATION_ERROR"), "{query}");
    }
}

#[tokio::test]
async fn what_a_task_may_not_be_is_refused_with_the_field() {
    let running = Running::start(&SERVICE).await;
    let longest = "x".repeat(200);
    created(&running, &json!({"title": longest, "success_criteria": vec!["c"; 20]})).await;
    for (body, field) in [
        (json!({"title": format!("{longest}x")}), "title"),
        (json!({"title": " "}), "title"),
        (json!({"type": "fix"}), "title"),
        (json!({"title": "t", "type": "dance"}), "type"),
        (json!({"title": "t", "priority": 1}), "priority"),
        (json!({"title": "t", "status": "completed"}), "status"),
        (json!({"title": "t", "success_criteria": vec!["c"; 21]}), "success_criteria"),
        (json!({"title": "t", "success_criteria": [""]}), "success_criteria"),
        (json!([]), "body"),
    ] {
        let answer = running.json("POST", "/api/v1/tasks", &body).await;
        assert_eq!((answer.status, answer.code()), (400, "VALIDATION_ERROR"), "{body}");
        assert_eq!(answer.body["error"]["details"]["field"], json!(field), "{body}");
    }
}

#[tokio::test]
async fn a_body_must_be_json_and_bounded() {
    let running = Running::start(&SERVICE).await;
    let typed = "Content-Type: application/json\r\n";
    let broken = running.send("POST", "/api/v1/tasks", typed, "{\"title\": ").await;
    assert_eq!((broken.status, broken.code()), (400, "VALIDATION_ERROR"));
    let untyped = running.send("POST", "/api/v1/tasks", "", "{\"title\": \"t\"}").await;
    assert_eq!((untyped.status, untyped.code()), (415, "UNSUPPORTED_MEDIA_TYPE"));
    let padded = |bytes: usize| format!("{{\"title\": \"t\"{}}}", " ".repeat(bytes - 14));
    assert_eq!(padded(64).len(), 64);
    assert_eq!(running.send("POST", "/api/v1/tasks", typed, &padded(64 * 1024)).await.status, 201);
    let long = running.send("POST", "/api/v1/tasks", typed, &padded(64 * 1024 + 1)).await;
    assert_eq!((long.status, long.code()), (413, "PAYLOAD_TOO_LARGE"));
}

#[tokio::test]
async fn the_queue_is_pending_tasks_by_priority_then_age() {
    let running = Running::start(&SERVICE).await;
    assert_eq!(running.get("/api/v1/queue").await.body, json!({"depth": 0, "tasks": [], "last_updated": null}));
    for priority in ["low", "high", "medium", "critical", "high"] {
        created(&running, &json!({"title": "t", "priority": priority})).await;
    }
    running.json("PUT", "/api/v1/tasks/TASK-005", &json!({"status": "cancelled"})).await;
    let queue = running.get("/api/v1/queue").await.body;
    assert_eq!((ids(&queue), &queue["depth"]), (vec!["TASK-004", "TASK-002", "TASK-003", "TASK-001"], &json!(4)));
    let head = running.get("/api/v1/queue?limit=1").await.body;
    assert_eq!((ids(&head), &head["depth"]), (vec!["TASK-004"], &json!(4)));
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let running = Running::start(&SERVICE).await;
    let empty = running.get("/api/v1/metrics").await.body;
    assert_eq!((&empty["tasks_completed"], &empty["success_rate"]), (&json!(0), &Value::Null));
    for status in ["completed", "completed", "completed", "failed", "cancelled", "pending"] {
        let id = created(&running, &json!({"title": "t"})).await;
        running.json("PUT", &format!("/api/v1/tasks/{id}"), &json!({ "status": status })).await;
    }
    let metrics = running.get("/api/v1/metrics").await.body;
    assert_eq!(metrics["tasks_completed"], json!(3));
    assert_eq!(metrics["success_rate"], json!(0.75));
    assert!(metrics["average_duration"].as_f64().is_some_and(|seconds| seconds >= 0.0));
    let counts = json!({"pending": 1, "in_progress": 0, "completed": 3, "failed": 1, "cancelled": 1});
    assert_eq!(metrics["by_status"], counts);
}
