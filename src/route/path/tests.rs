use proptest::prelude::*;

use super::*;

fn normal(raw: &str) -> String {
    normalise(raw).unwrap_or_else(|error| panic!("{raw}: {error}")).into_owned()
}

fn refused(raw: &str) -> PathError {
    normalise(raw).expect_err(raw)
}

#[test]
fn a_normal_path_is_borrowed() {
    let plain = [
        "/",
        "/a",
        "/a/",
        "/a/b.c/~d_e-f",
        "/!$&'()*+,;=:@",
        "/.well-known/x",
        "/...",
        "/..a/.b",
        "/a..",
        "/a;x=..",
        "/.%20",
        "/%20%25%C3%A4%3B",
    ];
    for raw in plain {
        assert!(matches!(normalise(raw), Ok(Cow::Borrowed(text)) if text == raw), "{raw}");
    }
}

#[test]
fn unreserved_is_decoded_and_hex_is_raised() {
    assert_eq!(normal("/%41%7a%30%2D%2e%5f%7E"), "/Az0-._~");
    assert_eq!(normal("/%c3%a4"), "/%C3%A4");
    // Reserved characters mean something else once they are decoded.
    assert_eq!(normal("/%3f%23%3a%40%20%3b"), "/%3F%23%3A%40%20%3B");
}

#[test]
fn decoding_happens_once() {
    assert_eq!(normal("/%2541"), "/%2541");
    assert_eq!(normal("/%252f%252e%252e"), "/%252f%252e%252e");
}

#[test]
fn dot_segments_are_resolved() {
    let cases = [
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("/a/..", "/"),
        ("/.", "/"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a/%2e./b", "/b"),
        ("/a/%2e/b", "/a/b"),
        ("/a/.../b", "/a/.../b"),
        ("/a/b/../../c", "/c"),
    ];
    for (raw, wanted) in cases {
        assert_eq!(normal(raw), wanted, "{raw}");
    }
}

#[test]
fn above_the_root_is_refused_and_just_below_is_not() {
    assert_eq!(normal("/a/b/../.."), "/");
    for raw in ["/..", "/a/../..", "/%2e%2e/a", "//../a", "/./.."] {
        assert_eq!(refused(raw), PathError::AboveRoot, "{raw}");
    }
}

#[test]
fn empty_segments_are_merged_before_dots_are_resolved() {
    assert_eq!(normal("//"), "/");
    assert_eq!(normal("/a//b///c//"), "/a/b/c/");
    assert_eq!(normal("/a//../b"), "/b");
}

#[test]
fn what_has_no_single_reading_is_refused() {
    use PathError::*;
    let cases = [
        ("", NotAbsolute),
        ("*", NotAbsolute),
        ("a/b", NotAbsolute),
        ("http://a/b", NotAbsolute),
        ("/a%2fb", EncodedSlash),
        ("/a%2F", EncodedSlash),
        ("/a%5cb", Backslash),
        ("/a%5C", Backslash),
        ("/a\\b", Backslash),
        ("/%00", EncodedControl),
        ("/a%0d%0a", EncodedControl),
        ("/%1F", EncodedControl),
        ("/%7f", EncodedControl),
        ("/%", BadEscape),
        ("/%4", BadEscape),
        ("/%4/1", BadEscape),
        ("/%zz", BadEscape),
        ("/%+1", BadEscape),
        ("/a#b", Fragment),
        ("/a?b", BadCharacter),
        ("/a b", BadCharacter),
        ("/a\tb", BadCharacter),
        ("/a\0", BadCharacter),
        ("/\u{7f}", BadCharacter),
        ("/ä", BadCharacter),
        ("/..;x/a", DotParameter),
        ("/a/.;/b", DotParameter),
        ("/a/..;", DotParameter),
        ("/a/%2e%2e;x", DotParameter),
        ("/a/..%3bx", DotParameter),
        ("/a/..%3Bx", DotParameter),
        ("/a/.%3B", DotParameter),
    ];
    for (raw, wanted) in cases {
        assert_eq!(refused(raw), wanted, "{raw}");
    }
    for character in "\"<>[]^`{|}".chars() {
        assert_eq!(refused(&format!("/a{character}b")), BadCharacter, "{character}");
    }
}

#[test]
fn neighbours_of_the_control_characters_stay() {
    assert_eq!(normal("/%20%80"), "/%20%80");
    assert_eq!(normal("/%7e"), "/~");
    assert_eq!(normal("/...;x"), "/...;x");
}

#[test]
fn what_a_segment_that_vanishes_holds_is_checked_too() {
    assert_eq!(refused("/a%00/../b"), PathError::EncodedControl);
}

#[test]
fn a_pattern_keeps_its_braces() {
    assert_eq!(normalise_pattern("/a/{id?}").as_deref(), Ok("/a/{id?}"));
    assert_eq!(normalise_pattern("//%61/{*x}").as_deref(), Ok("/a/{*x}"));
    assert_eq!(normalise_pattern("/a|b"), Err(PathError::BadCharacter));
}

#[test]
fn messages_are_stable() {
    assert_eq!(PathError::EncodedSlash.to_string(), "the path holds an encoded slash (`%2F`)");
    assert_eq!(PathError::AboveRoot.to_string(), "the path leads above the root with `..`");
}

/// Texts rich in what the normaliser cares about.
fn raw_path() -> impl Strategy<Value = String> {
    let pieces = [
        "/", "/", "/", ".", "..", "a", "B", "~", ";", "%", "%2e", "%2E", "%41", "%7e", "%25", "%3b", "%3B", "%c3",
        "%A4", "%2f", "%5c", "%00", "%7F", "\\", "#", "?", " ", "ä", "|", "2", "e", "f", "5",
    ];
    proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..12)
        .prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn normalising_twice_changes_nothing(raw in raw_path()) {
        if let Ok(once) = normalise(&raw) {
            prop_assert!(matches!(normalise(&once), Ok(Cow::Borrowed(twice)) if twice == once), "{raw} -> {once}");
        }
    }

    #[test]
    fn the_result_is_a_safe_path(raw in raw_path()) {
        if let Ok(path) = normalise(&raw) {
            prop_assert!(crate::head::is_path(&path), "{path}");
            prop_assert!(path.len() <= raw.len());
            prop_assert!(!path.contains("//"), "{path}");
            prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{path}");
            let upper = path.to_ascii_uppercase();
            prop_assert!(["%2F", "%5C", "%00", "%2E", "%7F"].iter().all(|bad| !upper.contains(bad)), "{path}");
        }
    }

    #[test]
    fn the_fast_path_is_exactly_what_the_slow_path_leaves_alone(raw in raw_path()) {
        prop_assert_eq!(is_normal(raw.as_bytes(), b""), rewrite(&raw, b"").as_deref() == Ok(raw.as_str()));
    }

    #[test]
    fn no_text_panics(raw in ".*") {
        let _ = normalise(&raw);
    }
}
