//! API keys of a configuration: found by their hash, whatever their number.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use super::consumers::{Consumer, ConsumerSettings, KeySettings, SCOPES_MAX, few, scope_problem};
use super::own_rates::merged;
use super::roles::Roles;
use super::{Digest, Reason};
use crate::caller::{Caller, Credential, Scopes};
use crate::yaml::{Located, Place, Problem};

/// Longest id of a key, in bytes.
const ID_BYTES_MAX: usize = 128;
/// Longest visible prefix, in bytes. Much less than a key has.
const VISIBLE_BYTES_MAX: usize = 32;
/// Most keys of one consumer.
const KEYS_PER_CONSUMER_MAX: usize = 100_000;

/// The keys of all consumers.
#[derive(Default)]
pub struct Keys {
    by_digest: HashMap<Digest, Key>,
    by_id: HashMap<Arc<str>, Digest>,
    consumers: HashSet<Box<str>>,
}

/// A compiled key.
struct Key {
    caller: Arc<Caller>,
    /// The key, or its consumer.
    disabled: bool,
}

impl Keys {
    pub fn compile(written: &[&ConsumerSettings], roles: &Roles, problems: &mut Vec<Problem>) -> Self {
        let count = written.iter().map(|consumer| consumer.keys.len()).sum();
        let mut compiling = Compiling {
            keys: Self {
                by_digest: HashMap::with_capacity(count),
                by_id: HashMap::with_capacity(count),
                consumers: written.iter().map(|consumer| consumer.name.value.as_str().into()).collect(),
            },
            places: HashMap::with_capacity(count),
            problems,
        };
        for settings in written {
            let consumer = Consumer::compile(settings, roles, compiling.problems);
            if let Some(surplus) = settings.keys.get(KEYS_PER_CONSUMER_MAX) {
                let message = format!("a consumer has at most {KEYS_PER_CONSUMER_MAX} keys");
                compiling.problems.push(Problem::new(surplus.id.place, message));
            }
            for key in &settings.keys {
                compiling.add(key, consumer.as_ref());
            }
        }
        compiling.keys
    }

    /// The caller that a key belongs to, or why it is not let in. `None`: no consumer has this key.
    pub fn find(&self, digest: &Digest, now: SystemTime) -> Option<Result<Arc<Caller>, Reason>> {
        let key = self.by_digest.get(digest)?;
        Some(key.holds(now).map(|()| Arc::clone(&key.caller)))
    }

    /// Whether the key `id` is still the one that was let in, and would be let in again.
    pub fn still_holds(&self, id: &str, version: u64, now: SystemTime) -> Result<(), Reason> {
        let digest = self.by_id.get(id).filter(|digest| digest.version() == version);
        digest.and_then(|digest| self.by_digest.get(digest)).ok_or(Reason::Unknown)?.holds(now)
    }

    pub fn has_consumer(&self, name: &str) -> bool {
        self.consumers.contains(name)
    }

    pub fn len(&self) -> usize {
        self.by_digest.len()
    }
}

impl Key {
    fn holds(&self, now: SystemTime) -> Result<(), Reason> {
        if self.disabled {
            return Err(Reason::Disabled);
        }
        // It ends with the second that is written, not after it.
        match self.caller.expires {
            Some(expires) if expires <= now => Err(Reason::Expired),
            _ => Ok(()),
        }
    }
}

struct Compiling<'p> {
    keys: Keys,
    /// Where each key stands.
    places: HashMap<Digest, Place>,
    problems: &'p mut Vec<Problem>,
}

