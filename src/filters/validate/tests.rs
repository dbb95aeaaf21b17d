use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::contract::testing::{context, filter, refused, request, step};
use crate::head::Method;

const TRACK: &str = r#"{ body: { type: object, required: [commit_hash], additionalProperties: false,
    properties: { commit_hash: { type: string, pattern: "^[0-9a-f]{40}$" }, items: { type: array, items: { required: [id], properties: { id: { type: integer } } } },
    password: { type: string, minLength: 8 } } } }"#;
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

fn body_filter(settings: &str) -> Arc<dyn BodyFilter> {
    match step::<ValidateSettings>(settings) {
        Ok(Step::Body(filter)) => filter,
        Ok(_) => panic!("it does not look at the body"),
        Err(problems) => panic!("{problems:#?}"),
    }
}

/// Code and details of the refusal, if it is one.
fn sent(settings: &str, fields: &[(&str, &str)], body: &[u8]) -> Option<(&'static str, Value)> {
    let mut request = request(Method::POST, "/?a=1", fields);
    outcome(body_filter(settings).preview(&mut request, &Bytes::copy_from_slice(body), &mut context()))
}

fn outcome(verdict: Verdict) -> Option<(&'static str, Value)> {
    match verdict {
        Verdict::Continue => None,
        Verdict::Reject(rejection) => Some((rejection.code.name, Value::Object(rejection.details))),
        Verdict::Reply(reply) => panic!("{reply:?}"),
    }
}

fn details(body: &Value) -> Value {
    let (code, details) = sent(TRACK, JSON, body.to_string().as_bytes()).unwrap();
    assert_eq!(code, "VALIDATION_ERROR");
    details
}

#[test]
fn a_good_body_passes_and_a_bad_one_is_told_field_value_and_expectation() {
    let good = json!({"commit_hash": "0123456789abcdef0123456789abcdef01234567", "items": [{"id": 1}]});
    assert_eq!(sent(TRACK, JSON, good.to_string().as_bytes()), None);
    let told = details(&json!({"commit_hash": "xyz"}));
    assert_eq!(
        told,
        json!({
            "field": "body.commit_hash", "value": "xyz", "expected": "a string of the pattern ^[0-9a-f]{40}$",
            "errors": [{"field": "body.commit_hash", "value": "xyz", "expected": "a string of the pattern ^[0-9a-f]{40}$"}],
        })
    );
}

#[test]
fn every_mistake_is_listed_with_its_place() {
    let told = details(&json!({"items": [{"id": 1}, {"id": "x"}, {}], "a b": [1, 2], "password": "short"}));
    let errors: Vec<(&str, &Value)> = told["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["field"].as_str().unwrap(), &error["value"]))
        .collect();
    assert_eq!(errors.len(), 5, "{told}");
    for expected in [
        ("body.commit_hash", json!(null)),
        ("body.items[1].id", json!("x")),
        ("body.items[2].id", json!(null)),
        ("body[\"a b\"]", json!("(a list of 2 items)")),
        ("body.password", json!("[redacted]")),
    ] {
        assert!(errors.contains(&(expected.0, &expected.1)), "{expected:?} in {told}");
    }
    assert!(!told.to_string().contains("short"));
}

#[test]
fn what_is_given_back_is_bounded() {
    let told = details(&json!({"commit_hash": "x".repeat(10_000)}));
    assert_eq!(told["value"].as_str().unwrap().chars().count(), 200);
    let items: Vec<Value> = (0..900).map(|_| json!("x")).collect();
    let told =
        sent("{ body: { items: { type: integer } } }", JSON, Value::from(items).to_string().as_bytes()).unwrap().1;
    assert_eq!(told["errors"].as_array().unwrap().len(), 10);
    let name = "n".repeat(10_000);
    let told = details(&json!({"commit_hash": "0".repeat(40), name: 1}));
    assert_eq!(told["field"].as_str().unwrap().chars().count(), 200);
}

#[test]
fn a_member_too_many_is_named_even_where_none_is_allowed() {
    for settings in [
        "{ body: { additionalProperties: false } }",
        "{ body: { properties: { a: true }, additionalProperties: false } }",
    ] {
        let (_, told) = sent(settings, JSON, br#"{"extra": 1}"#).unwrap();
        assert_eq!((&told["field"], &told["value"]), (&json!("body.extra"), &json!(1)), "{settings}");
        assert_eq!(told["expected"], "no member of this name");
    }
}

/// All mistakes of a large body at once would take hundreds of times its size.
#[test]
fn of_a_large_body_one_mistake_is_told() {
    let items: Vec<Value> = (0..5000).map(|_| json!("x")).collect();
    let body = Value::from(items).to_string();
    let told = sent("{ body: { items: { type: integer } } }", JSON, body.as_bytes()).unwrap().1;
    assert_eq!((told["field"].as_str(), told["errors"].as_array().map(Vec::len)), (Some("body[0]"), Some(1)));
    let tries = "{ body: { items: { anyOf: [{ type: integer }, { type: 'null' }] } } }";
    let told = sent(tries, JSON, body.as_bytes()).unwrap().1;
    assert_eq!(told["field"], "body");
    assert!(told["expected"].as_str().unwrap().contains("too large to say"), "{told}");
    assert_eq!(sent(tries, JSON, format!("[{}1]", "1,".repeat(5000)).as_bytes()), None);
}

#[test]
fn strict_json_is_asked_for_even_where_any_is_taken() {
    assert_eq!(sent("{ body: true }", JSON, b"[1, {\"a\": null}]"), None);
    for (body, field, words) in [
        (&b"{\"a\": 1,\n \"a\": 2}"[..], "body.a", "it to be there once"),
        (b"{\"a\": }", "body", "valid JSON; this one has a mistake at line 1, column 7"),
        (b"\xff", "body", "valid JSON; this one has a mistake at line 1, column 1"),
        (b"NaN", "body", "valid JSON; this one has a mistake at line 1, column 1"),
        (b"", "body", "it to be there: it is required"),
    ] {
        let (code, told) = sent("{ body: true }", JSON, body).unwrap();
        assert_eq!(
            (code, told["field"].as_str(), told["expected"].as_str()),
            ("VALIDATION_ERROR", Some(field), Some(words))
        );
        assert_eq!(told["value"], Value::Null, "nothing of what was sent");
    }
}

#[test]
fn depth_is_bounded_where_it_is_said() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth)).into_bytes();
    assert_eq!(sent("{ body: true }", JSON, &nested(32)), None);
    let (_, told) = sent("{ body: true }", JSON, &nested(33)).unwrap();
    assert_eq!(told["expected"], "lists and objects nested at most 32 deep");
    assert_eq!(sent("{ body: true, depth_max: 1 }", JSON, &nested(1)), None);
    assert!(sent("{ body: true, depth_max: 1 }", JSON, &nested(2)).is_some());
    assert_eq!(sent("{ body: true, depth_max: 100 }", JSON, &nested(100)), None);
}

