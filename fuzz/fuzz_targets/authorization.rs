//! What a request presents: found by one reading, the same as that of a slow and simple reader; gone once it is removed.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tollgate::head::{HeaderName, HeaderValue, Headers, Method, RequestBuf};
use tollgate::identity::presented::{Bearer, KEY_BYTES_MAX, Kind, Places, TOKEN_BYTES_MAX};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    bearer: u8,
    authorization: Vec<&'a [u8]>,
    key: Vec<&'a [u8]>,
    cookies: Vec<&'a [u8]>,
    query: Option<&'a str>,
}

const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

fuzz_target!(|input: Input<'_>| {
    let places = Places {
        bearer: [None, Some(Bearer::Key), Some(Bearer::Token), Some(Bearer::Either)][usize::from(input.bearer % 4)],
        key_header: Some(KEY_HEADER),
        key_query: Some("key".into()),
        token_cookie: Some("session".into()),
        token_query: Some("token".into()),
    };
    let mut request = RequestBuf::new(Method::GET, "/a");
    request.query = input.query.filter(|query| !query.contains('#')).map(str::to_owned);
    for (name, values) in [("authorization", &input.authorization), ("x-api-key", &input.key), ("cookie", &input.cookies)] {
        for value in values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok()) {
            request.append(&HeaderName::from_static(name), value);
        }
    }
    let expected = slow(&places, &request);
    let found = places.find(&request).map(|found| found.map(|found| (found.kind, found.value.into_owned())));
    assert_eq!(found.map_err(|_| ()), expected);
    if let Ok(Some(_)) = expected {
        assert!(places.remove(&mut request));
        assert_eq!(slow(&places, &request), Ok(None), "something is left: {request:?}");
    }
});

type Found = Result<Option<(Kind, Vec<u8>)>, ()>;

fn all(request: &RequestBuf, name: &'static str) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    request.each(&HeaderName::from_static(name), &mut |value| values.push(value.to_vec()));
    values
}

/// Collects every credential there is, then judges.
fn slow(places: &Places, request: &RequestBuf) -> Found {
    let mut found: Vec<(Kind, Vec<u8>)> = Vec::new();
    let mut add = |kind: Kind, values: Vec<Vec<u8>>| match values.as_slice() {
        [] => Ok(()),
        [value] => {
            found.push((kind, value.clone()));
            Ok(())
        }
        _ => Err(()),
    };
    if let Some(bearer) = places.bearer {
        let fields = all(request, "authorization");
        if fields.len() > 1 {
            return Err(());
        }
        for value in fields {
            if let Some(token) = bearer_token(&value)? {
                let dots = token.iter().filter(|byte| **byte == b'.').count();
                let is_token = bearer == Bearer::Token || (bearer == Bearer::Either && dots == 2);
                add(if is_token { Kind::Jwt } else { Kind::ApiKey }, vec![token])?;
            }
        }
    }
    add(Kind::ApiKey, all(request, "x-api-key"))?;
    let joined = all(request, "cookie").join(&b';');
    let pairs = joined.split(|byte| *byte == b';').map(|pair| {
        let (name, value) = split_at(pair, b'=');
        (name.trim_ascii().to_vec(), value.trim_ascii().to_vec())
    });
    add(Kind::Jwt, pairs.filter(|(name, _)| name == b"session").map(|(_, value)| value).collect())?;
    for (kind, wanted) in [(Kind::ApiKey, "key"), (Kind::Jwt, "token")] {
        let mut values = Vec::new();
        for pair in request.query.as_deref().unwrap_or_default().split('&') {
            let (name, value) = split_at(pair.as_bytes(), b'=');
            if decoded(name).is_some_and(|name| name == wanted.as_bytes()) {
                values.push(decoded(value));
            }
        }
        let values: Option<Vec<Vec<u8>>> = values.into_iter().collect();
        add(kind, values.ok_or(())?)?;
    }
    let sound = |(kind, value): &(Kind, Vec<u8>)| match kind {
        Kind::ApiKey => {
            !value.is_empty() && value.len() <= KEY_BYTES_MAX && value.iter().all(|byte| *byte >= 32 && *byte != 127)
        }
        Kind::Jwt => is_token68(value) && value.len() <= TOKEN_BYTES_MAX,
    };
    if !found.iter().all(sound) {
        return Err(());
    }
    found.dedup();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        _ => Err(()),
    }
}

fn bearer_token(value: &[u8]) -> Result<Option<Vec<u8>>, ()> {
    let tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let scheme: Vec<u8> = value.iter().copied().take_while(tchar).collect();
    if scheme.is_empty() {
        return Err(());
    }
    if scheme.to_ascii_lowercase() != b"bearer" {
        let names_bearer = |part: &[u8]| {
            let scheme: Vec<u8> = part.trim_ascii_start().iter().copied().take_while(tchar).collect();
            scheme.to_ascii_lowercase() == b"bearer"
        };
        let hidden = value.split(|byte| *byte == b',').skip(1).any(names_bearer);
        return if hidden { Err(()) } else { Ok(None) };
    }
    let rest = &value[scheme.len()..];
    let token: Vec<u8> = rest.iter().copied().skip_while(|byte| *byte == b' ').collect();
    if rest.starts_with(b" ") && is_token68(&token) { Ok(Some(token)) } else { Err(()) }
}

fn is_token68(value: &[u8]) -> bool {
    let text: Vec<u8> = value.iter().rev().copied().skip_while(|byte| *byte == b'=').collect();
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte))
}

fn split_at(text: &[u8], at: u8) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == at) {
        Some(index) => (&text[..index], &text[index + 1..]),
        None => (text, b""),
    }
}

fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        if *byte != b'%' {
            bytes.push(*byte);
            rest = tail;
            continue;
        }
        let [high, low, after @ ..] = tail else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        bytes.push(digit(*high)? << 4 | digit(*low)?);
        rest = after;
    }
    Some(bytes)
}
