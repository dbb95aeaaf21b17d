//! What operators see: access log, error log, metrics, readiness.

mod access;
mod log;
mod metrics;
mod secrets;

use serde_json::Value;

use crate::harness::{Folder, Gateway, PATIENCE};

/// A gateway with an admin address, these settings, and this access log; `DIR` stands for its folder.
async fn gateway(access_log: &str, yaml: &str) -> Gateway {
    Gateway::start_in(folder(access_log, yaml)).await
}

fn folder(access_log: &str, yaml: &str) -> Folder {
    let folder = Folder::with(&[]);
    let text = format!(
        "version: 1\nlisteners: [{{ bind: 127.0.0.1:0 }}]\nadmin: {{ bind: 127.0.0.1:0 }}\nthreads: 2\n\
         access_log: {{ {access_log} }}\n{yaml}"
    );
    folder.write("gateway.yaml", &text.replace("DIR", folder.path("").to_str().unwrap()));
    folder
}

/// The lines of a JSON log.
fn entries(text: &str) -> Vec<Value> {
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line: {text:?}");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
}

/// Looks again until it holds: for files, which tell nobody when they change.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looking).await.is_ok(), "waited for {what}");
}

/// The names in the first column of the table that follows this heading of docs/operations.md.
fn documented(heading: &str) -> Vec<String> {
    let page = include_str!("../../docs/operations.md");
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).expect("the heading");
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut names: Vec<String> = rows.map(|name| name.split('{').next().unwrap().to_owned()).collect();
    names.sort();
    names
}
