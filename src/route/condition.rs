//! Conditions on header fields and query parameters.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

use crate::head::{HeaderName, RequestHead};
use crate::types::names_credential;

/// The compiled size a regular expression may take, in bytes.
const REGEX_BYTES_MAX: usize = 1024 * 1024;

/// What the first value of a header field or a query parameter must be. Further occurrences are not looked at, so that
/// a request cannot match two different [`ValueMatch::Exact`] of one name.
#[derive(Clone, Debug)]
pub enum ValueMatch {
    Present,
    Absent,
    Exact(String),
    /// Anchored at both ends: see [`ValueMatch::regex`]. A value that is not UTF-8 does not match.
    Regex(Regex),
}

impl ValueMatch {
    /// A regular expression that must match the whole value.
    pub fn regex(pattern: &str) -> Result<Self, String> {
        let build = |text: &str| {
            let regex = RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
            // Of the several lines of a syntax error the last one says what is wrong.
            regex.map_err(|error| {
                let text = error.to_string();
                let why = text.lines().last().unwrap_or_default();
                format!("bad regular expression `{pattern}`: {}", why.strip_prefix("error: ").unwrap_or(why))
            })
        };
        // On its own first: `a)|(b` is nonsense, yet would pass, unanchored, once it stands in the group below.
        build(pattern)?;
        build(&format!(r"\A(?:{pattern})\z")).map(Self::Regex)
    }

    fn accepts(&self, value: Option<&[u8]>) -> bool {
        match self {
            Self::Present => value.is_some(),
            Self::Absent => value.is_none(),
            Self::Exact(text) => value == Some(text.as_bytes()),
            Self::Regex(regex) => {
                value.and_then(|value| std::str::from_utf8(value).ok()).is_some_and(|value| regex.is_match(value))
            }
        }
    }

    /// Whether no value can fulfil both. `false` when that cannot be told.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, Self::Absent) => false,
            (Self::Absent, _) | (_, Self::Absent) => true,
            (Self::Exact(one), Self::Exact(two)) => one != two,
            (Self::Exact(text), Self::Regex(regex)) | (Self::Regex(regex), Self::Exact(text)) => !regex.is_match(text),
            (Self::Present | Self::Regex(_), Self::Present | Self::Regex(_))
            | (Self::Present, Self::Exact(_))
            | (Self::Exact(_), Self::Present) => false,
        }
    }

    /// What it demands of the field or parameter `name`, in words.
    fn describe(&self, name: &str) -> String {
        match self {
            Self::Exact(_) | Self::Regex(_) if names_credential(name) => "be another one".to_owned(),
            Self::Present => "be present".to_owned(),
            Self::Absent => "be absent".to_owned(),
            Self::Exact(text) => format!("be `{text}`"),
            Self::Regex(regex) => format!("match `{regex}`"),
        }
    }
}

/// All conditions of one route; every one must hold.
#[derive(Debug)]
pub(super) struct Conditions<'a> {
    pub headers: &'a [(HeaderName, ValueMatch)],
    pub query: &'a [(String, ValueMatch)],
}

impl Conditions<'_> {
    pub fn count(&self) -> usize {
        self.headers.len().saturating_add(self.query.len())
    }

    pub fn hold(&self, request: &dyn RequestHead) -> bool {
        self.headers.iter().all(|(name, wanted)| wanted.accepts(request.get(name)))
            && self.query.iter().all(|(name, wanted)| wanted.accepts(query_value(request.query(), name).as_deref()))
    }

    /// The first condition that does not hold, in words.
    pub fn failing(&self, request: &dyn RequestHead) -> Option<String> {
        for (name, wanted) in self.headers {
            if !wanted.accepts(request.get(name)) {
                return Some(format!("header: `{name}` must {}", wanted.describe(name.as_str())));
            }
        }
        for (name, wanted) in self.query {
            if !wanted.accepts(query_value(request.query(), name).as_deref()) {
                return Some(format!("query: `{name}` must {}", wanted.describe(name)));
            }
        }
        None
    }

    /// Whether no request can fulfil both.
    pub fn exclude(&self, other: &Self) -> bool {
        excluded(self.headers, other.headers) || excluded(self.query, other.query)
    }
}

fn excluded<N: PartialEq>(one: &[(N, ValueMatch)], two: &[(N, ValueMatch)]) -> bool {
    one.iter().any(|(name, wanted)| two.iter().any(|(other, value)| name == other && wanted.excludes(value)))
}

/// The first value of the query parameter `name`, both percent-decoded once; a `+` is a plus. An escape that is none
/// stays as it is.
fn query_value<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, [u8]>> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (*percent_decoded(key) == *name.as_bytes()).then(|| percent_decoded(value))
    })
}

fn percent_decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = match (byte, tail) {
            (b'%', [high, low, after @ ..]) => hex_pair(*high, *low).map(|value| (value, after)),
            _ => None,
        };
        let (value, after) = escaped.unwrap_or((byte, tail));
        bytes.push(value);
        rest = after;
    }
    Cow::Owned(bytes)
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(digit(high)? << 4 | digit(low)?)
}
