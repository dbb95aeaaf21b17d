//! The guide runs: every call of `docs/demo.md`, in its order, through the shipped configuration and both demo services.
//!
//! A block marked `sh` is a call, and the `json` block after it is its answer, in which `"…"` stands for any value. `$KEY` and
//! `$TOKEN` are got as the guide says, by the script that `make run` calls.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may end its process")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// How long a process may take to say where it listens.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the guide calls the gateway.
const WRITTEN: &str = "http://127.0.0.1:8000";
/// The variables that the shipped configuration reads.
const VARIABLES: [&str; 10] = [
    "GATEWAY_PORT",
    "ADMIN_PORT",
    "TASKS_ADDRESS",
    "ANALYTICS_ADDRESS",
    "SERVICE_TIMEOUT",
    "RATE_LIMIT_DEFAULT",
    "RATE_LIMIT_MODE",
    "TASKS_RATE_LIMIT",
    "JWT_SECRET",
    "TOLLGATE_CONFIG",
];

/// A process, killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing to do about one that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with the shipped configuration, and nobody who may call.
fn shipped() -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::copy(repository().join("gateway.yaml"), copy.path().join("gateway.yaml")).unwrap();
    fs::create_dir(copy.path().join("consumers.d")).unwrap();
    fs::create_dir(copy.path().join("routes.d")).unwrap();
    for file in fs::read_dir(repository().join("routes.d")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join("routes.d").join(file.file_name())).unwrap();
    }
    copy
}

/// Lets the script make the key and the secret, as far as they are not there.
fn make_identity(folder: &Path) {
    let mut script = Command::new(repository().join("scripts/demo-identity"));
    let output = script.arg(env!("CARGO_BIN_EXE_tollgate")).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The gateway, with the configuration in this folder and no variable set.
fn tollgate(folder: &Path, command: &str) -> Command {
    let mut tollgate = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    tollgate.arg(command).current_dir(folder);
    for name in VARIABLES {
        tollgate.env_remove(name);
    }
    tollgate
}

/// The demo services, as they are in the source: `cargo test --examples` builds their tests and not themselves.
fn examples() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_tollgate")).parent().unwrap();
    let profile = match folder.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    // Cargo tells its tests where it is. Who runs this file without it has to have built the examples.
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--locked", "--profile", profile, "--examples"]).current_dir(repository());
        if cfg!(feature = "plugins") {
            // As the gateway beside them was built.
            build.args(["--features", "plugins"]);
        }
        assert!(build.status().unwrap().success(), "the examples cannot be built");
    }
    folder.join("examples")
}

/// Waits for a line with this text, and reads the address that comes after it.
fn address_after(text: &'static str, output: impl Read + Send + 'static) -> SocketAddr {
    let (found, address) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once(text) {
                // Nobody waits for a second one. The rest is read, so that the process can go on writing.
                let _ = found.send(rest.split_whitespace().next().unwrap_or_default().parse());
            }
        }
    });
    address.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no line `{text}`: {error}")).unwrap()
}

