use super::*;
use crate::types::{Period, Size};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "decoded, never read")]
struct Gateway {
    bind: String,
    #[serde(default)]
    timeout: Option<Period>,
    #[serde(default)]
    routes: Vec<Located<Route>>,
    #[serde(default)]
    upstreams: BTreeMap<String, Upstream>,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "decoded, never read")]
struct Route {
    name: String,
    #[serde(default)]
    weight: u8,
    #[serde(default)]
    handler: Option<Handler>,
    #[serde(rename = "$rest", default)]
    rest: Rest,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "decoded, never read")]
struct Upstream {
    size: Size,
    targets: Vec<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Handler {
    Inbox,
    Respond(u16),
    Redirect { to: String },
}

#[test]
fn all_mistakes_are_reported_in_one_go() {
    let text = "\
bindd: x
timeout: 30
routes:
  - { name: 7, weight: 300 }
  - { weight: 1 }
  - name: ok
    handler: { redirekt: { to: / } }
  - name: ok
    handler: { redirect: { too: / } }
upstreams:
  a: { size: 3, targets: none }
  b: { targets: [1, x, 2] }
  c:
  d: []
";
    assert_eq!(
        decode_problems::<Gateway>(text),
        [
            "1:1 unknown key `bindd` | did you mean `bind`?",
            "2:10 expected a duration such as 30s, found the number 30 | the unit is never optional",
            "4:13 expected a string, found the number 7 | quote it",
            "4:24 expected a whole number from 0 to 255, found the number 300",
            "5:5 missing key `name`",
            "7:16 unknown name `redirekt` | did you mean `redirect`?",
            "9:28 unknown key `too` | did you mean `to`?",
            "11:14 expected a size such as 1MiB, found the number 3 | the unit is never optional",
            "11:26 expected a list, found a string | write `[…]`, or one line with `- ` for each element",
            "12:6 missing key `size`",
            "12:18 expected a string, found the number 1 | quote it",
            "12:24 expected a string, found the number 2 | quote it",
            "13:4 expected a map, found nothing | remove the key, or write `{}` for an empty map",
            "14:6 expected a map, found a list",
        ]
    );
}

#[test]
fn right_values_decode() {
    let text =
        "bind: x\ntimeout: 30s\nroutes:\n- name: a\n  handler: inbox\n  strip: {x: 1}\n  weight: 2\n  \"$rest\": 3\n";
    let gateway: Gateway = decoded(text);
    assert_eq!(gateway.timeout.unwrap().to_string(), "30s");
    let route = &gateway.routes[0];
    assert_eq!((route.place.line, route.place.column, route.weight), (4, 3, 2));
    assert_eq!(route.handler, Some(Handler::Inbox));
    let rest: Vec<(&str, u32)> = route.rest.iter().map(|(key, _)| (key.as_str(), key.place.line)).collect();
    assert_eq!(rest, [("strip", 6), ("$rest", 8)]);
    assert_eq!(decode::<BTreeMap<String, u8>>(&route.rest[0].1).unwrap()["x"], 1);
}

#[test]
fn an_empty_file_only_lacks_keys() {
    assert_eq!(decode_problems::<Gateway>(""), ["1:1 missing key `bind`"]);
    assert!(decoded::<BTreeMap<String, u8>>("# nothing").is_empty());
    assert_eq!(decoded::<Option<u8>>(""), None);
}

#[test]
fn all_missing_keys_are_reported() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "decoded, never read")]
    struct Many {
        name: String,
        weight: u8,
        tags: Vec<String>,
        size: Size,
        last: bool,
    }
    let list = "- {}\n- { name: x, weight: 2, tags: [], last: true }\n- { weight: x }\n";
    let expected = [
        "1:3 missing key `name`",
        "1:3 missing key `weight`",
        "1:3 missing key `tags`",
        "1:3 missing key `size`",
        "2:3 missing key `size`",
        "3:3 missing key `name`",
        "3:3 missing key `tags`",
        "3:3 missing key `size`",
        "3:13 expected a whole number, 0 or more, found a string",
    ];
    assert_eq!(decode_problems::<Vec<Many>>(list), expected);
    assert_eq!(decode_problems::<Many>("").len(), 4);
}

