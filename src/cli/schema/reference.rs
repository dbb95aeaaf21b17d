//! `${NAME}` in place of a value that is no free text.

use serde_json::{Map, Value, json};

/// The name of the definition.
pub const NAME: &str = "Reference";

/// A text that holds a reference.
pub fn definition() -> Value {
    json!({
        "type": "string",
        "pattern": r"\$\{",
        "description": "${NAME}, ${NAME:-default} or ${file:path}: replaced when the configuration is loaded.",
    })
}

/// Lets a reference stand wherever a number, a boolean or one of some words is wanted.
pub fn allow(schema: &mut Value) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(allow),
        Value::Object(object) if is_scalar(object) => {
            object.remove("format");
            let mut outer = Map::new();
            // What an editor shows belongs to the whole.
            for key in ["title", "description", "default"] {
                outer.extend(object.remove_entry(key));
            }
            let inner = Value::Object(std::mem::take(object));
            outer.insert("anyOf".to_owned(), json!([inner, { "$ref": format!("#/definitions/{NAME}") }]));
            *object = outer;
        }
        Value::Object(object) if is_choice_of_words(object) => {
            if let Some(Value::Array(mut words)) = object.remove("oneOf") {
                words.push(json!({ "$ref": format!("#/definitions/{NAME}") }));
                object.insert("anyOf".to_owned(), words.into());
            }
        }
        Value::Object(object) => {
            // A text that is checked by its format may be a reference too.
            object.remove("format");
            for (key, inner) in object.iter_mut() {
                match (key.as_str(), inner) {
                    // Names of keys, not schemas.
                    ("properties", Value::Object(properties)) => properties.values_mut().for_each(allow),
                    ("required" | "enum" | "const" | "default" | "type", _) => {}
                    (_, inner) => allow(inner),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A number, a boolean, or some words.
fn is_scalar(schema: &Map<String, Value>) -> bool {
    let simple = |kind: &Value| matches!(kind.as_str(), Some("integer" | "number" | "boolean"));
    match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(simple),
        Some(kind) if simple(kind) => true,
        _ => schema.contains_key("enum") || schema.contains_key("const"),
    }
}

/// Words that are described one by one.
fn is_choice_of_words(schema: &Map<String, Value>) -> bool {
    let word = |schema: &Value| {
        schema.as_object().is_some_and(|schema| is_scalar(schema) && !schema.contains_key("properties"))
    };
    schema.get("oneOf").and_then(Value::as_array).is_some_and(|choices| choices.iter().all(word))
}
