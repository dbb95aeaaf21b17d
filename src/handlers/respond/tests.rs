use super::*;
use crate::contract::testing::{context, get, request};
use crate::handlers::testing::{handler, refused};
use crate::head::Method;

fn answer(settings: &str, target: &str) -> Reply {
    handler::<RespondSettings>(settings).answer(&get(target), &context()).unwrap()
}

fn field<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    reply.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.to_str().unwrap())
}

#[test]
fn nothing_given_is_an_empty_200() {
    let reply = answer("{}", "/");
    assert_eq!((reply.status, reply.body.len(), reply.fields.len()), (StatusCode::OK, 0, 0));
}

#[test]
fn a_text_is_rendered_and_a_constant_prepared_once() {
    let reply = answer("{ status: 404, headers: { X-A: '{path}' }, body: 'no {path} {{here}}' }", "/x");
    assert_eq!((reply.status.as_u16(), &*reply.body), (404, &b"no /x {here}"[..]));
    assert_eq!(field(&reply, "x-a"), Some("/x"));
    assert_eq!(field(&reply, "content-type"), Some("text/plain; charset=utf-8"));
    let handler = handler::<RespondSettings>("{ body: fixed }");
    let body = || handler.answer(&get("/"), &context()).unwrap().body;
    assert_eq!(body().as_ptr(), body().as_ptr());
}

#[test]
fn a_yaml_value_becomes_json_with_rendered_strings() {
    let settings = r#"{ json: { "a{b}": '{path} "{query.q}" {{}}', n: [1, 2.5, true, null, []], m: {} } }"#;
    let reply = answer(settings, "/x?q=%22");
    let value: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    let expected = serde_json::json!({ "a{b}": "/x \"%22\" {}", "n": [1, 2.5, true, null, []], "m": {} });
    assert_eq!(value, expected);
    assert_eq!(field(&reply, "content-type"), Some("application/json"));
}

#[test]
fn values_are_escaped_by_content_type() {
    let request = request(Method::GET, "/", &[("x-n", "\"<b>")]);
    let body = |settings: &str| {
        let reply = handler::<RespondSettings>(settings).answer(&request, &context()).unwrap();
        String::from_utf8(reply.body.to_vec()).unwrap()
    };
    assert_eq!(body("{ body: '<i>{header.x-n}</i>', content_type: text/html }"), "<i>&quot;&lt;b&gt;</i>");
    assert_eq!(body("{ body: '<i>{header.x-n}</i>', content_type: Image/SVG+XML }"), "<i>&quot;&lt;b&gt;</i>");
    assert_eq!(body("{ body: '\"{header.x-n}\"', content_type: application/problem+json }"), r#""\"<b>""#);
    assert_eq!(body("{ body: '{header.x-n}' }"), "\"<b>");
    assert_eq!(body("{ json: ['{header.x-n}'] }"), r#"["\"<b>"]"#);
}

#[test]
fn bounds_are_kept() {
    let refused = |settings: &str| refused::<RespondSettings>(settings);
    for status in [200, 599] {
        assert_eq!(answer(&format!("{{ status: {status} }}"), "/").status.as_u16(), status);
    }
    for status in ["199", "600", "101"] {
        assert!(refused(&format!("{{ status: {status} }}")).contains("200 to 599"), "{status}");
    }
    for status in ["204", "205", "304"] {
        assert!(refused(&format!("{{ status: {status}, body: x }}")).contains("has no body"), "{status}");
        assert!(refused(&format!("{{ status: {status}, json: 1 }}")).contains("has no body"), "{status}");
        assert!(answer(&format!("{{ status: {status} }}"), "/").fields.is_empty());
    }
    let body = |bytes: usize| format!("{{ body: '{}' }}", "a".repeat(bytes));
    assert_eq!(answer(&body(BODY_BYTES_MAX), "/").body.len(), BODY_BYTES_MAX);
    assert!(refused(&body(BODY_BYTES_MAX + 1)).contains("too long"));
    let variables = |count: usize| format!("{{ body: '{}' }}", "{path}".repeat(count));
    assert_eq!(answer(&variables(100), "/").body.len(), 100);
    assert!(refused(&variables(101)).contains("101 variables"));
}

#[test]
fn mistakes_are_named() {
    let refused = |settings: &str| refused::<RespondSettings>(settings);
    assert!(refused("{ body: a, json: b }").contains("not both"));
    assert!(refused("{ json: { a: ['{nope}', '{neither}'] } }").contains("{neither}"));
    assert!(refused("{ body: '{nope}' }").contains("unknown variable `{nope}`"));
    assert!(refused("{ headers: { Content-Type: a/b } }").contains("`content_type`"));
    assert!(refused("{ headers: { Content-Length: '1' } }").contains("the gateway writes it"));
    assert!(refused("{ content_type: html, body: a }").contains("no media type"));
    assert!(refused("{ content_type: \"a/b\\nc\", body: a }").contains("no media type"));
}
