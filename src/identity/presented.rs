//! What a request presents to prove who sent it: API keys and tokens, found where the operator accepts them.
//!
//! One reading only. What could be read in two ways is malformed, and so refused: a credential that stands twice in one place,
//! two that differ, anything but one token behind `Bearer`.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, COOKIE};
use smallvec::SmallVec;

pub use super::digest::KEY_BYTES_MAX;
pub use super::token::TOKEN_BYTES_MAX;
use crate::head::{HeaderName, HeaderValue, RequestHead};

/// What a credential is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ApiKey,
    Jwt,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Jwt => "jwt",
        }
    }
}

/// Where credentials may stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    pub bearer: Option<Bearer>,
    /// The field of an API key.
    pub key_header: Option<HeaderName>,
    /// The query parameter of an API key.
    pub key_query: Option<Box<str>>,
    /// The cookie of a token.
    pub token_cookie: Option<Box<str>>,
    /// The query parameter of a token; another one than that of the key.
    pub token_query: Option<Box<str>>,
}

/// What may stand behind `Authorization: Bearer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer {
    Key,
    Token,
    /// Two dots make it a token, anything else an API key.
    Either,
}

/// The one credential of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented<'a> {
    pub kind: Kind,
    pub value: Cow<'a, [u8]>,
    /// It stands behind `Bearer`, perhaps elsewhere too.
    pub by_bearer: bool,
}

/// There is a credential, but not one that can be read in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What it would have been.
    pub kind: Kind,
    /// It stands behind `Bearer`.
    pub by_bearer: bool,
}

/// What stands in one place.
enum At<'a> {
    Nothing,
    One(Cow<'a, [u8]>),
    /// It stands there twice, or is broken.
    Bad,
}

impl Places {
    /// The credential of a request. The same one may stand in several places, each once.
    ///
    /// # Errors
    /// It is broken, stands twice in one place, or there are two different ones.
    pub fn find<'a>(&self, request: &'a dyn RequestHead) -> Result<Option<Presented<'a>>, Malformed> {
        let mut found = None;
        if let Some(bearer) = self.bearer {
            let at = authorization(request);
            let kind = match &at {
                At::One(value) => bearer.kind(value),
                At::Bad | At::Nothing => bearer.kind(b""),
            };
            merge(&mut found, kind, at, true)?;
        }
        if let Some(name) = &self.key_header {
            merge(&mut found, Kind::ApiKey, only(request, name), false)?;
        }
        if let Some(name) = &self.token_cookie {
            merge(&mut found, Kind::Jwt, cookie(request, name), false)?;
        }
        for (kind, name) in [(Kind::ApiKey, &self.key_query), (Kind::Jwt, &self.token_query)] {
            if let Some(name) = name {
                merge(&mut found, kind, parameter(request.query(), name), false)?;
            }
        }
        Ok(found)
    }

    /// Takes credentials out of a request, wherever they may stand; whatever else is there stays. `false` when that cannot
    /// be: then the request must not go on.
    #[must_use]
    pub fn remove(&self, request: &mut dyn RequestHead) -> bool {
        if self.bearer.is_some() && matches!(authorization(request), At::One(_) | At::Bad) {
            request.remove(&AUTHORIZATION);
        }
        if let Some(name) = &self.key_header {
            request.remove(name);
        }
        if let Some(name) = &self.token_cookie {
            remove_cookie(request, name);
        }
        self.remove_parameters(request)
    }

    fn remove_parameters(&self, request: &mut dyn RequestHead) -> bool {
        let names: SmallVec<[&str; 2]> =
            [&self.key_query, &self.token_query].into_iter().flatten().map(|n| &**n).collect();
        let Some(query) = request.query().filter(|_| !names.is_empty()) else { return true };
        let stays = |pair: &&str| !names.iter().any(|name| is_named(pair_name(pair), name));
        if query.split('&').all(|pair| stays(&pair)) {
            return true;
        }
        let kept: Vec<&str> = query.split('&').filter(stays).collect();
        let kept = (!kept.is_empty()).then(|| kept.join("&"));
        let path = request.path().to_owned();
        request.set_target(&path, kept.as_deref())
    }
}

