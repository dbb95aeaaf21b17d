//! Keys and their use as clients see them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::is_over;
use crate::identity::managed::{Counts, Record, Usage, from_seconds};

/// A key, without anything that would help to use it.
pub fn record(record: &Record, now: SystemTime) -> Value {
    let status = match record {
        _ if is_over(record.expires_at, now) => "expired",
        Record { disabled: true, .. } => "disabled",
        _ => "active",
    };
    let previous = record.previous.as_ref().filter(|previous| !is_over(previous.until, now));
    json!({
        "id": record.id,
        "name": record.name,
        "description": record.description,
        "prefix": record.prefix,
        "status": status,
        "scopes": record.scopes,
        "roles": record.roles,
        "rates": record.rates,
        "disabled": record.disabled,
        "created_at": time(record.created_at),
        "created_by": record.created_by,
        "updated_at": time(record.updated_at),
        "expires_at": time(record.expires_at),
        "previous": previous.map(|previous| json!({ "prefix": previous.prefix, "until": time(previous.until) })),
    })
}

/// A key that was just made, with the key itself.
pub fn with_key(of: &Record, key: &str, now: SystemTime) -> Value {
    let mut view = record(of, now);
    if let Some(members) = view.as_object_mut() {
        members.insert("key".to_owned(), key.into());
    }
    view
}

/// How a key was used: in all, by route, and by day.
pub fn usage(id: &str, usage: &Usage) -> Value {
    let mut all = Counts::default();
    let mut routes: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut days = Vec::with_capacity(usage.len());
    for (date, day) in usage {
        let mut of_day = Counts::default();
        for (route, counts) in &day.routes {
            of_day.add(counts);
            routes.entry(route).or_default().add(counts);
        }
        all.add(&of_day);
        days.push(json!({ "date": date, "requests": of_day.sum(), "by_status": of_day }));
    }
    let last_used = usage.values().map(|day| day.last_used).max();
    let by_route = routes
        .iter()
        .map(|(route, counts)| ((*route).to_owned(), json!({ "requests": counts.sum(), "by_status": counts })));
    json!({
        "id": id,
        "requests": all.sum(),
        "last_used": last_used.map(time),
        "by_status": all,
        "by_route": Value::Object(by_route.collect()),
        "days": days,
    })
}

/// RFC 3339 in whole seconds.
fn time(seconds: u64) -> String {
    let time = jiff::Timestamp::try_from(from_seconds(seconds)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.0}")
}
