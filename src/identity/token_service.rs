//! A small token service: for systems that have users and no identity provider.
//!
//! Somebody who logs in gets an access token, which ends soon, and a refresh token, which is exchanged once for a new pair.
//! All that comes of one login is a *session*. The state store keeps one record for each, with the id of the only refresh
//! token that is still good: exchanging it is one compare-and-swap. A used one that comes again was copied by somebody, so it
//! ends the session (RFC 9700 §4.14.2).

mod attempts;
mod claims;
mod refused;
mod sessions;
mod settings;
mod signer;
mod verify;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{info, warn};

use super::passwords::{PASSWORD_BYTES_MAX, random_id};
use super::shared::Shared;
use super::users::{NAME_BYTES_MAX, Person, Users};
use crate::caller::{Caller, Credential};
use crate::clock;
use crate::yaml::{Located, Place, Problem};

pub use attempts::{AttemptLimits, Attempts};
pub use refused::Refused;
pub use settings::TokenServiceSettings;
pub use signer::Signer;
pub use verify::Clients;

use claims::{Issuing, Purpose, Token};
use sessions::{Exchanged, Sessions};
use verify::Verify;

/// The token services of a configuration.
#[derive(Default)]
pub struct TokenServices {
    all: Vec<Arc<TokenService>>,
    /// Names of those that could not be compiled; their problems are told already.
    broken: Vec<String>,
}

impl TokenServices {
    pub fn compile(
        written: &[(&Located<String>, &TokenServiceSettings)],
        users: &Arc<Users>,
        shared: &Arc<Shared>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut services = Self::default();
        for (name, settings) in written {
            match TokenService::compile(name, settings, users, shared, problems) {
                Some(service) => services.all.push(Arc::new(service)),
                None => services.broken.push(name.value.clone()),
            }
        }
        services
    }

    /// The service of this name; without a name the only one. `Err(None)`: there is one, but it is broken.
    pub fn find(&self, name: Option<&Located<String>>, place: Place) -> Result<Arc<TokenService>, Option<Problem>> {
        let names = || self.all.iter().map(|service| &*service.name).chain(self.broken.iter().map(String::as_str));
        let Some(name) = name else {
            return match self.all.as_slice() {
                [only] if self.broken.is_empty() => Ok(Arc::clone(only)),
                [] if self.broken.is_empty() => Err(Some(
                    Problem::new(place, "there is no token service")
                        .with_hint("gateway.yaml defines one under `token_services:`"),
                )),
                _ if self.broken.len() == 1 && self.all.is_empty() => Err(None),
                _ => {
                    let names: Vec<&str> = names().collect();
                    let problem = Problem::new(place, "there are several token services");
                    Err(Some(problem.with_hint(format!("say which one: `service: {}`", names.join("` or `")))))
                }
            };
        };
        let found = self.all.iter().find(|service| *service.name == *name.value);
        found.cloned().ok_or_else(|| {
            let broken = self.broken.contains(&name.value);
            (!broken).then(|| {
                let names: Vec<&str> = names().collect();
                Problem::unknown(name.place, "token service", &name.value, names.into_iter())
            })
        })
    }
}

/// A compiled token service.
pub struct TokenService {
    pub name: Arc<str>,
    issuer: String,
    audience: Option<String>,
    signer: Signer,
    access: Duration,
    refresh: Duration,
    reuse_grace: Duration,
    attempts: AttemptLimits,
    people: People,
    shared: Arc<Shared>,
}

/// Who knows the users.
enum People {
    Here(Arc<Users>),
    Elsewhere(Verify),
}

/// What somebody gets.
#[derive(Debug)]
pub struct Issued {
    pub access: String,
    /// `None` when nobody could say at a refresh whether the user is still there.
    pub refresh: Option<String>,
    /// How long the access token is good.
    pub expires_in: Duration,
}