fn service(path: &Path) -> (Running, SocketAddr) {
    let mut command = Command::new(path);
    command.args(["--bind", "127.0.0.1:0", "--db", ":memory:"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let output = child.stdout.take().unwrap();
    let running = Running(child);
    (running, address_after("listening on ", output))
}

fn gateway(
    folder: &Path,
    tasks: SocketAddr,
    analytics: SocketAddr,
    variables: &[(&str, &str)],
) -> (Running, SocketAddr) {
    let mut command = tollgate(folder, "run");
    command.envs(variables.iter().copied());
    command.env("JWT_SECRET", read(folder, "data/demo.jwt"));
    command.env("GATEWAY_PORT", "0").env("ADMIN_PORT", "0");
    command.env("TASKS_ADDRESS", tasks.to_string()).env("ANALYTICS_ADDRESS", analytics.to_string());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.stderr.take().unwrap();
    let running = Running(child);
    let bound = address_after("listening asked=0.0.0.0:0 bound=", output);
    (running, SocketAddr::from(([127, 0, 0, 1], bound.port())))
}

/// A token of the gateway in this folder.
fn token(folder: &Path, role: &str) -> String {
    let mut mint = tollgate(folder, "token");
    mint.args(["mint", "--subject", "ada", "--roles", role]).env("JWT_SECRET", read(folder, "data/demo.jwt"));
    let output = mint.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A call of the guide, the line it stands in, and its answer.
struct Call {
    line: usize,
    shell: String,
    answer: Value,
}

fn calls(page: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut call: Option<(usize, String)> = None;
    let mut lines = page.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if line != "```sh" && line != "```json" {
            continue;
        }
        let block: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let block = block.join("\n");
        if line == "```sh" {
            assert!(call.is_none(), "line {}: the call before has no answer", index + 1);
            call = Some((index + 1, block));
        } else {
            let (line, shell) = call.take().unwrap_or_else(|| panic!("line {}: an answer to no call", index + 1));
            let answer = serde_json::from_str(&block).unwrap_or_else(|error| panic!("line {}: {error}", index + 1));
            calls.push(Call { line, shell, answer });
        }
    }
    assert!(call.is_none(), "the last call has no answer");
    calls
}

/// Where two values differ, if they do.
fn difference(path: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::String(any), _) if any == "…" => None,
        (Value::Object(expected), Value::Object(found)) => {
            let keys = expected.keys().chain(found.keys());
            let mut differences = keys.filter_map(|key| match (expected.get(key), found.get(key)) {
                (Some(expected), Some(found)) => difference(&format!("{path}.{key}"), expected, found),
                (None, _) => Some(format!("{path}.{key} is not in the guide")),
                (_, None) => Some(format!("{path}.{key} is missing")),
            });
            differences.next()
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            let pairs = expected.iter().zip(found).enumerate();
            pairs.map(|(at, (expected, found))| difference(&format!("{path}[{at}]"), expected, found)).find_map(|it| it)
        }
        _ if expected == found => None,
        _ => Some(format!("{path} is {found}, and in the guide {expected}")),
    }
}

#[test]
fn every_call_of_the_guide_is_answered_as_it_says() {
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED: the calls of docs/demo.md need curl, and there is none; scripts/setup curl installs it");
        return;
    }
    let examples = examples();
    let (_tasks, tasks) = service(&examples.join("task_service"));
    let (_analytics, analytics) = service(&examples.join("analytics_service"));
    let folder = shipped();
    let folder = folder.path();
    make_identity(folder);
    let (_gateway, gateway) = gateway(folder, tasks, analytics, &[]);
    let (key, token) = (read(folder, "data/demo.key"), token(folder, "viewer"));
    let page = read(repository(), "docs/demo.md");
    let calls = calls(&page);
    assert!(calls.len() >= 10, "only {} calls", calls.len());
    for Call { line, shell, answer } in calls {
        assert!(shell.contains(WRITTEN), "docs/demo.md:{line}: it does not call {WRITTEN}");
        let shell = shell.replace(WRITTEN, &format!("http://{gateway}"));
        let output = Command::new("sh")
            .args(["-c", &shell])
            .envs([("KEY", key.trim()), ("TOKEN", &*token), ("no_proxy", "*")])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let found = serde_json::from_str(&text);
        let found = found.unwrap_or_else(|error| panic!("docs/demo.md:{line}: {error}: {text:?}"));
        if let Some(difference) = difference("answer", &answer, &found) {
            panic!("docs/demo.md:{line}: {difference}\n{found:#}");
        }
    }
}

