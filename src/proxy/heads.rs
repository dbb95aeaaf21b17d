//! Heads as Tollgate sees them, over the parts that Pingora's heads are made of.
//!
//! Pingora's own head keeps the spelling of every field name beside the fields, and each change of it costs several
//! allocations. So a head is taken apart once ([`take`]), worked on, and put back without the spellings: names then reach
//! the other side in lower case, or as `Content-Length` where they are well known.

use std::mem;

use http::header::{CONNECTION, CONTENT_LENGTH, Entry, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri, request, response};
use pingora::http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

use crate::head::{
    HeaderName, HeaderValue, Headers, Method, RequestHead, ResponseHead, StatusCode, is_path, without_port,
};

/// A request head that is worked on.
pub struct Request<'a> {
    pub head: &'a mut request::Parts,
    /// The target as the client sent it, kept when it is first changed.
    pub original: &'a mut Option<Uri>,
}

/// A response head that is worked on.
pub struct Response<'a>(pub &'a mut response::Parts);

/// A request head that is only looked at.
pub struct Seen<'a>(pub &'a request::Parts);

/// A response head that is only looked at.
pub struct SeenResponse<'a>(pub &'a response::Parts);

/// Trailers that are worked on.
pub struct Trailers<'a>(pub &'a mut HeaderMap);

/// Takes a request head apart; [`put_back`] must follow. What stands in its place meanwhile owns no memory.
pub fn take(head: &mut RequestHeader) -> request::Parts {
    let blank = RequestHeader::from(http::Request::new(()).into_parts().0);
    mem::replace(head, blank).into()
}

/// Puts a request head back.
pub fn put_back(head: &mut RequestHeader, parts: request::Parts) {
    *head = RequestHeader::from(parts);
}

/// Works on a response head.
pub fn change(head: &mut ResponseHeader, work: impl FnOnce(&mut response::Parts)) -> pingora::Result<()> {
    let (mut parts, phrase) = take_response(head);
    work(&mut parts);
    put_back_response(head, parts, phrase.as_deref())
}

/// Takes a response head apart, and its phrase; [`put_back_response`] must follow.
pub fn take_response(head: &mut ResponseHeader) -> (response::Parts, Option<String>) {
    // Only a phrase of the service's own is worth keeping.
    let canonical = head.status.canonical_reason();
    let phrase = head.get_reason_phrase().filter(|phrase| Some(*phrase) != canonical).map(str::to_owned);
    let blank = ResponseHeader::from(http::Response::new(()).into_parts().0);
    (mem::replace(head, blank).into(), phrase)
}

/// Puts a response head back.
pub fn put_back_response(
    head: &mut ResponseHeader,
    parts: response::Parts,
    phrase: Option<&str>,
) -> pingora::Result<()> {
    *head = ResponseHeader::from(parts);
    if phrase.is_some() {
        head.set_reason_phrase(phrase)?;
    }
    Ok(())
}

/// Reading fields.
macro_rules! reads {
    ($field:ident) => {
        fn get(&self, name: &HeaderName) -> Option<&[u8]> {
            self.$field().get(name).map(HeaderValue::as_bytes)
        }

        fn shared(&self, name: &HeaderName) -> Option<HeaderValue> {
            self.$field().get(name).cloned()
        }

        fn each(&self, name: &HeaderName, visit: &mut dyn FnMut(&[u8])) {
            self.$field().get_all(name).iter().for_each(|value| visit(value.as_bytes()));
        }

        fn all(&self, visit: &mut dyn FnMut(&str, &[u8])) {
            self.$field().iter().for_each(|(name, value)| visit(name.as_str(), value.as_bytes()));
        }
    };
}

/// Changing fields. Fails, and does nothing, only when a head would hold more fields than a map can.
macro_rules! writes {
    () => {
        fn set(&mut self, name: &HeaderName, value: HeaderValue) {
            let _ = self.fields_mut().try_insert(name.clone(), value);
        }

        fn append(&mut self, name: &HeaderName, value: HeaderValue) {
            let _ = self.fields_mut().try_append(name.clone(), value);
        }

        fn add(&mut self, name: &HeaderName, make: &mut dyn FnMut() -> HeaderValue) -> bool {
            match self.fields_mut().try_entry(name) {
                Ok(Entry::Vacant(place)) => place.try_insert(make()).is_ok(),
                Ok(Entry::Occupied(_)) | Err(_) => false,
            }
        }

        fn remove(&mut self, name: &HeaderName) {
            self.fields_mut().remove(name);
        }

        fn reserve(&mut self, fields: usize) {
            // Too many for a map: then each of them is left out when it comes.
            let _ = self.fields_mut().try_reserve(fields);
        }
    };
}

impl Request<'_> {
    fn fields(&self) -> &HeaderMap {
        &self.head.headers
    }

    fn fields_mut(&mut self) -> &mut HeaderMap {
        &mut self.head.headers
    }
}

