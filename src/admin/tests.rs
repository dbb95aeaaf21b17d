use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::config::load::Environment;
use crate::gateway::Services;

const ROOT: &str = "version: 1
listeners: [{ bind: 127.0.0.1:8000 }]
upstreams: { u: { targets: [{ address: 127.0.0.1:9101 }] } }
routes: [{ name: r, match: GET /r, upstream: u }]
";

struct Running {
    folder: TempDir,
    address: SocketAddr,
    draining: Arc<AtomicBool>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Running {
    async fn start(limit: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("gateway.yaml"), ROOT).unwrap();
        let metrics = Metrics::new(100);
        let path = folder.path().join("gateway.yaml");
        let services = Services::new(Arc::clone(&metrics));
        let (limits, inboxes) = (Arc::clone(&services.limits), Arc::clone(&services.inboxes));
        let live = Live::start(path, Environment::Fixed(HashMap::new()), services, |_| Vec::new()).unwrap();
        let draining = Arc::new(AtomicBool::new(false));
        let admin = Admin::new(live, metrics, limits, inboxes, Arc::clone(&draining), || 3);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = axum::serve(Bounded::new(listener).with_timeout(limit), router(admin));
        let server = server.with_graceful_shutdown(async { drop(stopped.await) });
        let task = tokio::spawn(async move { server.await });
        Self { folder, address, draining, stop: Some(stop), task }
    }

    /// Status, head and body of the answer.
    async fn ask(&self, line: &str, fields: &str) -> (u16, String, String) {
        let fields = if fields.contains("Host:") { fields.to_owned() } else { format!("Host: 127.0.0.1\r\n{fields}") };
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase(), body.to_owned())
    }

    async fn json(&self, line: &str) -> (u16, Value) {
        let (status, _, body) = self.ask(line, "").await;
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
    }
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn health_is_always_ok_and_ready_ends_with_draining() {
    let gateway = Running::start(LONG).await;
    assert_eq!(gateway.json("GET /health").await, (200, json!({ "status": "ok" })));
    assert_eq!(gateway.json("GET /ready").await, (200, json!({ "ready": true })));
    gateway.draining.store(true, Ordering::Release);
    let (status, body) = gateway.json("GET /ready").await;
    assert_eq!((status, &body["ready"]), (503, &json!(false)));
    assert!(body["reason"].as_str().unwrap().contains("draining"));
    assert_eq!(gateway.json("GET /health").await.0, 200);
    assert_eq!(gateway.json("GET /status").await.1["draining"], true);
}

#[tokio::test]
async fn status_shows_what_runs() {
    let gateway = Running::start(LONG).await;
    let (status, shown) = gateway.json("GET /status").await;
    assert_eq!(status, 200);
    assert_eq!((&shown["connections"], &shown["draining"]), (&json!(3), &json!(false)));
    assert_eq!(shown["config"]["generation"], 1);
    let file = json!({ "file": "gateway.yaml", "ok": true, "runs": "current", "problems": [] });
    assert_eq!(shown["config"]["files"], json!([file]));
    assert_eq!(shown["routes"], json!([{ "name": "r", "place": "gateway.yaml:4:18", "upstream": "u" }]));
    let target = json!({ "address": "127.0.0.1:9101", "resolved": ["127.0.0.1:9101"] });
    assert_eq!(shown["upstreams"], json!([{ "name": "u", "targets": [target] }]));
}

#[tokio::test]
async fn metrics_are_in_the_text_format() {
    let gateway = Running::start(LONG).await;
    let (status, head, body) = gateway.ask("GET /metrics", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("\ntollgate_config_file_errors{file=\"gateway.yaml\"} 0\n"), "{body}");
}

