use super::*;
use crate::head::{Headers, Method, RequestBuf};

/// Everything is accepted everywhere.
fn places() -> Places {
    Places {
        bearer: Some(Bearer::Either),
        key_header: Some(HeaderName::from_static("x-api-key")),
        key_query: Some("key".into()),
        token_cookie: Some("session".into()),
        token_query: Some("token".into()),
    }
}

fn request(target: &str, fields: &[(&str, &[u8])]) -> RequestBuf {
    let mut request = RequestBuf::new(Method::GET, target);
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.append(&name, HeaderValue::from_bytes(value).unwrap());
    }
    request
}

/// `-` for nothing, `!` for malformed, otherwise the kind and the value.
fn found(target: &str, fields: &[(&str, &[u8])]) -> String {
    match places().find(&request(target, fields)) {
        Ok(None) => "-".to_owned(),
        Ok(Some(presented)) => {
            format!("{} {}", presented.kind.as_str(), String::from_utf8_lossy(&presented.value))
        }
        Err(_) => "!".to_owned(),
    }
}

fn by_authorization(value: &[u8]) -> String {
    found("/", &[("authorization", value)])
}

#[test]
fn a_bearer_is_one_token_behind_the_scheme() {
    for (value, expected) in [
        (&b"Bearer abc"[..], "api_key abc"),
        (b"bearer abc", "api_key abc"),
        (b"BEARER abc", "api_key abc"),
        (b"bEaReR   abc", "api_key abc"),
        (b"Bearer a.b.c", "jwt a.b.c"),
        (b"Bearer a.b", "api_key a.b"),
        (b"Bearer a.b.c.d", "api_key a.b.c.d"),
        (b"Bearer ..", "jwt .."),
        (b"Bearer abc==", "api_key abc=="),
        (b"Bearer -._~+/", "api_key -._~+/"),
        (b"Bearer", "!"),
        (b"Bearer ", "!"),
        (b"Bearer  ", "!"),
        (b"Bearer =", "!"),
        (b"Bearer a=b", "!"),
        (b"Bearer\tabc", "!"),
        (b"Bearer \tabc", "!"),
        (b"Bearer abc\t", "!"),
        (b"Bearer abc ", "!"),
        (b"Bearer a b", "!"),
        (b"Bearer a,b", "!"),
        (b"Bearer abc, Bearer abc", "!"),
        (b"Bearer abc, Basic eDp5", "!"),
        (b"Basic eDp5, Bearer abc", "!"),
        (b"Basic eDp5,bearer\tabc", "!"),
        (b"Basic eDp5, bearer", "!"),
        (b"Bearer \"abc\"", "!"),
        (b"Bearer:abc", "!"),
        (b"Bearer=abc", "!"),
        (b"Bearer \xc3\xa4", "!"),
        (b"\xc2\xa0Bearer abc", "!"),
        (b"", "!"),
        (b"=", "!"),
        (b"Basic eDp5", "-"),
        (b"Digest username=\"a\", realm=\"b\"", "-"),
        (b"Basic eDp5, Bearerish abc", "-"),
        (b"Bearers abc", "-"),
        (b"Bear abc", "-"),
    ] {
        assert_eq!(by_authorization(value), expected, "{:?}", String::from_utf8_lossy(value));
    }
}

#[test]
fn two_fields_are_malformed_even_when_they_are_equal() {
    assert_eq!(found("/", &[("authorization", b"Bearer abc"), ("authorization", b"Bearer abc")]), "!");
    assert_eq!(found("/", &[("authorization", b"Basic eDp5"), ("authorization", b"Bearer abc")]), "!");
    assert_eq!(found("/", &[("x-api-key", b"abc"), ("x-api-key", b"abc")]), "!");
}

#[test]
fn a_key_is_any_text_within_the_bound() {
    let by_field = |value: &[u8]| found("/", &[("x-api-key", value)]);
    assert_eq!(by_field(b"abc"), "api_key abc");
    assert_eq!(by_field(b"a b, \xc3\xbc\"=;"), "api_key a b, \u{fc}\"=;");
    assert_eq!(by_field(b"a.b.c"), "api_key a.b.c", "only a bearer is told apart by its shape");
    assert_eq!(by_field(b""), "!");
    assert_eq!(by_field(b"a\tb"), "!");
    assert_ne!(by_field(&[b'x'; KEY_BYTES_MAX]), "!");
    assert_eq!(by_field(&[b'x'; KEY_BYTES_MAX + 1]), "!");
}

#[test]
fn a_token_has_a_bound_of_its_own() {
    let token = |length: usize| ["Bearer a.b.", &"c".repeat(length - 4)].concat();
    assert!(by_authorization(token(TOKEN_BYTES_MAX).as_bytes()).starts_with("jwt"));
    assert_eq!(by_authorization(token(TOKEN_BYTES_MAX + 1).as_bytes()), "!");
    let key = ["Bearer ", &"k".repeat(KEY_BYTES_MAX + 1)].concat();
    assert_eq!(by_authorization(key.as_bytes()), "!");
}

#[test]
fn what_bearer_means_is_what_is_accepted() {
    let of = |bearer, value: &'static [u8]| {
        let places = Places { bearer: Some(bearer), ..Places::default() };
        places.find(&request("/", &[("authorization", value)])).map(|found| found.map(|found| found.kind))
    };
    assert_eq!(of(Bearer::Key, b"Bearer a.b.c"), Ok(Some(Kind::ApiKey)));
    assert_eq!(of(Bearer::Token, b"Bearer abc"), Ok(Some(Kind::Jwt)));
    assert_eq!(of(Bearer::Token, b"Bearer"), Err(Malformed { kind: Kind::Jwt, by_bearer: true }));
    assert_eq!(Places::default().find(&request("/", &[("authorization", b"Bearer abc")])), Ok(None));
}

