//! What unit tests of filters share: an identity as a configuration would say it, and tokens for it.

use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{ConsumerSettings, Identity, IssuerSettings, RoleSettings, Shared, Written};
use crate::yaml::{Named, Sources, decode, parse};

/// A secret of issuers in tests.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Parts {
    roles: Named<RoleSettings>,
    issuers: Named<IssuerSettings>,
    consumers: Vec<ConsumerSettings>,
}

/// Compiles `roles`, `issuers` and `consumers`. `KEY(text)` stands for the hash of a key, `SECRET` for [`SECRET`].
pub fn identity(yaml: &str) -> Arc<Identity> {
    let mut text = yaml.replace("SECRET", SECRET);
    while let Some((before, rest)) = text.split_once("KEY(") {
        let (key, after) = rest.split_once(')').unwrap();
        let digest: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
        text = [before, &digest, after].concat();
    }
    let mut sources = Sources::new();
    let file = sources.add("test.yaml", &text);
    let parts: Parts = decode(&parse(&sources, file).unwrap()).unwrap();
    let written = Written {
        roles: parts.roles.iter().map(|(name, role)| (name, role)).collect(),
        issuers: parts.issuers.iter().map(|(name, issuer)| (name, issuer)).collect(),
        consumers: parts.consumers.iter().collect(),
        ..Written::default()
    };
    let mut problems = Vec::new();
    let identity = Identity::compile(&written, &Arc::new(Shared::default()), &mut problems);
    assert!(problems.is_empty(), "{}", problems.iter().map(|problem| sources.render(problem)).collect::<String>());
    identity
}

/// A token of the issuer that has [`SECRET`] (HS256). `exp` is an hour away, unless the claims say otherwise.
pub fn token(claims: &serde_json::Value) -> String {
    let mut claims = claims.clone();
    if claims.get("exp").is_none() {
        let now = crate::clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap();
        claims["exp"] = (now.as_secs() + 3600).into();
    }
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}