#[test]
fn an_answer_that_differs_is_noticed() {
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let expected = json(r#"{"a": [1, {"b": "…"}], "c": 1.0}"#);
    assert_eq!(difference("", &expected, &json(r#"{"c": 1.0, "a": [1, {"b": [2]}]}"#)), None);
    for found in [
        r#"{"a": [1, {"b": 2}], "c": 2.0}"#,
        r#"{"a": [1, {"b": 2}]}"#,
        r#"{"a": [1, {"b": 2}], "c": 1.0, "d": null}"#,
        r#"{"a": [1], "c": 1.0}"#,
        r#"{"a": [1, {}], "c": 1.0}"#,
        r#"{"a": [2, {"b": 2}], "c": 1.0}"#,
    ] {
        assert!(difference("", &expected, &json(found)).is_some(), "{found}");
    }
}

#[test]
fn the_shipped_configuration_is_right_without_a_variable() {
    let folder = shipped();
    for command in ["check", "test"] {
        let output = tollgate(folder.path(), command).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*said), (Some(0), ""), "tollgate {command}");
    }
}

/// What a caller gets for a `GET`: the head of the answer.
fn answer(gateway: SocketAddr, path: &str, token: &str) -> String {
    let mut socket = TcpStream::connect(gateway).unwrap();
    let fields = format!("Host: a.test\r\nAuthorization: Bearer {token}\r\nConnection: close");
    write!(socket, "GET {path} HTTP/1.1\r\n{fields}\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    text.split_once("\r\n\r\n").unwrap().0.to_lowercase()
}

#[test]
fn variables_say_how_often_callers_may_come() {
    let (_analytics, analytics) = service(&examples().join("analytics_service"));
    let folder = shipped();
    let folder = folder.path();
    make_identity(folder);
    let token = token(folder, "user");
    let variables = [("RATE_LIMIT_DEFAULT", "3")];
    let (_gateway, limited) = gateway(folder, analytics, analytics, &variables);
    for left in ["2", "1", "0"] {
        let head = answer(limited, "/api/v1/commits", &token);
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert!(head.contains(&format!("\r\nx-ratelimit-limit: 3\r\nx-ratelimit-remaining: {left}\r\n")), "{head}");
    }
    let head = answer(limited, "/api/v1/commits", &token);
    assert!(head.starts_with("http/1.1 429 ") && head.contains("\r\nretry-after: "), "{head}");
    let head = answer(limited, "/api/v1/analytics/trends", &token);
    assert!(!head.starts_with("http/1.1 429 "), "it counts apart: {head}");
    let (_gateway, off) = gateway(folder, analytics, analytics, &[variables[0], ("RATE_LIMIT_MODE", "off")]);
    for _ in 0..5 {
        let head = answer(off, "/api/v1/commits", &token);
        assert!(head.starts_with("http/1.1 200 ") && !head.contains("ratelimit"), "{head}");
    }
}

/// Each process makes up its own secret: what one of them signed, no other takes.
#[test]
fn without_a_variable_no_secret_is_known() {
    let folder = shipped();
    let mint = || {
        let output = tollgate(folder.path(), "token").args(["mint", "--subject", "ada", "--roles", "admin"]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let token = mint();
    assert_eq!(token.split('.').count(), 3, "{token:?}");
    assert!(!is_let_in(folder.path(), &format!("Authorization: Bearer {}", token.trim())));
    // The key of the documentation.
    assert!(!is_let_in(folder.path(), "X-API-Key: an-example-and-no-secret"));
}

#[test]
fn the_key_of_the_demo_is_made_once_and_again_when_it_is_lost() {
    let folder = shipped();
    let folder = folder.path();
    make_identity(folder);
    let both = || (read(folder, "data/demo.key"), read(folder, "data/demo.jwt"));
    let (key, secret) = both();
    for name in ["data/demo.key", "data/demo.jwt"] {
        let mode = fs::metadata(folder.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(is_let_in(folder, &format!("X-API-Key: {}", key.trim())));
    assert!(secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()), "{secret:?}");
    let consumers = read(folder, "consumers.d/demo.yaml");
    assert!(!consumers.contains(key.trim()), "the key itself is in the configuration");

    make_identity(folder);
    assert_eq!(both(), (key.clone(), secret.clone()));

    fs::remove_file(folder.join("consumers.d/demo.yaml")).unwrap();
    assert!(!is_let_in(folder, &format!("X-API-Key: {}", key.trim())));
    make_identity(folder);
    let (other, kept) = both();
    assert!(other != key && kept == secret);
    assert!(is_let_in(folder, &format!("X-API-Key: {}", other.trim())));
}

/// Whether a request for tasks with this field reaches its service.
fn is_let_in(folder: &Path, field: &str) -> bool {
    let output = tollgate(folder, "explain").args(["GET /api/v1/tasks", "-H", field]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let is_refused = text.contains("\nanswer 401 UNAUTHORIZED\n");
    assert!(is_refused != text.contains("\nupstream tasks"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    !is_refused
}
