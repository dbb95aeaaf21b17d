//! Roles and the scopes they bring.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::caller::{CallerFields, Level, Scopes};
use crate::yaml::{Located, Problem};

/// What a role brings.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RoleSettings {
    /// Scopes that everybody with this role has. `*` is every scope, `read:*` every one that begins with `read:`.
    pub scopes: Vec<Located<String>>,
    /// `user` (default), `service` or `admin`: for `require: { level: … }`.
    pub level: Level,
}

/// The roles of a configuration.
#[derive(Debug, Default)]
pub struct Roles {
    by_name: HashMap<Box<str>, Role>,
}

#[derive(Debug)]
struct Role {
    scopes: Box<[Box<str>]>,
    level: Level,
}

impl Roles {
    pub fn compile(written: &[(&Located<String>, &RoleSettings)], problems: &mut Vec<Problem>) -> Self {
        let mut by_name = HashMap::with_capacity(written.len());
        for (name, settings) in written {
            let scopes: Box<[Box<str>]> = settings.scopes.iter().map(|scope| scope.value.as_str().into()).collect();
            settings.scopes.iter().filter_map(check_scope).for_each(|problem| problems.push(problem));
            by_name.insert(name.value.as_str().into(), Role { scopes, level: settings.level });
        }
        Self { by_name }
    }

    /// The scopes of somebody with these roles and these own scopes. A role that is not in the configuration brings none.
    pub fn scopes<'a>(&'a self, roles: &'a [Box<str>], own: impl Iterator<Item = &'a str>) -> Scopes {
        let of_roles = roles.iter().filter_map(|role| self.by_name.get(role)).flat_map(|role| role.scopes.iter());
        Scopes::new(own.chain(of_roles.map(|scope| &**scope)))
    }

    /// The highest level of these roles, `user` at least.
    pub fn level(&self, roles: &[Box<str>]) -> Level {
        let levels = roles.iter().filter_map(|role| self.by_name.get(role)).map(|role| role.level);
        levels.max().unwrap_or_default().max(Level::User)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }
}

/// What is wrong with a scope as it is written. RFC 6749 §3.3: visible ASCII without `"` and `\`.
pub fn check_scope(scope: &Located<String>) -> Option<Problem> {
    let sound = |byte: u8| byte.is_ascii_graphic() && !b"\"\\".contains(&byte);
    if scope.value.is_empty() || !scope.value.bytes().all(sound) {
        let problem = Problem::new(scope.place, "a scope is one word of visible ASCII without quotes and backslash");
        return Some(problem.with_hint("such as read:tasks; several are entries of the list"));
    }
    let inside = scope.value.strip_suffix('*').unwrap_or(&scope.value);
    let wildcard = inside.len() < scope.value.len();
    if inside.contains('*') || (wildcard && !inside.is_empty() && !inside.ends_with(':')) {
        let problem = Problem::new(scope.place, format!("`{}` is no wildcard", scope.value));
        return Some(problem.with_hint("`*` is every scope, `read:*` every one that begins with `read:`"));
    }
    None
}

/// Name, roles and scopes of a consumer as fields, or what cannot stand in one.
pub fn fields(name: &Located<String>, roles: &[Box<str>], scopes: &Scopes) -> Result<CallerFields, Problem> {
    CallerFields::new(&name.value, roles, scopes).ok_or_else(|| {
        Problem::new(name.place, format!("name, roles or scopes of `{}` cannot stand in a header field", name.value))
            .with_hint("visible ASCII only; no comma in a role")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Place;

    fn located(text: &str) -> Located<String> {
        Located::new(text.to_owned(), Place::UNKNOWN)
    }

    #[test]
    fn roles_bring_scopes_and_the_highest_level() {
        let (viewer, admin) = (located("viewer"), located("admin"));
        let of = |scope: &str, level| RoleSettings { scopes: vec![located(scope)], level };
        let (view, rule) = (of("read:*", Level::User), of("*", Level::Admin));
        let mut problems = Vec::new();
        let roles = Roles::compile(&[(&viewer, &view), (&admin, &rule)], &mut problems);
        assert!(problems.is_empty());
        let one: [Box<str>; 2] = ["viewer".into(), "stranger".into()];
        let scopes = roles.scopes(&one, ["write:own"].into_iter());
        assert!(scopes.allow("read:tasks") && scopes.allow("write:own") && !scopes.allow("write:tasks"));
        assert_eq!(roles.level(&one), Level::User);
        assert_eq!(roles.level(&["admin".into(), "viewer".into()]), Level::Admin);
    }

    #[test]
    fn odd_scopes_are_reported() {
        for bad in ["", "a b", "a\"", "read*", "re*d:x", "**", "ä"] {
            assert!(check_scope(&located(bad)).is_some(), "{bad:?}");
        }
        for good in ["*", "read:*", "read:tasks", "admin:api_keys", "https://a.example/read"] {
            assert!(check_scope(&located(good)).is_none(), "{good:?}");
        }
    }
}
