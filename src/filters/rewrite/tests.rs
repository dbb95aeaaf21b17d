use super::*;
use crate::contract::testing::{context, filter, get, refused};
use proptest::prelude::*;

fn rewritten(settings: &str, target: &str) -> Result<String, String> {
    let mut request = get(target);
    match filter::<RewriteSettings>(settings).on_request(&mut request, &mut context()) {
        Verdict::Continue => Ok(match request.query() {
            Some(query) => format!("{}?{query}", request.path()),
            None => request.path().to_owned(),
        }),
        Verdict::Reject(rejection) => Err(rejection.code.name.to_owned()),
        Verdict::Reply(reply) => panic!("{reply:?}"),
    }
}

#[test]
fn a_prefix_goes_by_whole_segments() {
    let strip = |target| rewritten("{ strip_prefix: /api }", target).unwrap();
    assert_eq!(strip("/api/users?a=1"), "/users?a=1");
    assert_eq!(strip("/api"), "/");
    assert_eq!(strip("/api/"), "/");
    assert_eq!(strip("/apix"), "/apix");
    assert_eq!(strip("/v1/api/x?q"), "/v1/api/x?q");
}

#[test]
fn the_order_is_strip_regex_add() {
    let settings = "{ strip_prefix: /api, regex: { match: '^/users/([0-9]+)', replace: '/p/$1x' }, add_prefix: /v2 }";
    assert_eq!(rewritten(settings, "/api/users/7/a?b").unwrap(), "/v2/p/7x/a?b");
    assert_eq!(rewritten(settings, "/api").unwrap(), "/v2/");
    assert_eq!(rewritten(settings, "/users/7").unwrap(), "/v2/p/7x");
}

#[test]
fn captures_are_numbered_named_or_absent() {
    let settings = r"{ regex: { match: '^/(?<first>a)/(b)?(.*)$', replace: '/$3-$2-$first-$$' } }";
    assert_eq!(rewritten(settings, "/a/c").unwrap(), "/c--a-$");
    let braces = r"{ regex: { match: '^/(?<first>a)', replace: '/${first}b' } }";
    assert_eq!(rewritten(braces, "/a/c").unwrap(), "/ab/c");
}

#[test]
fn a_result_that_is_no_sound_path_is_refused() {
    let bad = |pattern: &str, replace: &str, target: &str| {
        let settings = format!("{{ regex: {{ match: '{pattern}', replace: '{replace}' }} }}");
        assert_eq!(rewritten(&settings, target).unwrap_err(), "BAD_REQUEST", "{pattern} {target}");
    };
    bad("^/(.*)$", "/$1/..", "/a");
    bad("x", ".", "/a/x.");
    bad("^/(.*)$", "//$1", "/evil.example");
    bad("^/a", "", "/a");
    bad("^/a", "", "/ab");
    bad("^/a/", "/", "/a//b");
    bad("^/x%25", "/%", "/x%252F");
    bad("%20", "%4", "/a%201");
    bad("%20", "%", "/a%20");
    bad("^/(.*)$", "/$1%2e", "/a");
    bad("^/(.*)$", "/..;$1", "/a");
}

#[test]
fn a_result_has_at_most_32_kib() {
    let settings = "{ regex: { match: '^/(.*)$', replace: '/$1$1' } }";
    let half = |bytes: usize| format!("/{}", "a".repeat(bytes));
    assert_eq!(rewritten(settings, &half(16_383)).unwrap().len(), 32_767);
    assert_eq!(rewritten(settings, &half(16_384)).unwrap_err(), "BAD_REQUEST");
    assert_eq!(rewritten("{ add_prefix: /v }", &half(32_765)).unwrap().len(), 32_768);
    assert_eq!(rewritten("{ add_prefix: /v }", &half(32_766)).unwrap_err(), "BAD_REQUEST");
}

#[test]
fn the_query_loses_what_is_removed_however_it_is_encoded() {
    let settings = "{ query: { set: { tenant: 'a b&{header.x-n}{path}' }, remove: [debug, 'x y'] } }";
    let target = "/p?debug=1&a=%2B&te%6Eant=evil&x+y=1&tenant&x%20y&&b";
    assert_eq!(rewritten(settings, target).unwrap(), "/p?a=%2B&b&tenant=a%20b%26%2Fp");
    assert_eq!(rewritten("{ query: { remove: [a] } }", "/p?a=1").unwrap(), "/p");
    assert_eq!(rewritten("{ query: { remove: [a] } }", "/p").unwrap(), "/p");
    assert_eq!(
        rewritten("{ query: { set: { 'a b': '{query.q}' } } }", "/p?q=%C3%A4%").unwrap(),
        "/p?q=%C3%A4%&a%20b=%C3%A4%25"
    );
}

#[test]
fn mistakes_are_named() {
    let refused = |settings: &str| refused::<RewriteSettings>(settings);
    for prefix in ["api", "/", "/api/", "/a//b", "/a/../b", "/a b", "/a?b", "/%2f", "/a%2Fb", "/%41", "/.."] {
        assert!(refused(&format!("{{ strip_prefix: '{prefix}' }}")).contains("no prefix"), "{prefix}");
        assert!(refused(&format!("{{ add_prefix: '{prefix}' }}")).contains("no prefix"), "{prefix}");
    }
    assert!(refused("{}").contains("changes nothing"));
    assert!(refused("{ regex: { match: '(', replace: /a } }").contains("unclosed group"));
    assert!(
        refused(r"{ regex: { match: '(\w{100}){100}{100}', replace: /a } }").contains("regular expression is wrong")
    );
    let missing = refused("{ regex: { match: '(?<a>x)(y)', replace: '/$3' } }");
    assert!(missing.contains("no capture `3`; it has `$0`, `$a`, `$2`"), "{missing}");
    assert!(refused("{ regex: { match: x, replace: '/$' } }").contains("`$$`"));
    assert!(refused("{ regex: { match: x, replace: '/a?b=1' } }").contains("changed by `query`"));
    assert!(refused("{ query: { set: { a: '{nope}' } } }").contains("unknown variable"));
}

proptest! {
    /// Whatever is captured and put together: a sound path, or 400.
    #[test]
    fn what_goes_on_is_always_in_its_one_form(path in "/[a/.%25F;B~]{0,12}", replace in "[/.%2$]{0,6}") {
        let replace = format!("/{}$1", replace.replace('$', "${1}"));
        let settings = format!("{{ regex: {{ match: '^/(.*)$', replace: '{replace}' }} }}");
        if let Ok(result) = rewritten(&settings, &path) {
            prop_assert!(!result.contains("//") && result.starts_with('/'), "{result}");
            prop_assert!(result.split('/').all(|segment| segment != "." && segment != ".."), "{result}");
            prop_assert!(!result.contains("%2F") && !result.contains("%2E") && !result.contains("%5C"), "{result}");
        }
    }
}
