use super::*;
use proptest::prelude::*;

/// The tree as compact text: `place=value`.
fn outline(node: &Node) -> String {
    let value = match &node.kind {
        Kind::Null => "null".to_owned(),
        Kind::Bool(value) => value.to_string(),
        Kind::Int(value) => value.to_string(),
        Kind::Float(value) => format!("{value:?}"),
        Kind::Str(text) => format!("{:?}", text.text),
        Kind::Seq(items) => format!("[{}]", items.iter().map(outline).collect::<Vec<_>>().join(" ")),
        Kind::Map(entries) => {
            let entry = |entry: &Entry| {
                format!(
                    "{}@{}:{} {}",
                    entry.key.text,
                    entry.key.place.line,
                    entry.key.place.column,
                    outline(&entry.value)
                )
            };
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(" "))
        }
    };
    format!("{}:{}={value}", node.place.line, node.place.column)
}

#[test]
fn places_nest() {
    assert_eq!(
        outline(&tree("a:\n  - b: 1\n    c: 'x'\n  -\nd: {e: [2.5, true]}\n")),
        "1:1={a@1:1 2:3=[2:5={b@2:5 2:8=1 c@3:5 3:8=\"x\"} 4:4=null] d@5:1 5:4={e@5:5 5:8=[5:9=2.5 5:14=true]}}"
    );
}

#[test]
fn nothing_is_coerced() {
    let items = tree("[yes, on, No, 012, 1_000, 12:30, 0x1f, '30', ~, 1e3, TRUE]");
    let kinds: Vec<String> = items.items().iter().map(|item| format!("{:?}", item.kind)).collect();
    assert_eq!(
        kinds.join(" "),
        "Str(\"yes\") Str(\"on\") Str(\"No\") Str(\"012\") Str(\"1_000\") Str(\"12:30\") Int(31) Str(\"30\") Null \
         Float(1000.0) Bool(true)"
    );
}

#[test]
fn an_empty_file_is_null() {
    for text in ["", "\n", "# nothing\n", "---\n", "\u{feff}", "---\n...\n"] {
        assert!(tree(text).is_null(), "{text:?}");
    }
}

#[test]
fn every_duplicate_is_reported_with_both_places() {
    let (sources, file) = sources("a: 1\na: 2\nb: {x: 1, x: 2}\na: 3\n");
    let problems = parse(&sources, file).unwrap_err();
    assert_eq!(brief(&problems), ["2:1 duplicate key `a`", "3:11 duplicate key `x`", "4:1 duplicate key `a`"]);
    let first: Vec<(u32, u32)> =
        problems.iter().map(|p| p.related.as_ref().unwrap().place).map(|p| (p.line, p.column)).collect();
    assert_eq!(first, [(1, 1), (3, 5), (1, 1)]);
}

#[test]
fn merges_apply_and_what_is_written_wins() {
    let root = tree("base: &b {p: 1, q: 2}\nmore: &m {q: 7, r: 8}\nu:\n  <<: [*b, *m]\n  p: 3\nv:\n  <<: *b\n");
    let merged = root.get("u").unwrap();
    let pairs: Vec<String> = merged.entries().iter().map(|e| format!("{}={:?}", e.key.text, e.value.kind)).collect();
    assert_eq!(pairs, ["p=Int(3)", "q=Int(2)", "r=Int(8)"]);
    assert_eq!(root.get("v").unwrap().entries().len(), 2);
}

#[test]
fn duplicates_are_told_from_merged_keys() {
    assert_eq!(parse_problems("b: &b {p: 1}\nu:\n  <<: *b\n  p: 2\n  p: 3\n"), ["5:3 duplicate key `p`"]);
    assert_eq!(parse_problems("b: &b {p: 1}\nu:\n  <<: *b\n  <<: *b\n"), ["4:3 duplicate key `<<`"]);
    assert_eq!(
        parse_problems("u:\n  <<: 3\n"),
        ["2:7 `<<` merges a map or a list of maps | write `<<: *anchor`, where `&anchor` marks a map"]
    );
}

#[test]
fn keys_are_strings() {
    assert_eq!(
        parse_problems("1: a\ntrue: b\n~: c\n[x]: d\n\"2\": e\n"),
        [
            "1:1 a key must be a string | quote it",
            "2:1 a key must be a string | quote it",
            "3:1 a key must be a string | quote it",
            "4:1 a key must be a string, not a list or a map",
        ]
    );
}

