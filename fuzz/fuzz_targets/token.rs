//! Tokens: whatever the text is, it is taken apart or refused; and nothing is let in that the issuer did not sign. Behind it
//! the tokens that it did sign are still let in.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use tollgate::identity::{Identity, Issuer, IssuerSettings, Shared, Written};
use tollgate::yaml::{Located, Place};

const SECRET: &str = "a secret of sixty-four bytes that nobody uses for anything real!";
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
/// Signed with [`SECRET`].
const GENUINE: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MTkwMDAwMDAwMCwicm9sZXMiOlsidXNlciJdLCJzY29wZSI6InJlYWQ6dGFza3MifQ.4re3iMOJ4ydwftiFsHkbmSh9IZnSNnRD3S_NsLdJtrc";

static ISSUERS: LazyLock<(Arc<Identity>, Vec<Arc<Issuer>>)> = LazyLock::new(|| {
    let shared = settings("HS256", Some(SECRET), None);
    let public = settings("EdDSA", None, Some(PUBLIC_KEY));
    let names = [located("shared".to_owned()), located("public".to_owned())];
    let [one, other] = &names;
    let mut problems = Vec::new();
    let written = Written { issuers: vec![(one, &shared), (other, &public)], ..Written::default() };
    let identity = Identity::compile(&written, &Arc::<Shared>::default(), &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    let all = identity.issuers().cloned().collect();
    (identity, all)
});

fn settings(algorithm: &str, secret: Option<&str>, public_key: Option<&str>) -> IssuerSettings {
    IssuerSettings {
        secret: secret.map(|secret| located(secret.parse().expect("a secret"))),
        public_key: public_key.map(|key| located(key.to_owned())),
        token_service: None,
        jwks: None,
        jwks_file: None,
        algorithms: vec![located(algorithm.to_owned())],
        issuer: None,
        audience: None,
        leeway: None,
        name_claim: None,
        roles_claim: None,
        scopes_claim: None,
    }
}

fn located<T>(value: T) -> Located<T> {
    Located::new(value, Place::UNKNOWN)
}

fuzz_target!(|text: &str| {
    let (identity, issuers) = &*ISSUERS;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for verdict in issuers.iter().map(|issuer| issuer.verify(text, now)).chain([identity.token(issuers, text, now)]) {
        assert!(verdict.is_err() || text == GENUINE, "let in: {text:?}");
    }
    if text.len().is_multiple_of(64) {
        assert!(identity.token(issuers, GENUINE, now).is_ok());
    }
});