#[test]
fn what_the_head_decides_needs_no_body() {
    let on_head = |settings: &str, fields: &[(&str, &str)]| {
        let mut request = request(Method::POST, "/?limit=0", fields);
        outcome(body_filter(settings).on_head(&mut request, &mut context())).map(|(code, _)| code)
    };
    let coded = [("content-type", "application/json"), ("content-encoding", "gzip")];
    assert_eq!(on_head("{ body: true }", JSON), None);
    assert_eq!(on_head("{ body: true }", &[("content-type", "text/plain")]), Some("UNSUPPORTED_MEDIA_TYPE"));
    assert_eq!(on_head("{ body: true }", &[("content-length", "5")]), Some("UNSUPPORTED_MEDIA_TYPE"));
    assert_eq!(on_head("{ body: true }", &coded), Some("UNSUPPORTED_MEDIA_TYPE"));
    assert_eq!(
        on_head("{ body: true, query: { limit: { type: integer, minimum: 1 } } }", JSON),
        Some("VALIDATION_ERROR")
    );
    assert_eq!(
        on_head("{ content_type: [image/png] }", &[("content-type", "image/png"), ("content-encoding", "gzip")]),
        None
    );
}

#[test]
fn an_empty_body_needs_no_type_where_it_may_be_empty() {
    assert_eq!(sent("{ body: true, body_required: false }", &[], b""), None);
    assert_eq!(
        sent("{ body: true, body_required: false }", &[("content-length", "0"), ("content-type", "text/plain")], b""),
        None
    );
    assert_eq!(sent("{ body: true, body_required: false }", &[], b"1").unwrap().0, "UNSUPPORTED_MEDIA_TYPE");
    assert_eq!(sent("{ body_required: true }", &[], b"").unwrap().0, "VALIDATION_ERROR");
    assert_eq!(sent("{ body_required: true }", &[], b"anything"), None);
}

#[test]
fn only_body_rules_ask_for_a_body() {
    for settings in ["{ query: { a: true } }", "{ path: { id: true } }", "{ query_unknown: refuse }"] {
        assert!(matches!(step::<ValidateSettings>(settings), Ok(Step::Sync(_))), "{settings}");
    }
    assert_eq!(body_filter("{ body_max: 10B }").body_bytes_max(), 10);
    assert_eq!(body_filter("{ body: true }").body_bytes_max(), u64::MAX, "the route's counts");
}

#[test]
fn a_sync_filter_checks_the_head_and_lets_preflights_pass() {
    let filter = filter::<ValidateSettings>("{ query: { limit: { type: integer } }, query_unknown: refuse }");
    let on = |target: &str, preflight: bool| {
        let mut context = context();
        context.preflight = preflight;
        outcome(filter.on_request(&mut request(Method::GET, target, &[]), &mut context))
            .map(|(_, told)| told["field"].clone())
    };
    assert_eq!(on("/?limit=1", false), None);
    assert_eq!(on("/?limit=x", false), Some(json!("query.limit")));
    assert_eq!(on("/?other=1", false), Some(json!("query.other")));
    assert_eq!(on("/?limit=x", true), None);
}