#[test]
fn cookies_are_found_by_their_exact_name_in_all_fields() {
    let by_cookies = |cookies: &[&str]| {
        let fields: Vec<(&str, &[u8])> = cookies.iter().map(|cookie| ("cookie", cookie.as_bytes())).collect();
        found("/", &fields)
    };
    for (cookies, expected) in [
        (&["session=a.b.c"][..], "jwt a.b.c"),
        (&["a=1; session=a.b.c; b=2"], "jwt a.b.c"),
        (&["a=1;session=a.b.c"], "jwt a.b.c"),
        (&["a=1", "session=a.b.c"], "jwt a.b.c"),
        (&["session = a.b.c "], "jwt a.b.c"),
        (&["session=a.b.c=="], "jwt a.b.c=="),
        (&["session=a.b.c; session=a.b.c"], "!"),
        (&["session=a.b.c", "session=a.b.c"], "!"),
        (&["session=a.b.c; session=x"], "!"),
        (&["session="], "!"),
        (&["session"], "!"),
        (&["session=\"a.b.c\""], "!"),
        (&["session=a b"], "!"),
        (&["session=a,b"], "!"),
        (&["Session=a.b.c"], "-"),
        (&["xsession=a.b.c; sessionx=1"], "-"),
        (&["a=session=1"], "-"),
        (&["a=1, session=a.b.c"], "-"),
        (&["", ";;", "="], "-"),
    ] {
        assert_eq!(by_cookies(cookies), expected, "{cookies:?}");
    }
}

#[test]
fn parameters_are_decoded_strictly_and_stand_once() {
    for (target, expected) in [
        ("/?token=a.b.c", "jwt a.b.c"),
        ("/?x=1&token=a.b.c&y", "jwt a.b.c"),
        ("/?t%6Fken=a%2eb%2Ec", "jwt a.b.c"),
        ("/?key=a+b", "api_key a+b"),
        ("/?key=%C3%BC%20", "api_key \u{fc} "),
        ("/?token=a.b.c&token=a.b.c", "!"),
        ("/?token=a.b.c&t%6fken=a.b.c", "!"),
        ("/?token=", "!"),
        ("/?token", "!"),
        ("/?token=%", "!"),
        ("/?token=%4", "!"),
        ("/?token=%+1", "!"),
        ("/?token=a%20b", "!"),
        ("/?key=%00", "!"),
        ("/?key=%0a", "!"),
        ("/?token=a=b", "!"),
        ("/?Token=a.b.c", "-"),
        ("/?tokens=a&xtoken=b&t%6gken=c", "-"),
        ("/?a=1;token=a.b.c", "-"),
        ("/?", "-"),
        ("/", "-"),
    ] {
        assert_eq!(found(target, &[]), expected, "{target}");
    }
}

#[test]
fn one_credential_may_stand_in_several_places_and_two_may_not() {
    assert_eq!(
        found("/?token=a.b.c", &[("authorization", b"Bearer a.b.c"), ("cookie", b"session=a.b.c")]),
        "jwt a.b.c"
    );
    assert_eq!(found("/?key=abc", &[("authorization", b"Bearer abc"), ("x-api-key", b"abc")]), "api_key abc");
    assert_eq!(found("/?token=a.b.d", &[("authorization", b"Bearer a.b.c")]), "!");
    assert_eq!(found("/", &[("authorization", b"Bearer a.b.c"), ("x-api-key", b"abc")]), "!");
    assert_eq!(found("/", &[("authorization", b"Bearer a.b.c"), ("x-api-key", b"a.b.c")]), "!", "of two kinds");
    assert_eq!(
        found("/?token=%", &[("authorization", b"Bearer a.b.c")]),
        "!",
        "a good one does not make up for a bad one"
    );
    assert_eq!(found("/", &[("authorization", b"Basic eDp5"), ("x-api-key", b"abc")]), "api_key abc");
}

#[test]
fn credentials_are_removed_and_the_rest_stays() {
    let mut request = request(
        "/a?x=1&token=a.b.c&y=%20&k%65y=abc&&z",
        &[
            ("authorization", b"Bearer a.b.c"),
            ("x-api-key", b"abc"),
            ("cookie", b"a=1; session=a.b.c;b=2"),
            ("cookie", b" session = x"),
            ("cookie", b"c=3"),
            ("x-other", b"stays"),
        ],
    );
    assert!(places().remove(&mut request));
    let mut left = Vec::new();
    request.all(&mut |name, value| left.push(format!("{name}: {}", String::from_utf8_lossy(value))));
    assert_eq!(left, ["x-other: stays", "cookie: a=1; b=2", "cookie: c=3"]);
    assert_eq!((request.path(), request.query()), ("/a", Some("x=1&y=%20&&z")));
}

#[test]
fn nothing_is_removed_that_is_no_credential() {
    let mut request = request("/a?x=1", &[("authorization", b"Basic eDp5"), ("cookie", b"a=1;b=2")]);
    assert!(places().remove(&mut request));
    assert_eq!(request.get(&AUTHORIZATION), Some(&b"Basic eDp5"[..]));
    assert_eq!(request.get(&COOKIE), Some(&b"a=1;b=2"[..]));
    let mut only = RequestBuf::new(Method::GET, "/a?token=a.b.c");
    assert!(places().remove(&mut only));
    assert_eq!(only.query(), None);
}