#[tokio::test]
async fn reload_tells_what_became_of_it() {
    let gateway = Running::start(LONG).await;
    let (status, outcome) = gateway.json("POST /reload").await;
    assert_eq!((status, &outcome["effect"], &outcome["generation"]), (200, &json!("applied"), &json!(2)));
    fs::write(gateway.folder.path().join("gateway.yaml"), ROOT.replace("upstream: u", "upstream: v")).unwrap();
    let (status, outcome) = gateway.json("POST /reload").await;
    assert_eq!((status, &outcome["effect"], &outcome["generation"]), (422, &json!("refused"), &json!(2)));
    let problem = &outcome["files"][0]["problems"][0];
    assert_eq!((&problem["file"], &problem["line"]), (&json!("gateway.yaml"), &json!(4)));
    assert!(problem["text"].as_str().unwrap().contains("^"));
    assert_eq!(gateway.json("GET /status").await.1["config"]["files"][0]["runs"], "last_good");
    assert_eq!(gateway.json("GET /health").await.0, 200);
}

#[tokio::test]
async fn what_is_not_there_is_refused_in_the_one_shape() {
    let gateway = Running::start(LONG).await;
    let (status, body) = gateway.json("GET /nothing").await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("NOT_FOUND")));
    assert_eq!(body["request_id"].as_str().unwrap().len(), 32);
    let (status, head, body) = gateway.ask("GET /reload", "").await;
    assert_eq!(status, 405);
    assert!(head.contains("allow: post") && body.contains("METHOD_NOT_ALLOWED"), "{head} {body}");
    let (status, head, _) = gateway.ask("DELETE /status", "").await;
    assert_eq!(status, 405);
    assert!(head.contains("allow: get,head"), "{head}");
}

#[tokio::test]
async fn what_a_web_page_could_send_is_refused() {
    let gateway = Running::start(LONG).await;
    for fields in ["Origin: http://evil.example\r\n", "Origin: null\r\n", "Host: evil.example\r\n"] {
        let (status, _, body) = gateway.ask("POST /reload", fields).await;
        assert_eq!(status, 403, "{fields}");
        assert!(body.contains("FORBIDDEN"), "{body}");
    }
    assert_eq!(gateway.ask("GET /status", "Host: evil.example:9900\r\n").await.0, 403);
    assert_eq!(gateway.ask("GET http://evil.example/status", "").await.0, 403);
    assert_eq!(gateway.json("GET /status").await.1["config"]["generation"], 1);
}

#[test]
fn names_that_nobody_can_register_are_ours() {
    for host in [
        "127.0.0.1",
        "127.0.0.1:9900",
        "10.1.2.3:80",
        "[::1]:9900",
        "[::1]",
        "localhost:9900",
        "LOCALHOST.",
        "tollgate:9900",
        "tollgate.apps.svc",
        "tollgate.apps.svc.cluster.local:9900",
        "a.localhost",
        "host.docker.internal",
    ] {
        assert!(is_ours(host), "{host}");
    }
    for host in
        ["", ":80", ".", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[evil.example]", "["]
    {
        assert!(!is_ours(host), "{host}");
    }
}

#[tokio::test]
async fn a_connection_ends_when_its_time_is_over() {
    let gateway = Running::start(Duration::from_millis(100)).await;
    let mut slow = TcpStream::connect(gateway.address).await.unwrap();
    slow.write_all(b"GET /health HTTP/1.1\r\nHost: local").await.unwrap();
    let mut answer = Vec::new();
    // Closed or reset: either way it is over.
    let _ = timeout(Duration::from_secs(20), slow.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty());
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_free_place() {
    let gateway = Running::start(LONG).await;
    let mut held = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 512]).await.unwrap() > 0);
        held.push(stream);
    }
    let asking = gateway.ask("GET /health", "");
    tokio::pin!(asking);
    assert!(timeout(Duration::from_millis(100), &mut asking).await.is_err());
    held.pop();
    assert_eq!(asking.await.0, 200);
}

#[tokio::test]
async fn it_stops_when_it_is_told() {
    let mut gateway = Running::start(LONG).await;
    gateway.stop.take().unwrap().send(()).unwrap();
    timeout(Duration::from_secs(20), &mut gateway.task).await.unwrap().unwrap().unwrap();
}
