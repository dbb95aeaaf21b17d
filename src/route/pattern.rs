//! What a route's `match` may say about a path and a host.

use std::fmt;

use super::SEGMENTS_MAX;
use super::path::normalise_pattern;

/// A path template: `/api/v1/tasks/{id?}`.
///
/// | form | matches |
/// |---|---|
/// | `tasks` | this segment, byte for byte |
/// | `{name}` | any one segment, not empty |
/// | `{name?}` | the same or nothing; last only |
/// | `{*name}` | zero or more segments; last only |
#[derive(Clone, Debug)]
pub struct PathPattern {
    text: Box<str>,
    steps: Vec<Step>,
    tail: Tail,
    parameters: Vec<Box<str>>,
}

/// One segment of a shape; what a parameter is called does not matter to a match.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Literal(Box<str>),
    Parameter,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tail {
    End,
    /// The last step may be missing.
    Optional,
    Rest,
}

/// One way to fulfil a pattern.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape<'a> {
    pub steps: &'a [Step],
    /// Zero or more further segments.
    pub rest: bool,
}

enum Piece {
    Literal,
    Parameter(Tail, Box<str>),
}

impl PathPattern {
    /// The error says what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(body) = text.strip_prefix('/') else {
            return Err(format!("a path starts with `/`: write `/{text}`"));
        };
        let body = body.strip_suffix('/').unwrap_or(body);
        let mut pattern = Self { text: text.into(), steps: Vec::new(), tail: Tail::End, parameters: Vec::new() };
        for segment in body.split('/').filter(|_| !body.is_empty()) {
            let piece = parse_piece(segment)?;
            pattern.add(segment, piece)?;
        }
        if pattern.tail == Tail::Rest && text.ends_with('/') {
            return Err("`{*name}` comes last and takes the final `/` too: leave out the `/` behind it".to_owned());
        }
        match normalise_pattern(text) {
            Ok(normal) if normal == text => {}
            Ok(normal) => return Err(format!("requests are matched by their normalised path: write `{normal}`")),
            Err(error) => return Err(format!("no request can match this: {error}, and such a request is refused")),
        }
        if pattern.steps.len() > SEGMENTS_MAX {
            return Err(format!("{} segments are more than the {SEGMENTS_MAX} allowed", pattern.steps.len()));
        }
        Ok(pattern)
    }

    /// The names of the parameters, from left to right.
    pub fn parameters(&self) -> &[Box<str>] {
        &self.parameters
    }

    /// Whether the pattern was written with a `/` at its end.
    pub fn ends_with_slash(&self) -> bool {
        self.text.ends_with('/')
    }

    pub(super) fn shapes(&self) -> impl Iterator<Item = Shape<'_>> {
        let whole = Shape { steps: &self.steps, rest: self.tail == Tail::Rest };
        let shorter = match self.steps.split_last() {
            Some((_, steps)) if self.tail == Tail::Optional => Some(Shape { steps, rest: false }),
            _ => None,
        };
        std::iter::once(whole).chain(shorter)
    }

    fn add(&mut self, segment: &str, piece: Piece) -> Result<(), String> {
        match self.tail {
            Tail::End => {}
            Tail::Optional => {
                return Err(format!("an optional parameter comes last, and `{segment}` follows it: drop its `?`"));
            }
            Tail::Rest => return Err(format!("`{{*name}}` takes the rest of the path, and `{segment}` follows it")),
        }
        let Piece::Parameter(tail, name) = piece else {
            self.steps.push(Step::Literal(segment.into()));
            return Ok(());
        };
        if self.parameters.contains(&name) {
            return Err(format!("two parameters are called `{name}`: rename one"));
        }
        self.parameters.push(name);
        self.tail = tail;
        if tail != Tail::Rest {
            self.steps.push(Step::Parameter);
        }
        Ok(())
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse_piece(segment: &str) -> Result<Piece, String> {
    let Some(inner) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        if segment.contains(['{', '}']) {
            return Err(format!("a parameter takes a whole segment: split `{segment}` by `/`, as in `/a/{{name}}`"));
        }
        if segment.contains('?') {
            return Err(format!("a path holds no query: match what follows the `?` in `{segment}` with `query:`"));
        }
        // Read as literals, these forms of other routers would never match and never be missed.
        if matches!(segment, "*" | "**") {
            return Err(format!("`{segment}` is no wildcard here: write `{{*rest}}`, or `{{name}}` for one segment"));
        }
        if let Some(name) = segment.strip_prefix(':') {
            return Err(format!("`{segment}` is no parameter here: write `{{{name}}}`"));
        }
        return Ok(Piece::Literal);
    };
    if inner.contains(['{', '}']) {
        return Err(format!("a segment holds one parameter: split `{segment}` by `/`"));
    }
    let (tail, name) = match (inner.strip_prefix('*'), inner.strip_suffix('?')) {
        (Some(_), Some(_)) => return Err(format!("`{segment}`: `{{*name}}` may be empty anyway, drop the `?`")),
        (Some(name), None) => (Tail::Rest, name),
        (None, Some(name)) => (Tail::Optional, name),
        (None, None) => (Tail::End, inner),
    };
    if name.is_empty() {
        return Err(format!("`{segment}`: a parameter needs a name, as in `{{id}}`"));
    }
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if !starts_well || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(format!("`{name}` is no parameter name: use letters, digits and `_`, starting with no digit"));
    }
    Ok(Piece::Parameter(tail, name.into()))
}

