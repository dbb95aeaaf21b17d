//! What a filter changed on a request.

use std::collections::BTreeMap;
use std::fmt;

use crate::head::{Headers, RequestBuf};
use crate::observe::access::{Hidden, redact_query};
use crate::types::names_credential;

/// One difference between a request before a filter and after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Path and query, as people may see them.
    Target { from: String, to: String },
    /// A field that has these values now; none when it was removed. Values that look like credentials are hidden.
    Field { name: String, values: Vec<String> },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target { from, to } => write!(f, "target {from} → {to}"),
            Self::Field { name, values } if values.is_empty() => write!(f, "removed {name}"),
            Self::Field { name, values } => write!(f, "set {name}: {}", values.join(", ")),
        }
    }
}

pub(super) fn between(before: &RequestBuf, after: &RequestBuf, hidden: &Hidden) -> Vec<Change> {
    let mut changes = Vec::new();
    if target(before) != target(after) {
        changes.push(Change::Target { from: shown_target(before, hidden), to: shown_target(after, hidden) });
    }
    let (before, after) = (fields(before), fields(after));
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        changes.push(Change::Field { name: name.clone(), values: Vec::new() });
    }
    for (name, values) in after {
        if before.get(&name) != Some(&values) {
            let values = values.iter().map(|value| shown(&name, value)).collect();
            changes.push(Change::Field { name, values });
        }
    }
    changes
}

/// Path and query as they are sent.
pub fn target(request: &RequestBuf) -> String {
    match &request.query {
        Some(query) => format!("{}?{query}", request.path),
        None => request.path.clone(),
    }
}

/// Path and query as people may see them: parameters that look like credentials, or that an `auth` reads, are hidden.
pub fn shown_target(request: &RequestBuf, hidden: &Hidden) -> String {
    match &request.query {
        Some(query) => format!("{}?{}", request.path, redact_query(query, hidden)),
        None => request.path.clone(),
    }
}

/// The value of a field as people may see it: credentials are hidden, control and other bytes escaped.
pub fn shown(name: &str, value: &[u8]) -> String {
    if names_credential(name) {
        return "[redacted]".to_owned();
    }
    String::from_utf8_lossy(value).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn fields(head: &RequestBuf) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut fields: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    head.all(&mut |name, value| fields.entry(name.to_owned()).or_default().push(value.to_vec()));
    fields
}
