use std::fs;

use tempfile::TempDir;
use tracing::subscriber::with_default;

use super::*;

#[test]
fn a_human_event_cannot_pass_for_two() {
    assert_eq!(indented(b"plain\n").as_ref(), b"plain\n");
    assert_eq!(indented(b"").as_ref(), b"");
    assert_eq!(indented(b"a\nb\r\n").as_ref(), b"a\n    b\\r\n");
    assert_eq!(indented(b"a\n\n").as_ref(), b"a\n    \n");
}

#[test]
fn the_engine_is_quiet_until_it_is_asked() {
    let shown = |filter: &str, target: &str, level: &str| {
        let folder = TempDir::new().unwrap();
        let file = Arc::new(LogFile::open(folder.path().join("log")).unwrap());
        let output = LogOutput { file: Some(Arc::clone(&file)), indents: true };
        let subscriber =
            tracing_subscriber::fmt().with_env_filter(parse_filter(filter).unwrap()).with_writer(output).finish();
        with_default(subscriber, || match (target, level) {
            ("proxy", _) => tracing::error!(target: "pingora_proxy::proxy_h1", "broke off"),
            ("protocol", _) => tracing::error!(target: "pingora_core::protocols::http", "broke off"),
            ("services", _) => tracing::error!(target: "pingora_core::services::listening", "cannot accept"),
            (_, "debug") => tracing::debug!(target: "tollgate::live", "detail"),
            _ => tracing::info!(target: "tollgate::live", "reloaded"),
        });
        !fs::read(folder.path().join("log")).unwrap().is_empty()
    };
    assert!(!shown("", "proxy", "error"));
    assert!(!shown("debug", "proxy", "error"));
    assert!(shown("info,pingora_proxy=error", "proxy", "error"));
    assert!(!shown("", "protocol", "error"));
    assert!(shown("", "services", "error"));
    assert!(shown("", "own", "info"));
    assert!(!shown("warn", "own", "info"));
    assert!(!shown("", "own", "debug"));
    assert!(shown("info,tollgate::live=debug", "own", "debug"));
}

#[test]
fn a_filter_that_cannot_be_read_says_so() {
    let error = parse_filter("info,tollgate=loud").unwrap_err().to_string();
    assert!(error.contains("info,tollgate=loud") && error.contains("target=level"), "{error}");
}

/// The only test that sets up the log of the process: a process has one.
#[test]
fn library_records_arrive_as_json_and_the_file_is_reopened() {
    let folder = TempDir::new().unwrap();
    let (path, moved) = (folder.path().join("error.log"), folder.path().join("moved"));
    let handle = init("off,observe_test=info", LogFormat::Json, LogTarget::File(path.clone())).unwrap();
    ::log::info!(target: "observe_test", "first\nline");
    ::log::error!(target: "pingora_proxy::proxy_h1", "quiet");
    fs::rename(&path, &moved).unwrap();
    handle.reopen().unwrap();
    tracing::info!(target: "observe_test", "second");
    let event: serde_json::Value = serde_json::from_str(&fs::read_to_string(&moved).unwrap()).unwrap();
    assert_eq!(event["message"], "first\nline");
    assert_eq!(event["target"], "observe_test");
    let event: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(event["message"], "second");
    assert!(matches!(init("", LogFormat::Human, LogTarget::Stderr), Err(LogError::Twice(_))));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(handle.reopen().is_err());
}
