//! Users: people who log in with a password, as they stand in the configuration.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::passwords::Hash;
use super::roles::{Roles, check_scope, fields};
use crate::types::Secret;
use crate::yaml::{Located, Place, Problem};

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// Somebody who logs in with a password. `tollgate user hash` makes the hash.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct UserSettings {
    /// Unique; the `sub` of the tokens.
    pub name: Located<String>,
    /// Hash of the password: argon2id (`$argon2id$…`), or bcrypt (`$2b$…`). Never the password itself.
    pub password: Located<Secret>,
    #[serde(default)]
    pub roles: Vec<Located<String>>,
    /// Scopes beside those of the roles.
    #[serde(default)]
    pub scopes: Vec<Located<String>>,
    /// Cannot log in, and can have no token refreshed.
    #[serde(default)]
    pub disabled: bool,
}

/// The users of a configuration.
#[derive(Default)]
pub struct Users {
    by_name: HashMap<Box<str>, Arc<User>>,
    /// The hashes of all users: one of them is checked for a name that nobody has.
    hashes: Vec<Arc<User>>,
}

/// A user.
#[derive(Debug)]
pub struct User {
    hash: Hash,
    disabled: bool,
    pub person: Person,
}

/// What a token says of somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    pub name: String,
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
}

impl Users {
    pub fn compile(written: &[&UserSettings], roles: &Roles, problems: &mut Vec<Problem>) -> Arc<Self> {
        let mut users = Self::default();
        let mut places: HashMap<&str, Place> = HashMap::new();
        for settings in written {
            let name = &settings.name;
            if let Some(first) = places.insert(&name.value, name.place) {
                let problem = Problem::new(name.place, format!("user `{}` is defined twice", name.value));
                problems.push(problem.with_related("first defined", first));
                continue;
            }
            if let Some(user) = compile(settings, roles, problems) {
                let user = Arc::new(user);
                users.hashes.push(Arc::clone(&user));
                users.by_name.insert(settings.name.value.as_str().into(), user);
            }
        }
        Arc::new(users)
    }

    /// Somebody as the configuration has them now, unless they are disabled.
    pub fn find(&self, name: &str) -> Option<&Person> {
        self.by_name.get(name).filter(|user| !user.disabled).map(|user| &user.person)
    }

    /// Whether somebody has this name, disabled or not.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Whose password it is. Exactly one hash is checked by `check`, whether there is such a user or not.
    ///
    /// For a name that nobody has it is the hash of some user, always the same for the same name: a name that is not taken
    /// costs what one of the others costs, also where some have bcrypt and some argon2id.
    pub fn login(&self, name: &str, names: &RandomState, check: impl FnOnce(&Hash) -> bool) -> Option<&Person> {
        match self.by_name.get(name) {
            Some(user) => (check(&user.hash) && !user.disabled).then_some(&user.person),
            None => {
                let count = u64::try_from(self.hashes.len()).unwrap_or(u64::MAX);
                let index = names.hash_one(name).checked_rem(count).and_then(|index| usize::try_from(index).ok());
                // Even the right password of somebody else changes nothing.
                let _ = match index.and_then(|index| self.hashes.get(index)) {
                    Some(user) => check(&user.hash),
                    None => check(&Hash::of_nobody()),
                };
                None
            }
        }
    }
}

