//! A token service as it is written.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::shared::Shared;
use super::super::users::Users;
use super::verify::{Verify, VerifySettings};
use super::{AttemptLimits, People, Signer, TokenService};
use crate::types::{Period, Secret};
use crate::yaml::{Located, Problem};

const ACCESS: Duration = Duration::from_secs(3600);
const REFRESH: Duration = Duration::from_secs(7 * 24 * 3600);
const REUSE_GRACE: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Gives out tokens to users that log in. The handlers `login`, `refresh` and `logout` speak for it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct TokenServiceSettings {
    /// The `iss` of its tokens.
    pub issuer: Located<String>,
    /// The `aud` of its access tokens. Default: none.
    pub audience: Option<Located<String>>,
    /// `HS256`, `ES256` or `EdDSA`.
    pub algorithm: Located<String>,
    /// Shared secret of HS256, at least 32 bytes, best as `${NAME}`.
    pub secret: Option<Located<Secret>>,
    /// Private key of ES256 or EdDSA in PEM (PKCS #8), best as `${file:…}`.
    pub key: Option<Located<Secret>>,
    /// The `kid` of its tokens. Default: none.
    pub kid: Option<Located<String>>,
    /// How long an access token is good: whole seconds, at most 1d. Default 1h.
    pub access: Option<Located<Period>>,
    /// How long a session lasts after the login, refreshed or not: at most 366d. Default 7d.
    pub refresh: Option<Located<Period>>,
    /// A refresh token that was exchanged so short a time ago is refused without ending the session: two requests of one
    /// client may have met. Default 5s, at most 1m; 0s ends the session at once.
    pub reuse_grace: Option<Located<Period>>,
    #[serde(default)]
    pub attempts: AttemptSettings,
    /// A service that knows the users. Default: the `users` of the configuration.
    pub verify: Option<VerifySettings>,
}

/// How many failed logins within a window are too many.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AttemptSettings {
    /// For one name from one address (IPv6: one /64). Default 5.
    pub failures: Option<Located<u32>>,
    /// For one name from anywhere. Default 100.
    pub per_user: Option<Located<u32>>,
    /// For one address and any name. Default 50.
    pub per_address: Option<Located<u32>>,
    /// From the first failure on; then counting starts anew. Default 15m, at most 1d.
    pub window: Option<Located<Period>>,
}

impl TokenService {
    pub(super) fn compile(
        name: &Located<String>,
        settings: &TokenServiceSettings,
        users: &Arc<Users>,
        shared: &Arc<Shared>,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let before = problems.len();
        let signer = Signer::compile(settings, problems);
        let mut period = |written: &Option<Located<Period>>, default, key, min, max| {
            let value = written.as_ref().map_or(default, |written| written.value.0);
            if let Some(written) = written.as_ref().filter(|_| value < min || value > max) {
                let message = format!("`{key}` must be {} to {}", Period(min), Period(max));
                problems.push(Problem::new(written.place, message));
            }
            value
        };
        let access = period(&settings.access, ACCESS, "access", SECOND, DAY);
        let refresh = period(&settings.refresh, REFRESH, "refresh", SECOND, DAY.saturating_mul(366));
        let reuse_grace = period(&settings.reuse_grace, REUSE_GRACE, "reuse_grace", Duration::ZERO, SECOND * 60);
        let window = period(&settings.attempts.window, SECOND * 900, "window", SECOND, DAY);
        let attempts = attempts(&settings.attempts, window, problems);
        for text in [Some(&settings.issuer), settings.audience.as_ref(), settings.kid.as_ref()].into_iter().flatten() {
            if text.value.is_empty() || text.value.len() > 256 {
                problems.push(Problem::new(text.place, "this has 1 to 256 bytes"));
            }
        }
        let people = match &settings.verify {
            Some(verify) => Verify::compile(verify, problems).map(People::Elsewhere),
            None => Some(People::Here(Arc::clone(users))),
        };
        let (signer, people) = (signer?, people?);
        (problems.len() == before).then(|| Self {
            name: Arc::from(name.value.as_str()),
            issuer: settings.issuer.value.clone(),
            audience: settings.audience.as_ref().map(|audience| audience.value.clone()),
            signer,
            access,
            refresh,
            reuse_grace,
            attempts,
            people,
            shared: Arc::clone(shared),
        })
    }
}

fn attempts(settings: &AttemptSettings, window: Duration, problems: &mut Vec<Problem>) -> AttemptLimits {
    let mut count = |written: &Option<Located<u32>>, default| match written {
        Some(written) if written.value == 0 => {
            problems.push(Problem::new(written.place, "at least 1: nobody could log in"));
            default
        }
        Some(written) => written.value,
        None => default,
    };
    AttemptLimits {
        failures: count(&settings.failures, 5),
        per_user: count(&settings.per_user, 100),
        per_address: count(&settings.per_address, 50),
        window,
    }
}
