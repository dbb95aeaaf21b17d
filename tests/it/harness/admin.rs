//! The admin address, as operators and the monitoring read it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::client::{Client, Response};
use super::gateway::Gateway;
use super::within;

impl Gateway {
    /// `GET /status` and the like, at the admin address.
    pub async fn ask_admin(&self, request: &str) -> Response {
        let mut client = Client::connect(self.admin).await;
        client.ask(&format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await
    }

    /// `config` of `/status`.
    pub async fn status(&self) -> Value {
        self.ask_admin("GET /status").await.json()["config"].take()
    }

    /// Asks for a reload: the status, and what became of it.
    pub async fn reload(&self) -> (u16, Value) {
        let response = self.ask_admin("POST /reload").await;
        (response.status, response.json())
    }

    /// Asks for a reload that has to take everything into use.
    pub async fn reload_well(&self) {
        let (status, outcome) = self.reload().await;
        assert_eq!((status, &outcome["effect"]), (200, &"applied".into()), "{outcome:#}");
    }

    pub async fn scrape(&self) -> Scrape {
        Scrape::parse(self.ask_admin("GET /metrics").await.text())
    }

    /// Waits until each series has this value. Counters follow a response, they do not come before it.
    pub async fn counts(&self, expected: &[(&str, f64)]) {
        let mut differs = String::new();
        let all_right = async {
            loop {
                let scrape = self.scrape().await;
                let wrong = expected.iter().filter(|(series, value)| scrape.get(series) != Some(*value));
                differs =
                    wrong.map(|(series, value)| format!("{series} {value} is {:?}\n", scrape.get(series))).collect();
                if differs.is_empty() {
                    return;
                }
            }
        };
        if tokio::time::timeout(super::PATIENCE, all_right).await.is_err() {
            panic!("the metrics never became right:\n{differs}");
        }
    }

    /// Waits until no series has this text in it.
    pub async fn never_counts(&self, text: &str) {
        within("the end of a series", async { while self.scrape().await.has(text) {} }).await;
    }
}

/// `/metrics`, read strictly.
#[derive(Debug, Default)]
pub struct Scrape {
    /// Kinds, by name.
    pub families: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    pub fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        let mut open = (String::new(), String::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                assert!(help.split_once(' ').is_some_and(|(_, text)| !text.is_empty()), "{line}");
            } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                open = (name.to_owned(), kind.to_owned());
                let twice = scrape.families.insert(open.0.clone(), open.1.clone());
                assert!(twice.is_none(), "twice: {line}");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
                let name = series.split('{').next().unwrap();
                let suffix = name.strip_prefix(&*open.0).unwrap_or_else(|| panic!("not of {}: {line}", open.0));
                let suffixes: &[&str] = if open.1 == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(suffixes.contains(&suffix), "{line}");
                let twice = scrape.samples.insert(series.to_owned(), value.parse().expect(line));
                assert!(twice.is_none(), "twice: {line}");
            }
        }
        scrape
    }

    /// The value of a series, written with its labels.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// Whether any series has this text in it.
    pub fn has(&self, text: &str) -> bool {
        self.samples.keys().any(|series| series.contains(text))
    }

    /// The values of all series that begin so.
    pub fn all(&self, start: &str) -> Vec<(&str, f64)> {
        let found = self.samples.iter().filter(|(series, _)| series.starts_with(start));
        found.map(|(series, value)| (&**series, *value)).collect()
    }
}
