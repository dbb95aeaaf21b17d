//! Project Wycheproof's vectors for JWS and JWK sets, when they are there: they are not part of this repository.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;

/// The vectors, read from the folder beside this repository.
fn vectors(name: &str) -> Option<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors/wycheproof").join(name);
    let Ok(text) = std::fs::read(&path) else {
        eprintln!("LEFT OUT: {} is not there", path.display());
        return None;
    };
    Some(serde_json::from_slice(&text).unwrap())
}

/// The verdict on each vector that differs from what the set says, by `tcId`.
fn deviations(vectors: &Value, verdict: impl Fn(&Value, &str) -> Result<(), Reason>) -> BTreeMap<u64, String> {
    let mut found = BTreeMap::new();
    let mut count = 0;
    for group in vectors["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            count += 1;
            let verdict = verdict(group, test["jws"].as_str().unwrap());
            if verdict.is_ok() != (test["result"] == "valid") {
                let comment = format!("{} {}: {verdict:?}", group["comment"], test["comment"]);
                let id = &test["tcId"];
                found.insert(id.as_u64().or_else(|| id.as_str()?.parse().ok()).unwrap(), comment);
            }
        }
    }
    assert_eq!(count, vectors["numberOfTests"].as_u64().unwrap());
    found
}

/// The keys that a reader of the group has: the public one, or the secret that both sides share.
fn key_set(key: &Value) -> Result<KeySet, &'static str> {
    if key["kty"] == "oct" {
        let secret = crate::identity::token::decode(key["k"].as_str().unwrap()).ok_or("no base64url")?;
        // As when a configuration is compiled.
        return if secret.len() < 32 { Err("short") } else { Ok(KeySet::secret(&secret)) };
    }
    jwks(std::slice::from_ref(key))
}

fn sorted(mut ids: Vec<u64>) -> Vec<u64> {
    ids.sort_unstable();
    ids
}

#[test]
fn signatures() {
    let Some(vectors) = vectors("json_web_signature_test.json") else { return };
    let found = deviations(&vectors, |group, jws| {
        let key = if group["public"].is_object() { &group["public"] } else { &group["private"] };
        verify(&key_set(key).map_err(|_| Reason::UnknownKey)?, jws)
    });
    // Refused here and valid there.
    let empty_payload = [259, 264, 268, 272, 320, 325]; // The payload of a token is a JSON object.
    let other_algorithm = [346, 350]; // PS384 by a key that says PS256: a key is pinned to its `alg`.
    let es512 = [347, 351]; // Not offered.
    let no_base64url = [372, 373]; // `?` within the text, which RFC 7515 §2 rules out.
    // Accepted here and invalid there, for a padding that the text does not have: both are the text of 357, which is valid.
    let no_padding = [367, 370];
    let known = [&empty_payload[..], &other_algorithm, &es512, &no_base64url, &no_padding].concat();
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), sorted(known), "{found:#?}");
}

#[test]
fn key_sets() {
    let Some(vectors) = vectors("json_web_key_test.json") else { return };
    let found = deviations(&vectors, |group, jws| {
        let set = if group["public"].is_object() { &group["public"] } else { &group["private"] };
        verify(&KeySet::jwks(set.to_string().as_bytes()).map_err(|_| Reason::UnknownKey)?, jws)
    });
    // Refused here and valid there: a shared secret in a key set.
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [2, 13, 14, 15], "{found:#?}");
}