/// The longest name that DNS allows, in bytes ([RFC 1035 §2.3.4](https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4)).
pub(super) const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// A host name, `api.example.com`, or one with one or more labels in front, `*.example.com`. In lower case, no port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostPattern {
    wildcard: bool,
    name: Box<str>,
}

impl HostPattern {
    /// Upper case is accepted and lowered. The error says what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Err("`*` as a host means any host: leave out `hosts`".to_owned());
        }
        if let Some((_, rest)) = text.split_once("://") {
            return Err(format!("a host has no scheme: write `{rest}`"));
        }
        if let Some((host, _)) = text.split_once('/') {
            return Err(format!("a host has no path: write `{host}` and match the path with `path`"));
        }
        let lower = text.to_ascii_lowercase();
        if is_ipv6(&lower) {
            return Ok(Self { wildcard: false, name: lower.into() });
        }
        if let Some((host, _)) = lower.rsplit_once(':') {
            return Err(format!("a host is matched without its port: write `{host}`"));
        }
        if let Some(host) = lower.strip_suffix('.') {
            return Err(format!("a host is written without a dot at its end: write `{host}`"));
        }
        let (wildcard, name) = match lower.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, lower.as_str()),
        };
        check_labels(name)?;
        Ok(Self { wildcard, name: name.into() })
    }

    /// The name behind `*.`, when there is a `*.`.
    pub(super) fn suffix(&self) -> Option<&str> {
        self.wildcard.then_some(&*self.name)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.wildcard { "*." } else { "" }, self.name)
    }
}

fn is_ipv6(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

fn check_labels(name: &str) -> Result<(), String> {
    if name.len() > HOST_BYTES_MAX {
        return Err(format!("a host name has at most {HOST_BYTES_MAX} bytes, this one has {}", name.len()));
    }
    if name.contains('*') {
        return Err("a `*` stands only as the whole first label, as in `*.example.com`".to_owned());
    }
    if !name.is_ascii() {
        return Err("a host is matched in its ASCII form: write the `xn--` name".to_owned());
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > LABEL_BYTES_MAX {
            return Err(format!("each label between the dots of a host has 1 to {LABEL_BYTES_MAX} bytes"));
        }
        if let Some(bad) = label.chars().find(|&c| !c.is_ascii_alphanumeric() && c != '-' && c != '_') {
            return Err(format!("`{bad}` cannot stand in a host name: use letters, digits, `-` and dots"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
