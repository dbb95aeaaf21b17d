//! What a client sends, read field by field: each getter takes its field out and says what was expected of it.
//!
//! A JSON body and a query string are read alike; [`Fields::finish`] refuses what nobody asked for.

use std::ops::RangeInclusive;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::answer::Failure;

/// Rows of one answer; more are had with `offset`.
const PAGE_ROWS: RangeInclusive<i64> = 1..=200;
const PAGE_ROWS_DEFAULT: i64 = 50;
const OFFSET: RangeInclusive<i64> = 0..=1_000_000_000;

/// The fields of an object that have not been read yet.
#[derive(Debug)]
pub struct Fields {
    values: Map<String, Value>,
    /// Stands before each name in a refusal, such as `commits[3].`.
    place: String,
}

/// Which part of a list to answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Page {
    pub limit: i64,
    pub offset: i64,
}

/// A JSON object as request body.
pub struct Body(pub Fields);

/// The query string. A name that occurs twice is refused.
pub struct Parameters(pub Fields);

impl Fields {
    /// The fields of `value`, called `place` in refusals; the empty place is the request itself.
    pub fn new(place: &str, value: Value) -> Result<Self, Failure> {
        match value {
            Value::Object(values) if place.is_empty() => Ok(Self { values, place: String::new() }),
            Value::Object(values) => Ok(Self { values, place: format!("{place}.") }),
            other => Err(Failure::invalid(if place.is_empty() { "body" } else { place }, &other, "a JSON object")),
        }
    }

    /// The value of `name`, absent where it is missing or null.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name).filter(|value| !value.is_null())
    }

    pub fn refuse(&self, name: &str, value: &Value, expected: &str) -> Failure {
        Failure::invalid(&format!("{}{name}", self.place), value, expected)
    }

    pub fn require<T>(&self, name: &str, value: Option<T>) -> Result<T, Failure> {
        value.ok_or_else(|| self.refuse(name, &Value::Null, "a value: the field is required"))
    }

    /// Text of 1 to `chars_max` characters, not all of them blank.
    pub fn text(&mut self, name: &str, chars_max: usize) -> Result<Option<String>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if is_text(&text, chars_max) => Ok(Some(text)),
            Some(other) => Err(self.refuse(name, &other, &format!("text of 1 to {chars_max} characters"))),
        }
    }

    pub fn one_of(&mut self, name: &str, choices: &[&'static str]) -> Result<Option<&'static str>, Failure> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let chosen = choices.iter().find(|choice| value.as_str() == Some(choice)).copied();
        chosen.map(Some).ok_or_else(|| self.refuse(name, &value, &format!("one of {}", choices.join(", "))))
    }

    /// A JSON number, or its decimal digits where the fields come from a query string.
    pub fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, Failure> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        number.filter(|number| range.contains(number)).map(Some).ok_or_else(|| self.refuse(name, &value, &expected()))
    }

    /// `limit` and `offset`.
    pub fn page(&mut self) -> Result<Page, Failure> {
        Ok(Page {
            limit: self.integer("limit", PAGE_ROWS)?.unwrap_or(PAGE_ROWS_DEFAULT),
            offset: self.integer("offset", OFFSET)?.unwrap_or(0),
        })
    }

    /// Refuses fields that were not read.
    pub fn finish(self) -> Result<(), Failure> {
        match self.values.iter().next() {
            None => Ok(()),
            Some((name, value)) => Err(self.refuse(name, value, "no field of this name")),
        }
    }
}

/// Whether `text` has 1 to `chars_max` characters and not all of them are blank.
pub fn is_text(text: &str, chars_max: usize) -> bool {
    !text.trim().is_empty() && text.chars().count() <= chars_max
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(is_json) {
            let message = "Send the body as Content-Type: application/json";
            return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response());
        }
        let bytes = Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            let mistake = format!("valid JSON: {error}");
            Failure::invalid("body", &Value::Null, &mistake).into_response()
        })?;
        Fields::new("", value).map(Self).map_err(IntoResponse::into_response)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let pairs = Query::<Vec<(String, String)>>::from_request_parts(parts, state);
        let Query(pairs) = pairs.await.map_err(IntoResponse::into_response)?;
        let mut values = Map::new();
        for (name, value) in pairs {
            let value = json!(value);
            if values.contains_key(&name) {
                return Err(Failure::invalid(&name, &value, "a single value").into_response());
            }
            values.insert(name, value);
        }
        Ok(Self(Fields { values, place: String::new() }))
    }
}

fn is_json(kind: &str) -> bool {
    kind.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::new("", value).unwrap()
    }

    #[test]
    fn text_is_bounded_in_characters_and_not_blank() {
        assert_eq!(fields(json!({"a": "éé"})).text("a", 2).unwrap(), Some("éé".to_owned()));
        assert_eq!(fields(json!({"a": null})).text("a", 2).unwrap(), None);
        for wrong in [json!("ééé"), json!(""), json!(" "), json!(7)] {
            assert!(fields(json!({ "a": wrong })).text("a", 2).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_page_turns_invalid_just_beyond_its_bounds() {
        let page = |limit, offset| fields(json!({"limit": limit, "offset": offset})).page();
        assert_eq!(fields(json!({})).page().unwrap(), Page { limit: 50, offset: 0 });
        assert_eq!(page(json!("200"), json!("0")).unwrap(), Page { limit: 200, offset: 0 });
        for (limit, offset) in [(201, 0), (0, 0), (1, -1), (1, 1_000_000_001)] {
            assert!(page(json!(limit), json!(offset)).is_err(), "{limit} {offset}");
        }
        for wrong in ["1.5", "", "1e2", "99999999999999999999"] {
            assert!(page(json!(wrong), json!(0)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_refusal_names_the_place_and_what_was_expected() {
        let mut nested = Fields::new("commits[3]", json!({"order": "sideways"})).unwrap();
        let refusal = format!("{:?}", nested.one_of("order", &["newest", "oldest"]).unwrap_err());
        assert!(refusal.contains("commits[3].order") && refusal.contains("one of newest, oldest"), "{refusal}");
        assert!(Fields::new("", json!([])).is_err());
    }

    #[test]
    fn a_field_nobody_read_is_refused() {
        let mut partly = fields(json!({"a": "x", "b": "y"}));
        partly.text("a", 1).unwrap();
        assert!(format!("{:?}", partly.finish().unwrap_err()).contains("\"b\""));
        assert!(fields(json!({})).finish().is_ok());
    }

    #[test]
    fn parameters_of_the_media_type_do_not_matter() {
        assert!(is_json("Application/JSON; charset=utf-8"));
        assert!(!is_json("application/json-seq"));
    }
}
