//! Which origins are allowed.

use std::collections::HashSet;

use super::is_any;
use crate::contract::Compiler;
use crate::head::HeaderValue;
use crate::yaml::{Located, Place, Problem};

/// A compiled list of origins.
pub(super) enum Origins {
    /// Every origin, and answers do not depend on it.
    Any,
    Listed {
        exact: HashSet<Box<[u8]>>,
        wildcards: Vec<Wildcard>,
    },
}

/// `https://*.example.com:8443`
pub(super) struct Wildcard {
    /// `https://`
    scheme: Box<[u8]>,
    /// `.example.com:8443`
    rest: Box<[u8]>,
}

impl Origins {
    pub(super) fn compile(
        written: &Located<Vec<Located<String>>>,
        credentials: bool,
        compiler: &mut Compiler,
    ) -> Option<Self> {
        if written.is_empty() {
            let problem = Problem::new(written.place, "`origins` is empty, so that no page could use the route");
            compiler.report(problem.with_hint("list origins, or drop the filter"));
        }
        if is_any(written) {
            if credentials {
                let problem =
                    Problem::new(written.place, "`*` with `credentials` would let any site act for your users");
                compiler.report(problem.with_hint("list the origins that may; `https://*.example.com` takes many"));
            }
            return Some(Self::Any);
        }
        let mut exact = HashSet::new();
        let mut wildcards = Vec::new();
        for origin in written.iter() {
            match Pattern::parse(origin) {
                Ok(Pattern::Exact) => {
                    exact.insert(origin.as_bytes().into());
                }
                Ok(Pattern::Wildcard(wildcard)) => wildcards.push(wildcard),
                Err((message, hint)) => report(origin.place, &message, hint, compiler),
            }
        }
        Some(Self::Listed { exact, wildcards })
    }

    pub(super) fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }

    /// What `Access-Control-Allow-Origin` says to a request with this `Origin`; `None` when it is not allowed.
    pub(super) fn answer(&self, origin: Option<&[u8]>) -> Option<HeaderValue> {
        match self {
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::Listed { exact, wildcards } => {
                let origin = origin?;
                let allowed = exact.contains(origin) || wildcards.iter().any(|wildcard| wildcard.matches(origin));
                if allowed { HeaderValue::from_bytes(origin).ok() } else { None }
            }
        }
    }
}

fn report(place: Place, message: &str, hint: &str, compiler: &mut Compiler) {
    compiler.report(Problem::new(place, message).with_hint(hint));
}

impl Wildcard {
    fn matches(&self, origin: &[u8]) -> bool {
        let labels = origin.strip_prefix(&*self.scheme).and_then(|host| host.strip_suffix(&*self.rest));
        labels.is_some_and(|labels| {
            // Nothing but labels: not `https://evil.example/.example.com`, and no empty label.
            labels.split(|byte| *byte == b'.').all(|label| !label.is_empty() && label.iter().all(is_label_byte))
        })
    }
}

enum Pattern {
    Exact,
    Wildcard(Wildcard),
}

impl Pattern {
    /// Only what a browser can send is accepted: the ASCII serialisation of an origin (RFC 6454 §6.2).
    fn parse(text: &str) -> Result<Self, (String, &'static str)> {
        const FORM: &str = "write `https://app.example.com`, with the port when it is not the usual one";
        if text == "*" {
            return Err((
                "`*` allows every origin, those beside it too".to_owned(),
                "write `[\"*\"]` alone, or drop it",
            ));
        }
        if text == "null" {
            let hint = "every sandboxed page and local file has the origin `null`; list real origins";
            return Err(("`null` would allow pages of anybody".to_owned(), hint));
        }
        let wrong = || format!("`{text}` is no origin");
        let (scheme, rest) = text.split_once("://").ok_or_else(|| (wrong(), FORM))?;
        if scheme.is_empty()
            || !scheme.bytes().all(|byte| byte.is_ascii_lowercase() || b"0123456789+-.".contains(&byte))
        {
            return Err((wrong(), FORM));
        }
        let (is_wildcard, authority) = match rest.strip_prefix("*.") {
            Some(authority) => (true, authority),
            None => (false, rest),
        };
        let (host, port) = split_port(authority);
        if port.is_some_and(|port| port.is_empty() || port.parse::<u16>().is_err()) || !is_host(host) {
            return Err((wrong(), "scheme, host in lower case and port only: no path, no `/` at the end"));
        }
        if matches!((scheme, port), ("https", Some("443")) | ("http", Some("80"))) {
            return Err((format!("browsers never write the usual port, so `{text}` would not match"), "drop the port"));
        }
        if !is_wildcard {
            return Ok(Self::Exact);
        }
        Ok(Self::Wildcard(Wildcard {
            scheme: format!("{scheme}://").into_bytes().into(),
            rest: format!(".{authority}").into_bytes().into(),
        }))
    }
}

/// Host and port; the colons of an IPv6 address are none.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    host.split('.').all(|label| !label.is_empty() && label.as_bytes().iter().all(is_label_byte))
}

fn is_label_byte(byte: &u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(byte)
}
