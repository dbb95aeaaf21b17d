//! Tokens as others verify them, and the commands that make tokens and hashes.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use super::{claims, configuration, login, secret, tokens};
use crate::harness::{Folder, Gateway};

fn tollgate(folder: &Folder, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).current_dir(folder.path("")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    // A command that reads nothing may have ended before.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

fn folder(yaml: &str) -> Folder {
    let head = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\n";
    Folder::with(&[("gateway.yaml", &[head, yaml].concat())])
}

/// Verifies `token` with PyJWT and prints who it is for.
const SCRIPT: &str = "
import sys, jwt
token, algorithm, key, audience = sys.argv[1:]
claims = jwt.decode(token, key, algorithms=[algorithm], audience=audience, issuer='gateway.test',
                    options={'require': ['exp', 'iat', 'iss', 'aud', 'sub', 'jti']})
print(claims['sub'], claims['type'], claims['role'])
";

/// Whether PyJWT is here, with what it needs for `algorithm`.
fn pyjwt(algorithm: &str) -> bool {
    let script = format!("import jwt; jwt.get_algorithm_by_name('{algorithm}')");
    Command::new("python3").args(["-c", &script]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn pyjwt_verifies_the_tokens() {
    let pair = |algorithm| {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        (pair.serialize_pem(), pair.public_key_pem())
    };
    for (algorithm, keys) in [
        ("HS256", None),
        ("ES256", Some(pair(&rcgen::PKCS_ECDSA_P256_SHA256))),
        ("EdDSA", Some(pair(&rcgen::PKCS_ED25519))),
    ] {
        if !pyjwt(algorithm) {
            crate::harness::left_out(&format!("PyJWT for {algorithm} is not installed"));
            continue;
        }
        let (key, public) = match &keys {
            Some((private, public)) => ("key: \"${file:signing.pem}\"".to_owned(), (private, public.clone())),
            None => (format!("secret: {}", secret()), (&String::new(), secret())),
        };
        let (private, public) = public;
        let yaml = configuration(", audience: tollgate");
        let yaml = yaml.replace("algorithm: HS256", &format!("algorithm: {algorithm}"));
        let yaml = yaml.replace(&format!("secret: {}", secret()), &key);
        let folder = folder(&yaml);
        folder.write("signing.pem", private);
        let gateway = Gateway::start_in(folder).await;
        let (access, refresh) = tokens(&login(&gateway, "ann", "ann-secret").await);
        let verify =
            |token: &str| Command::new("python3").args(["-c", SCRIPT, token, algorithm, &public, "tollgate"]).output();
        let output = verify(&access).unwrap();
        assert_eq!(text(&output).0, "ann access admin\n", "{algorithm}: {}", text(&output).1);
        assert!(!verify(&refresh).unwrap().status.success(), "{algorithm}: a refresh token is for nobody else");
    }
}

#[test]
fn a_minted_token_says_what_it_was_told_to() {
    let folder = folder(&configuration(", audience: tollgate"));
    let mint =
        ["token", "mint", "--subject", "robot", "--roles", "admin,user", "--scopes", "read:*", "--expires", "2h"];
    let output = tollgate(&folder, &mint, "");
    let (token, told) = text(&output);
    assert!(output.status.success(), "{told}");
    let claims = claims(token.trim_end());
    assert_eq!(
        (&claims["sub"], &claims["role"], &claims["scope"]),
        (&"robot".into(), &"admin".into(), &"read:*".into())
    );
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 7200);
    assert!(claims.get("sid").is_none() && claims["type"] == "access");
    for (wrong, status, says) in [
        (&["--subject", "a", "--service", "other"][..], 64, "unknown token service `other`"),
        (&["--subject", ""], 1, "visible ASCII"),
        (&["--subject", "a", "--scopes", "a b"], 1, "visible ASCII"),
        (&["--subject", "a", "--expires", "0s"], 1, "1s to 366d"),
        (&["--subject", "a", "--expires", "1"], 2, "no unit"),
        (&[], 2, "--subject"),
    ] {
        let output = tollgate(&folder, &[&["token", "mint"], wrong].concat(), "");
        assert_eq!(output.status.code(), Some(status), "{wrong:?}");
        assert!(text(&output).1.contains(says) && output.stdout.is_empty(), "{wrong:?}: {}", text(&output).1);
    }
    let none = self::folder("");
    assert!(text(&tollgate(&none, &["token", "mint", "--subject", "a"], "")).1.contains("there is no token service"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_can_be_pasted_and_logs_in() {
    let folder = folder("");
    let output = tollgate(&folder, &["user", "hash", "--name", "dan"], "correct horse\n");
    let (yaml, told) = text(&output);
    assert!(output.status.success() && yaml.contains("$argon2id$") && !yaml.contains("horse"), "{told}");
    let configuration = configuration("").replace("users:\n", &yaml);
    let gateway = Gateway::start(&configuration).await;
    tokens(&login(&gateway, "dan", "correct horse").await);
    assert_eq!(login(&gateway, "dan", "correct horsf").await.status, 401);
    for (input, says) in [("1234567\n", "8 to 1024"), ("", "8 to 1024"), ("two lines\nof them\n", "one line")] {
        let output = tollgate(&folder, &["user", "hash"], input);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output).1.contains(says) && output.stdout.is_empty(), "{input:?}: {}", text(&output).1);
    }
    let longest = "x".repeat(1024);
    assert!(tollgate(&folder, &["user", "hash"], &format!("{longest}\r\n")).status.success());
    assert_eq!(tollgate(&folder, &["user", "hash"], &format!("{longest}x\n")).status.code(), Some(1));
}
