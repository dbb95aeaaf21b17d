//! The command line as a user meets it: the real binary, its exit codes and every word of its messages.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test may end its process"
)]

#[path = "cli/key.rs"]
mod key;
#[cfg(feature = "plugins")]
#[path = "cli/plugin.rs"]
mod plugin;
#[path = "cli/webhook.rs"]
mod webhook;

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const CHECK_FAILED: i32 = 64;

/// Runs `tollgate` with these arguments in `folder`.
fn tollgate(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).current_dir(folder).env_remove("TOLLGATE_CONFIG").output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with a `gateway.yaml`.
fn folder(configuration: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("gateway.yaml"), configuration).unwrap();
    folder
}

#[allow(clippy::disallowed_methods, reason = "the way to tell a test to rewrite what it expects")]
fn rewrites() -> bool {
    std::env::var("UPDATE_EXPECT").is_ok_and(|value| value == "1")
}

/// Compares with a file, or writes it when `UPDATE_EXPECT=1`; gives what differs.
fn expect_file(path: &Path, actual: &str) -> Option<String> {
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected == actual {
        return None;
    }
    if rewrites() {
        fs::write(path, actual).unwrap();
        return None;
    }
    Some(format!("{}\n--- expected\n{expected}\n--- got\n{actual}", path.display()))
}

#[test]
fn every_mistake_is_told_in_exactly_these_words() {
    let folder = repository().join("tests/bad_config");
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    assert!(paths.len() >= 40, "only {} files", paths.len());
    let mut differences = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_str().unwrap();
        let output = tollgate(&folder, &["check", "--config", name]);
        assert_eq!(output.status.code(), Some(CHECK_FAILED), "{name}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{name}");
        differences.extend(expect_file(&path.with_extension("txt"), stderr(&output)));
    }
    assert!(differences.is_empty(), "set UPDATE_EXPECT=1 to accept\n{}", differences.join("\n"));
}

/// `run` and the other commands read the configuration in the same way, and say the same.
#[test]
fn every_command_refuses_a_bad_configuration() {
    let folder = repository().join("tests/bad_config");
    let expected = fs::read_to_string(folder.join("several_mistakes.txt")).unwrap();
    for arguments in [&["test"][..], &["explain", "GET /"]] {
        let arguments = [arguments, &["--config", "several_mistakes.yaml"]].concat();
        let output = tollgate(&folder, &arguments);
        assert_eq!((output.status.code(), stderr(&output)), (Some(CHECK_FAILED), &*expected), "{arguments:?}");
    }
    let output = tollgate(&folder, &["run", "--config", "several_mistakes.yaml"]);
    assert_eq!(output.status.code(), Some(CHECK_FAILED));
    assert!(stderr(&output).contains("several_mistakes.yaml:3:1: unknown key `limts`"), "{}", stderr(&output));
}

#[test]
fn a_file_that_is_not_text_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("gateway.yaml"), b"version: 1\n# caf\xe9\n").unwrap();
    let output = tollgate(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(CHECK_FAILED));
    let expected =
        "gateway.yaml: cannot read this file: it is not UTF-8: the byte at offset 16 is not valid\n\n1 problem\n";
    assert_eq!(stderr(&output), expected);
}

#[test]
fn a_file_of_100_megabytes_is_refused_without_being_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = fs::File::create(folder.path().join("gateway.yaml")).unwrap();
    file.set_len(100 * 1024 * 1024).unwrap();
    let output = tollgate(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(CHECK_FAILED));
    let expected = "gateway.yaml: cannot read this file: it is larger than 16777216 bytes\n\n1 problem\n";
    assert_eq!(stderr(&output), expected);
}

#[test]
fn no_file_and_a_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = tollgate(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(CHECK_FAILED));
    assert_eq!(stderr(&output), "gateway.yaml: cannot read this file: there is no such file\n\n1 problem\n");
    let output = tollgate(folder.path(), &["check", "--config", "."]);
    assert_eq!(output.status.code(), Some(CHECK_FAILED));
    assert!(stderr(&output).contains("it is not a regular file"), "{}", stderr(&output));
}

