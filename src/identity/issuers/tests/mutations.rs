//! Genuine tokens, changed at random: whatever is changed, none is let in.

use super::*;

/// A hundred thousand in all, the slow algorithms fewer.
const MUTATIONS: [(Algorithm, usize); 6] = [
    (Algorithm::HS256, 60_000),
    (Algorithm::HS512, 15_000),
    (Algorithm::EdDSA, 10_000),
    (Algorithm::ES256, 8_000),
    (Algorithm::RS256, 5_000),
    (Algorithm::PS256, 2_000),
];
const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n\"{}:,\0";

#[test]
fn none_of_a_hundred_thousand_changed_tokens_is_let_in() {
    assert_eq!(MUTATIONS.iter().map(|(_, count)| count).sum::<usize>(), 100_000);
    for (algorithm, count) in MUTATIONS {
        let signer = Signer::new(algorithm);
        let issuer = signer.issuer();
        let mut random = fastrand::Rng::with_seed(0x70_6b_65_6e ^ count as u64);
        let token = |number: usize| {
            let more = json!({ "jti": number.to_string(), "roles": ["user"], "scope": "read:tasks write:tasks" });
            signer.token(&claims_with(&more))
        };
        let tokens: Vec<String> = (0..16).map(token).collect();
        for number in 0..count {
            let genuine = &tokens[number % tokens.len()];
            let changed = changed(&mut random, genuine, &tokens);
            if tokens.contains(&changed) {
                continue;
            }
            let verdict = issuer.verify(&changed, now());
            assert!(verdict.is_err(), "{algorithm:?} let in {changed}\nmade of {genuine}");
        }
        for genuine in &tokens {
            assert!(issuer.verify(genuine, now()).is_ok(), "{algorithm:?} refused {genuine}");
        }
    }
}

/// The token with one to three changes.
fn changed(random: &mut fastrand::Rng, genuine: &str, others: &[String]) -> String {
    let mut text = genuine.as_bytes().to_vec();
    for _ in 0..random.usize(1..=3) {
        if text.is_empty() {
            break;
        }
        let (at, other) = (random.usize(..text.len()), random.usize(..text.len()));
        let letter = ALPHABET[random.usize(..ALPHABET.len())];
        match random.u8(..8) {
            0 | 1 => text[at] = letter,
            2 => text.insert(at, letter),
            3 => drop(text.remove(at)),
            4 => text.swap(at, other),
            5 => text.truncate(at),
            6 => text[at] ^= 1 << random.u8(..7),
            // Parts of two genuine tokens.
            _ => {
                let other = others[random.usize(..others.len())].split('.');
                let own = String::from_utf8_lossy(&text).into_owned();
                let parts = own.split('.').zip(other).map(|(own, other)| if random.bool() { own } else { other });
                text = parts.collect::<Vec<_>>().join(".").into_bytes();
            }
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The claims changed and written anew under the old signature, as an attacker would.
#[test]
fn claims_cannot_be_changed() {
    let signer = Signer::new(Algorithm::HS256);
    let (issuer, genuine) = (signer.issuer(), signer.token(&claims()));
    let parts: Vec<&str> = genuine.split('.').collect();
    for other in [json!({ "sub": "admin" }), json!({ "exp": NOW + 7200 }), json!({ "roles": ["admin"] }), json!({})] {
        let payload = base64url(format!("{} ", claims_with(&other)));
        let forged = format!("{}.{payload}.{}", parts[0], parts[2]);
        assert_eq!(issuer.verify(&forged, now()).err(), Some(Reason::Signature), "{other}");
    }
}