impl Response<'_> {
    fn fields(&self) -> &HeaderMap {
        &self.0.headers
    }

    fn fields_mut(&mut self) -> &mut HeaderMap {
        &mut self.0.headers
    }
}

impl Seen<'_> {
    fn fields(&self) -> &HeaderMap {
        &self.0.headers
    }
}

impl SeenResponse<'_> {
    fn fields(&self) -> &HeaderMap {
        &self.0.headers
    }
}

impl Trailers<'_> {
    fn fields(&self) -> &HeaderMap {
        self.0
    }

    fn fields_mut(&mut self) -> &mut HeaderMap {
        self.0
    }
}

impl Headers for Trailers<'_> {
    reads!(fields);
    writes!();
}

impl Headers for Request<'_> {
    reads!(fields);
    writes!();
}

impl Headers for Response<'_> {
    reads!(fields);
    writes!();
}

/// Reading goes through; nothing is ever changed through this one.
impl Headers for Seen<'_> {
    reads!(fields);

    fn set(&mut self, _: &HeaderName, _: HeaderValue) {}

    fn append(&mut self, _: &HeaderName, _: HeaderValue) {}

    fn remove(&mut self, _: &HeaderName) {}
}

/// The same.
impl Headers for SeenResponse<'_> {
    reads!(fields);

    fn set(&mut self, _: &HeaderName, _: HeaderValue) {}

    fn append(&mut self, _: &HeaderName, _: HeaderValue) {}

    fn remove(&mut self, _: &HeaderName) {}
}

impl ResponseHead for SeenResponse<'_> {
    fn status(&self) -> StatusCode {
        self.0.status
    }

    fn set_status(&mut self, _: StatusCode) {}
}

impl RequestHead for Request<'_> {
    fn method(&self) -> &Method {
        &self.head.method
    }

    fn path(&self) -> &str {
        self.head.uri.path()
    }

    fn query(&self) -> Option<&str> {
        self.head.uri.query()
    }

    fn host(&self) -> &str {
        host(self.head)
    }

    fn set_target(&mut self, path: &str, query: Option<&str>) -> bool {
        is_path(path) && set_target(self.head, self.original, path, query)
    }
}

impl RequestHead for Seen<'_> {
    fn method(&self) -> &Method {
        &self.0.method
    }

    fn path(&self) -> &str {
        self.0.uri.path()
    }

    fn query(&self) -> Option<&str> {
        self.0.uri.query()
    }

    fn host(&self) -> &str {
        host(self.0)
    }

    fn set_target(&mut self, _: &str, _: Option<&str>) -> bool {
        false
    }
}

impl ResponseHead for Response<'_> {
    fn status(&self) -> StatusCode {
        self.0.status
    }

    fn set_status(&mut self, status: StatusCode) {
        self.0.status = status;
    }
}

/// Replaces path and query.
pub fn set_target(head: &mut request::Parts, original: &mut Option<Uri>, path: &str, query: Option<&str>) -> bool {
    let target = match query {
        Some(query) => [path, "?", query].concat(),
        None => path.to_owned(),
    };
    let Ok(target) = PathAndQuery::from_maybe_shared(bytes::Bytes::from(target)) else { return false };
    let before = mem::replace(&mut head.uri, Uri::from(target));
    original.get_or_insert(before);
    true
}

/// Removes the fields that a request nominates in `Connection` (RFC 9110 §7.6.1), and the nominations. Pingora would do so when
/// the filters have run: a client could then have a field removed that one of them has set, such as who the caller is.
pub fn end_nominated(head: &mut request::Parts) {
    let mut nominated: SmallVec<[HeaderName; 2]> = SmallVec::new();
    let mut kept: Vec<u8> = Vec::new();
    for option in head.headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
    {
        let option = option.trim_ascii();
        match HeaderName::from_bytes(option) {
            Ok(name) if !is_left_to_engine(name.as_str()) => nominated.push(name),
            _ => {
                kept.extend_from_slice(if kept.is_empty() { b"" } else { b", " });
                kept.extend_from_slice(option);
            }
        }
    }
    if nominated.is_empty() {
        return;
    }
    for name in nominated.iter().chain([&CONNECTION]) {
        head.headers.remove(name);
    }
    // What is left of field values is one; without any there is no field.
    if let Some(kept) = HeaderValue::try_from(kept).ok().filter(|kept| !kept.is_empty()) {
        head.headers.insert(CONNECTION, kept);
    }
}

/// Options of a connection, and fields that the engine refuses to see nominated or frames a message by.
fn is_left_to_engine(name: &str) -> bool {
    matches!(
        name,
        "close"
            | "keep-alive"
            | "upgrade"
            | "te"
            | "trailer"
            | "http2-settings"
            | "connection"
            | "proxy-connection"
            | "content-length"
            | "transfer-encoding"
            | "host"
            | "x-forwarded-for"
            | "x-forwarded-host"
            | "x-forwarded-proto"
    )
}