impl Compiling<'_> {
    /// `consumer` is `None` when it could not be compiled: its keys are checked all the same.
    fn add(&mut self, written: &KeySettings, consumer: Option<&Consumer>) {
        let before = self.problems.len();
        let digest = self.digest(&written.sha256);
        let expires = written.expires.as_ref().and_then(|text| self.expires(text));
        let scopes = written.scopes.as_deref().map(|scopes| self.scopes(scopes, consumer));
        let rates = written.rates.as_ref().and_then(|rates| rates.compile(self.problems));
        self.prefix(written);
        self.id(&written.id);
        let Some(digest) = digest else { return };
        self.unique(written, digest);
        let Some(consumer) = consumer.filter(|_| self.problems.len() == before) else { return };
        let id = Arc::<str>::from(written.id.value.as_str());
        let credential = Credential::Key { id: Arc::clone(&id), managed: false, version: digest.version() };
        let Some(mut caller) = consumer.caller(credential, scopes, expires) else {
            return self.report(written.id.place, "its scopes cannot stand in a header field", "visible ASCII only");
        };
        caller.rates = merged(rates, consumer.rates());
        let key = Key { caller: Arc::new(caller), disabled: written.disabled || consumer.disabled };
        self.keys.by_id.insert(id, digest);
        self.keys.by_digest.insert(digest, key);
    }

    fn report(&mut self, place: Place, message: impl Into<String>, hint: &str) {
        self.problems.push(Problem::new(place, message).with_hint(hint));
    }

    fn id(&mut self, id: &Located<String>) {
        let sound = |byte: u8| byte.is_ascii_graphic() && !b"\"'\\,<>".contains(&byte);
        if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(sound) {
            let message = format!("the id of a key has 1 to {ID_BYTES_MAX} visible ASCII characters without quotes");
            self.report(id.place, message, "such as dashboard-2026; it is not secret, and stands in logs");
        }
    }

    /// Never quotes the text: it may be the key itself.
    fn digest(&mut self, written: &Located<String>) -> Option<Digest> {
        let digest = Digest::from_hex(written);
        if digest.is_none() {
            let digits = written.bytes().filter(u8::is_ascii_hexdigit).count();
            let hint = if digits == written.len() {
                "`tollgate key hash` prints it; `printf %s KEY | sha256sum` gives the same"
            } else {
                "this may be the key itself: take it out of this file, exchange it for a new one of `tollgate key new`, \
                 and write here the hash that prints"
            };
            self.report(written.place, "sha256 is not 64 hexadecimal digits", hint);
        }
        digest
    }

    fn expires(&mut self, written: &Located<String>) -> Option<SystemTime> {
        match parse_time(written) {
            Some(time) => Some(time),
            None => {
                let hint = "RFC 3339 with the time zone: 2027-01-01T00:00:00Z";
                self.report(written.place, "`expires` is no point in time", hint);
                None
            }
        }
    }

    fn scopes(&mut self, written: &[Located<String>], consumer: Option<&Consumer>) -> Scopes {
        few(written, SCOPES_MAX, "scopes", self.problems);
        for scope in written {
            if let Some(problem) = scope_problem(scope) {
                self.problems.push(problem);
            } else if let Some(consumer) = consumer.filter(|consumer| !consumer.scopes().allow(scope)) {
                let message = format!("consumer `{}` does not have the scope `{}`", consumer.name, scope.value);
                self.report(scope.place, message, "a key has scopes of its consumer: give it to the consumer first");
            }
        }
        Scopes::new(written.iter().map(|scope| scope.value.as_str()))
    }

    fn prefix(&mut self, written: &KeySettings) {
        let Some(prefix) = &written.prefix else { return };
        if prefix.is_empty() || prefix.len() > VISIBLE_BYTES_MAX || !prefix.bytes().all(|byte| byte.is_ascii_graphic())
        {
            let message = format!("`prefix` is the first 1 to {VISIBLE_BYTES_MAX} visible ASCII characters of a key");
            self.report(prefix.place, message, "such as tg_9b5546ec; it is not secret");
        }
    }

    fn unique(&mut self, written: &KeySettings, digest: Digest) {
        if let Some(first) = self.places.get(&digest) {
            let problem =
                Problem::new(written.id.place, format!("key `{}` is the same key as another", shown(&written.id)))
                    .with_hint("give each consumer a key of its own: `tollgate key new`");
            self.problems.push(problem.with_related("the other one", *first));
        } else {
            self.places.insert(digest, written.id.place);
        }
        let first = self.keys.by_id.get(written.id.value.as_str()).and_then(|digest| self.places.get(digest));
        if let Some(first) = first {
            let problem = Problem::new(written.id.place, format!("key `{}` is defined twice", shown(&written.id)));
            self.problems.push(problem.with_related("first defined", *first));
        }
    }
}

/// A time in RFC 3339, with its zone.
pub fn parse_time(text: &str) -> Option<SystemTime> {
    // What the library takes beyond RFC 3339 (a space, annotations in brackets) is left out.
    let plain = text.len() <= 40 && text.contains(['T', 't']) && !text.contains('[');
    text.parse::<jiff::Timestamp>().ok().filter(|_| plain).map(SystemTime::from)
}

/// The id as a message quotes it.
fn shown(id: &str) -> String {
    id.chars().take(ID_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests;
