//! gRPC and gRPC-Web through the gateway, with real clients and services where they can be had: `grpcio` for Python and
//! `@connectrpc/connect-web` for Node, installed below `target/` by the first run. Where that cannot be done (no `python3`, no
//! `npm`, no network) the test says which are left out. What they cannot be made to do is said in frames, in `raw`.

pub mod raw;
mod web;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::harness::{Authority, Folder, Gateway, Upstream, left_out};

const PYTHON_PACKAGE: &str = "grpcio>=1.60,<2";

/// A service on `grpcio`. Ends with its input.
pub struct Service {
    child: Child,
    pub port: u16,
}

impl Service {
    /// `None`, and a word about it, where it cannot be had.
    pub fn start() -> Option<Self> {
        let mut command = Command::new(python()?);
        command.arg(script("service.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Some(Self { port: line.trim().parse().expect("the service prints its port"), child })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The interpreter that has `grpcio`. Made once: tests that run at once must not install into the same folder.
fn python() -> Option<PathBuf> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    MADE.get_or_init(make_python).clone()
}

fn make_python() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-grpc");
    let python = folder.join("bin/python");
    let ready = || run(Command::new(&python).args(["-c", "import grpc"]));
    let made = || run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
    let install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--timeout", "10", "--retries", "1"];
    let filled = || run(Command::new(&python).args(install).arg(PYTHON_PACKAGE));
    if ready() || (made() && filled() && ready()) {
        return Some(python);
    }
    left_out("grpcio cannot be had here (python3 -m venv, pip install)");
    None
}

pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/grpc").join(name)
}

pub fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// The document that a program prints.
pub fn printed(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Routes for every way a call may go.
async fn configuration(port: u16) -> String {
    let dead = Upstream::dead_address().await;
    format!(
        "consumers:\n  - name: somebody\n    keys: [{{ id: k, sha256: {key} }}]\n\
         upstreams:\n  main: {{ protocol: h2c, targets: [{{ address: \"127.0.0.1:{port}\" }}] }}\n  \
         bounded: {{ protocol: h2c, targets: [{{ address: \"127.0.0.1:{port}\" }}], timeouts: {{ total: 2s }} }}\n  \
         dead: {{ protocol: h2c, targets: [{{ address: \"{dead}\" }}] }}\n\
         routes:\n  - {{ name: main, match: \"POST /test.Service/{{method}}\", body_max: 64MiB, upstream: main }}\n  \
         - {{ name: bounded, match: \"POST /bounded.Service/{{method}}\", upstream: bounded }}\n  \
         - {{ name: small, match: \"POST /small.Service/{{method}}\", body_max: 1000B, upstream: main }}\n  \
         - {{ name: dead, match: \"POST /dead.Service/{{method}}\", upstream: dead }}\n  \
         - {{ name: closed, match: \"POST /closed.Service/{{method}}\", filters: [{{ allow_ips: {{ deny: [127.0.0.1] }} }}], upstream: main }}\n  \
         - {{ name: locked, match: \"POST /locked.Service/{{method}}\", filters: [{{ auth: {{ accept: [api_key] }} }}], upstream: main }}\n  \
         - {{ name: many, match: \"POST /many.Service/{{method}}\", filters: [{{ rate_limit: {{ per: ip, rates: [1/day] }} }}], upstream: main }}\n",
        key = "00".repeat(32),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn real_clients_and_services_understand_each_other() {
    let Some(service) = Service::start() else { return };
    let gateway = Gateway::start(&configuration(service.port).await).await;
    let client = python().unwrap();
    let address = gateway.address.to_string();
    let arguments = [script("client.py").into_os_string(), address.into()];
    let said = tokio::task::spawn_blocking(move || printed(Command::new(client).args(arguments))).await.unwrap();
    calls(&said);
    streams(&said);
    deadlines(&said);
    refusals(&said);
    drop(service);
    gateway.stop().await;
}

/// The same client over TLS, where ALPN chooses HTTP/2.
#[tokio::test(flavor = "multi_thread")]
async fn calls_pass_over_tls() {
    let Some(service) = Service::start() else { return };
    let ca = Authority::new("ours");
    let pair = ca.issue(&["a.test"], "a");
    let listener = "version: 1\nlisteners: [{ bind: 127.0.0.1:0, tls: { certificates: [{ cert: 0.pem, key: 0.key }] } }]\n\
                    threads: 2\naccess_log: { to: none }\n";
    let folder = Folder::with(&[("ca.pem", &ca.certificate.pem())]);
    folder.write("0.key", &pair.key.serialize_pem());
    folder.write("0.pem", &pair.certificate.pem());
    folder.write("gateway.yaml", &[listener, &configuration(service.port).await].concat());
    let authority = folder.path("ca.pem");
    let gateway = Gateway::start_in(folder).await;
    let client = python().unwrap();
    let arguments = [script("client.py").into_os_string(), gateway.address.to_string().into(), authority.into()];
    let said = tokio::task::spawn_blocking(move || printed(Command::new(client).args(arguments))).await.unwrap();
    calls(&said);
    streams(&said);
    refusals(&said);
}

fn calls(said: &Value) {
    let unary = &said["unary"];
    assert_eq!(unary["answer"], "ping");
    assert_eq!(unary["initial"]["x-initial"], "first");
    assert!(unary["initial"]["x-request-id"].is_string(), "{unary}");
    assert_eq!((&unary["trailing"]["x-trailing"], &unary["trailing"]["x-bytes-bin"]), (&json!("last"), &json!("00ff")));
    let fail = &said["fail"];
    assert_eq!((&fail["code"], &fail["message"]), (&json!("NOT_FOUND"), &json!("no such thing: ü 100 %")));
    assert_eq!(fail["trailers"]["x-trailing"], "last", "trailers alone: {fail}");
    let seen = said["seen"]["answer"].as_str().unwrap();
    assert!(seen.contains("x-text=a b") && seen.contains("x-raw-bin=b'\\x01\\xfe'"), "{seen}");
    assert_eq!((&said["large"], &said["many"]), (&json!(true), &json!(true)));
    let own = &said["own_deadline"];
    assert_eq!(own["code"], "UNIMPLEMENTED", "the service's own words: {own}");
    assert!(own["trailers"]["x-error-code"].is_null(), "{own}");
}

fn streams(said: &Value) {
    assert_eq!((&said["join"], &said["join_nothing"]), (&json!("a,b,c"), &json!("")));
    assert_eq!((&said["count"], &said["count_nothing"]), (&json!(true), &json!([])));
    let ping_pong = &said["ping_pong"];
    assert_eq!(ping_pong["got"].as_array().unwrap().len(), 50, "{ping_pong}");
    assert_eq!((&ping_pong["rest"], &ping_pong["code"]), (&json!(0), &json!("OK")));
    assert_eq!(said["early"], json!({ "got": ["got one"], "code": "OK" }));
    assert_eq!(said["cancel"], json!({ "first": "begun", "noticed": "yes" }), "the service learns that nobody waits");
}

fn deadlines(said: &Value) {
    let left = |name: &str| said[name]["answer"].as_str().expect(name).parse::<f64>().expect(name);
    // Clients round up.
    assert!((0.0..=51.0).contains(&left("left")), "{}", said["left"]);
    assert!((0.0..=2.0).contains(&left("left_capped")), "{}", said["left_capped"]);
    assert!((0.0..=2.0).contains(&left("left_of_none")), "{}", said["left_of_none"]);
    let slow = &said["too_slow"];
    assert_eq!((&slow["first"], &slow["end"]["code"]), (&json!("begun"), &json!("DEADLINE_EXCEEDED")), "{slow}");
}

fn refusals(said: &Value) {
    for (name, status, code) in [
        ("unknown", "UNIMPLEMENTED", "NOT_FOUND"),
        ("forbidden", "PERMISSION_DENIED", "FORBIDDEN"),
        ("unauthorized", "UNAUTHENTICATED", "UNAUTHORIZED"),
        ("too_large", "RESOURCE_EXHAUSTED", "BODY_TOO_LARGE"),
        ("limited", "RESOURCE_EXHAUSTED", "RATE_LIMITED"),
        ("dead", "UNAVAILABLE", "BAD_GATEWAY"),
    ] {
        let refused = &said[name];
        assert_eq!(refused["code"], status, "{name}: {refused}");
        assert_eq!(refused["trailers"]["x-error-code"], code, "{name}: {refused}");
        assert!(refused["trailers"]["x-request-id"].is_string(), "{name}: {refused}");
    }
    assert!(said["limited"]["trailers"]["grpc-retry-pushback-ms"].is_string(), "{}", said["limited"]);
    assert!(said["unauthorized"]["trailers"]["www-authenticate"].is_string(), "{}", said["unauthorized"]);
}
