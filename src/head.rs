//! Tollgate's own view of a message head: what filters, handlers and the router see.
//!
//! The engine that speaks HTTP implements these traits over its own types, so no filter depends on an engine, and
//! a unit test needs no socket: [`RequestBuf`] and [`ResponseBuf`] implement them in memory.
//!
//! Field names are case-insensitive ([RFC 9110 §5.1](https://www.rfc-editor.org/rfc/rfc9110#section-5.1)); values
//! are bytes. A field may occur more than once: [`Headers::get`] gives the first occurrence.

mod path;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
pub use http::{HeaderName, HeaderValue, Method, StatusCode};
pub use path::is_normal_path;

/// What belongs to one connection, or says where a message ends (RFC 9110 §7.6.1). A message that is sent on by other means than
/// the engine's goes without it: each connection has its own.
pub const OF_THE_CONNECTION: [HeaderName; 12] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Header fields, of a request or of a response.
pub trait Headers: Send + Sync {
    /// The first value of the field `name`.
    fn get(&self, name: &HeaderName) -> Option<&[u8]>;

    /// The first value of the field `name`, to be put elsewhere: not copied where the head can share it.
    fn shared(&self, name: &HeaderName) -> Option<HeaderValue> {
        self.get(name).and_then(|value| HeaderValue::from_bytes(value).ok())
    }

    /// Calls `visit` with each value of the field `name`, in order.
    fn each(&self, name: &HeaderName, visit: &mut dyn FnMut(&[u8]));

    /// Calls `visit` with every field, names in lower case. The order of different names is unspecified.
    fn all(&self, visit: &mut dyn FnMut(&str, &[u8]));

    /// Replaces every occurrence of `name` by one with this value.
    fn set(&mut self, name: &HeaderName, value: HeaderValue);

    /// Adds one more occurrence of `name`.
    fn append(&mut self, name: &HeaderName, value: HeaderValue);

    /// Sets `name` to what `make` gives, unless it occurs already; whether it was set.
    fn add(&mut self, name: &HeaderName, make: &mut dyn FnMut() -> HeaderValue) -> bool {
        let new = !self.has(name);
        if new {
            self.set(name, make());
        }
        new
    }

    /// Removes every occurrence of `name`.
    fn remove(&mut self, name: &HeaderName);

    /// Makes room for so many more fields at once, where that saves work.
    fn reserve(&mut self, _fields: usize) {}

    /// Adds one more occurrence of `name`, whose value is text without control characters: what is about to be sent may write it
    /// down at once. One that nobody is likely to look at any more.
    fn append_text(&mut self, name: &HeaderName, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.append(name, value);
        }
    }

    /// Makes room for so many bytes of fields that are added as text, where that saves work.
    fn reserve_text(&mut self, _bytes: usize) {}

    /// Whether the field occurs at all.
    fn has(&self, name: &HeaderName) -> bool {
        self.get(name).is_some()
    }

    /// The first value of `name`, when it is visible ASCII or UTF-8.
    fn text(&self, name: &HeaderName) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }
}

/// The head of a request. Path and query are what the upstream will be sent; the path is already normalised.
pub trait RequestHead: Headers {
    fn method(&self) -> &Method;

    /// The normalised path, always starting with `/`.
    fn path(&self) -> &str;

    /// What follows the `?`, without it.
    fn query(&self) -> Option<&str>;

    /// The host the client asked for: lower case, without port. Empty when there is none (HTTP/1.0).
    fn host(&self) -> &str;

    /// Replaces path and query. `path` must start with `/` and hold only characters allowed in a path;
    /// anything else is refused with `false` and changes nothing.
    #[must_use]
    fn set_target(&mut self, path: &str, query: Option<&str>) -> bool;
}

/// The head of a response, whoever authored it.
pub trait ResponseHead: Headers {
    fn status(&self) -> StatusCode;
    fn set_status(&mut self, status: StatusCode);
}

/// The value of the first query parameter called `name`, as it was sent (percent-encoded).
pub fn query_parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

/// Whether every character may stand in the path of a request target
/// ([RFC 3986 §3.3](https://www.rfc-editor.org/rfc/rfc3986#section-3.3)).
pub fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@".contains(&byte))
}

