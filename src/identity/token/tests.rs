use super::*;
use crate::identity::testing::base64url;

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT","kid":"a"}"#;

fn token(header: &str, payload: &str) -> String {
    format!("{}.{}.AAAA", base64url(header), base64url(payload))
}

fn header(header: &str) -> Result<(), Reason> {
    Token::parse(&token(header, "{}")).map(|_| ())
}

#[test]
fn a_token_has_three_parts() {
    let text = token(HEADER, r#"{"sub":"b"}"#);
    let parsed = Token::parse(&text).unwrap();
    assert_eq!((parsed.algorithm, parsed.kid.as_deref()), (Algorithm::HS256, Some("a")));
    assert_eq!(parsed.claims().unwrap()["sub"], "b");
    assert_eq!(format!("{}.{}", parsed.signed, parsed.signature), text);
    let header = base64url(HEADER);
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        header.clone(),
        format!("{header}.e30"),
        format!("{header}.e30."),
        format!("{header}..AAAA"),
        ".e30.AAAA".to_owned(),
        format!("{header}.e30.AAAA."),
        format!(".{header}.e30.AAAA"),
        format!("{header}.e30.AAAA.AAAA"),
        format!("{header}.e30.AAAA.AAAA.AAAA"),
        format!("{header}..e30.AAAA"),
        format!(" {header}.e30.AAAA"),
        format!("{header}\n.e30.AAAA"),
        format!("{header}=.e30.AAAA"),
        format!("{header}é.e30.AAAA"),
    ] {
        assert_eq!(Token::parse(&bad).map(|_| ()), Err(Reason::Malformed), "{bad:?}");
    }
}

#[test]
fn lengths_are_bounded() {
    let padded = |bytes: usize| {
        let head = format!("{}.", base64url(HEADER));
        let signature = "A".repeat(bytes - head.len() - "AAAA.".len());
        format!("{head}AAAA.{signature}")
    };
    assert!(Token::parse(&padded(TOKEN_BYTES_MAX)).is_ok());
    assert_eq!(Token::parse(&padded(TOKEN_BYTES_MAX + 1)).map(|_| ()), Err(Reason::Malformed));
    let long = |bytes: usize| {
        let json = r#"{"alg":"HS256","x5c":[""]}"#;
        let fill = bytes / 4 * 3 - json.len();
        format!("{}.e30.AAAA", base64url(json.replace("\"\"", &format!("\"{}\"", "x".repeat(fill)))))
    };
    assert!(Token::parse(&long(HEADER_BYTES_MAX)).is_ok());
    assert_eq!(Token::parse(&long(HEADER_BYTES_MAX + 4)).map(|_| ()), Err(Reason::Malformed));
}

#[test]
fn only_the_canonical_form_of_base64url_is_read() {
    assert_eq!(decode("_-8").as_deref(), Some(&[0xff, 0xef][..]));
    // Padding, the other alphabet, bits behind the end, a length that none has, white space.
    for bad in ["_-8=", "/+8", "_-9", "_-_", "_", "_-8A_", "_ -8", "_-8\n", "ä"] {
        assert_eq!(decode(bad), None, "{bad:?}");
    }
    assert_eq!(decode("QQ").as_deref(), Some(&b"A"[..]));
    for bad in ["QR", "QQ==", "QQ=", "QZ"] {
        assert_eq!(decode(bad), None, "{bad:?}");
    }
}

#[test]
fn no_algorithm_is_none_in_whatever_spelling() {
    for name in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "none ",
        " none",
        "",
        "NoNe\\u0000",
        "\\u006eone",
        "hs256",
        "HS256 ",
        "ES512",
        "ES256K",
        "HS1",
        "RS1",
        "RSA",
        "dir",
        "A128KW",
        "RSA-OAEP",
        "HS256\\u0000",
        "Ed25519",
        "EDDSA",
        "eddsa",
    ] {
        assert_eq!(header(&format!(r#"{{"alg":"{name}"}}"#)), Err(Reason::Algorithm), "{name:?}");
    }
    for alg in ["null", "0", "true", "[]", "[\"HS256\"]", "{\"HS256\":1}"] {
        assert_eq!(header(&format!(r#"{{"alg":{alg}}}"#)), Err(Reason::Malformed), "{alg}");
    }
    for bad in ["{}", r#"{"ALG":"HS256"}"#, r#"{"alg":"HS256","alg":"none"}"#, r#"{"alg":"none","alg":"HS256"}"#] {
        assert_eq!(header(bad), Err(Reason::Malformed), "{bad}");
    }
}

#[test]
fn nothing_that_must_be_understood_is_overlooked() {
    for extra in [
        r#""crit":[]"#,
        r#""crit":["exp"]"#,
        r#""crit":["b64"],"b64":false"#,
        r#""crit":null"#,
        r#""b64":false"#,
        r#""b64":true"#,
        r#""cty":"JWT""#,
        r#""cty":"application/jwt""#,
        r#""cty":1"#,
        r#""typ":"dpop+jwt""#,
        r#""typ":"logout+jwt""#,
        r#""typ":"refresh+jwt""#,
        r#""typ":"""#,
        r#""typ":null"#,
        r#""typ":["JWT"]"#,
        r#""typ":"text/jwt""#,
        r#""kid":1"#,
        r#""kid":null"#,
        r#""kid":["a"]"#,
        r#""kid":"a","kid":"b""#,
        r#""x":{"a":1,"a":1}"#,
    ] {
        assert_eq!(header(&format!(r#"{{"alg":"HS256",{extra}}}"#)), Err(Reason::Malformed), "{extra}");
    }
    for extra in [
        r#""typ":"JWT""#,
        r#""typ":"jwt""#,
        r#""typ":"at+jwt""#,
        r#""typ":"AT+JWT""#,
        r#""typ":"application/at+jwt""#,
        r#""typ":"Application/JWT""#,
        r#""cty":"json""#,
        r#""x5t":"abc""#,
        r#""jku":"https://evil.example/keys","jwk":{"kty":"oct","k":"AAAA"},"x5c":["MII"],"x5u":"file:///etc/passwd""#,
        r#""kid":"../../../../dev/null""#,
        r#""kid":"' OR 1=1 --""#,
        r#""kid":"a\u0000b""#,
    ] {
        assert_eq!(header(&format!(r#"{{"alg":"HS256",{extra}}}"#)), Ok(()), "{extra}");
    }
}

#[test]
fn a_payload_is_an_object_that_can_be_read_in_one_way() {
    for bad in ["", "foo", "[]", "\"a\"", "null", "1", r#"{"a":1,"a":1}"#, "{}{}", "{\"a\":}"] {
        let text = format!("{}.{}.AAAA", base64url(HEADER), base64url(bad));
        let claims = Token::parse(&text).and_then(|token| token.claims());
        assert_eq!(claims, Err(Reason::Malformed), "{bad}");
    }
    let text = format!("{}.{}.AAAA", base64url(HEADER), base64url(b"{\"a\":\"\xff\"}"));
    assert_eq!(Token::parse(&text).unwrap().claims(), Err(Reason::Malformed));
}