#[test]
fn enums_are_a_name_or_one_key() {
    assert_eq!(decoded::<Handler>("inbox"), Handler::Inbox);
    assert_eq!(decoded::<Handler>("{ inbox: }"), Handler::Inbox);
    assert_eq!(decoded::<Handler>("{ respond: 204 }"), Handler::Respond(204));
    assert_eq!(decoded::<Handler>("{ redirect: { to: / } }"), Handler::Redirect { to: "/".to_owned() });
    for (text, expected) in [
        ("respond", "1:1 `respond` needs settings | write `respond: …`"),
        ("{ inbox: 3 }", "1:10 `inbox` takes no settings"),
        (
            "{ inbox: , respond: 3 }",
            "1:12 expected `name` or `{ name: settings }`, found 2 keys | one of these names: `inbox`, `respond`, `redirect`",
        ),
        (
            "{}",
            "1:1 expected `name` or `{ name: settings }`, found 0 keys | one of these names: `inbox`, `respond`, `redirect`",
        ),
        ("{ zzzzz: 3 }", "1:3 unknown name `zzzzz` | known names: `inbox`, `respond`, `redirect`"),
        (
            "3",
            "1:1 expected a name, or a map from one name to its settings, found the number 3 | known names: `inbox`, `respond`, `redirect`",
        ),
        ("{ respond: x }", "1:12 expected a whole number, 0 or more, found a string"),
        ("{ redirect: [/] }", "1:13 expected a map, found a list"),
    ] {
        assert_eq!(decode_problems::<Handler>(text), [expected]);
    }
}

#[test]
fn numbers_and_strings_are_kept_apart() {
    assert_eq!(decode_problems::<u8>("256"), ["1:1 expected a whole number from 0 to 255, found the number 256"]);
    assert_eq!(decode_problems::<u8>("-1"), ["1:1 expected a whole number from 0 to 255, found the number -1"]);
    assert_eq!((decoded::<u8>("255"), decoded::<i8>("-128"), decoded::<u64>("7")), (255, -128, 7));
    assert_eq!(
        decode_problems::<u8>("'30'"),
        ["1:1 expected a whole number, 0 or more, found a string | remove the quotes"]
    );
    assert_eq!(decode_problems::<i8>("1.0"), ["1:1 expected a whole number, found the number 1"]);
    assert_eq!(decode_problems::<String>("true"), ["1:1 expected a string, found `true` | quote it"]);
    assert_eq!(decode_problems::<bool>("yes"), ["1:1 expected `true` or `false`, found a string | write `true`"]);
    assert_eq!(
        decode_problems::<bool>("'false'"),
        ["1:1 expected `true` or `false`, found a string | write it in lower case, without quotes"]
    );
    assert_eq!(decode_problems::<bool>("maybe"), ["1:1 expected `true` or `false`, found a string"]);
    assert_eq!(
        decode_problems::<Period>("30"),
        ["1:1 expected a duration such as 30s, found the number 30 | the unit is never optional"]
    );
    assert_eq!(decode_problems::<Period>("[]"), ["1:1 expected a duration such as 30s, found a list"]);
    assert_eq!(decoded::<f64>("3"), 3.0);
    assert_eq!(decode_problems::<(u8, u8)>("[1, 2, 3]"), ["1:1 expected a list of 2 elements, found 3"]);
    assert_eq!(decode_problems::<std::num::NonZeroU8>("0"), ["1:1 expected a nonzero u8, found the number 0"]);
    assert_eq!(decode_problems::<Period>("'30'"), ["1:1 `30` has no unit | write 30s, 250ms, 5m or 24h"]);
}

