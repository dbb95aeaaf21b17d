//! Consumers: who calls, with which keys, roles and scopes. As they are written, and compiled.

use std::sync::Arc;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Map;

use super::certificates::CertificateSettings;
use super::own_rates::OwnRatesSettings;
use super::roles::{Roles, check_scope, fields};
use crate::caller::{Caller, CallerFields, Credential, Level, Scopes};
use crate::rates::OwnRates;
use crate::yaml::{Located, Problem};

/// Most roles of a consumer.
const ROLES_MAX: usize = 64;
/// Most scopes of a consumer, and of a key.
pub const SCOPES_MAX: usize = 256;
/// Longest scope or role, in bytes.
pub const WORD_BYTES_MAX: usize = 128;

/// Who calls.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ConsumerSettings {
    /// Unique; names the caller in logs, metrics and to services.
    pub name: Located<String>,
    #[serde(default)]
    pub roles: Vec<Located<String>>,
    /// Scopes beside those of the roles.
    #[serde(default)]
    pub scopes: Vec<Located<String>>,
    /// None of its credentials is accepted.
    #[serde(default)]
    pub disabled: bool,
    /// API keys. Several may be valid at once, so that one can be exchanged without a gap.
    #[serde(default)]
    pub keys: Vec<KeySettings>,
    /// Client certificates of listeners with a `client_ca`.
    #[serde(default)]
    pub certificates: Vec<CertificateSettings>,
    /// Rates in place of those of every `rate_limit` that counts by consumer or key: `[1000/min]`, or `{ reads: [1000/min] }`
    /// for the bucket of that name alone.
    pub rates: Option<OwnRatesSettings>,
}

/// An API key: never itself, only its hash. `tollgate key new` makes one.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct KeySettings {
    /// Unique among the keys of all consumers; names the key in logs.
    pub id: Located<String>,
    /// SHA-256 of the key, 64 hexadecimal digits.
    pub sha256: Located<String>,
    /// The first characters of the key, to recognise it by.
    pub prefix: Option<Located<String>>,
    /// When it ends, in RFC 3339: `2027-01-01T00:00:00Z`. Default: never.
    pub expires: Option<Located<String>>,
    #[serde(default)]
    pub disabled: bool,
    /// The only scopes it has, each one of the consumer's. Default: those of the consumer.
    pub scopes: Option<Vec<Located<String>>>,
    /// Rates in place of those of the consumer, in the same two forms.
    pub rates: Option<OwnRatesSettings>,
}

/// A compiled consumer: what every caller has that is let in as it.
pub struct Consumer {
    pub name: Arc<str>,
    pub disabled: bool,
    roles: Box<[Box<str>]>,
    scopes: Scopes,
    level: Level,
    fields: CallerFields,
    rates: Option<Arc<OwnRates>>,
}

impl Consumer {
    /// Compiles what does not depend on a credential. `None` when that was not possible: a problem was reported.
    pub fn compile(written: &ConsumerSettings, roles: &Roles, problems: &mut Vec<Problem>) -> Option<Self> {
        let before = problems.len();
        few(&written.roles, ROLES_MAX, "roles", problems);
        few(&written.scopes, SCOPES_MAX, "scopes", problems);
        for role in &written.roles {
            if role.is_empty() || role.len() > WORD_BYTES_MAX {
                problems
                    .push(Problem::new(role.place, format!("the name of a role has 1 to {WORD_BYTES_MAX} characters")));
            }
        }
        problems.extend(written.scopes.iter().filter_map(scope_problem));
        let own: Box<[Box<str>]> = written.roles.iter().map(|role| role.value.as_str().into()).collect();
        let scopes = roles.scopes(&own, written.scopes.iter().map(|scope| scope.value.as_str()));
        let rates = written.rates.as_ref().and_then(|rates| rates.compile(problems)).map(Arc::new);
        if problems.len() > before {
            return None;
        }
        let fields = match fields(&written.name, &own, &scopes) {
            Ok(fields) => fields,
            Err(problem) => {
                problems.push(problem);
                return None;
            }
        };
        let name = Arc::from(written.name.value.as_str());
        Some(Self { name, disabled: written.disabled, level: roles.level(&own), roles: own, scopes, fields, rates })
    }

    /// Its own scopes and those of its roles.
    pub fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    /// Rates in place of those that filters say.
    pub fn rates(&self) -> Option<&Arc<OwnRates>> {
        self.rates.as_ref()
    }

    /// The caller that is let in with `credential`. `scopes` are the only ones it has; without them, those of the consumer.
    /// `None` when some scope cannot stand in a field.
    pub fn caller(
        &self,
        credential: Credential,
        scopes: Option<Scopes>,
        expires: Option<SystemTime>,
    ) -> Option<Caller> {
        let (scopes, fields) = match scopes {
            Some(scopes) => {
                let fields = CallerFields::new(&self.name, &self.roles, &scopes)?;
                (scopes, fields)
            }
            None => (self.scopes.clone(), self.fields.clone()),
        };
        Some(Caller {
            name: Arc::clone(&self.name),
            credential,
            level: self.level,
            roles: self.roles.clone(),
            scopes,
            claims: Map::new(),
            expires,
            fields,
            rates: self.rates.clone(),
        })
    }
}

/// Reports a list that is too long.
pub fn few(list: &[Located<String>], most: usize, what: &str, problems: &mut Vec<Problem>) {
    if let Some(first) = list.get(most) {
        problems.push(Problem::new(first.place, format!("there are {} {what}; at most {most} are kept", list.len())));
    }
}

/// What is wrong with a scope, its length included.
pub fn scope_problem(scope: &Located<String>) -> Option<Problem> {
    if scope.len() > WORD_BYTES_MAX {
        return Some(Problem::new(scope.place, format!("a scope has at most {WORD_BYTES_MAX} characters")));
    }
    check_scope(scope)
}
