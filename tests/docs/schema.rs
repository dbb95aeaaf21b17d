//! As much of JSON Schema (draft 7) as the published schemas use. An unknown keyword fails, so that nothing is skipped.

use regex::Regex;
use serde_json::{Map, Value};
use tollgate::yaml::{Kind, Node};

/// A YAML tree as JSON.
pub fn to_json(node: &Node) -> Value {
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Bool(value) => (*value).into(),
        Kind::Int(value) => (*value).into(),
        Kind::Float(value) => (*value).into(),
        Kind::Str(text) => (&*text.text).into(),
        Kind::Seq(items) => items.iter().map(to_json).collect(),
        Kind::Map(entries) => entries
            .iter()
            .map(|entry| (entry.key.text.to_string(), to_json(&entry.value)))
            .collect::<Map<_, _>>()
            .into(),
    }
}

/// `Err` says where the first mismatch is.
pub fn validate(schema: &Value, document: &Value) -> Result<(), String> {
    check(schema, schema, document, "")
}

fn check(root: &Value, schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let schema = match schema {
        Value::Bool(true) => return Ok(()),
        Value::Object(schema) => schema,
        other => panic!("no schema: {other}"),
    };
    for (keyword, rule) in schema {
        let holds = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "definitions" | "additionalProperties" => true,
            "$ref" => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                check(root, root.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}")), value, path)?;
                true
            }
            "type" => match rule {
                Value::Array(kinds) => kinds.iter().any(|kind| is(value, kind)),
                kind => is(value, kind),
            },
            "enum" => rule.as_array().unwrap().contains(value),
            "const" => rule == value,
            "pattern" => value.as_str().is_none_or(|text| Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)),
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
            "required" => rule
                .as_array()
                .unwrap()
                .iter()
                .all(|key| value.as_object().is_none_or(|object| object.contains_key(key.as_str().unwrap()))),
            "properties" => {
                properties(root, schema, value, path)?;
                true
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{path}/{index}"))?;
                }
                true
            }
            "allOf" => {
                for one in rule.as_array().unwrap() {
                    check(root, one, value, path)?;
                }
                true
            }
            "anyOf" => passing(root, rule, value, path) > 0,
            "oneOf" => passing(root, rule, value, path) == 1,
            other => panic!("the keyword {other} is not known here"),
        };
        if !holds {
            return Err(format!("{path}: {value} does not fit {keyword} {rule}"));
        }
    }
    additional(root, schema, value, path)
}

fn passing(root: &Value, schemas: &Value, value: &Value, path: &str) -> usize {
    schemas.as_array().unwrap().iter().filter(|schema| check(root, schema, value, path).is_ok()).count()
}

fn properties(root: &Value, schema: &Map<String, Value>, value: &Value, path: &str) -> Result<(), String> {
    let Some(object) = value.as_object() else { return Ok(()) };
    for (key, rule) in schema["properties"].as_object().unwrap() {
        if let Some(value) = object.get(key) {
            check(root, rule, value, &format!("{path}/{key}"))?;
        }
    }
    Ok(())
}

/// What `properties` does not name.
fn additional(root: &Value, schema: &Map<String, Value>, value: &Value, path: &str) -> Result<(), String> {
    let (Some(rule), Some(object)) = (schema.get("additionalProperties"), value.as_object()) else { return Ok(()) };
    let known = schema.get("properties").and_then(Value::as_object);
    for (key, value) in object.iter().filter(|(key, _)| known.is_none_or(|known| !known.contains_key(*key))) {
        match rule {
            Value::Bool(false) => return Err(format!("{path}: the key {key} is not allowed")),
            rule => check(root, rule, value, &format!("{path}/{key}"))?,
        }
    }
    Ok(())
}

fn is(value: &Value, kind: &Value) -> bool {
    match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the type {other} is not known here"),
    }
}
