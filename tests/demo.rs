//! The guide runs: every call of `docs/demo.md`, in its order, through the shipped configuration and both demo services.
//!
//! A block marked `sh` is a call, and the `json` block after it is its answer, in which `"…"` stands for any value.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may end its process")]

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// How long a process may take to say where it listens.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the guide calls the gateway.
const WRITTEN: &str = "http://127.0.0.1:8000";
/// The variables that the shipped configuration reads.
const VARIABLES: [&str; 6] =
    ["GATEWAY_PORT", "ADMIN_PORT", "TASKS_ADDRESS", "ANALYTICS_ADDRESS", "SERVICE_TIMEOUT", "TOLLGATE_CONFIG"];

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

/// The gateway, with the shipped configuration and no variable set.
fn tollgate(command: &str) -> Command {
    let mut tollgate = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    tollgate.arg(command).current_dir(repository());
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

fn gateway(tasks: SocketAddr, analytics: SocketAddr) -> (Running, SocketAddr) {
    let mut command = tollgate("run");
    command.env("GATEWAY_PORT", "0").env("ADMIN_PORT", "0");
    command.env("TASKS_ADDRESS", tasks.to_string()).env("ANALYTICS_ADDRESS", analytics.to_string());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.stderr.take().unwrap();
    let running = Running(child);
    let bound = address_after("listening asked=0.0.0.0:0 bound=", output);
    (running, SocketAddr::from(([127, 0, 0, 1], bound.port())))
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
    let (_gateway, gateway) = gateway(tasks, analytics);
    let page = std::fs::read_to_string(repository().join("docs/demo.md")).unwrap();
    let calls = calls(&page);
    assert!(calls.len() >= 10, "only {} calls", calls.len());
    for Call { line, shell, answer } in calls {
        assert!(shell.contains(WRITTEN), "docs/demo.md:{line}: it does not call {WRITTEN}");
        let shell = shell.replace(WRITTEN, &format!("http://{gateway}"));
        let output = Command::new("sh").args(["-c", &shell]).env("no_proxy", "*").output().unwrap();
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
    for command in ["check", "test"] {
        let output = tollgate(command).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*said), (Some(0), ""), "tollgate {command}");
    }
}