impl Bearer {
    fn kind(self, value: &[u8]) -> Kind {
        match self {
            Self::Key => Kind::ApiKey,
            Self::Token => Kind::Jwt,
            Self::Either if value.iter().filter(|byte| **byte == b'.').count() == 2 => Kind::Jwt,
            Self::Either => Kind::ApiKey,
        }
    }
}

/// Adds what stands in one place to what was found before.
fn merge<'a>(found: &mut Option<Presented<'a>>, kind: Kind, at: At<'a>, by_bearer: bool) -> Result<(), Malformed> {
    let malformed = |by_bearer| Malformed { kind, by_bearer };
    let value = match at {
        At::Nothing => return Ok(()),
        At::Bad => return Err(malformed(by_bearer)),
        At::One(value) => value,
    };
    let sound = match kind {
        Kind::ApiKey => is_key(&value),
        Kind::Jwt => is_token68(&value) && value.len() <= TOKEN_BYTES_MAX,
    };
    match found {
        Some(before) if !sound || before.kind != kind || before.value != value => Err(malformed(before.by_bearer)),
        None if !sound => Err(malformed(by_bearer)),
        Some(_) => Ok(()),
        None => {
            *found = Some(Presented { kind, value, by_bearer });
            Ok(())
        }
    }
}

/// Whether it may be an API key: any text that a field can hold, in one line without tabs.
fn is_key(value: &[u8]) -> bool {
    (1..=KEY_BYTES_MAX).contains(&value.len()) && !value.iter().any(u8::is_ascii_control)
}

/// `token68` of RFC 9110 §11.2, which is `b64token` of RFC 6750 §2.1.
fn is_token68(value: &[u8]) -> bool {
    let end = value.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last.saturating_add(1));
    let sound = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    end > 0 && value.get(..end).is_some_and(|text| text.iter().all(sound))
}

/// What stands behind `Bearer`. Credentials of another scheme are somebody else's business.
fn authorization(head: &dyn RequestHead) -> At<'_> {
    match only(head, &AUTHORIZATION) {
        At::One(Cow::Borrowed(value)) => bearer(value),
        At::One(Cow::Owned(_)) | At::Bad => At::Bad,
        At::Nothing => At::Nothing,
    }
}

/// RFC 9110 §11.4: a scheme, then spaces, then here one token. More in one value would be two opinions on who calls.
fn bearer(value: &[u8]) -> At<'_> {
    let scheme = value.iter().position(|byte| !is_tchar(*byte)).unwrap_or(value.len());
    let Some((scheme, rest)) = value.split_at_checked(scheme) else { return At::Bad };
    if scheme.is_empty() {
        return At::Bad;
    }
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        // Some server may find the second one of a list.
        let hides_one = value.split(|byte| *byte == b',').skip(1).any(|part| names_bearer(part.trim_ascii_start()));
        return if hides_one { At::Bad } else { At::Nothing };
    }
    let token = rest.iter().position(|byte| *byte != b' ').and_then(|at| rest.get(at..)).unwrap_or_default();
    if token.len() < rest.len() && is_token68(token) { At::One(Cow::Borrowed(token)) } else { At::Bad }
}

fn names_bearer(part: &[u8]) -> bool {
    part.split_at_checked(6).is_some_and(|(scheme, rest)| {
        scheme.eq_ignore_ascii_case(b"bearer") && rest.first().is_none_or(|next| !is_tchar(*next))
    })
}

