//! Bodies of requests, read strictly: what is not known is refused, and every refusal says which member and why.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::header;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, json};

use super::Refused;
use crate::head::RequestHead;
use crate::identity::managed::seconds;
use crate::identity::{SCOPES_MAX, StoredRates, parse_time, scope_problem};
use crate::reply::{Code, Rejection};
use crate::types::Period;
use crate::yaml::{Located, Place};

/// Longest text of a value that is given back, in characters.
const SHOWN_CHARS_MAX: usize = 100;
const NAME_BYTES_MAX: usize = 128;
const DESCRIPTION_BYTES_MAX: usize = 1024;
const ROLES_MAX: usize = 16;

/// The members of a JSON object that nobody asked for yet, in their order.
#[derive(Debug)]
pub struct Members(Vec<(String, Value)>);

impl Members {
    /// Reads a body that must be there.
    pub fn read(request: &dyn RequestHead, body: &[u8]) -> Result<Self, Refused> {
        let media_type = request.text(&header::CONTENT_TYPE).unwrap_or_default();
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        // Forms of other sites can send any other type without being asked.
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(invalid("Content-Type", &json!(media_type), "application/json"));
        }
        let members: Self = serde_json::from_slice(body).map_err(|error| {
            let place = format!("a JSON object; {}", reason(&error));
            invalid("body", &Value::Null, &place)
        })?;
        let mut names: Vec<&str> = members.0.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let twice = names.iter().zip(names.iter().skip(1)).find(|(one, next)| one == next);
        match twice {
            Some((name, _)) => Err(invalid(name, &Value::Null, "to be there once")),
            None => Ok(members),
        }
    }

    /// Reads a body that may be empty.
    pub fn read_optional(request: &dyn RequestHead, body: &[u8]) -> Result<Self, Refused> {
        if body.is_empty() { Ok(Self(Vec::new())) } else { Self::read(request, body) }
    }

    /// The value of a member, if it is there. `parse` gives what was expected instead.
    pub fn optional<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Result<Option<T>, Refused> {
        let Some(at) = self.0.iter().position(|(own, _)| own == name) else { return Ok(None) };
        let (_, value) = self.0.remove(at);
        parse(&value).map(Some).map_err(|expected| invalid(name, &value, &expected))
    }

    pub fn required<T>(&mut self, name: &str, parse: impl FnOnce(&Value) -> Result<T, String>) -> Result<T, Refused> {
        self.optional(name, parse)?.ok_or_else(|| invalid(name, &Value::Null, "to be there"))
    }

    /// Refuses what nobody asked for.
    pub fn end(self) -> Result<(), Refused> {
        match self.0.first() {
            Some((name, value)) => Err(invalid(name, value, "no such member")),
            None => Ok(()),
        }
    }
}

/// 400, with the member that is wrong.
pub fn invalid(field: &str, value: &Value, expected: &str) -> Refused {
    let shown: String = field.chars().take(SHOWN_CHARS_MAX).collect();
    let rejection = Rejection::new(Code::VALIDATION_ERROR, format!("`{shown}` is not valid: expected {expected}"));
    let rejection = rejection.with_detail("field", shown).with_detail("value", short(value));
    Box::new(rejection.with_detail("expected", expected))
}

/// A value to give back: large ones are not.
fn short(value: &Value) -> Value {
    match value {
        Value::String(text) => text.chars().take(SHOWN_CHARS_MAX).collect::<String>().into(),
        Value::Array(_) | Value::Object(_) => Value::Null,
        plain => plain.clone(),
    }
}

/// What the parser says, without what was sent.
fn reason(error: &serde_json::Error) -> String {
    format!("found a mistake at line {}, column {}", error.line(), error.column())
}

pub fn name(value: &Value) -> Result<String, String> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let name =
        value.as_str().filter(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(sound));
    name.map(str::to_owned).ok_or_else(|| format!("1 to {NAME_BYTES_MAX} letters, digits, `.`, `_` and `-`"))
}

pub fn description(value: &Value) -> Result<String, String> {
    let text = value.as_str().filter(|text| text.len() <= DESCRIPTION_BYTES_MAX && !text.contains(char::is_control));
    text.map(str::to_owned).ok_or_else(|| format!("a line of at most {DESCRIPTION_BYTES_MAX} bytes"))
}

pub fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "true or false".to_owned())
}

pub fn scopes(value: &Value, allowed: impl Fn(&str) -> bool) -> Result<Vec<String>, String> {
    let scopes = words(value, SCOPES_MAX)?;
    for scope in &scopes {
        if let Some(problem) = scope_problem(&Located::new(scope.clone(), Place::UNKNOWN)) {
            return Err(format!("scopes such as read:tasks; {}", problem.message));
        }
        if !allowed(scope) {
            return Err("scopes that keys may have here".to_owned());
        }
    }
    Ok(scopes)
}

pub fn roles(value: &Value, allowed: impl Fn(&str) -> bool) -> Result<Vec<String>, String> {
    let roles = words(value, ROLES_MAX)?;
    if roles.iter().any(|role| !allowed(role)) {
        return Err("roles that keys may have here".to_owned());
    }
    Ok(roles)
}

/// `null`: none.
pub fn rates(value: &Value) -> Result<Option<StoredRates>, String> {
    if value.is_null() { Ok(None) } else { StoredRates::parse(value).map(Some) }
}

fn words(value: &Value, most: usize) -> Result<Vec<String>, String> {
    let expected = || format!("a list of at most {most} different strings");
    let items = value.as_array().filter(|items| items.len() <= most).ok_or_else(expected)?;
    let words: Option<Vec<String>> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
    let words = words.ok_or_else(expected)?;
    let mut sorted: Vec<&String> = words.iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() < words.len() { Err(expected()) } else { Ok(words) }
}

pub fn period(value: &Value, most: Duration) -> Result<Duration, String> {
    let period = value.as_str().and_then(|text| text.parse::<Period>().ok()).map(|period| period.0);
    let expected = || format!("a duration such as \"90d\", at most \"{}\"", Period(most));
    period.filter(|period| *period <= most).ok_or_else(expected)
}

/// When a key is to end, in seconds since 1970: `expires_in` or `expires_at`.
pub fn expires(members: &mut Members, most: Duration, now: SystemTime) -> Result<Option<u64>, Refused> {
    let latest = seconds(now).saturating_add(most.as_secs());
    let within = members.optional("expires_in", |value| {
        period(value, most).and_then(|period| {
            if period.as_secs() == 0 { Err("a duration of a second or more".to_owned()) } else { Ok(period) }
        })
    })?;
    let at = members.optional("expires_at", |value| {
        let time = value.as_str().and_then(parse_time).map(seconds);
        let expected = || format!("a time to come such as \"2027-01-01T00:00:00Z\", at most {} from now", Period(most));
        time.filter(|time| *time > seconds(now) && *time <= latest).ok_or_else(expected)
    })?;
    match (within, at) {
        (Some(_), Some(_)) => Err(invalid("expires_at", &Value::Null, "`expires_in` or `expires_at`, not both")),
        (Some(within), None) => Ok(Some(seconds(now).saturating_add(within.as_secs()))),
        (None, at) => Ok(at),
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    /// Keeps a name that is there twice twice, where a map would keep the last.
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Members, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}
