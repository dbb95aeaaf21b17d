//! `tollgate token mint`: an access token, for operators and tests.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::{EXIT_CONFIGURATION, EXIT_FAILED, complain, load_and_compile, print};
use crate::caller::{CallerFields, Scopes};
use crate::clock;
use crate::config::load::Overrides;
use crate::identity::Person;
use crate::types::Period;
use crate::yaml::{Located, Place};

/// Longest life of a token that is minted by hand. It can be taken back, but somebody has to think of it.
const LIFETIME_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// What the token is to say.
pub struct Mint<'a> {
    pub service: Option<String>,
    pub person: Person,
    /// Default: as long as the service's own.
    pub lifetime: Option<Period>,
    pub config: &'a Path,
}

/// Prints an access token, and nothing else, to standard output.
pub fn mint(mint: Mint<'_>) -> ExitCode {
    let gateway = match load_and_compile(mint.config, &Overrides::new()) {
        Ok(checked) => checked.gateway,
        Err(broken) => return broken.report(),
    };
    let name = mint.service.map(|name| Located::new(name, Place::UNKNOWN));
    let service = match gateway.identity.token_service(name.as_ref(), Place::UNKNOWN) {
        Ok(service) => service,
        Err(problem) => {
            let told = problem.map(|problem| format!("{}\n", problem.message)).unwrap_or_default();
            complain(&format!("tollgate: {told}"));
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    let Person { name, roles, scopes } = &mint.person;
    let names: Vec<Box<str>> = roles.iter().map(|role| role.as_str().into()).collect();
    if name.is_empty() || CallerFields::new(name, &names, &Scopes::new(scopes.iter().map(String::as_str))).is_none() {
        complain(
            "tollgate: subject, roles and scopes are visible ASCII, a role without comma, a scope without space\n",
        );
        return ExitCode::from(EXIT_FAILED);
    }
    let lifetime = mint.lifetime.map_or(service.access_lifetime(), |period| period.0);
    if lifetime < Duration::from_secs(1) || lifetime > LIFETIME_MAX {
        complain("tollgate: a token lasts 1s to 366d\n");
        return ExitCode::from(EXIT_FAILED);
    }
    match service.mint(&mint.person, lifetime, clock::wall()) {
        Ok(token) => {
            print(&format!("{token}\n"));
            ExitCode::SUCCESS
        }
        Err(_) => {
            complain("tollgate: the token cannot be signed\n");
            ExitCode::from(EXIT_FAILED)
        }
    }
}