/// Removes what was meant for the gateway only (RFC 9110 §7.6.1). Pingora does so for requests, not for responses.
pub fn end_hop(head: &mut response::Parts) {
    let mut nominated: SmallVec<[HeaderName; 2]> = SmallVec::new();
    if let Ok(Entry::Occupied(connection)) = head.headers.try_entry(CONNECTION) {
        let (_, values) = connection.remove_entry_mult();
        // By far the most frequent value nominates what goes anyway.
        for value in values.filter(|value| value != "keep-alive") {
            let names = value.to_str().unwrap_or_default().split(',');
            let names = names.filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok());
            nominated.extend(names.filter(|name| !FRAMING.contains(name)));
        }
    }
    // A walk over the names costs less than looking for each of these.
    if head.headers.keys().any(|name| HOP.contains(name)) {
        nominated.extend(HOP);
    }
    for name in &nominated {
        head.headers.remove(name);
    }
}

/// Fields of one connection that need not be nominated to be so.
const HOP: [HeaderName; 2] = [HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection")];
/// What a service cannot have removed by nominating it: the body would lose its end.
const FRAMING: [HeaderName; 2] = [CONTENT_LENGTH, TRANSFER_ENCODING];

/// The host without its port. `admit` has put it in lower case.
fn host(head: &request::Parts) -> &str {
    without_port(head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_response_keeps_its_fields_and_its_own_phrase() {
        let mut head = ResponseHeader::build(404, None).unwrap();
        head.set_reason_phrase(Some("No Such Task")).unwrap();
        head.append_header("X-Custom", "1").unwrap();
        change(&mut head, |parts| parts.status = StatusCode::NOT_FOUND).unwrap();
        assert_eq!(head.get_reason_phrase(), Some("No Such Task"));
        assert_eq!(head.headers.get("x-custom").unwrap(), "1");
    }

    #[test]
    fn what_a_request_nominates_is_gone_before_a_filter_sees_it() {
        for (options, kept) in [
            (&["close, X-Gone, upgrade"][..], &["close, upgrade"][..]),
            (&["x-gone", "Keep-Alive,x-GONE"], &["Keep-Alive"]),
            (&["X-Gone"], &[]),
            (&["close", "upgrade"], &["close", "upgrade"]),
            (&["Content-Length, host"], &["Content-Length, host"]),
        ] {
            let mut header = RequestHeader::build("GET", b"/", None).unwrap();
            header.append_header("X-Gone", "1").unwrap();
            header.append_header("X-Gone", "2").unwrap();
            header.append_header("Content-Length", "0").unwrap();
            for options in options {
                header.append_header("Connection", *options).unwrap();
            }
            let mut head = take(&mut header);
            end_nominated(&mut head);
            let left: Vec<&str> =
                head.headers.get_all(CONNECTION).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(left, kept, "{options:?}");
            let nominated = options.iter().any(|options| options.to_ascii_lowercase().contains("x-gone"));
            assert_eq!(head.headers.contains_key("x-gone"), !nominated);
            assert!(head.headers.contains_key(CONTENT_LENGTH));
        }
    }

    #[test]
    fn a_hop_ends_with_its_fields_and_those_it_nominates() {
        let ended = |fields: &[(&'static str, &'static str)]| {
            let mut head = http::Response::new(()).into_parts().0;
            for (name, value) in fields {
                head.headers.append(*name, HeaderValue::from_static(value));
            }
            end_hop(&mut head);
            let mut names: Vec<_> = head.headers.keys().map(|name| name.as_str().to_owned()).collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(ended(&[("connection", "keep-alive"), ("keep-alive", "timeout=5"), ("server", "s")]), "server");
        assert_eq!(ended(&[("keep-alive", "timeout=5"), ("proxy-connection", "close"), ("a", "1")]), "a");
        assert_eq!(ended(&[("connection", "A, b"), ("connection", "c"), ("a", "1"), ("b", "1"), ("c", "1")]), "");
        assert_eq!(
            ended(&[("connection", "Content-Length,transfer-encoding,x"), ("content-length", "1"), ("x", "1")]),
            "content-length"
        );
    }

    #[test]
    fn a_field_is_added_only_where_there_is_none() {
        let mut head = http::Request::new(()).into_parts().0;
        let mut request = Request { head: &mut head, original: &mut None };
        let name = HeaderName::from_static("x-a");
        assert!(request.add(&name, &mut || HeaderValue::from_static("1")));
        assert!(!request.add(&name, &mut || HeaderValue::from_static("2")));
        assert_eq!(request.text(&name), Some("1"));
    }

    #[test]
    fn a_changed_target_keeps_the_first_one() {
        let mut header = RequestHeader::build("GET", b"/a?b=1", None).unwrap();
        let mut original = None;
        let mut head = take(&mut header);
        assert!(set_target(&mut head, &mut original, "/x", Some("y=2")));
        assert!(set_target(&mut head, &mut original, "/z", None));
        put_back(&mut header, head);
        assert_eq!(header.raw_path(), b"/z");
        assert_eq!(original.unwrap().to_string(), "/a?b=1");
    }
}
