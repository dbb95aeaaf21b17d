//! The examples of the standards: RFC 7515 appendix A, RFC 7520 section 4, RFC 8037 appendix A.

use super::*;

/// The payload of RFC 7515 appendix A.
const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
/// RFC 7515 A.1: the shared secret.
const A1_KEY: &str = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
/// RFC 7515 A.2: the modulus of the RSA key.
const A2_MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-\
    pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2Ca\
    pHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb5\
    4h4FRWyuXpoQ";
/// RFC 7515 A.2: the signature.
const A2_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr\
    7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--x\
    i12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_Ioy\
    pGlUPQGe77Rw";
/// RFC 7520 3.3: the modulus of the RSA key.
const BILBO: &str = "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqV\
    wGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJls\
    de3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkq\
    gc5gHdrNP5zw";
/// The payload of RFC 7520 section 4: no claims, and not even JSON.
const FRODO: &str = "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW\
    5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0\
    by4";
/// RFC 7520 4.1: the signature of RS256.
const RS256_4_1: &str = "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoB\
    wA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0\
    ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vj\
    bU5y18kDquDg";
/// RFC 7520 4.2: the signature of PS384.
const PS384_4_2: &str = "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPp\
    cbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lf\
    JT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifK\
    o8DYM-X72Eaw";
/// RFC 7520 4.3: the signature of ES512.
const ES512_4_3: &str = "AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnAMD\
    xXPn7XrT0lw-kvAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2";

fn rsa(modulus: &str) -> KeySet {
    jwks(&[json!({ "kty": "RSA", "kid": "bilbo.baggins@hobbiton.example", "use": "sig", "n": modulus, "e": "AQAB" })])
        .unwrap()
}

fn secret(key: &str) -> KeySet {
    KeySet::secret(&crate::identity::token::decode(key).unwrap())
}

#[test]
fn rfc_7515_a1_hs256() {
    let token = format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    assert_eq!(verify(&secret(A1_KEY), &token), Ok(()));
    assert_eq!(Token::parse(&token).unwrap().claims().unwrap()["iss"], "joe");
}

#[test]
fn rfc_7515_a2_rs256() {
    let token = format!("eyJhbGciOiJSUzI1NiJ9.{JOE}.{A2_SIGNATURE}");
    assert_eq!(verify(&rsa(A2_MODULUS), &token), Ok(()));
}

#[test]
fn rfc_7515_a3_es256() {
    let (x, y) = ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    let key = jwks(&[json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y })]).unwrap();
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    assert_eq!(verify(&key, &format!("eyJhbGciOiJFUzI1NiJ9.{JOE}.{signature}")), Ok(()));
}

#[test]
fn rfc_7515_a4_es512_is_not_offered() {
    assert_eq!(verify(&secret(A1_KEY), &format!("eyJhbGciOiJFUzUxMiJ9.{JOE}.{ES512_4_3}")), Err(Reason::Algorithm));
}

#[test]
fn rfc_7515_a5_is_unsecured_and_refused() {
    assert_eq!(verify(&secret(A1_KEY), &format!("eyJhbGciOiJub25lIn0.{JOE}.")), Err(Reason::Malformed));
    assert_eq!(verify(&secret(A1_KEY), &format!("eyJhbGciOiJub25lIn0.{JOE}.AAAA")), Err(Reason::Algorithm));
}

#[test]
fn rfc_7520_4_1_rs256() {
    let header = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9";
    let token = format!("{header}.{FRODO}.{RS256_4_1}");
    assert_eq!(verify(&rsa(BILBO), &token), Ok(()));
    assert_eq!(Token::parse(&token).unwrap().claims(), Err(Reason::Malformed));
}

#[test]
fn rfc_7520_4_2_ps384() {
    let header = "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9";
    assert_eq!(verify(&rsa(BILBO), &format!("{header}.{FRODO}.{PS384_4_2}")), Ok(()));
}

#[test]
fn rfc_7520_4_3_es512_is_not_offered() {
    let header = "eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9";
    assert_eq!(verify(&rsa(BILBO), &format!("{header}.{FRODO}.{ES512_4_3}")), Err(Reason::Algorithm));
}

#[test]
fn rfc_7520_4_4_hs256() {
    let header = "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9";
    let key = secret("hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg");
    assert_eq!(verify(&key, &format!("{header}.{FRODO}.s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0")), Ok(()));
}

#[test]
fn rfc_8037_a4_eddsa() {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let key = jwks(&[json!({ "kty": "OKP", "crv": "Ed25519", "x": x })]).unwrap();
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let token = format!("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.{signature}");
    assert_eq!(verify(&key, &token), Ok(()));
}
