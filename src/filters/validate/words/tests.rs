use serde_json::json;

use super::*;

/// What a value of a schema is told.
fn told(schema: &Value, value: &Value) -> String {
    let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    let told = validator.iter_errors(value).map(|error| expected(&error, false)).collect::<Vec<_>>();
    told.join("; ")
}

#[test]
fn every_keyword_is_told_in_words() {
    let cases = [
        (json!({"type": "string"}), json!(1), "a string"),
        (json!({"type": "integer"}), json!(1.5), "an integer"),
        (json!({"type": "object"}), json!([]), "an object"),
        (json!({"type": ["integer", "null"]}), json!("x"), "an integer or null"),
        (json!({"type": ["boolean", "array"]}), json!("x"), "a boolean or a list"),
        (json!({"required": ["a"]}), json!({}), "it to be there: it is required"),
        (json!({"pattern": "^[0-9a-f]{40}$"}), json!("x"), "a string of the pattern ^[0-9a-f]{40}$"),
        (json!({"enum": ["a", 2, null]}), json!("x"), "one of \"a\", 2, null"),
        (json!({"enum": ["a"]}), json!("x"), "\"a\""),
        (json!({"const": {"a": 1}}), json!("x"), "{\"a\":1}"),
        (json!({"minimum": 1}), json!(0), "a number of at least 1"),
        (json!({"maximum": 100.5}), json!(101), "a number of at most 100.5"),
        (json!({"exclusiveMinimum": 1}), json!(1), "a number above 1"),
        (json!({"exclusiveMaximum": 1}), json!(1), "a number below 1"),
        (json!({"multipleOf": 5}), json!(7), "a multiple of 5"),
        (json!({"minLength": 2}), json!("x"), "a string of at least 2 characters"),
        (json!({"maxLength": 1}), json!("xx"), "a string of at most 1 character"),
        (json!({"minItems": 1}), json!([]), "a list of at least 1 item"),
        (json!({"maxItems": 2}), json!([1, 2, 3]), "a list of at most 2 items"),
        (json!({"uniqueItems": true}), json!([1, 1]), "a list of items that all differ"),
        (json!({"contains": {"type": "string"}}), json!([1]), "a list with items such as the schema wants"),
        (json!({"prefixItems": [true], "items": false}), json!([1, 2]), "nothing to be there"),
        (json!({"minProperties": 1}), json!({}), "an object of at least 1 member"),
        (json!({"maxProperties": 0}), json!({"a": 1}), "an object of at most 0 members"),
        (json!({"additionalProperties": false}), json!({"a": 1}), "no member of this name"),
        (json!({"properties": {"a": false}}), json!({"a": 1}), "nothing to be there"),
        (json!({"unevaluatedProperties": false}), json!({"a": 1}), "no member of this name"),
        (json!({"dependentRequired": {"a": ["b"]}}), json!({"a": 1}), "it to be there: it is required"),
        (
            json!({"propertyNames": {"maxLength": 1}}),
            json!({"ab": 1}),
            "members whose names are each a string of at most 1 character",
        ),
        (json!({"format": "email"}), json!("x"), "a string of the format email"),
        (json!({"not": {"type": "null"}}), json!(null), "something that the schema does not exclude"),
        (json!({"anyOf": [{"type": "string"}, {"type": "integer"}]}), json!(null), "a string or an integer"),
        (json!({"oneOf": [{"const": 1}, {"const": 2}]}), json!(3), "1 or 2"),
        (
            json!({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({}),
            "one of the forms that the schema lists",
        ),
        (json!({"oneOf": [true, true]}), json!(3), "exactly one of the forms that the schema lists, not several"),
        (json!({"oneOf": [{"required": ["a"]}]}), json!({}), "exactly one of the forms that the schema lists"),
        (json!({"if": true, "then": {"minimum": 2}}), json!(1), "a number of at least 2"),
    ];
    let differing = cases.iter().filter(|(schema, value, words)| told(schema, value) != *words);
    let differing: Vec<String> =
        differing.map(|(schema, value, _)| format!("{schema}: {}", told(schema, value))).collect();
    assert!(differing.is_empty(), "{differing:#?}");
}

#[test]
fn long_texts_of_a_schema_are_shortened() {
    let pattern = format!("^{}$", "a".repeat(200));
    let words = told(&json!({ "pattern": pattern }), &json!("x"));
    assert!(
        words.ends_with('…') && words.chars().count() == "a string of the pattern ".len() + QUOTED_CHARS_MAX,
        "{words}"
    );
    let options: Vec<Value> = (0..1000).map(|number| json!(format!("option-{number}"))).collect();
    let words = told(&json!({ "enum": options }), &json!("x"));
    assert!(words.starts_with("one of \"option-0\", ") && words.ends_with(", …"), "{words}");
    assert!(words.chars().count() < LIST_CHARS_MAX + 50, "{words}");
}

#[test]
fn values_of_a_schema_are_kept_back_when_the_field_is_secret() {
    for schema in [json!({"const": "hunter2"}), json!({"enum": ["hunter2", "b"]})] {
        let validator = jsonschema::validator_for(&schema).unwrap();
        assert_eq!(expected(&validator.validate(&json!("x")).unwrap_err(), true), "an allowed value");
    }
}

#[test]
fn cutting_counts_characters() {
    assert_eq!((cut("ééé", 3).as_str(), cut("éééé", 3).as_str()), ("ééé", "éé…"));
    assert_eq!((counted(1, "item"), counted(0, "item")), ("1 item".to_owned(), "0 items".to_owned()));
}
