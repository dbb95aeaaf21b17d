//! A public key in PEM: bare, or in a certificate. Of a certificate only the key counts: dates, names and signatures in it
//! say nothing about tokens.

use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ED25519};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::{PublicKey, RSAPublicKey};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::Material;

/// Largest text that is looked at, in bytes.
const PEM_BYTES_MAX: usize = 64 * 1024;

/// The key of the first block. Behind a certificate others may follow: its chain.
pub fn read(text: &str) -> Result<Material, &'static str> {
    if text.len() > PEM_BYTES_MAX {
        return Err("it is larger than 64 KiB");
    }
    let blocks: Vec<Pem> = Pem::iter_from_buffer(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| "it is no PEM: `-----BEGIN PUBLIC KEY-----`, base64, `-----END PUBLIC KEY-----`")?;
    let Some(first) = blocks.first() else {
        return Err("it is no PEM: `-----BEGIN PUBLIC KEY-----`, base64, `-----END PUBLIC KEY-----`");
    };
    if blocks.iter().any(|block| block.label.contains("PRIVATE KEY")) {
        return Err("it is a private key, which only the issuer may have");
    }
    if blocks.len() > 1 && first.label != "CERTIFICATE" {
        return Err("it holds several keys");
    }
    match first.label.as_str() {
        "PUBLIC KEY" => whole(SubjectPublicKeyInfo::from_der(&first.contents)).and_then(|info| of(&info)),
        "RSA PUBLIC KEY" => whole(RSAPublicKey::from_der(&first.contents)).and_then(|key| rsa(&key)),
        "CERTIFICATE" => whole(X509Certificate::from_der(&first.contents)).and_then(|it| of(it.public_key())),
        _ => Err("it holds neither a public key nor a certificate"),
    }
}

/// What was parsed, if nothing was left over.
fn whole<T, E>(parsed: Result<(&[u8], T), E>) -> Result<T, &'static str> {
    match parsed {
        Ok(([], value)) => Ok(value),
        _ => Err("what it holds is damaged"),
    }
}

fn of(info: &SubjectPublicKeyInfo<'_>) -> Result<Material, &'static str> {
    const UNKNOWN: &str = "it is a key of another kind than RSA, P-256, P-384 and Ed25519";
    let point = info.subject_public_key.data.as_ref();
    if info.algorithm.algorithm == OID_SIG_ED25519 {
        return Material::ed25519(point);
    }
    if info.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        return match curve {
            Some(curve) if curve == OID_EC_P256 => Material::p256(point),
            Some(curve) if curve == OID_NIST_EC_P384 => Material::p384(point),
            _ => Err(UNKNOWN),
        };
    }
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => rsa(&key),
        _ => Err(UNKNOWN),
    }
}

fn rsa(key: &RSAPublicKey<'_>) -> Result<Material, &'static str> {
    Material::rsa(key.modulus, key.exponent)
}
