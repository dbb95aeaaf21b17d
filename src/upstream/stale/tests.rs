use super::*;
use crate::clock;
use crate::head::{Headers as _, RequestBuf, ResponseBuf};

const SECOND: Duration = Duration::from_secs(1);
const ANYBODY: Asked<'_> = Asked { route: "all", caller: None, has_body: false };

fn stale(body_max: usize, by: &[&'static str]) -> Arc<Stale> {
    let by = by.iter().map(|name| HeaderName::from_static(name)).collect();
    Arc::new(Stale::new(Settings { max_age: SECOND * 60, memory: MEMORY_LEAST, body_max, by }))
}

fn sized(memory: u64, body_max: usize) -> Arc<Stale> {
    Arc::new(Stale::new(Settings { max_age: SECOND * 60, memory, body_max, by: Vec::new() }))
}

fn get(target: &str, fields: &[(&'static str, &'static str)]) -> RequestBuf {
    let mut head = RequestBuf::new(Method::GET, target);
    head.host = "a.test".to_owned();
    for (name, value) in fields {
        head.append(&HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    head
}

fn ok(fields: &[(&'static str, &'static str)]) -> ResponseBuf {
    let mut head = ResponseBuf::new(StatusCode::OK);
    for (name, value) in fields {
        head.append(&HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    head
}

/// Keeps an answer with this body, if it may be kept.
fn keep(stale: &Arc<Stale>, request: &RequestBuf, response: &ResponseBuf, body: &[u8], now: Instant) {
    if let Some(mut keeping) = stale.keep(request, ANYBODY) {
        keeping.begin(request, response, true, now);
        for piece in body.chunks(7.max(body.len() / 9)) {
            keeping.body(piece);
        }
        keeping.end();
    }
}

fn body(stale: &Stale, request: &RequestBuf, now: Instant) -> Option<Bytes> {
    stale.answer(request, ANYBODY, now).map(|reply| reply.body)
}

#[test]
fn the_last_answer_to_the_same_request_is_given_until_it_is_too_old() {
    let (stale, now) = (stale(100, &[]), clock::now());
    let request = get("/x?a=1", &[]);
    assert!(stale.answer(&request, ANYBODY, now).is_none());
    keep(&stale, &request, &ok(&[("content-type", "text/plain")]), b"old", now);
    keep(&stale, &request, &ok(&[("content-type", "text/plain"), ("age", "5")]), b"new", now);
    let reply = stale.answer(&request, ANYBODY, now + SECOND * 55).unwrap();
    assert_eq!((reply.status, &*reply.body), (StatusCode::OK, b"new".as_slice()));
    let field =
        |name: &HeaderName| reply.fields.iter().find(|(given, _)| given == name).map(|(_, value)| value.clone());
    assert_eq!(field(&AGE).unwrap(), "60", "it was 5 seconds old when it came");
    assert_eq!(field(&http::header::CONTENT_TYPE).unwrap(), "text/plain");
    assert!(field(&CACHE_STATUS).is_some());
    assert!(stale.answer(&request, ANYBODY, now + SECOND * 56).is_none());
    assert_eq!(stale.usage().0, 1);
    let mut head = RequestBuf::new(Method::HEAD, "/x?a=1");
    head.host = "A.test".to_owned();
    assert_eq!(body(&stale, &head, now).unwrap(), "new", "whoever sends it leaves the body out");
}

#[test]
fn nobody_gets_what_was_meant_for_somebody_else() {
    let (stale, now) = (stale(100, &["x-tenant"]), clock::now());
    let asked = [
        get("/x", &[]),
        get("/x?", &[]),
        get("/y", &[]),
        get("/x", &[("authorization", "Bearer a")]),
        get("/x", &[("authorization", "Bearer b")]),
        get("/x", &[("cookie", "Bearer a")]),
        get("/x", &[("cookie", "a"), ("cookie", "b")]),
        get("/x", &[("cookie", "ab")]),
        get("/x", &[("x-api-key", "Bearer a")]),
        get("/x", &[("x-tenant", "1")]),
        get("/x", &[("x-tenant", "2")]),
    ];
    for (number, request) in asked.iter().enumerate() {
        assert!(body(&stale, request, now).is_none(), "{number} got that of another");
        keep(&stale, request, &ok(&[]), number.to_string().as_bytes(), now);
    }
    for (number, request) in asked.iter().enumerate() {
        assert_eq!(body(&stale, request, now).unwrap(), number.to_string());
        for other in [Asked { route: "other", ..ANYBODY }, Asked { has_body: true, ..ANYBODY }] {
            assert!(stale.answer(request, other, now).is_none(), "{number} was asked for in another way");
        }
    }
    assert_eq!(body(&stale, &get("/x", &[("accept", "text/css")]), now).unwrap(), "0", "not told apart without `Vary`");
    let mut other = get("/x", &[]);
    other.host = "b.test".to_owned();
    assert!(body(&stale, &other, now).is_none());
    let mut post = RequestBuf::new(Method::POST, "/x");
    post.host = "a.test".to_owned();
    assert!(stale.keep(&post, ANYBODY).is_none() && body(&stale, &post, now).is_none());
}

#[test]
fn what_vary_names_tells_answers_apart() {
    let (stale, now) = (stale(100, &[]), clock::now());
    let (german, english) = (get("/x", &[("accept-language", "de")]), get("/x", &[("accept-language", "en")]));
    let by_language = ok(&[("vary", "Accept-Language, Accept")]);
    keep(&stale, &german, &by_language, b"ja", now);
    assert_eq!((body(&stale, &german, now).unwrap(), body(&stale, &english, now)), (Bytes::from("ja"), None));
    keep(&stale, &english, &by_language, b"yes", now);
    keep(&stale, &german, &by_language, b"doch", now);
    assert_eq!(
        (body(&stale, &german, now).unwrap(), body(&stale, &english, now).unwrap()),
        ("doch".into(), "yes".into())
    );
    keep(&stale, &get("/all", &[]), &ok(&[("vary", "*")]), b"x", now);
    keep(&stale, &get("/odd", &[]), &ok(&[("vary", "a b")]), b"x", now);
    assert!(body(&stale, &get("/all", &[]), now).is_none() && body(&stale, &get("/odd", &[]), now).is_none());
    let zipped = get("/zipped", &[("accept-encoding", "gzip")]);
    keep(&stale, &zipped, &ok(&[("content-encoding", "gzip")]), b"x", now);
    assert!(body(&stale, &zipped, now).is_some());
    assert!(body(&stale, &get("/zipped", &[]), now).is_none(), "who cannot read it does not get it");
    // Not without end.
    for number in 0..20 {
        let language = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"][number % 10];
        keep(&stale, &get("/many", &[("accept-language", language)]), &by_language, b"x", now);
    }
    assert_eq!(stale.answers.get(&*stale.key(&get("/many", &[]), ANYBODY)).unwrap().len(), VARIANTS_MAX);
}

#[test]
fn what_may_not_be_kept_is_not() {
    let (stale, now) = (stale(100, &[]), clock::now());
    let request = get("/x", &[]);
    for field in ["no-store", "Private", "max-age=9, no-cache", "must-revalidate", "proxy-revalidate", "s-maxage=5"] {
        let mut response = ok(&[]);
        response.set(&http::header::CACHE_CONTROL, HeaderValue::from_str(field).unwrap());
        keep(&stale, &request, &response, b"x", now);
        assert!(body(&stale, &request, now).is_none(), "{field}");
    }
    keep(&stale, &request, &ok(&[("set-cookie", "a=b")]), b"x", now);
    keep(&stale, &get("/x", &[("cache-control", "no-store")]), &ok(&[]), b"x", now);
    let mut created = ok(&[]);
    created.set_status(StatusCode::CREATED);
    keep(&stale, &request, &created, b"x", now);
    let mut cut = stale.keep(&request, ANYBODY).unwrap();
    cut.begin(&request, &ok(&[]), false, now);
    cut.end();
    let mut dropped = stale.keep(&request, ANYBODY).unwrap();
    dropped.begin(&request, &ok(&[]), true, now);
    dropped.body(b"half of");
    drop(dropped);
    assert!(body(&stale, &request, now).is_none());
    // The service says how long.
    keep(&stale, &request, &ok(&[("cache-control", "max-age=3, stale-if-error=4")]), b"x", now);
    assert!(body(&stale, &request, now + SECOND * 7).is_some() && body(&stale, &request, now + SECOND * 8).is_none());
    keep(&stale, &request, &ok(&[("cache-control", "stale-if-error=86400")]), b"x", now);
    assert!(body(&stale, &request, now + SECOND * 60).is_some() && body(&stale, &request, now + SECOND * 61).is_none());
    keep(&stale, &request, &ok(&[("cache-control", "stale-if-error=none")]), b"x", now);
    assert!(body(&stale, &request, now + SECOND).is_none());
}

#[test]
fn a_second_attempt_begins_anew() {
    let (stale, now) = (stale(100, &[]), clock::now());
    let request = get("/x", &[]);
    let mut keeping = stale.keep(&request, ANYBODY).unwrap();
    keeping.begin(&request, &ok(&[]), true, now);
    keeping.body(b"half");
    keeping.begin(&request, &ok(&[]), true, now);
    keeping.body(b"whole");
    keeping.end();
    assert_eq!(body(&stale, &request, now).unwrap(), "whole");
}

#[test]
fn what_is_kept_is_bounded() {
    let (stale, now) = (stale(10_000, &[]), clock::now());
    for (length, kept) in [(10_000, true), (10_001, false)] {
        let request = get(if kept { "/fits" } else { "/large" }, &[]);
        keep(&stale, &request, &ok(&[]), &vec![b'x'; length], now);
        assert_eq!(body(&stale, &request, now).is_some(), kept, "{length}");
    }
    for number in 0..1000 {
        keep(&stale, &get(&format!("/{number}"), &[]), &ok(&[]), &[b'x'; 10_000], now);
        assert!(stale.usage().1 <= MEMORY_LEAST);
    }
    assert!(stale.usage().1 > MEMORY_LEAST / 2, "it is used");
}

#[test]
fn an_answer_as_large_as_may_be_is_kept_on_every_machine() {
    for (memory, body_max) in [(MEMORY_LEAST, MEMORY_LEAST / 4), (MEMORY_LEAST * 5, MEMORY_LEAST), (MEMORY, BODY_MAX)] {
        let body_max = usize::try_from(body_max).unwrap();
        let (stale, now) = (sized(memory, body_max), clock::now());
        let large = vec![b'x'; body_max];
        for number in 0..3 {
            let request = get(&format!("/{number}"), &[]);
            keep(&stale, &request, &ok(&[]), &large, now);
            assert!(body(&stale, &request, now).is_some(), "{body_max} of {memory}");
        }
        // As many as a request may have: not all of them fit, and the last one does.
        for number in 0..VARIANTS_MAX {
            let language = ["a", "b", "c", "d", "e", "f", "g", "h"][number];
            let request = get("/many", &[("accept-language", language)]);
            keep(&stale, &request, &ok(&[("vary", "accept-language")]), &large, now);
            assert!(body(&stale, &request, now).is_some(), "{number} of {body_max} of {memory}");
        }
        assert!(stale.usage().1 <= memory);
    }
}

#[test]
fn what_comes_in_is_bounded_as_what_is_kept_is() {
    let (stale, now) = (sized(MEMORY_LEAST, 100_000), clock::now());
    let request = get("/x", &[]);
    let mut coming: Vec<Keeping> = (0..20).map(|_| stale.keep(&request, ANYBODY).unwrap()).collect();
    for keeping in &mut coming {
        keeping.begin(&request, &ok(&[]), true, now);
        keeping.body(&[b'x'; 60_000]);
        keeping.body(&[b'x'; 30_000]);
    }
    let held = |coming: &[Keeping]| -> usize {
        coming.iter().filter_map(|keeping| keeping.pending.as_ref()).map(|(_, body)| body.len()).sum()
    };
    assert!((900_000..=1 << 20).contains(&held(&coming)), "{}", held(&coming));
    // A second try and an end give back what was held.
    for keeping in &mut coming {
        keeping.begin(&request, &ok(&[]), true, now);
    }
    assert_eq!(stale.coming.load(Ordering::Relaxed), 0);
    for keeping in &mut coming[..10] {
        keeping.body(&[b'x'; 60_000]);
    }
    coming.into_iter().for_each(Keeping::end);
    assert_eq!(stale.coming.load(Ordering::Relaxed), 0);
    assert_eq!(body(&stale, &request, now).unwrap().len(), 0, "the last one was empty");
}
