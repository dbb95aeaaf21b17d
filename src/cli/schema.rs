//! `tollgate schema`: the JSON Schema of the configuration, generated from the types the loader uses.
//!
//! Draft 7, which every editor's YAML support reads. What the types leave open is filled in from the registries: the
//! entries of a list of filters, and the handler of a route.

mod reference;

use std::process::ExitCode;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::print;
use crate::config::{Fragment, Root, Split};
use crate::filters::FILTERS;
use crate::handlers::HANDLERS;

pub fn schema(fragment: bool) -> ExitCode {
    let schema = if fragment { fragment_schema() } else { root_schema() };
    print(&format!("{schema:#}\n"));
    ExitCode::SUCCESS
}

/// The schema of `gateway.yaml`.
pub fn root_schema() -> Value {
    generate::<Root>("gateway.yaml of Tollgate")
}

/// The schema of an included file.
pub fn fragment_schema() -> Value {
    generate::<Fragment>("an included file of Tollgate")
}

fn generate<T: JsonSchema>(title: &str) -> Value {
    let mut generator = SchemaSettings::draft07().into_generator();
    let mut root = T::json_schema(&mut generator).to_value();
    let filter = filter(&mut generator);
    let handlers = handlers(&mut generator);
    let mut definitions = generator.take_definitions(true);
    definitions.insert("Filter".to_owned(), filter);
    if let Some(route) = definitions.get_mut("Route") {
        add_handlers(route, handlers);
    }
    let list = json!({ "type": "array", "items": { "$ref": "#/definitions/Filter" } });
    set_list(&mut root, "/properties/chains/additionalProperties", &list);
    for name in ["Defaults", "Route"] {
        if let Some(holder) = definitions.get_mut(name) {
            set_list(holder, "/properties/filters", &list);
        }
    }
    settle(&mut root);
    definitions.values_mut().for_each(settle);
    reference::allow(&mut root);
    definitions.values_mut().for_each(reference::allow);
    definitions.insert(reference::NAME.to_owned(), reference::definition());
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), "http://json-schema.org/draft-07/schema#".into());
    schema.insert("title".to_owned(), title.into());
    if let Value::Object(root) = root {
        schema.extend(root.into_iter().filter(|(key, _)| key != "title" && key != "$schema"));
    }
    schema.insert("definitions".to_owned(), Value::Object(definitions));
    Value::Object(schema)
}

/// Replaces the schema at `pointer`, keeping what it says about itself.
fn set_list(holder: &mut Value, pointer: &str, list: &Value) {
    if let (Some(Value::Object(place)), Value::Object(list)) = (holder.pointer_mut(pointer), list) {
        place.extend(list.clone());
    }
}

/// One entry of a list of filters.
fn filter(generator: &mut SchemaGenerator) -> Value {
    let mut forms = vec![entry("use", "The filters of a named chain, in its place.", &json!({ "type": "string" }))];
    let mut bare = Vec::new();
    for row in FILTERS {
        let settings = (row.schema)(generator).to_value();
        let settings = if may_be_empty(&settings, generator) {
            bare.push(Value::from(row.name));
            json!({ "anyOf": [settings, { "type": "null" }] })
        } else {
            settings
        };
        forms.push(entry(row.name, row.summary, &settings));
    }
    if !bare.is_empty() {
        forms.push(json!({ "description": "A filter with its default settings.", "enum": bare }));
    }
    json!({ "description": "`name: settings`, or just `name`.", "oneOf": forms })
}

/// A map with this one key.
fn entry(name: &str, summary: &str, settings: &Value) -> Value {
    json!({
        "type": "object",
        "description": summary,
        "properties": { name: settings },
        "required": [name],
        "additionalProperties": false,
    })
}

/// Whether a map without entries fits: no key is required.
fn may_be_empty(settings: &Value, generator: &SchemaGenerator) -> bool {
    let name = settings.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    let schema = name.and_then(|name| generator.definitions().get(name)).unwrap_or(settings);
    let required = schema.get("required").and_then(Value::as_array).is_some_and(|required| !required.is_empty());
    schema.get("type").and_then(Value::as_str) == Some("object") && !required
}

/// The handlers by name, with their settings.
fn handlers(generator: &mut SchemaGenerator) -> Vec<(&'static str, Value)> {
    let split = generator.subschema_for::<Split>().to_value();
    let name = json!({ "type": "string" });
    let upstream = json!({ "description": "Name of the upstream that answers, or several with their shares.", "anyOf": [name, split] });
    let mut handlers = vec![("upstream", upstream)];
    for row in HANDLERS {
        let settings = (row.schema)(generator).to_value();
        let mut forms = vec![settings];
        if forms.iter().all(|settings| may_be_empty(settings, generator)) {
            forms.push(json!({ "type": "null" }));
        }
        handlers.push((row.name, json!({ "description": row.summary, "anyOf": forms })));
    }
    handlers
}

/// Exactly one of the handlers.
fn add_handlers(route: &mut Value, handlers: Vec<(&'static str, Value)>) {
    let Some(route) = route.as_object_mut() else { return };
    let choices: Vec<Value> = handlers.iter().map(|(name, _)| json!({ "required": [name] })).collect();
    route.insert("oneOf".to_owned(), choices.into());
    if let Some(properties) = route.get_mut("properties").and_then(Value::as_object_mut) {
        properties.extend(handlers.into_iter().map(|(name, schema)| (name.to_owned(), schema)));
    }
}

/// The loader refuses unknown keys wherever it knows the keys. Draft 7 ignores what stands beside a `$ref`, so that goes
/// into an `allOf`. Links of the source's documentation are plain text here.
fn settle(schema: &mut Value) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(settle),
        Value::Object(object) => {
            if object.get("properties").is_some_and(Value::is_object) {
                object.entry("additionalProperties").or_insert(Value::Bool(false));
            }
            if object.len() > 1
                && let Some(Value::String(path)) = object.remove("$ref")
            {
                object.insert("allOf".to_owned(), json!([{ "$ref": path }]));
            }
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = text.replace("[`", "`").replace("`]", "`");
            }
            object.values_mut().for_each(settle);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
