use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(text: &str) -> Result<Value, Fault> {
    parse(text.as_bytes(), 4)
}

fn is_syntax(text: &[u8]) -> bool {
    matches!(parse(text, 4), Err(Fault::Syntax { .. }))
}

#[test]
fn values_are_read_as_they_are() {
    for text in [
        r#"{"a":[1,-2,0.5,true,null,"é"],"b":{}}"#,
        "7",
        "\"x\"",
        " [ ] ",
        "18446744073709551615",
        "-9223372036854775808",
    ] {
        assert_eq!(read(text).unwrap(), serde_json::from_str::<Value>(text).unwrap(), "{text}");
    }
}

#[test]
fn depth_counts_lists_and_objects_around_each_other() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(read(&nested(4)).is_ok());
    assert_eq!(read(&nested(5)), Err(Fault::TooDeep));
    assert_eq!(read(r#"[{"a":[{"b":[]}]}]"#), Err(Fault::TooDeep));
    assert!(read(r#"[[],[],[[]],"[[[[[["]"#).is_ok(), "beside each other, and in a string");
    assert!(parse(nested(DEPTH_MAX).as_bytes(), usize::MAX).is_ok());
    assert_eq!(parse(nested(DEPTH_MAX + 1).as_bytes(), usize::MAX), Err(Fault::TooDeep));
    // Refused where it gets too deep, not at its end: the stack is never used.
    assert_eq!(parse("[".repeat(1_000_000).as_bytes(), 32), Err(Fault::TooDeep));
}

#[test]
fn a_member_that_is_there_twice_is_found_wherever_it_is() {
    let member = |name: &str| Segment::Member(name.to_owned());
    assert_eq!(read(r#"{"a":1,"a":1}"#), Err(Fault::Twice(vec![member("a")])));
    assert_eq!(read(r#"{"a":1,"\u0061":2}"#), Err(Fault::Twice(vec![member("a")])), "written in another way");
    let deep = read(r#"{"a":[0,{"b":{"c":1,"d":2,"c":3}}]}"#);
    assert_eq!(deep, Err(Fault::Twice(vec![member("a"), Segment::Item(1), member("b"), member("c")])));
    assert!(read(r#"[{"a":1},{"a":1}]"#).is_ok());
    assert!(read(r#"{"a":1,"A":1}"#).is_ok());
}

#[test]
fn what_is_no_json_is_refused() {
    for text in [
        "",
        " ",
        "nul",
        "NaN",
        "Infinity",
        "-Infinity",
        "+1",
        "01",
        ".5",
        "1.",
        "'a'",
        "{a:1}",
        "[1,]",
        "{\"a\":1,}",
        "[1] x",
        "{}{}",
        "1 2",
        "// c\n1",
        "\u{feff}{}",
        "\"\n\"",
        "\"\\ud800\"",
        "\"\\x\"",
        "\"a",
        "[1",
        "1e999",
        "-1e400",
    ] {
        assert!(is_syntax(text.as_bytes()), "{text}");
    }
    assert!(is_syntax(b"\"\xff\""));
    assert!(is_syntax(b"\"\xed\xa0\x80\""), "a surrogate in UTF-8");
    assert!(is_syntax(b"\"\xc0\x80\""), "an overlong form");
    assert!(is_syntax(b"{}\0"));
    assert_eq!(read("{\n  \"a\": x}"), Err(Fault::Syntax { line: 2, column: 8 }));
}

#[test]
fn numbers_end_somewhere_and_take_no_time() {
    assert_eq!(read("18446744073709551616").unwrap(), json!(18446744073709551616.0));
    assert_eq!(read("1e308").unwrap(), json!(1e308));
    assert_eq!(read("1e-999999999999999999999").unwrap(), json!(0.0));
    assert!(is_syntax(b"1e999999999999999999999"));
    let digits = "1".repeat(1_000_000);
    assert!(is_syntax(digits.as_bytes()), "above what a float holds");
    assert!(read(&format!("0.{digits}")).is_ok());
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-c]{0,2}", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    /// What it takes is what `serde_json` reads, whatever comes.
    #[test]
    fn it_agrees_with_serde_json(text in r#"[\[\]{}:,"ab01e.\-\\u ]{0,40}"#) {
        match (parse(text.as_bytes(), 100), serde_json::from_str::<Value>(&text)) {
            (Ok(own), Ok(known)) => prop_assert_eq!(own, known),
            (Err(Fault::Syntax { .. }), Err(_)) | (Err(Fault::Twice(_)), _) => {}
            (own, known) => prop_assert!(false, "{:?} and {:?}", own, known),
        }
    }

    #[test]
    fn every_value_comes_back(value in value()) {
        prop_assert_eq!(parse(value.to_string().as_bytes(), 100).unwrap(), value);
    }
}
