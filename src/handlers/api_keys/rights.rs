//! Who may give which rights: nobody more than they have.

use super::Refused;
use crate::caller::Caller;
use crate::identity::Roles;
use crate::identity::managed::Record;
use crate::reply::{Code, Rejection};

/// Refuses a key with scopes and roles that `caller` does not have itself, or with rates of its own. Who has the scope `*` gives
/// any.
///
/// A role counts as what it says (routes may ask for it by name), and as what it brings: a caller whose key is restricted to
/// a few scopes still has its roles, but not their scopes.
pub fn check(caller: &Caller, record: &Record, known: &Roles) -> Result<(), Refused> {
    if caller.scopes.allow("*") {
        return Ok(());
    }
    if record.rates.is_some() {
        let rejection = Rejection::new(Code::FORBIDDEN, "rates of its own are given to a key by who has the scope `*`");
        return Err(Box::new(rejection.with_detail("field", "rates").with_detail("expected", "the scope *")));
    }
    if let Some(scope) = record.scopes.iter().find(|scope| !caller.scopes.allow(scope)) {
        return Err(more("scopes", scope));
    }
    for role in &record.roles {
        let own: [Box<str>; 1] = [role.as_str().into()];
        let has_it = caller.roles.iter().any(|own| **own == **role);
        let brings_more = known.scopes(&own, std::iter::empty()).iter().any(|scope| !caller.scopes.allow(scope));
        if !has_it || brings_more || known.level(&own) > caller.level {
            return Err(more("roles", role));
        }
    }
    Ok(())
}

/// Refuses to touch a key that can do more than `caller`: to rotate one is to get it.
pub fn reach(caller: &Caller, record: &Record, known: &Roles) -> Result<(), Refused> {
    check(caller, record, known).map_err(|_| {
        Box::new(Rejection::new(Code::FORBIDDEN, "this key can do more than the credential that was sent"))
    })
}

fn more(field: &str, value: &str) -> Refused {
    let rejection = Rejection::new(Code::FORBIDDEN, "a key cannot do more than the credential that makes it");
    let rejection = rejection.with_detail("field", field).with_detail("value", value);
    Box::new(rejection.with_detail("expected", format!("{field} that the caller has")))
}
