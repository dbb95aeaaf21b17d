//! By what messages are kept in order.

mod member;

use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::contract::Compiler;
use crate::head::{HeaderName, RequestHead};
use crate::types::hex;
use crate::yaml::{Located, Node, Problem};

/// Longest key that is kept as it is, in bytes.
const KEY_BYTES_MAX: usize = 256;

/// By what messages are kept in order.
pub enum Order {
    Any,
    Field(HeaderName),
    /// A pointer into a JSON body.
    Member(Box<str>),
}

/// The two forms of `order_by`, for the schema.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "describes the format; never built")]
pub enum OrderForm {
    /// A request field: `X-Order-Key`.
    Field(String),
    Member(MemberSettings),
}

/// What a JSON body says.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct MemberSettings {
    /// A pointer (RFC 6901): `/repository/full_name`.
    member: Located<String>,
}

impl Order {
    /// `None` when a problem was reported.
    pub fn compile(written: &Node, compiler: &mut Compiler) -> Option<Self> {
        if let Some(name) = written.as_str() {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                return Some(Self::Field(name));
            }
            let problem = Problem::new(written.place, format!("`{}` is no field name", name.escape_debug()));
            let hint = "write the name of a request field, or `{ member: /repository/full_name }`";
            compiler.report(problem.with_hint(hint));
            return None;
        }
        let MemberSettings { member } = compiler.settings(written)?;
        if member.starts_with('/') {
            return Some(Self::Member(member.value.into()));
        }
        let problem = Problem::new(member.place, format!("`{}` is no JSON pointer", member.value.escape_debug()));
        compiler.report(problem.with_hint("begin each step with a `/`: /repository/full_name"));
        None
    }

    /// The key of a request. `None`: it has none.
    pub fn key(&self, request: &dyn RequestHead, body: &[u8]) -> Option<String> {
        match self {
            Self::Any => None,
            Self::Field(name) => request.get(name).map(bounded),
            Self::Member(pointer) => member::read(body, pointer).map(|key| bounded(key.as_bytes())),
        }
    }
}

/// The key as text of bounded length: what is longer, or no text, by its hash.
fn bounded(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if key.len() <= KEY_BYTES_MAX => text.to_owned(),
        _ => format!("sha256:{}", hex(&Sha256::digest(key))),
    }
}