impl TokenService {
    /// Checks a password and begins a session.
    pub async fn login(&self, name: &str, password: &str, client: IpAddr, now: SystemTime) -> Result<Issued, Refused> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || password.is_empty() || password.len() > PASSWORD_BYTES_MAX
        {
            return Err(Refused::Credentials);
        }
        let begun = self.shared.attempts.begin(&self.name, name, client, &self.attempts, clock::now());
        let attempt = begun.map_err(|attempts::TooMany(wait)| {
            warn!(service = &*self.name, %client, wait_s = wait.as_secs(), "too many failed logins");
            Refused::TooMany(wait)
        })?;
        let person = match self.check(name, password).await {
            Ok(Some(person)) => person,
            Ok(None) => {
                // A name that is not known is not written down: it may be a password in the wrong field.
                let known = self.knows(name).then_some(name);
                warn!(service = &*self.name, user = known.unwrap_or("(unknown)"), %client, "login refused");
                return Err(Refused::Credentials);
            }
            Err(refused) => {
                self.shared.attempts.undecided(&attempt);
                return Err(refused);
            }
        };
        self.shared.attempts.succeeded(&attempt);
        let issued = self.begin(&person, now).await?;
        info!(service = &*self.name, user = person.name, %client, "logged in");
        Ok(issued)
    }

    /// Exchanges a refresh token for a new pair.
    pub async fn refresh(&self, token: &str, now: SystemTime) -> Result<Issued, Refused> {
        let token = self.own(token).filter(|token| token.purpose == Purpose::Refresh).ok_or(Refused::Token)?;
        let session = token.session.as_deref().ok_or(Refused::Token)?;
        if token.has_ended(now) {
            return Err(Refused::Expired);
        }
        let sessions = self.sessions()?;
        let next = random_id().map_err(|_| Refused::Internal)?;
        // First the user, then the exchange: a failure of who is asked about users costs nobody a session.
        let Some(person) = self.find(&token.name).await? else {
            warn!(service = &*self.name, user = token.name, "refresh refused: the user is gone or disabled");
            self.end_session(session, now).await?;
            return Err(Refused::Token);
        };
        match sessions.exchange(session, &token.id, &next, self.reuse_grace, now).await? {
            Exchanged::Done => {}
            Exchanged::Late | Exchanged::Ended => return Err(Refused::Token),
            Exchanged::Reused => {
                warn!(
                    service = &*self.name,
                    user = token.name,
                    "a used refresh token came again: the session is ended"
                );
                self.end_session(session, now).await?;
                return Err(Refused::Token);
            }
        }
        let issuing = self.issuing(now);
        let refresh = issuing.refresh(&token.name, &next, session, token.ends);
        self.issue(&issuing, &person, Some(session), Some(&refresh))
    }

    /// Ends the session of a token of either kind: its refresh token and all its access tokens. A token without a session is
    /// taken back alone. Doing it twice is no error.
    pub async fn logout(&self, token: &str, now: SystemTime) -> Result<(), Refused> {
        let token = self.own(token).ok_or(Refused::Token)?;
        self.take_back(&token, now).await
    }

    /// The same for a caller whose token was found good before. `false`: the token is none of this service.
    pub async fn logout_caller(&self, caller: &Caller, now: SystemTime) -> Result<bool, Refused> {
        let Credential::Token { .. } = &caller.credential else { return Ok(false) };
        let Some(token) = Token::read(&caller.claims, &self.issuer) else { return Ok(false) };
        self.take_back(&token, now).await?;
        Ok(true)
    }

    async fn take_back(&self, token: &Token, now: SystemTime) -> Result<(), Refused> {
        match &token.session {
            Some(session) => self.end_session(session, now).await?,
            None => {
                let ends = UNIX_EPOCH.checked_add(Duration::from_secs(token.ends)).unwrap_or(now);
                self.shared.revoke(&token.id, ends, now).await?;
            }
        }
        info!(service = &*self.name, user = token.name, "logged out");
        Ok(())
    }

    /// An access token for anybody, without a session: for operators and tests.
    ///
    /// # Errors
    /// The system gives no random numbers, or the key cannot sign.
    pub fn mint(&self, person: &Person, lifetime: Duration, now: SystemTime) -> Result<String, Refused> {
        let id = random_id().map_err(|_| Refused::Internal)?;
        self.sign(&self.issuing(now).access(person, &id, None, lifetime))
    }

    /// How long its access tokens are good.
    pub fn access_lifetime(&self) -> Duration {
        self.access
    }

    /// What signs its tokens, and verifies them.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The `iss` of its tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The `aud` of its access tokens.
    pub fn audience(&self) -> Option<&str> {
        self.audience.as_deref()
    }

    async fn check(&self, name: &str, password: &str) -> Result<Option<Person>, Refused> {
        match &self.people {
            People::Here(users) => {
                let (users, shared) = (Arc::clone(users), Arc::clone(&self.shared));
                let (name, password) = (name.to_owned(), password.to_owned());
                let work = move || {
                    let person = users.login(&name, &shared.names, |hash| hash.matches(password.as_bytes()));
                    person.cloned()
                };
                self.shared.hashing.run(work).await.map_err(|_| Refused::Busy)
            }
            People::Elsewhere(verify) => {
                verify.login(&self.shared.clients, name, password).await.map_err(|why| self.no_answer(&why))
            }
        }
    }

    /// Somebody as they are now.
    async fn find(&self, name: &str) -> Result<Option<Person>, Refused> {
        match &self.people {
            People::Here(users) => Ok(users.find(name).cloned()),
            People::Elsewhere(verify) => {
                verify.find(&self.shared.clients, name).await.map_err(|why| self.no_answer(&why))
            }
        }
    }

    fn no_answer(&self, why: &str) -> Refused {
        warn!(service = &*self.name, why, "the service that knows the users did not answer as it should");
        Refused::VerifierFailed
    }

    fn knows(&self, name: &str) -> bool {
        match &self.people {
            People::Here(users) => users.find(name).is_some(),
            People::Elsewhere(_) => false,
        }
    }

    async fn begin(&self, person: &Person, now: SystemTime) -> Result<Issued, Refused> {
        let refreshable = match &self.people {
            People::Here(_) => true,
            People::Elsewhere(verify) => verify.knows_without_password(),
        };
        let issuing = self.issuing(now);
        if !refreshable {
            // The session has a name all the same, so that logging out ends it.
            let session = random_id().map_err(|_| Refused::Internal)?;
            return self.issue(&issuing, person, Some(&session), None);
        }
        let ends = issuing.end(self.refresh);
        let (session, first) = self.sessions()?.begin(ends).await?;
        let refresh = issuing.refresh(&person.name, &first, &session, ends);
        self.issue(&issuing, person, Some(&session), Some(&refresh))
    }

    fn issue(
        &self,
        issuing: &Issuing<'_>,
        person: &Person,
        session: Option<&str>,
        refresh: Option<&serde_json::Map<String, serde_json::Value>>,
    ) -> Result<Issued, Refused> {
        let id = random_id().map_err(|_| Refused::Internal)?;
        let access = self.sign(&issuing.access(person, &id, session, self.access))?;
        let refresh = refresh.map(|claims| self.sign(claims)).transpose()?;
        Ok(Issued { access, refresh, expires_in: self.access })
    }

    fn sign(&self, claims: &serde_json::Map<String, serde_json::Value>) -> Result<String, Refused> {
        self.signer.sign(claims).map_err(|error| {
            tracing::error!(service = &*self.name, %error, "a token cannot be signed");
            Refused::Internal
        })
    }

    /// Both are tried, whatever becomes of the other: the access tokens of the session are refused by this process even when
    /// the store fails, and the client is told to ask again.
    async fn end_session(&self, session: &str, now: SystemTime) -> Result<(), Refused> {
        let ended = self.sessions()?.end(session).await;
        let ends = now.checked_add(self.access).unwrap_or(now);
        let revoked = self.shared.revoke(session, ends, now).await;
        ended?;
        Ok(revoked?)
    }

    fn own(&self, token: &str) -> Option<Token> {
        Token::read(&self.signer.own(token)?, &self.issuer)
    }

    fn issuing(&self, now: SystemTime) -> Issuing<'_> {
        Issuing { issuer: &self.issuer, audience: self.audience.as_deref(), now }
    }

    fn sessions(&self) -> Result<Sessions<'_>, Refused> {
        Ok(Sessions { store: &**self.shared.store()?, service: &self.name })
    }
}

#[cfg(test)]
mod tests;