/// `a:80` → `a`, `[::1]:80` → `[::1]`.
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => {
            // A bare IPv6 address has colons and no port.
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

/// Header fields in memory.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(HeaderName, HeaderValue)>);

impl Headers for Fields {
    fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_bytes())
    }

    fn each(&self, name: &HeaderName, visit: &mut dyn FnMut(&[u8])) {
        self.0.iter().filter(|(key, _)| key == name).for_each(|(_, value)| visit(value.as_bytes()));
    }

    fn all(&self, visit: &mut dyn FnMut(&str, &[u8])) {
        self.0.iter().for_each(|(name, value)| visit(name.as_str(), value.as_bytes()));
    }

    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.remove(name);
        self.append(name, value);
    }

    fn append(&mut self, name: &HeaderName, value: HeaderValue) {
        self.0.push((name.clone(), value));
    }

    fn remove(&mut self, name: &HeaderName) {
        self.0.retain(|(key, _)| key != name);
    }
}

/// Implements [`Headers`] by the field `fields`.
macro_rules! headers_by_fields {
    ($head:ty) => {
        impl Headers for $head {
            fn get(&self, name: &HeaderName) -> Option<&[u8]> {
                self.fields.get(name)
            }
            fn each(&self, name: &HeaderName, visit: &mut dyn FnMut(&[u8])) {
                self.fields.each(name, visit);
            }
            fn all(&self, visit: &mut dyn FnMut(&str, &[u8])) {
                self.fields.all(visit);
            }
            fn set(&mut self, name: &HeaderName, value: HeaderValue) {
                self.fields.set(name, value);
            }
            fn append(&mut self, name: &HeaderName, value: HeaderValue) {
                self.fields.append(name, value);
            }
            fn remove(&mut self, name: &HeaderName) {
                self.fields.remove(name);
            }
        }
    };
}

/// A request head in memory: for tests, `tollgate test` and `tollgate explain`.
#[derive(Clone, Debug)]
pub struct RequestBuf {
    pub method: Method,
    pub host: String,
    pub path: String,
    pub query: Option<String>,
    pub fields: Fields,
}

impl RequestBuf {
    /// `target` is a path with an optional query.
    pub fn new(method: Method, target: &str) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Self { method, host: String::new(), path: path.to_owned(), query, fields: Fields::default() }
    }
}

headers_by_fields!(RequestBuf);

impl RequestHead for RequestBuf {
    fn method(&self) -> &Method {
        &self.method
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn set_target(&mut self, path: &str, query: Option<&str>) -> bool {
        if !is_path(path) {
            return false;
        }
        self.path = path.to_owned();
        self.query = query.map(str::to_owned);
        true
    }
}

/// A response head in memory.
#[derive(Clone, Debug)]
pub struct ResponseBuf {
    pub status: StatusCode,
    pub fields: Fields,
}

impl ResponseBuf {
    pub fn new(status: StatusCode) -> Self {
        Self { status, fields: Fields::default() }
    }
}

headers_by_fields!(ResponseBuf);

impl ResponseHead for ResponseBuf {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn set_status(&mut self, status: StatusCode) {
        self.status = status;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_replaces_every_occurrence_and_append_keeps_them() {
        let name = HeaderName::from_static("x-a");
        let mut head = ResponseBuf::new(StatusCode::OK);
        head.append(&name, HeaderValue::from_static("1"));
        head.append(&name, HeaderValue::from_static("2"));
        let mut seen = Vec::new();
        head.each(&name, &mut |value| seen.push(value.to_vec()));
        assert_eq!(seen, [b"1".to_vec(), b"2".to_vec()]);
        head.set(&name, HeaderValue::from_static("3"));
        let mut count = 0;
        head.each(&name, &mut |_| count += 1);
        assert_eq!((count, head.text(&name)), (1, Some("3")));
    }

    #[test]
    fn ports_are_cut_off_and_addresses_are_not() {
        for (host, name) in
            [("a", "a"), ("a:80", "a"), ("[::1]", "[::1]"), ("[::1]:80", "[::1]"), ("::1", "::1"), ("", "")]
        {
            assert_eq!(without_port(host), name);
        }
    }

    #[test]
    fn query_parameter_takes_the_first_and_only_whole_names() {
        assert_eq!(query_parameter(Some("ab=1&a=2&a=3"), "a"), Some("2"));
        assert_eq!(query_parameter(Some("a"), "a"), Some(""));
        assert_eq!(query_parameter(Some("b=a"), "a"), None);
        assert_eq!(query_parameter(None, "a"), None);
    }

    #[test]
    fn set_target_refuses_what_is_no_path() {
        let mut head = RequestBuf::new(Method::GET, "/a?b=1");
        assert!(!head.set_target("relative", None));
        assert!(!head.set_target("/a b", None));
        assert_eq!((head.path(), head.query()), ("/a", Some("b=1")));
        assert!(head.set_target("/x", None));
        assert_eq!((head.path(), head.query()), ("/x", None));
    }
}
