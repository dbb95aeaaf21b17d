use super::*;

fn error(text: &str) -> String {
    PathPattern::parse(text).map(|pattern| pattern.to_string()).expect_err(text)
}

fn shapes(text: &str) -> Vec<String> {
    let pattern = PathPattern::parse(text).unwrap();
    let show = |step: &Step| match step {
        Step::Literal(text) => format!("/{text}"),
        Step::Parameter => "/{}".to_owned(),
    };
    let text =
        |shape: Shape<'_>| shape.steps.iter().map(show).collect::<String>() + if shape.rest { "/**" } else { "" };
    pattern.shapes().map(text).collect()
}

#[test]
fn each_form_has_its_shapes() {
    assert_eq!(shapes("/"), [""]);
    assert_eq!(shapes("/a/b"), ["/a/b"]);
    assert_eq!(shapes("/a/b/"), ["/a/b"]);
    assert_eq!(shapes("/a/{x}/c"), ["/a/{}/c"]);
    assert_eq!(shapes("/a/{x?}"), ["/a/{}", "/a"]);
    assert_eq!(shapes("/{x?}/"), ["/{}", ""]);
    assert_eq!(shapes("/a/{*x}"), ["/a/**"]);
    assert_eq!(shapes("/{*x}"), ["/**"]);
    assert_eq!(shapes("/a*/b:c"), ["/a*/b:c"]);
}

#[test]
fn parameters_are_named_from_left_to_right() {
    let pattern = PathPattern::parse("/{b}/x/{_a1}/{*rest}").unwrap();
    assert_eq!(pattern.parameters(), ["b", "_a1", "rest"].map(Box::<str>::from));
    assert_eq!(pattern.to_string(), "/{b}/x/{_a1}/{*rest}");
    assert!(!pattern.ends_with_slash());
    assert!(PathPattern::parse("/a/").unwrap().ends_with_slash());
}

#[test]
fn each_mistake_has_a_hint() {
    let cases = [
        ("tasks", "write `/tasks`"),
        ("", "write `/`"),
        ("/a{id}", "takes a whole segment: split `a{id}`"),
        ("/{id}.json", "takes a whole segment"),
        ("/{a}{b}", "a segment holds one parameter"),
        ("/{a", "takes a whole segment"),
        ("/a}", "takes a whole segment"),
        ("/{a/b}", "takes a whole segment"),
        ("/{a?}/b", "optional parameter comes last, and `b` follows"),
        ("/{a?}/{b?}", "optional parameter comes last, and `{b?}` follows"),
        ("/{*a}/b", "takes the rest of the path, and `b` follows"),
        ("/{*a}/", "leave out the `/`"),
        ("/{*a?}", "drop the `?`"),
        ("/{a}/{a}", "two parameters are called `a`"),
        ("/{a}/{*a}", "two parameters are called `a`"),
        ("/{}", "needs a name"),
        ("/{*}", "needs a name"),
        ("/{?}", "needs a name"),
        ("/{1a}", "`1a` is no parameter name"),
        ("/{a-b}", "`a-b` is no parameter name"),
        ("/{ä}", "`ä` is no parameter name"),
        ("/a?b=1", "holds no query"),
        ("/a/*", "write `{*rest}`"),
        ("/a/**", "write `{*rest}`"),
        ("/a/:id", "write `{id}`"),
        ("//a", "write `/a`"),
        ("/a/../b", "write `/b`"),
        ("/%61/%c3", "write `/a/%C3`"),
        ("/a//{id}", "write `/a/{id}`"),
        ("/a%2fb", "encoded slash"),
        ("/a b", "must be percent-encoded"),
        ("/../a", "above the root"),
    ];
    for (text, hint) in cases {
        let error = error(text);
        assert!(error.contains(hint), "{text}: {error}");
    }
}

#[test]
fn segments_are_bounded() {
    assert!(PathPattern::parse(&"/a".repeat(SEGMENTS_MAX)).is_ok());
    assert!(error(&"/a".repeat(SEGMENTS_MAX + 1)).contains("257 segments are more than the 256 allowed"));
}

#[test]
fn hosts_are_exact_or_wildcard_in_lower_case() {
    for (text, shown, suffix) in [
        ("api.example.com", "api.example.com", None),
        ("API.Example.com", "api.example.com", None),
        ("localhost", "localhost", None),
        ("127.0.0.1", "127.0.0.1", None),
        ("[::1]", "[::1]", None),
        ("*.Example.com", "*.example.com", Some("example.com")),
        ("*.com", "*.com", Some("com")),
    ] {
        let host = HostPattern::parse(text).unwrap();
        assert_eq!((host.to_string().as_str(), host.suffix()), (shown, suffix));
    }
}

#[test]
fn each_host_mistake_has_a_hint() {
    let long_label = format!("{}.com", "a".repeat(64));
    let long_name = ["a".repeat(63).as_str(); 4].join(".");
    let cases = [
        ("*", "leave out `hosts`"),
        ("a.com:8080", "write `a.com`"),
        ("[::1]:80", "write `[::1]`"),
        ("https://a.com", "write `a.com`"),
        ("a.com/x", "write `a.com`"),
        ("a.com.", "write `a.com`"),
        ("a.*.com", "only as the whole first label"),
        ("*a.com", "only as the whole first label"),
        ("*.*.com", "only as the whole first label"),
        ("", "1 to 63 bytes"),
        ("a..com", "1 to 63 bytes"),
        ("*.", "without a dot at its end"),
        ("ä.com", "`xn--`"),
        ("a b.com", "` ` cannot stand"),
        (&long_label, "1 to 63 bytes"),
        (&long_name, "at most 253 bytes, this one has 255"),
    ];
    for (text, hint) in cases {
        let error = HostPattern::parse(text).map(|host| host.to_string()).expect_err(text);
        assert!(error.contains(hint), "{text}: {error}");
    }
    let longest = format!("{}.{}", ["a".repeat(63).as_str(); 3].join("."), "a".repeat(61));
    assert!(HostPattern::parse(&longest).is_ok());
}