fn compile(settings: &UserSettings, roles: &Roles, problems: &mut Vec<Problem>) -> Option<User> {
    let before = problems.len();
    let name = &settings.name;
    if name.value.is_empty() || name.value.len() > NAME_BYTES_MAX {
        problems.push(Problem::new(name.place, format!("the name of a user has 1 to {NAME_BYTES_MAX} bytes")));
    }
    let hash = Hash::parse(settings.password.value.expose()).map_err(|why| {
        let problem = Problem::new(settings.password.place, format!("the password of user `{}`: {why}", name.value));
        problems.push(problem.with_hint("`tollgate user hash` makes one"));
    });
    problems.extend(settings.scopes.iter().filter_map(check_scope));
    let texts = |list: &[Located<String>]| list.iter().map(|text| text.value.clone()).collect::<Vec<_>>();
    let person = Person { name: name.value.clone(), roles: texts(&settings.roles), scopes: texts(&settings.scopes) };
    // What could not be sent upstream must not become a token.
    let names: Vec<Box<str>> = person.roles.iter().map(|role| role.as_str().into()).collect();
    let scopes = roles.scopes(&names, person.scopes.iter().map(String::as_str));
    if problems.len() == before
        && let Err(problem) = fields(name, &names, &scopes)
    {
        problems.push(problem);
    }
    let hash = hash.ok()?;
    (problems.len() == before).then_some(User { hash, disabled: settings.disabled, person })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn located<T>(value: T) -> Located<T> {
        Located::new(value, Place::UNKNOWN)
    }

    fn user(name: &str, disabled: bool) -> UserSettings {
        // The cheapest there is: not what is tested here.
        let hash = bcrypt::hash(name, 4).unwrap();
        UserSettings {
            name: located(name.to_owned()),
            password: located(hash.parse().unwrap()),
            roles: vec![located("user".to_owned())],
            scopes: Vec::new(),
            disabled,
        }
    }

    fn users(written: &[UserSettings]) -> Arc<Users> {
        let mut problems = Vec::new();
        let users = Users::compile(&written.iter().collect::<Vec<_>>(), &Roles::default(), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        users
    }

    #[test]
    fn the_right_password_of_an_enabled_user_lets_in() {
        let users = users(&[user("ann", false), user("ben", true)]);
        let names = RandomState::new();
        let login = |name: &str, password: &'static str| {
            users.login(name, &names, |hash| hash.matches(password.as_bytes())).map(|person| person.name.clone())
        };
        assert_eq!(login("ann", "ann"), Some("ann".to_owned()));
        assert_eq!(login("ann", "ben"), None);
        assert_eq!(login("ben", "ben"), None, "disabled");
        assert_eq!(login("eve", "ann"), None, "the password of somebody else");
        assert!(users.find("ann").is_some() && users.find("ben").is_none() && users.find("eve").is_none());
    }

    /// Time tells nothing when the same work is done: one hash is checked for every name, known or not, disabled or not.
    #[test]
    fn every_login_checks_exactly_one_hash() {
        let names = RandomState::new();
        for users in [users(&[user("ann", false), user("ben", true)]), users(&[])] {
            for name in ["ann", "ben", "eve", ""] {
                let checked = RefCell::new(0);
                users.login(name, &names, |_| {
                    *checked.borrow_mut() += 1;
                    false
                });
                assert_eq!(*checked.borrow(), 1, "{name}");
            }
        }
    }

    #[test]
    fn an_unknown_name_always_costs_the_same() {
        let users = users(&[user("ann", false), user("ben", false), user("cat", false)]);
        let names = RandomState::new();
        let hash_of = |name: &str| {
            let seen = RefCell::new(None);
            users.login(name, &names, |hash| {
                *seen.borrow_mut() = Some(std::ptr::from_ref(hash) as usize);
                true
            });
            seen.into_inner()
        };
        for name in ["eve", "mallory", "trent"] {
            assert_eq!(hash_of(name), hash_of(name));
        }
        let all: std::collections::HashSet<_> = (0..100).map(|number| hash_of(&format!("nobody-{number}"))).collect();
        assert_eq!(all.len(), 3, "names that are not taken cost what those cost that are");
    }

    #[test]
    fn mistakes_are_reported_without_the_hash() {
        let mut plain = user("ann", false);
        plain.password = located("hunter2hunter2".parse().unwrap());
        let mut odd = user("ben", false);
        odd.roles = vec![located("a,b".to_owned())];
        let mut scope = user("cat", false);
        scope.scopes = vec![located("a b".to_owned())];
        let mut problems = Vec::new();
        let users = Users::compile(&[&plain, &odd, &scope], &Roles::default(), &mut problems);
        let told = format!("{problems:?}");
        assert_eq!(problems.len(), 3, "{told}");
        assert!(!told.contains("hunter2") && told.contains("tollgate user hash"), "{told}");
        assert!(users.find("ann").is_none());
    }
}