#[test]
fn tags_are_refused() {
    for text in ["a: !!str 30", "a: !x 1", "a: !!int \"3\"", "a: !!str &k 30", "a: &k !!str 30", "[!!str 1]", "a: ! 3"]
    {
        let problems = parse_problems(text);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert!(problems[0].contains("tags are not allowed"), "{text}: {problems:?}");
    }
    assert_eq!(tree("a: '! x'\nb: x !y\nc: [w !x, z]\n").entries().len(), 3);
}

#[test]
fn syntax_errors_are_one_line_with_a_place() {
    assert_eq!(
        parse_problems("a:\n\tb: 1\n"),
        ["2:2 not valid YAML: tabs disallowed within this context (block indentation) | indent with spaces"]
    );
    assert_eq!(
        parse_problems("a: 1\n---\nb: 2\n"),
        ["3:1 a second YAML document in one file | give each document its own file"]
    );
    assert_eq!(parse_problems("a: [1, 2\n"), ["1:4 not valid YAML: unclosed bracket '['"]);
    assert_eq!(parse_problems("a: *nope\n"), ["1:4 not valid YAML: alias references unknown anchor"]);
    assert!(parse_problems("a: {b: ${C}}\n")[0].contains("quote values such as"));
    assert_eq!(parse_problems("a: &x [*x]\n").len(), 1);
}

#[test]
fn numbers_that_no_integer_holds_are_refused() {
    assert_eq!(
        tree("a: 9223372036854775807").get("a").map(|n| format!("{:?}", n.kind)).unwrap(),
        format!("Int({})", i64::MAX)
    );
    for text in ["9223372036854775808", "99999999999999999999", "-9223372036854775809"] {
        assert!(parse_problems(&format!("a: {text}"))[0].starts_with("1:4 the number is out of range"), "{text}");
    }
    assert_eq!(parse_problems("a: .inf").len(), 1);
    assert_eq!(parse_problems("a: .nan").len(), 1);
}

#[test]
fn line_breaks_marks_and_wide_characters_keep_the_places() {
    assert_eq!(
        outline(&tree("\u{feff}a: 1\r\nключ: [é, 日, x]\r\n")),
        "1:1={a@1:1 1:4=1 ключ@2:1 2:7=[2:8=\"é\" 2:11=\"日\" 2:14=\"x\"]}"
    );
}

#[test]
fn bombs_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let below = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", [below.as_str(); 9].join(", "));
    }
    assert_eq!(parse_problems(&bomb).len(), 1);

    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    tree(&nested(60));
    assert_eq!(parse_problems(&nested(70)).len(), 1);
    assert_eq!(parse_problems(&nested(100_000)).len(), 1);
    assert!(parse_problems(&"#".repeat(16 * 1024 * 1024 + 1))[0].contains("at most 16777216 are read"));
    assert!(tree(&"#".repeat(16 * 1024 * 1024)).is_null());
}

#[test]
fn one_anchor_may_serve_many() {
    let text = format!("base: &b {{p: 1}}\nlist:\n{}", "  - {<<: *b, q: 2}\n".repeat(5_000));
    assert_eq!(tree(&text).get("list").unwrap().items().len(), 5_000);
}

#[test]
fn many_keys_are_checked_in_linear_time() {
    let mut text = String::new();
    for index in 0..20_000 {
        text += &format!("k{index}: 1\n");
    }
    text += "k7: 2\n";
    assert_eq!(parse_problems(&text), ["20001:1 duplicate key `k7`"]);
}

#[test]
fn very_many_problems_are_cut_short() {
    let problems = parse_problems(&"a: 1\n".repeat(1_000));
    assert_eq!(problems.len(), 201);
    assert!(problems[200].contains("there may be more problems"));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,80}|[-a-c0-3:{}\\[\\],&*!|>'\"#$ \\n\\t<~]{0,60}") {
        let (sources, file) = sources(&text);
        match parse(&sources, file) {
            Ok(node) => {
                if let Ok(node) = interpolate(&node, &Known::default()) {
                    let _ = decode::<Node>(&node);
                    let _ = decode::<HashMap<String, Vec<u8>>>(&node);
                }
            }
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                for problem in &problems {
                    prop_assert!(sources.render(problem).starts_with("gateway.yaml:"));
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let (sources, file) = sources(&String::from_utf8_lossy(&bytes));
        let _ = parse(&sources, file);
    }
}
