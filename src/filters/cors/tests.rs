use super::*;
use crate::contract::testing::{context, filter, refused, request, values};
use crate::head::{Headers, RequestBuf, ResponseBuf};

const ONE: &str = "{ origins: [https://a.example] }";
const CREDENTIALS: &str = "{ origins: [https://a.example], credentials: true, headers: ['*'], max_age: 1h }";

fn from(origin: &str) -> RequestBuf {
    request(Method::GET, "/", &[("origin", origin)])
}

fn preflight(settings: &str, origin: &str, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut fields = vec![("origin", origin), ("access-control-request-method", "PUT")];
    fields.extend(more);
    let mut request = request(Method::OPTIONS, "/", &fields);
    match filter::<CorsSettings>(settings).on_request(&mut request, &mut context()) {
        Verdict::Reply(reply) => {
            assert_eq!((reply.status, reply.body.len()), (StatusCode::NO_CONTENT, 0));
            let text = |(name, value): &(HeaderName, HeaderValue)| {
                (name.as_str().replace("access-control-", ""), value.to_str().unwrap().to_owned())
            };
            reply.fields.iter().map(text).collect()
        }
        verdict => panic!("{verdict:?}"),
    }
}

fn value<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn answered(settings: &str, request: &RequestBuf, fields: &[(&'static str, &'static str)]) -> ResponseBuf {
    let mut response = ResponseBuf::new(StatusCode::OK);
    for (name, value) in fields {
        response.append(&HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    filter::<CorsSettings>(settings).on_response(request, &mut response, &context());
    response
}

#[test]
fn a_preflight_is_answered_with_what_is_allowed() {
    let fields = preflight(ONE, "https://a.example", &[]);
    assert_eq!(value(&fields, "allow-origin"), Some("https://a.example"));
    assert_eq!(value(&fields, "allow-methods"), Some(METHODS_DEFAULT));
    assert_eq!(value(&fields, "allow-headers"), Some(HEADERS_DEFAULT));
    assert_eq!(value(&fields, "max-age"), Some("600"));
    assert_eq!(value(&fields, "allow-credentials"), None);
    assert!(value(&fields, "vary").unwrap().starts_with("Origin,"));
}

#[test]
fn a_preflight_of_another_origin_gets_no_cors_field() {
    let fields = preflight(ONE, "https://b.example", &[]);
    assert_eq!(fields.len(), 1, "{fields:?}");
    assert!(value(&fields, "vary").is_some());
}

#[test]
fn credentials_reflect_origin_and_asked_headers_and_never_a_star() {
    let fields =
        preflight(CREDENTIALS, "https://a.example", &[("access-control-request-headers", "authorization, x-b")]);
    assert_eq!(value(&fields, "allow-credentials"), Some("true"));
    assert_eq!(value(&fields, "allow-headers"), Some("authorization, x-b"));
    assert_eq!(value(&fields, "max-age"), Some("3600"));
    assert!(fields.iter().all(|(_, value)| value != "*"));
    let odd = preflight(CREDENTIALS, "https://a.example", &[("access-control-request-headers", "a b, <x>")]);
    assert_eq!(value(&odd, "allow-headers"), None);
}

#[test]
fn the_method_of_the_route_is_allowed_beside_the_usual_ones() {
    let fields = [("origin", "https://a.example"), ("access-control-request-method", "PURGE")];
    let allowed = |matched: bool| {
        let mut context = context();
        context.preflight = matched;
        let mut request = request(Method::OPTIONS, "/", &fields);
        match filter::<CorsSettings>(ONE).on_request(&mut request, &mut context) {
            Verdict::Reply(reply) => reply.fields,
            verdict => panic!("{verdict:?}"),
        }
        .into_iter()
        .find(|(name, _)| *name == header::ACCESS_CONTROL_ALLOW_METHODS)
        .unwrap()
        .1
    };
    assert_eq!(allowed(true), format!("{METHODS_DEFAULT}, PURGE"));
    assert_eq!(allowed(false), METHODS_DEFAULT);
}

#[test]
fn options_without_a_requested_method_is_an_ordinary_request() {
    for fields in [&[("origin", "https://a.example")][..], &[("access-control-request-method", "GET")]] {
        let mut request = request(Method::OPTIONS, "/", fields);
        let verdict = filter::<CorsSettings>(ONE).on_request(&mut request, &mut context());
        assert!(matches!(verdict, Verdict::Continue));
    }
}

#[test]
fn the_gateways_word_replaces_the_services() {
    let said = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-origin", "https://evil.example"),
    ];
    let response = answered(ONE, &from("https://a.example"), &said);
    assert_eq!(values(&response, "access-control-allow-origin"), ["https://a.example"]);
    assert!(values(&response, "access-control-allow-credentials").is_empty());
    let response = answered(ONE, &from("https://b.example"), &said);
    assert!(values(&response, "access-control-allow-origin").is_empty());
    assert_eq!(values(&response, "vary"), ["Origin"]);
}

#[test]
fn vary_is_appended_once_and_only_where_the_answer_depends_on_the_origin() {
    let vary = |settings, request: &RequestBuf, said| values(&answered(settings, request, &[("vary", said)]), "vary");
    assert_eq!(vary(ONE, &request(Method::GET, "/", &[]), "Accept"), ["Accept", "Origin"]);
    assert_eq!(vary(ONE, &from("https://a.example"), "Accept, origin"), ["Accept, origin"]);
    assert_eq!(vary(ONE, &from("https://a.example"), "*"), ["*"]);
    let any = answered("{ origins: ['*'], expose: ['*'] }", &request(Method::GET, "/", &[]), &[]);
    assert!(values(&any, "vary").is_empty());
    assert_eq!(values(&any, "access-control-allow-origin"), ["*"]);
    assert_eq!(values(&any, "access-control-expose-headers"), ["*"]);
}

#[test]
fn a_wildcard_takes_labels_and_nothing_else() {
    let settings = "{ origins: ['https://*.example.com', 'http://*.test:8080'], expose: [X-A, X-B] }";
    let allowed =
        |origin: &str| !values(&answered(settings, &from(origin), &[]), "access-control-allow-origin").is_empty();
    for origin in ["https://a.example.com", "https://a.b.example.com", "http://x-1.test:8080"] {
        assert!(allowed(origin), "{origin}");
    }
    for origin in [
        "https://example.com",
        "https://.example.com",
        "http://a.example.com",
        "https://a.example.com:8443",
        "https://evil.org/.example.com",
        "https://evil.org?.example.com",
        "https://a..example.com",
        "https://evilexample.com",
        "https://a.example.com.evil.org",
        "http://x.test",
        "null",
        "",
    ] {
        assert!(!allowed(origin), "{origin}");
    }
}

#[test]
fn settings_that_open_too_much_or_can_never_match_are_refused() {
    let refused = |settings: &str| refused::<CorsSettings>(settings);
    assert!(refused("{}").contains("missing key `origins`"));
    assert!(refused("{ origins: [] }").contains("empty"));
    assert!(refused("{ origins: ['*'], credentials: true }").contains("any site act for your users"));
    assert!(refused("{ origins: ['*', https://a.example] }").contains("alone"));
    assert!(refused("{ origins: ['null'] }").contains("sandboxed"));
    for origin in
        ["https://a.example/", "a.example", "https://A.example", "https://a.*.example", "https://*", "https://a:b"]
    {
        assert!(refused(&format!("{{ origins: ['{origin}'] }}")).contains("is no origin"), "{origin}");
    }
    assert!(refused("{ origins: ['https://a.example:443'] }").contains("usual port"));
    assert!(refused("{ origins: [https://a.example], expose: ['*'], credentials: true }").contains("list the fields"));
    assert!(refused("{ origins: [https://a.example], headers: ['*', X-A] }").contains("alone for any"));
    assert!(refused("{ origins: [https://a.example], methods: [get] }").contains("capitals"));
    assert!(refused("{ origins: [https://a.example], max_age: 86401s }").contains("at most 24h"));
    for fine in ["max_age: 24h", "methods: [GET, PURGE]", "headers: [X-A]"] {
        filter::<CorsSettings>(&format!("{{ origins: ['https://a.example:8443', 'http://[::1]:3000'], {fine} }}"));
    }
}
