//! Tokens that others made: PyJWT, jwcrypto and Authlib sign, the gateway verifies.
//!
//! The three are installed into a virtual environment below `target/` by the first run. Where that cannot be done (no
//! `python3`, no network) the test says that it is left out.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may end its process")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::Value;
use tollgate::identity::{Audience, Identity, IssuerSettings, Shared, Written};
use tollgate::yaml::{Located, Place};

/// When the tokens are made and used, in seconds since 1970.
const NOW: u64 = 1_800_000_000;
const PACKAGES: [&str; 3] = ["pyjwt[crypto]>=2.9", "authlib>=1.3,<2", "jwcrypto>=1.5"];

#[derive(Deserialize)]
struct Case {
    maker: String,
    algorithm: String,
    token: String,
    /// `ok`, or the reason why it is refused.
    expected: String,
    secret: Option<String>,
    public_key: Option<String>,
    jwks: Option<Value>,
}

#[test]
fn tokens_of_other_libraries_are_classed_right() {
    let Some(python) = python() else {
        eprintln!("LEFT OUT: PyJWT, Authlib and jwcrypto cannot be had here (python3 -m venv, pip install)");
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokens/make.py");
    let made = Command::new(python).arg(script).arg(NOW.to_string()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let cases: Vec<Case> = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(cases.len(), 3 * 6 * (3 + 9 * 2));
    let folder = tempfile::tempdir().unwrap();
    let wrong: Vec<String> = cases.iter().filter_map(|case| mistake(case, folder.path())).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// How the verdict on a token differs from what it should be.
fn mistake(case: &Case, folder: &Path) -> Option<String> {
    if let Some(keys) = &case.jwks {
        std::fs::write(folder.join("keys.json"), keys.to_string()).unwrap();
    }
    let settings = IssuerSettings {
        secret: case.secret.as_ref().map(|secret| located(secret.parse().unwrap())),
        public_key: case.public_key.clone().map(located),
        jwks: None,
        token_service: None,
        jwks_file: case.jwks.as_ref().map(|_| located("keys.json".to_owned())),
        algorithms: vec![located(case.algorithm.clone())],
        issuer: Some(located("https://id.example.com".to_owned())),
        audience: Some(located(Audience::One("api".to_owned()))),
        leeway: None,
        name_claim: None,
        roles_claim: Some(located("realm_access.roles".to_owned())),
        scopes_claim: None,
    };
    let name = located("main".to_owned());
    let mut problems = Vec::new();
    let written = Written { issuers: vec![(&name, &settings)], base: folder.to_owned(), ..Written::default() };
    let identity = Identity::compile(&written, &Arc::<Shared>::default(), &mut problems);
    assert!(problems.is_empty(), "{} {}: {problems:?}", case.maker, case.algorithm);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let verdict = match identity.issuer("main").unwrap().verify(&case.token, now) {
        Ok(caller) => {
            let roles: Vec<&str> = caller.roles.iter().map(|role| &**role).collect();
            assert_eq!((&*caller.name, &*roles), ("alice", &["user", "offline_access"][..]));
            assert!(caller.scopes.allow("read:tasks"));
            "ok"
        }
        Err(reason) => reason.as_str(),
    };
    let Case { maker, algorithm, token, expected, .. } = case;
    (verdict != expected).then(|| format!("{maker} {algorithm}: {verdict}, not {expected}: {token}"))
}

fn located<T>(value: T) -> Located<T> {
    Located::new(value, Place::UNKNOWN)
}

/// A Python that has the libraries.
fn python() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-venv");
    let python = folder.join("bin/python");
    let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let ready = || run(Command::new(&python).args(["-c", "import jwt, authlib, jwcrypto"]));
    let made = || run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
    let install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--timeout", "10", "--retries", "1"];
    let filled = || run(Command::new(&python).args(install).args(PACKAGES));
    (ready() || (made() && filled() && ready())).then_some(python)
}