const GOOD: &str = r#"version: 1
listeners: [{ bind: 127.0.0.1:8000 }]
trusted_proxies: [10.0.0.0/8]
defaults: { filters: [security_headers] }
chains:
  api:
    - headers: { request: { set: { X-Client: "{client_ip}" } } }
upstreams:
  tasks: { targets: [{ address: 127.0.0.1:9101 }] }
routes:
  - name: tasks.read
    match: GET /tasks/{id?}
    filters: [{ use: api }]
    upstream: tasks
  - name: tasks.write
    match: POST /tasks
    upstream: tasks
tests:
  - request: GET /tasks/7?full=1
    expect: { status: 200, route: tasks.read, upstream: tasks, target: "/tasks/7?full=1" }
  - request: DELETE /tasks
    expect: { status: 405, code: METHOD_NOT_ALLOWED, headers: { Allow: "GET, POST" } }
"#;

#[test]
fn check_counts_what_is_there() {
    let folder = folder(GOOD);
    let output = tollgate(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "gateway.yaml: 2 routes, 1 upstream, 1 chain, 2 tests in 1 file\n");
    let output = tollgate(folder.path(), &["check", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["ok"], &json["routes"], &json["files"]), (&true.into(), &2.into(), &1.into()));
}

#[test]
fn check_reports_to_machines() {
    let folder = folder("version: 1\nlisteners: [{ bind: 127.0.0.1:8000 }]\nthreads: 0\n");
    let output = tollgate(folder.path(), &["check", "--json"]);
    assert_eq!(output.status.code(), Some(CHECK_FAILED));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = serde_json::json!({ "ok": false, "problems": [{
        "file": "gateway.yaml", "line": 3, "column": 10, "message": "`threads` must be 1 to 1024",
    }] });
    assert_eq!(json, expected);
}

