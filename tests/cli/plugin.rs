//! `tollgate plugin check`.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::{CHECK_FAILED, folder, stderr, stdout, tollgate};

/// A plugin that adds a field, refuses a configuration of four bytes, and says what it thinks of every other.
const GOOD: &str = r#"(module
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 3)
    (data (i32.const 0) "ready to serve")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $log (i32.const 2) (i32.const 0) (i32.const 14)))
        (i32.ne (local.get 1) (i32.const 4)))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
    (func (export "proxy_on_new_connection") (param i32) (result i32) (i32.const 0))
    (func (export "own")))"#;

fn check(wat: &str, arguments: &[&str]) -> Output {
    let folder = folder("");
    fs::write(folder.path().join("it.wasm"), wat::parse_str(wat).unwrap()).unwrap();
    fs::write(folder.path().join("four"), "four").unwrap();
    in_folder(folder.path(), arguments)
}

fn in_folder(folder: &Path, arguments: &[&str]) -> Output {
    tollgate(folder, &[&["plugin", "check"], arguments].concat())
}

#[test]
fn it_tells_what_a_plugin_is_and_that_it_starts() {
    let output = check(GOOD, &["it.wasm", "--config", "of another length"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    let text = stdout(&output);
    let (known, timed) = text.split_once("compiles in ").unwrap();
    let size = wat::parse_str(GOOD).unwrap().len();
    let expected = format!(
        "it.wasm: ABI 0.2.1, {size} bytes
host functions that it uses
  log   proxy_log
  WASI  fd_write
callbacks that it has
  integration      malloc, memory, proxy_abi_version_0_2_1
  configuration    proxy_on_configure
  HTTP             proxy_on_request_headers
  TCP              proxy_on_new_connection
                   (never called: the gateway speaks HTTP)
  of its language  own
"
    );
    assert_eq!(known, expected);
    assert!(timed.contains(" ms, starts in ") && timed.contains(" ms, an instance has 196608 bytes of memory\n"));
    assert!(timed.ends_with("what it said when it started\n   INFO ready to serve\n"), "{timed}");
}

#[test]
fn it_tells_machines_the_same() {
    let output = check(GOOD, &["it.wasm", "--json"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["ok"], &json["abi"], &json["memory_bytes"]), (&true.into(), &"0.2.1".into(), &196_608.into()));
    assert_eq!(json["imports"]["WASI"], serde_json::json!(["fd_write"]));
    assert_eq!(json["exports"]["TCP"], serde_json::json!(["proxy_on_new_connection"]));
    assert!(json["compile_ms"].is_number() && json["start_ms"].is_number(), "{json}");
}

#[test]
fn a_plugin_that_refuses_its_configuration_is_told_of() {
    for config in ["four", "@four"] {
        let output = check(GOOD, &["it.wasm", "--config", config]);
        assert_eq!(output.status.code(), Some(CHECK_FAILED));
        assert!(stdout(&output).ends_with("what it said when it started\n   INFO ready to serve\n"), "{output:?}");
        let expected = "it.wasm: it refused its `config` (`proxy_on_configure` returned false)\n\n1 problem\n";
        assert_eq!(stderr(&output), expected);
    }
    let output = check(GOOD, &["it.wasm", "--config", "four", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &json["ok"], &json["memory_bytes"]), (Some(64), &false.into(), &Value::Null));
    assert!(json["problems"][0].as_str().unwrap().contains("proxy_on_configure"), "{json}");
}

#[test]
fn everything_that_is_missing_is_told_at_once() {
    let wat = r#"(module
        (import "env" "proxy_fly" (func))
        (import "env" "proxy_log" (func (param i32) (result i32)))
        (import "home" "made" (func)))"#;
    let output = check(wat, &["it.wasm"]);
    assert_eq!(output.status.code(), Some(CHECK_FAILED));
    assert!(stdout(&output).starts_with("it.wasm: no known ABI, "), "{output:?}");
    assert!(!stdout(&output).contains("compiles in"), "{output:?}");
    let told = stderr(&output);
    for part in [
        "it exports no `proxy_abi_version_…`",
        "it exports no memory called `memory`",
        "it exports neither `proxy_on_memory_allocate` nor `malloc`",
        "`env.proxy_fly`, which this host does not have",
        "`env.proxy_log` with other arguments",
        "`made` from `home`",
        "\n\n6 problems\n",
    ] {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
}

#[test]
fn what_fails_when_it_starts_and_what_is_no_webassembly_are_refused() {
    let traps = GOOD.replace("(drop (call $log", "(unreachable) (drop (call $log");
    let output = check(&traps, &["it.wasm"]);
    assert_eq!(output.status.code(), Some(CHECK_FAILED));
    assert!(stderr(&output).starts_with("it.wasm: it fails when it starts: "), "{}", stderr(&output));
    let hangs = GOOD.replace("(drop (call $log", "(loop $again (br $again)) (drop (call $log");
    assert!(stderr(&check(&hangs, &["it.wasm"])).contains("it takes longer to start than it may"));
    let folder = folder("version: 1\n");
    let output = in_folder(folder.path(), &["gateway.yaml"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(CHECK_FAILED), ""));
    assert!(stderr(&output).contains("gateway.yaml: it is no WebAssembly"), "{}", stderr(&output));
}

#[test]
fn a_file_that_cannot_be_read_ends_with_1_and_wrong_usage_with_2() {
    let folder = folder("");
    let output = in_folder(folder.path(), &["none.wasm"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
    assert!(stderr(&output).starts_with("tollgate plugin: none.wasm: No such file"), "{}", stderr(&output));
    fs::File::create(folder.path().join("large.wasm")).unwrap().set_len(64 * 1024 * 1024 + 1).unwrap();
    let output = in_folder(folder.path(), &["large.wasm"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("large.wasm: larger than 67108864 bytes"), "{}", stderr(&output));
    for arguments in [&[][..], &["none.wasm", "--config", "@none"], &["a.wasm", "b.wasm"]] {
        assert_eq!(in_folder(folder.path(), arguments).status.code(), Some(2), "{arguments:?}");
    }
}
