use super::*;
use crate::contract::testing::{outcome, request};
use crate::head::Method;
use crate::yaml::Place;

fn checked(types: &MediaTypes, fields: &[(&str, &str)]) -> bool {
    types.check(&request(Method::POST, "/", fields), true).is_ok()
}

fn compiled(names: &[&str]) -> Result<MediaTypes, Vec<String>> {
    let mut compiler = Compiler::default();
    let names = names.iter().map(|name| Located::new((*name).to_owned(), Place::UNKNOWN)).collect();
    let types = MediaTypes::compile(&Located::new(names, Place::UNKNOWN), &mut compiler);
    outcome(Some(types), compiler)
}

#[test]
fn json_and_its_relatives_are_json() {
    for sent in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=\"UTF-8\"",
        "application/json; profile=x",
        "application/problem+json",
        "application/vnd.api+json",
        "application/json;",
    ] {
        assert!(checked(&MediaTypes::json(), &[("content-type", sent)]), "{sent}");
    }
    for sent in [
        "",
        "json",
        "text/plain",
        "text/json",
        "application/jsonp",
        "application/x-www-form-urlencoded",
        "application/+json",
        "application/json, text/plain",
        "application/xml, a/b+json",
        "application/xml a+json",
        "application/x(y)+json",
        "application/json; charset=utf-7",
        "application/json; charset=utf-16",
        "application/json; charset=utf-8; charset=utf-7",
        "application/json; CHARSET = 'utf-8'",
    ] {
        assert!(!checked(&MediaTypes::json(), &[("content-type", sent)]), "{sent}");
    }
}

#[test]
fn no_type_and_two_types_are_refused() {
    assert!(!checked(&MediaTypes::json(), &[]));
    assert!(!checked(&MediaTypes::json(), &[("content-type", "application/json"), ("content-type", "text/plain")]));
    assert!(MediaTypes::json().check(&request(Method::GET, "/", &[]), false).is_ok(), "no body needs no type");
    assert!(MediaTypes::json().check(&request(Method::GET, "/", &[("content-type", "text/plain")]), false).is_err());
}

#[test]
fn lists_of_types_are_taken_as_written() {
    let types = compiled(&["image/*", "text/csv", "application/*+xml"]).unwrap();
    for (sent, is_taken) in [
        ("image/png", true),
        ("image/", false),
        ("text/csv; header=present", true),
        ("text/plain", false),
        ("application/atom+xml", true),
        ("application/xml", false),
        ("application/json", false),
    ] {
        assert_eq!(checked(&types, &[("content-type", sent)]), is_taken, "{sent}");
    }
    for bad in ["json", "*/*", "text/*csv", "Text/CSV", "text/csv; charset=utf-8", "text/", "/csv", "application/*json"]
    {
        assert!(compiled(&[bad]).is_err(), "{bad}");
    }
    assert!(compiled(&[]).is_err());
}

#[test]
fn compressed_bodies_are_refused_and_told_why() {
    let with = |value: &str| check_coding(&request(Method::POST, "/", &[("content-encoding", value)]));
    assert!(with("identity").is_ok());
    for coding in ["gzip", "identity, br", "GZIP", ""] {
        let refused = with(coding).unwrap_err();
        assert_eq!(refused.code, Code::UNSUPPORTED_MEDIA_TYPE, "{coding}");
        assert_eq!(refused.fields, [(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
    }
}

#[test]
fn the_head_may_announce_a_body() {
    let of = |fields: &[(&str, &str)]| has_body(&request(Method::POST, "/", fields));
    assert_eq!(of(&[]), None);
    assert_eq!(of(&[("content-length", "0")]), Some(false));
    assert_eq!(of(&[("content-length", "1")]), Some(true));
    assert_eq!(of(&[("transfer-encoding", "chunked")]), Some(true));
    assert_eq!(of(&[("content-length", "x")]), None);
}