#[test]
fn hidden_names_hide_values_in_a_query_too() {
    let filter = filter::<ValidateSettings>("{ query: { api_key: { maxLength: 3 }, token: { type: integer } } }");
    let verdict =
        filter.on_request(&mut request(Method::GET, "/?api_key=hunter2&token=a&token=hunter2", &[]), &mut context());
    let (_, told) = outcome(verdict).unwrap();
    assert!(!told.to_string().contains("hunter2") && told.to_string().contains("[redacted]"), "{told}");
}

#[test]
fn schemas_may_refer_into_themselves_and_recurse() {
    let tree = "{ body: { $ref: '#/$defs/node', $defs: { node: { type: object, required: [v], properties: { v: { type: integer }, next: { $ref: '#/$defs/node' } } } } } }";
    assert_eq!(sent(tree, JSON, br#"{"v": 1, "next": {"v": 2}}"#), None);
    let (_, told) = sent(tree, JSON, br#"{"v": 1, "next": {"v": "x"}}"#).unwrap();
    assert_eq!(told["field"], "body.next.v");
}

#[test]
fn the_draft_is_that_of_the_schema() {
    let old = "{ body: { $schema: 'http://json-schema.org/draft-07/schema#', items: [{ type: integer }] } }";
    assert_eq!(sent(old, JSON, b"[1, 2]"), None);
    assert!(sent(old, JSON, b"[\"x\"]").is_some(), "a list behind `items` is one of draft 7");
}

#[test]
fn patterns_take_no_time_whatever_is_sent() {
    let settings = "{ body: { pattern: '^(a+)+$' } }";
    let mut body = String::from("\"");
    let _ = write!(body, "{}!\"", "a".repeat(100_000));
    let started = crate::clock::now();
    assert!(sent(settings, JSON, body.as_bytes()).is_some());
    assert!(crate::clock::now().duration_since(started) < Duration::from_secs(20), "backtracking would take ages");
}

#[test]
fn large_numbers_are_compared_and_do_not_hang() {
    let settings = "{ body: { type: integer, maximum: 9007199254740993, multipleOf: 3 } }";
    assert_eq!(sent(settings, JSON, b"9007199254740993"), None);
    assert!(sent(settings, JSON, b"9007199254740996").is_some());
    assert!(sent(settings, JSON, b"1e300").is_some());
    assert!(sent(settings, JSON, b"1e999999999").is_some());
    assert!(sent("{ body: { multipleOf: 0.1 } }", JSON, b"1e-300").is_some());
}

#[test]
fn settings_that_check_nothing_or_cannot_be_are_refused() {
    for (settings, message) in [
        ("{}", "this validates nothing"),
        ("{ path: {} }", "this validates nothing"),
        ("{ body: 7 }", "it is a map, `true` or `false`"),
        ("{ body: text }", "not valid JSON"),
        ("{ body: { file: a.json } }", "write `${file:a.json}`"),
        ("{ body: { type: strin } }", "one of \"array\", \"boolean\""),
        ("{ body: { patern: a } }", "did you mean `pattern`?"),
        ("{ body: { properties: { a: { typ: string } } } }", "did you mean `type`?"),
        ("{ body: { $ref: 'https://example.com/a.json' } }", "`https://example.com/a.json` is somewhere else"),
        ("{ body: { $ref: 'file:///etc/passwd' } }", "is somewhere else"),
        ("{ body: { $ref: other.json } }", "`other.json` is somewhere else"),
        ("{ body: { $ref: '#/$defs/none' } }", "none"),
        ("{ body: { $schema: 'https://example.com/own' } }", "example.com/own"),
        ("{ body: { pattern: '(' } }", "not sound"),
        ("{ body: { pattern: '(?=a)' } }", "not sound"),
        ("{ body: { pattern: '(a)\\1' } }", "not sound"),
        ("{ body: { format: emial } }", "emial"),
        ("{ body: { minimum: x } }", "a number"),
        ("{ depth_max: 3, body_max: 1B }", "nothing to look at"),
        ("{ body: true, depth_max: 0 }", "from 1 to 100, not 0"),
        ("{ body: true, depth_max: 101 }", "from 1 to 100, not 101"),
        ("{ query: { a: { type: nothing } } }", "one of"),
    ] {
        let told = refused::<ValidateSettings>(settings);
        assert!(told.contains(message), "{settings}: {told}");
    }
}

#[test]
fn a_schema_that_only_refers_to_itself_ends() {
    match step::<ValidateSettings>("{ body: { $ref: '#' } }") {
        Ok(_) => assert_eq!(sent("{ body: { $ref: '#' } }", JSON, b"1"), None),
        Err(problems) => assert!(!problems.is_empty()),
    }
}

#[test]
fn own_keywords_and_names_of_members_are_no_keywords() {
    assert_eq!(
        sent(
            "{ body: { x-owner: me, properties: { patern: { type: string } }, examples: [{ typ: 1 }] } }",
            JSON,
            b"{}"
        ),
        None
    );
}