#[test]
fn the_configuration_is_named_by_the_environment_and_by_the_command_line() {
    let folder = folder(GOOD);
    fs::rename(folder.path().join("gateway.yaml"), folder.path().join("other.yaml")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    let output = command.arg("check").current_dir(folder.path()).env("TOLLGATE_CONFIG", "other.yaml").output().unwrap();
    assert!(stdout(&output).starts_with("other.yaml: 2 routes"), "{}", stderr(&output));
    let output = tollgate(folder.path(), &["check", "--config", "other.yaml"]);
    assert!(stdout(&output).starts_with("other.yaml: 2 routes"), "{}", stderr(&output));
}

#[test]
fn tests_of_a_configuration_pass_or_fail_with_a_diff() {
    let good = folder(GOOD);
    let output = tollgate(good.path(), &["test"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), "2 tests passed\n"), "{}", stderr(&output));
    let bad = GOOD.replace("route: tasks.read, upstream: tasks", "route: tasks.write, upstream: tasks");
    let bad = folder(&bad);
    let output = tollgate(bad.path(), &["test"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "\
gateway.yaml:19:14: GET /tasks/7?full=1 from 192.0.2.1
   route
     expected tasks.write
     got      tasks.read
   what happened
     route tasks.read (gateway.yaml:11:11)
     security_headers (gateway.yaml:4:23): lets it go on
     headers (gateway.yaml:7:7): lets it go on
     upstream tasks is sent /tasks/7?full=1

1 of 2 tests failed
";
    assert_eq!(stderr(&output), expected);
}

#[test]
fn explain_shows_the_way_of_a_request() {
    let folder = folder(GOOD);
    let arguments =
        ["explain", "GET //tasks/7?full=1", "-H", "X-API-Key: hunter2", "-H", "X-Forwarded-For: 203.0.113.9"];
    let output = tollgate(folder.path(), &[&arguments[..], &["--from", "10.1.1.1"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    for part in [
        "GET //tasks/7?full=1 from 10.1.1.1, for the client 203.0.113.9\n",
        "route tasks.read (gateway.yaml:11:11)\n  + tasks.read  the most specific route that accepts the request\n",
        "  1. security_headers (gateway.yaml:4:23 via defaults): acts on the answer only\n",
        "  2. headers (gateway.yaml:7:7 via api): lets it go on\n       set x-client: 203.0.113.9\n",
        "upstream tasks, which is sent\n  GET /tasks/7?full=1\n",
        "  x-api-key: [redacted]\n",
        "  x-forwarded-for: 203.0.113.9, 10.1.1.1\n",
        "  x-content-type-options: nosniff\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn explain_shows_no_credential_of_the_query() {
    let with = |keep: bool| {
        let auth = format!("auth: {{ accept: [api_key], api_key: {{ query: ticket }}, keep_credentials: {keep} }}");
        format!(
            "version: 1\nlisteners: [{{ bind: 127.0.0.1:0 }}]\n\
             upstreams: {{ tasks: {{ targets: [{{ address: \"127.0.0.1:1\" }}] }} }}\n\
             consumers: [{{ name: a, keys: [{{ id: a-1, sha256: f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7 }}] }}]\n\
             routes: [{{ name: all, match: /tasks, filters: [{auth}], upstream: tasks }}]\n"
        )
    };
    for keep in [true, false] {
        let folder = folder(&with(keep));
        for (key, found) in [("hunter2", "caller a by api_key"), ("hunter3", "401")] {
            for more in [&[][..], &["--json"]] {
                let asked = format!("GET /tasks?a=1&Ticket=1&ticket={key}");
                let output = tollgate(folder.path(), &[&["explain", asked.as_str()][..], more].concat());
                let text = stdout(&output);
                assert!(text.contains("GET /tasks?a=1&Ticket=[redacted]&ticket=[redacted]"), "{text}");
                assert!(!text.contains("hunter"), "{text}");
                assert!(!more.is_empty() || text.contains(found), "{text}");
            }
        }
    }
}

#[test]
fn explain_says_why_no_route_takes_a_request() {
    let folder = folder(GOOD);
    let output = tollgate(folder.path(), &["explain", "DELETE /tasks", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["route"], serde_json::Value::Null);
    let why: Vec<&str> =
        json["considered"].as_array().unwrap().iter().map(|one| one["why"].as_str().unwrap()).collect();
    assert_eq!(why, ["method: the route accepts GET, not DELETE", "method: the route accepts POST, not DELETE"]);
    assert_eq!((&json["response"]["status"], &json["response"]["code"]), (&405.into(), &"METHOD_NOT_ALLOWED".into()));
}

#[test]
fn wrong_usage_ends_with_2() {
    let folder = folder(GOOD);
    for arguments in [
        &["explain", "/tasks"][..],
        &["explain", "get /tasks"],
        &["explain", "GET /tasks", "-H", "no colon"],
        &["explain", "GET /tasks", "--from", "somewhere"],
        &["chekc"],
        &[],
    ] {
        assert_eq!(tollgate(folder.path(), arguments).status.code(), Some(2), "{arguments:?}");
    }
    let output = tollgate(folder.path(), &["--version"]);
    assert_eq!(stdout(&output), concat!("tollgate ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn the_committed_schemas_are_current() {
    for (arguments, name) in
        [(&["schema"][..], "gateway.schema.json"), (&["schema", "--fragment"], "fragment.schema.json")]
    {
        let output = tollgate(repository(), arguments);
        assert_eq!(output.status.code(), Some(0));
        let committed = fs::read_to_string(repository().join(name)).unwrap_or_default();
        assert!(committed == stdout(&output), "run `cargo run -- {} > {name}`", arguments.join(" "));
    }
}

#[test]
fn health_follows_the_answer_of_the_admin_address() {
    for (answer, code) in [("HTTP/1.1 200 OK\r\n\r\n", 0), ("HTTP/1.1 503 Service Unavailable\r\n\r\n", 1)] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // What is left unread would reset the connection.
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let output = tollgate(repository(), &["health", "--admin", &address]);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        server.join().unwrap();
    }
    // A port that was free a moment ago: nobody listens.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(tollgate(repository(), &["health", "--admin", &address]).status.code(), Some(1));
}
