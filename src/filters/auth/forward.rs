//! What the service is told of the caller.

use super::settings::ForwardSettings;
use crate::caller::{Caller, claim_text, is_padded};
use crate::client::is_claim;
use crate::contract::Compiler;
use crate::head::{HeaderName, HeaderValue, RequestHead};
use crate::yaml::{Located, Problem};

/// The fields, by what they tell.
#[derive(Default)]
pub struct Forward {
    name: Option<HeaderName>,
    roles: Option<HeaderName>,
    scopes: Option<HeaderName>,
    level: Option<HeaderName>,
    credential: Option<HeaderName>,
    claims: Box<[(Box<str>, HeaderName)]>,
}

impl Forward {
    /// Every field is kept for the gateway: no client can send it. `credentials` are the fields that credentials stand in.
    pub fn compile(written: &ForwardSettings, credentials: &[&str], compiler: &mut Compiler) -> Self {
        let mut taken: Vec<HeaderName> = Vec::new();
        let mut field = |written: &Located<String>, compiler: &mut Compiler| {
            let name = compiler.field_name(&written.value, written.place)?;
            if taken.contains(&name) {
                let message = format!("`{}` would tell two things", written.value);
                compiler.report(Problem::new(written.place, message).with_hint("give each its own field"));
                return None;
            }
            if let Some(reason) = unfit(&name, credentials) {
                let message = format!("`{}` cannot tell who calls: {reason}", written.value);
                compiler.report(Problem::new(written.place, message).with_hint("choose a name such as X-Consumer"));
                return None;
            }
            if written.contains('_') {
                let message = format!("`{}` holds a `_`", written.value);
                let problem = Problem::new(written.place, message);
                compiler
                    .report(problem.with_hint("many servers drop such a field or take it for one with `-`; write `-`"));
            }
            taken.push(name.clone());
            compiler.guard(name.clone());
            Some(name)
        };
        let mut one = |written: &Option<Located<String>>, compiler: &mut Compiler| {
            written.as_ref().and_then(|written| field(written, compiler))
        };
        let name = one(&written.name, compiler);
        let roles = one(&written.roles, compiler);
        let scopes = one(&written.scopes, compiler);
        let level = one(&written.level, compiler);
        let credential = one(&written.credential, compiler);
        let claims = written.claims.iter();
        let claims =
            claims.filter_map(|(claim, name)| Some((claim.value.as_str().into(), field(name, compiler)?))).collect();
        Self { name, roles, scopes, level, credential, claims }
    }

    /// Tells the service who calls. `false` when a claim cannot stand in a field: then the request must not go on, for the service
    /// would take the absence of the field for something else.
    #[must_use]
    pub fn tell(&self, caller: &Caller, request: &mut dyn RequestHead) -> bool {
        let prepared = [
            (&self.name, &caller.fields.name),
            (&self.roles, &caller.fields.roles),
            (&self.scopes, &caller.fields.scopes),
        ];
        for (field, value) in prepared {
            if let Some(field) = field {
                put(request, field, Some(value.clone()).filter(|value| !value.is_empty()));
            }
        }
        if let Some(field) = &self.level {
            put(request, field, Some(HeaderValue::from_static(caller.level.as_str())));
        }
        if let Some(field) = &self.credential {
            let Some(value) = value(caller.credential.id()) else { return false };
            put(request, field, value);
        }
        for (claim, field) in &self.claims {
            let text = caller.claim(claim).and_then(claim_text);
            let Some(value) = value(text.as_deref()) else { return false };
            put(request, field, value);
        }
        true
    }

    /// Nobody calls: none of the fields is there, whoever set one.
    pub fn clear(&self, request: &mut dyn RequestHead) {
        let facts = [&self.name, &self.roles, &self.scopes, &self.level, &self.credential];
        let fields = facts.into_iter().flatten().chain(self.claims.iter().map(|(_, field)| field));
        fields.for_each(|field| request.remove(field));
    }
}

/// Why a field that is kept from clients must not be this one.
fn unfit(name: &HeaderName, credentials: &[&str]) -> Option<&'static str> {
    if credentials.iter().any(|field| field.eq_ignore_ascii_case(name.as_str()))
        || matches!(name.as_str(), "authorization" | "cookie")
    {
        return Some("clients send credentials in it, and could not any more");
    }
    is_claim(name.as_str()).then_some("the gateway tells something else in it, or removes it")
}

/// The outer `None`: it is there, and no field can hold it.
fn value(text: Option<&str>) -> Option<Option<HeaderValue>> {
    if text.is_some_and(is_padded) {
        return None;
    }
    text.map(|text| HeaderValue::from_bytes(text.as_bytes())).transpose().ok()
}

fn put(request: &mut dyn RequestHead, field: &HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => request.set(field, value),
        None => request.remove(field),
    }
}
