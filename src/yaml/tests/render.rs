use super::*;
use proptest::prelude::*;

fn rendered(text: &str, line: u32, column: u32) -> String {
    let (sources, file) = sources(text);
    sources.render(&Problem::new(Place { file, line, column }, "wrong"))
}

/// The line as it is shown.
fn shown(text: &str, line: u32) -> String {
    rendered(text, line, 1).lines().nth(1).unwrap().split_once(" | ").unwrap().1.to_owned()
}

#[test]
fn a_problem_shows_its_line_a_caret_and_a_hint() {
    let (mut sources, file) = sources("a: 1\nroutes:\n  - rate_limits: { per: consumer }\n");
    let other = sources.add("other.yaml", "");
    let problem = Problem::new(Place { file, line: 3, column: 5 }, "unknown filter `rate_limits`")
        .with_hint("did you mean `rate_limit`?")
        .with_related("first defined", Place { file: other, line: 3, column: 5 });
    assert_eq!(
        sources.render(&problem),
        "gateway.yaml:3:5: unknown filter `rate_limits`\n   3 |   - rate_limits: { per: consumer }\n     |     ^^^^^^^^^^^\n   \
         first defined at other.yaml:3:5\n   hint: did you mean `rate_limit`?"
    );
    assert_eq!(
        serde_json::to_value(sources.report(&problem)).unwrap(),
        serde_json::json!({
            "file": "gateway.yaml", "line": 3, "column": 5,
            "message": "unknown filter `rate_limits`; first defined at other.yaml:3:5",
            "hint": "did you mean `rate_limit`?",
        })
    );
}

#[test]
fn places_outside_the_text_are_harmless() {
    assert_eq!(rendered("a: 1\n", 9, 9), "gateway.yaml:9:9: wrong");
    assert_eq!(rendered("a: 1", 1, 99), "gateway.yaml:1:99: wrong\n   1 | a: 1\n     |     ^");
    assert_eq!(Sources::new().render(&Problem::new(Place::UNKNOWN, "wrong")), "(built in): wrong");
}

#[test]
fn the_caret_stays_below_its_text() {
    assert_eq!(
        rendered("日本: [é, xyz]", 1, 9),
        "gateway.yaml:1:9: wrong\n   1 | 日本: [é, xyz]\n     |           ^^^"
    );
    assert_eq!(rendered("a:\tbc", 1, 4), "gateway.yaml:1:4: wrong\n   1 | a:    bc\n     |       ^^");
    assert_eq!(rendered("a: \u{1b}[m x", 1, 7), "gateway.yaml:1:7: wrong\n   1 | a: \\u{1b}[m x\n     |            ^");
    assert_eq!(rendered("a: \"b c\", d", 1, 4), "gateway.yaml:1:4: wrong\n   1 | a: \"b c\", d\n     |    ^^^^^");
    assert_eq!(rendered("a: 1\r\nbc: 2\r\n", 2, 1), "gateway.yaml:2:1: wrong\n   2 | bc: 2\n     | ^^");
}

#[test]
fn long_lines_are_cropped_round_the_caret() {
    let text = format!("{}: {}", "x".repeat(500), "y".repeat(500));
    let out = rendered(&text, 1, 503);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines.iter().all(|line| line.chars().count() <= 170), "{out}");
    let caret = lines[2].find('^').unwrap();
    assert_eq!(lines[1].chars().nth(caret), Some('y'));
    assert_eq!(lines[1].chars().nth(caret - 1), Some(' '));
}

#[test]
fn credentials_are_hidden() {
    for (line, expected) in [
        ("password: hunter2", "password: …"),
        ("jwt: { SecretKey: hunter2, algorithms: [HS256] }", "jwt: { SecretKey: …, algorithms: [HS256] }"),
        ("secrets: [hunter2, \"hunter2\"] # hunter2", "secrets: […, …] …"),
        ("a: { tokens: { x: hunter2, y: [hunter2] }, b: shown }", "a: { tokens: { x: …, y: […] }, b: shown }"),
        ("\"api_key\": hunter2 hunter2", "\"api_key\": …"),
        ("- { \"hmac\":\"hunter2\", id: 7 }", "- { \"hmac\":…, id: 7 }"),
        ("secret: \"${JWT_SECRET}\"", "secret: \"${JWT_SECRET}\""),
        ("secret: ${file:/run/secrets/x}", "secret: ${file:/run/secrets/x}"),
        ("secret: ${JWT_SECRET:-hunter2}", "secret: …"),
        ("state: { redis: \"redis://me:hunter2@cache:6379\" }", "state: { redis: \"redis://…@cache:6379\" }"),
        ("secret: 'hunter2", "secret: …"),
        ("path: /api/{id?}", "path: /api/{id?}"),
    ] {
        assert_eq!(shown(line, 1), expected);
        assert!(!rendered(line, 1, 10).contains("hunter2"), "{line}");
    }
}

#[test]
fn what_stands_below_a_credential_is_hidden() {
    assert_eq!(shown("secrets:\n  - hunter2\n", 2), "  - …");
    assert_eq!(shown("secrets:\n- shown\n- hunter2\n", 3), "- …");
    assert_eq!(shown("a:\n  secret: |\n    first\n    hunter2\n  b: shown\n", 4), "    …");
    assert_eq!(shown("a:\n  secret: |\n    first\n    hunter2\n  b: shown\n", 5), "  b: shown");
    assert_eq!(shown("secrets:\n  main: hunter2\n", 2), "  main: …");
    assert_eq!(shown("secrets: [\n  x,\n  hunter2 ]\n", 3), "  …]");
    assert_eq!(shown("keys:\n  - id: x\n    hash: hunter2\nnext: shown", 3), "    hash: …");
    assert_eq!(shown("keys:\n  - id: x\nnext: shown", 3), "next: shown");
    assert_eq!(shown("a:\n  secret: >\n    hunter2: x\n", 3), "    …: …");
    assert_eq!(shown("secrets:\n  a:\n    b: |\n      hunter2: x\n", 4), "      …: …");
    assert_eq!(shown("password: \"hun\n  ter2\"", 2), "  …");
}

#[test]
fn messages_cannot_forge_lines() {
    let (sources, file) = sources("");
    let problem = Problem::new(Place { file, line: 1, column: 1 }, "a\nb\u{1b}[31m\u{202e}").with_hint("c\rd");
    assert_eq!(sources.render(&problem), "gateway.yaml:1:1: a\\u{a}b\\u{1b}[31m\\u{202e}\n   hint: c\\u{d}d");
}

#[test]
fn slips_are_recognised() {
    let known = ["rate_limit", "require", "cors"];
    assert_eq!(suggest("rate_limits", known), Some("rate_limit"));
    assert_eq!(suggest("Rate-Limit", known), Some("rate_limit"));
    assert_eq!(suggest("cros", known), Some("cors"));
    assert_eq!(suggest("telemetry", known), None);
}

proptest! {
    #[test]
    fn no_line_makes_it_panic(text in "\\PC{0,300}|[a-c :{}\\[\\],'\"#$\\-\\n\\rkey]{0,200}", line in 0..5_u32, column in 0..300_u32) {
        let out = rendered(&text, line, column);
        prop_assert!(out.lines().count() <= 3);
    }

    #[test]
    fn a_plain_secret_never_shows(before in "[a-z]{1,5}", after in "[ -~]{0,20}", column in 1..40_u32) {
        let text = format!("{before}: {{ the_secret: Xhunter2{after}");
        let out = rendered(&text, 1, column);
        prop_assert!(!out.contains("hunter2"), "{}", out);
    }
}