#[test]
fn a_consequence_is_not_reported() {
    #[derive(Debug, Deserialize)]
    #[serde(try_from = "Pair")]
    struct Ordered;
    #[derive(Debug, Deserialize)]
    struct Pair {
        #[serde(default)]
        low: u8,
        #[serde(default)]
        high: u8,
    }
    impl TryFrom<Pair> for Ordered {
        type Error = String;
        fn try_from(pair: Pair) -> Result<Self, String> {
            if pair.low < pair.high { Ok(Self) } else { Err("`low` is not below `high`".to_owned()) }
        }
    }
    assert_eq!(decode_problems::<Vec<Ordered>>("- {low: 2, high: 1}"), ["1:3 `low` is not below `high`"]);
    assert_eq!(
        decode_problems::<Vec<Ordered>>("- {low: 2, high: x}\n- {low: 2, high: 1}"),
        ["1:18 expected a whole number, 0 or more, found a string", "2:3 `low` is not below `high`"]
    );
    assert_eq!(
        decode_problems::<Vec<(u8, u8)>>("- [1, x]\n- [y, 1]"),
        [
            "1:7 expected a whole number, 0 or more, found a string",
            "2:4 expected a whole number, 0 or more, found a string"
        ]
    );
}

#[test]
fn an_aliased_mistake_is_reported_once() {
    let text = "- &a {size: 1, targets: []}\n- *a\n- *a\n";
    assert_eq!(
        decode_problems::<Vec<Upstream>>(text),
        ["1:13 expected a size such as 1MiB, found the number 1 | the unit is never optional"]
    );
}

#[test]
fn very_many_mistakes_are_cut_short() {
    let problems = decode_problems::<Vec<u8>>(&"- x\n".repeat(1_000));
    assert_eq!(problems.len(), 201);
    assert_eq!(decode_problems::<Vec<u8>>(&"- x\n".repeat(199)).len(), 199);
}

#[test]
fn located_and_raw_values_only_come_from_here() {
    assert!(serde_json::from_str::<Located<u8>>("1").is_err());
    assert!(serde_json::from_str::<Node>("1").is_err());
    let nodes: Vec<Option<Node>> = decoded("[1, ~, [2]]");
    assert!(nodes[1].is_none() && nodes[2].as_ref().unwrap().items().len() == 1);
    let key: BTreeMap<String, Located<Vec<Located<u8>>>> = decoded("a: [1,\n 2]");
    assert_eq!((key["a"].place.column, key["a"][1].place.line, *key["a"][1]), (4, 2, 2));
}

#[test]
fn located_is_transparent_in_the_schema() {
    let plain = serde_json::to_value(schemars::schema_for!(Vec<Period>)).unwrap();
    let located = serde_json::to_value(schemars::schema_for!(Vec<Located<Period>>)).unwrap();
    assert_eq!(plain["items"], located["items"]);
}

#[test]
#[ignore = "a measurement: run it with --release"]
fn ten_thousand_routes_load_quickly() {
    let mut text = "bind: x\nroutes:\n".to_owned();
    for index in 0..10_000 {
        text += &format!(
            "  - name: svc{index}.read\n    match: {{ methods: [GET], path: \"/api/v1/svc{index}/{{id?}}\" }}\n    \
             filters:\n      - use: api\n      - require: {{ scopes: [read:svc] }}\n    upstream: ${{U:-svc{index}}}\n"
        );
    }
    let start = crate::clock::now();
    let parsed = tree(&text);
    let parse = start.elapsed();
    let node = interpolate(&parsed, &Known::default()).unwrap();
    let gateway: Gateway = decode(&node).unwrap();
    assert_eq!(gateway.routes.len(), 10_000);
    println!("{} bytes: parse {parse:?}, all {:?}", text.len(), start.elapsed());
    assert!(start.elapsed().as_millis() < 500);
}

#[test]
fn a_missing_value_with_a_place_does_not_hide_what_else_is_missing() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "decoded, never read")]
    struct Root {
        version: Located<u32>,
        listeners: Vec<Located<String>>,
    }
    assert_eq!(decode_problems::<Root>(""), ["1:1 missing key `version`", "1:1 missing key `listeners`"]);
}