/// RFC 9110 §5.6.2.
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The value of a field that stands once.
fn only<'a>(head: &'a dyn RequestHead, name: &HeaderName) -> At<'a> {
    let Some(first) = head.get(name) else { return At::Nothing };
    let mut count = 0_usize;
    head.each(name, &mut |_| count = count.saturating_add(1));
    if count == 1 { At::One(Cow::Borrowed(first)) } else { At::Bad }
}

/// The cookie of exactly this name (RFC 6265 §5.4). HTTP/2 may spread cookies over several fields (RFC 9113 §8.2.3).
fn cookie<'a>(head: &'a dyn RequestHead, name: &str) -> At<'a> {
    let mut count = 0_usize;
    let mut found: Option<Vec<u8>> = None;
    // Most requests have one field: nothing is copied then.
    if let At::One(Cow::Borrowed(only)) = only(head, &COOKIE) {
        let mut named = only.split(|byte| *byte == b';').filter_map(|pair| cookie_value(pair, name));
        return match (named.next(), named.next()) {
            (None, _) => At::Nothing,
            (Some(value), None) => At::One(Cow::Borrowed(value)),
            (Some(_), Some(_)) => At::Bad,
        };
    }
    head.each(&COOKIE, &mut |field| {
        for value in field.split(|byte| *byte == b';').filter_map(|pair| cookie_value(pair, name)) {
            count = count.saturating_add(1);
            found = Some(value.to_vec());
        }
    });
    match found {
        None => At::Nothing,
        Some(value) if count == 1 => At::One(Cow::Owned(value)),
        Some(_) => At::Bad,
    }
}

/// The value, when this pair is the cookie `name`. Blanks around either do not count: servers drop them.
fn cookie_value<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let equals = pair.iter().position(|byte| *byte == b'=');
    let (found, value) = match equals.and_then(|at| pair.split_at_checked(at)) {
        Some((found, value)) => (found, value.get(1..).unwrap_or_default()),
        None => (pair, &b""[..]),
    };
    (found.trim_ascii() == name.as_bytes()).then(|| value.trim_ascii())
}

fn remove_cookie(head: &mut dyn RequestHead, name: &str) {
    let mut fields: SmallVec<[Vec<u8>; 2]> = SmallVec::new();
    let mut removed = false;
    head.each(&COOKIE, &mut |field| {
        let pairs = field.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let kept: Vec<&[u8]> = pairs.filter(|pair| cookie_value(pair, name).is_none()).collect();
        removed |= field.split(|byte| *byte == b';').count() > kept.len();
        if kept.iter().any(|pair| !pair.is_empty()) {
            fields.push(kept.join(&b"; "[..]));
        }
    });
    if removed {
        head.remove(&COOKIE);
        // A part of a field value is one.
        fields
            .iter()
            .filter_map(|field| HeaderValue::from_bytes(field).ok())
            .for_each(|value| head.append(&COOKIE, value));
    }
}

/// The parameter of this name, percent-decoded. A `+` is a `+` (RFC 3986): no credential holds a space.
fn parameter<'a>(query: Option<&'a str>, name: &str) -> At<'a> {
    let mut named = query.unwrap_or_default().split('&').filter(|pair| is_named(pair_name(pair), name));
    match (named.next(), named.next()) {
        (None, _) => At::Nothing,
        (Some(pair), None) => {
            let value = pair.split_once('=').map_or("", |(_, value)| value);
            percent_decoded(value).map_or(At::Bad, At::One)
        }
        (Some(_), Some(_)) => At::Bad,
    }
}

fn pair_name(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

/// Whether a server that decodes would take `sent` for `name`.
fn is_named(sent: &str, name: &str) -> bool {
    sent == name || (sent.contains('%') && percent_decoded(sent).is_some_and(|decoded| *decoded == *name.as_bytes()))
}

/// `None` when a `%` is not followed by two hexadecimal digits.
fn percent_decoded(text: &str) -> Option<Cow<'_, [u8]>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        decoded.push(u8::try_from((high << 4) | low).ok()?);
    }
    Some(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests;
